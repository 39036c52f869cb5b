//! The states of a worker and which may follow which: pure, so that a table can test it.

use serde::Serialize;
use std::fmt;

/// Defines [`WorkerState`] from one row for each state: its variant and its name in JSON and metrics.
macro_rules! states {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// Where a worker stands.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
        pub enum WorkerState {
            $($(#[$doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl WorkerState {
            /// All states, in the order of a life.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// The name in JSON and metrics.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

states! {
    /// No process, and none is wanted at present.
    Stopped = "stopped",
    /// It is being started, and does not answer yet.
    Starting = "starting",
    /// It answers that it is loading its model.
    Loading = "loading",
    /// It serves.
    Ready = "ready",
    /// It fails its probes.
    Unhealthy = "unhealthy",
    /// It has ended; the next start comes after a pause.
    Backoff = "backoff",
    /// It has ended too often; it is not started again unless somebody asks for just that.
    Failed = "failed",
    /// It is being stopped, or finishes what it serves before that.
    Draining = "draining",
}

/// What happens to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEvent {
    /// A start has begun; the process follows.
    StartBegun,
    /// A probe was answered: still loading.
    AnswersLoading,
    /// A probe was answered: ready.
    AnswersReady,
    /// Probes were not answered well: too many in a row, or one of a remote worker.
    ProbesFailed,
    /// The process has ended or could not be started, and may be started again.
    Ended,
    /// The process has ended, and the restart budget is spent.
    BudgetSpent,
    /// Somebody wants it stopped.
    StopAsked,
    /// The process is gone after [`WorkerEvent::StopAsked`].
    Stopped,
}

impl WorkerState {
    /// Whether the process of this state has been ready at least once.
    pub(super) fn has_served(self) -> bool {
        matches!(self, Self::Ready | Self::Unhealthy | Self::Draining)
    }

    /// The state after an event; `None` when the event means nothing in this state.
    pub fn after(self, event: WorkerEvent) -> Option<Self> {
        use WorkerEvent as E;
        match (self, event) {
            (Self::Stopped | Self::Backoff | Self::Failed, E::StartBegun) => Some(Self::Starting),
            // A remote worker may load again whenever it likes.
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

    const EVENTS: [WorkerEvent; 8] = [
        WorkerEvent::StartBegun,
        WorkerEvent::AnswersLoading,
        WorkerEvent::AnswersReady,
        WorkerEvent::ProbesFailed,
        WorkerEvent::Ended,
        WorkerEvent::BudgetSpent,
        WorkerEvent::StopAsked,
        WorkerEvent::Stopped,
    ];

    #[test]
    fn the_table_of_transitions() {
        use WorkerState as S;
        // One row a state: what each event of EVENTS, in order, leads to.
        let none = None;
        let table: [(S, [Option<S>; 8]); 8] = [
            (
                S::Stopped,
                [Some(S::Starting), none, none, none, Some(S::Backoff), Some(S::Failed), Some(S::Stopped), none],
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
                ],
            ),
            (
                S::Backoff,
                [Some(S::Starting), none, none, none, Some(S::Backoff), Some(S::Failed), Some(S::Stopped), none],
            ),
            (S::Failed, [Some(S::Starting), none, none, none, none, none, none, none]),
            (S::Draining, [none, none, none, none, Some(S::Backoff), none, none, Some(S::Stopped)]),
        ];
        for (state, row) in table {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                assert_eq!(state.after(event), expected, "{state:?} after {event:?}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn only_ready_serves_and_one_that_failed_only_starts_anew(steps in proptest::collection::vec(0usize..EVENTS.len(), 0..200)) {
            let mut state = WorkerState::Stopped;
            for step in steps {
                if let Some(next) = state.after(EVENTS[step]) {
                    proptest::prop_assert!(state != WorkerState::Failed || EVENTS[step] == WorkerEvent::StartBegun);
                    if next == WorkerState::Ready {
                        proptest::prop_assert_eq!(EVENTS[step], WorkerEvent::AnswersReady);
                    }
                    state = next;
                }
            }
        }
    }
}
