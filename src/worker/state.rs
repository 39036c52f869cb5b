//! The state machine of a worker: its states, its events, and the state after each event.
//!
//! It is pure, so that a table can test it; `supervisor/` and `remote/` apply it.

use std::fmt;

use serde::Serialize;

/// Defines [`WorkerState`] from one row for each state: the variant and its name in JSON and metrics.
macro_rules! states {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// The state of a worker.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
        pub enum WorkerState {
            $($(#[$doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl WorkerState {
            /// All states, in the order of a life.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// Returns the name in JSON and metrics.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

states! {
    /// There is no process, and none is needed.
    Stopped = "stopped",
    /// The process is being started and does not respond to probes yet.
    Starting = "starting",
    /// The process responds that it is loading its model.
    Loading = "loading",
    /// The worker can serve requests.
    Ready = "ready",
    /// The worker fails its probes.
    Unhealthy = "unhealthy",
    /// The process has ended; the next start follows after the backoff.
    Backoff = "backoff",
    /// The restart budget is spent, or a restart cannot help; only an explicit wake starts the worker again.
    Failed = "failed",
    /// The worker finishes its requests in flight, or its process is being stopped.
    Draining = "draining",
}

/// An event in the life of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEvent {
    /// A start has begun; there is no process yet.
    StartBegun,
    /// The response to a probe was: still loading.
    AnswersLoading,
    /// The response to a probe was: ready.
    AnswersReady,
    /// Probes failed: too many in a row of a local worker, or one of a remote worker.
    ProbesFailed,
    /// The process has ended or could not be started, and may be started again.
    Ended,
    /// The process has ended or could not be started, and is not started again: the restart budget is spent, or a
    /// restart cannot help.
    BudgetSpent,
    /// The worker is to be stopped.
    StopAsked,
    /// The process is gone after [`WorkerEvent::StopAsked`].
    Stopped,
    /// The worker was to make room for another one, is not needed to, and goes on.
    Recalled,
}

impl WorkerState {
    /// Returns whether the process in this state has been ready at least once.
    pub(super) fn has_served(self) -> bool {
        matches!(self, Self::Ready | Self::Unhealthy | Self::Draining)
    }

    /// Returns the state after an event; `None` when the event is ignored in this state.
    pub fn after(self, event: WorkerEvent) -> Option<Self> {
        use WorkerEvent as E;
        match (self, event) {
            (Self::Stopped | Self::Backoff | Self::Failed, E::StartBegun) => Some(Self::Starting),
            // A remote worker may load its model again at any time, for instance after its own restart.
            (Self::Starting | Self::Ready | Self::Unhealthy, E::AnswersLoading) => Some(Self::Loading),
            (Self::Starting | Self::Loading | Self::Unhealthy, E::AnswersReady) => Some(Self::Ready),
            (Self::Starting | Self::Loading | Self::Ready, E::ProbesFailed) => Some(Self::Unhealthy),
            (Self::Failed, E::Ended) => None,
            (_, E::Ended) => Some(Self::Backoff),
            (
                Self::Stopped | Self::Starting | Self::Loading | Self::Ready | Self::Unhealthy | Self::Backoff,
                E::BudgetSpent,
            ) => Some(Self::Failed),
            (Self::Starting | Self::Loading | Self::Ready | Self::Unhealthy, E::StopAsked) => Some(Self::Draining),
            (Self::Stopped | Self::Backoff, E::StopAsked) => Some(Self::Stopped),
            (Self::Draining, E::Stopped) => Some(Self::Stopped),
            (Self::Draining, E::Recalled) => Some(Self::Ready),
            _ => None,
        }
    }
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [WorkerEvent; 9] = [
        WorkerEvent::StartBegun,
        WorkerEvent::AnswersLoading,
        WorkerEvent::AnswersReady,
        WorkerEvent::ProbesFailed,
        WorkerEvent::Ended,
        WorkerEvent::BudgetSpent,
        WorkerEvent::StopAsked,
        WorkerEvent::Stopped,
        WorkerEvent::Recalled,
    ];

    #[test]
    fn every_state_and_event_leads_to_the_state_in_the_table() {
        use WorkerState as S;
        // One row per state: the state after each event of EVENTS, in their order.
        let none = None;
        let table: [(S, [Option<S>; 9]); 8] = [
            (
                S::Stopped,
                [Some(S::Starting), none, none, none, Some(S::Backoff), Some(S::Failed), Some(S::Stopped), none, none],
            ),
            (
                S::Starting,
                [
                    none,
                    Some(S::Loading),
                    Some(S::Ready),
                    Some(S::Unhealthy),
                    Some(S::Backoff),
                    Some(S::Failed),
                    Some(S::Draining),
                    none,
                    none,
                ],
            ),
            (
                S::Loading,
                [
                    none,
                    none,
                    Some(S::Ready),
                    Some(S::Unhealthy),
                    Some(S::Backoff),
                    Some(S::Failed),
                    Some(S::Draining),
                    none,
                    none,
                ],
            ),
            (
                S::Ready,
                [
                    none,
                    Some(S::Loading),
                    none,
                    Some(S::Unhealthy),
                    Some(S::Backoff),
                    Some(S::Failed),
                    Some(S::Draining),
                    none,
                    none,
                ],
            ),
            (
                S::Unhealthy,
                [
                    none,
                    Some(S::Loading),
                    Some(S::Ready),
                    none,
                    Some(S::Backoff),
                    Some(S::Failed),
                    Some(S::Draining),
                    none,
                    none,
                ],
            ),
            (
                S::Backoff,
                [Some(S::Starting), none, none, none, Some(S::Backoff), Some(S::Failed), Some(S::Stopped), none, none],
            ),
            (S::Failed, [Some(S::Starting), none, none, none, none, none, none, none, none]),
            (S::Draining, [none, none, none, none, Some(S::Backoff), none, none, Some(S::Stopped), Some(S::Ready)]),
        ];
        for (state, row) in table {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                assert_eq!(state.after(event), expected, "{state:?} after {event:?}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn a_worker_is_ready_only_after_a_good_probe_and_leaves_failed_only_by_a_start(
            steps in proptest::collection::vec(0usize..EVENTS.len(), 0..200),
        ) {
            let mut state = WorkerState::Stopped;
            for step in steps {
                if let Some(next) = state.after(EVENTS[step]) {
                    proptest::prop_assert!(state != WorkerState::Failed || EVENTS[step] == WorkerEvent::StartBegun);
                    if next == WorkerState::Ready {
                        let is_good = matches!(EVENTS[step], WorkerEvent::AnswersReady | WorkerEvent::Recalled);
                        proptest::prop_assert!(is_good, "{:?}", EVENTS[step]);
                    }
                    state = next;
                }
            }
        }
    }
}
