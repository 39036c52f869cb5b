//! The requests that were in flight when workers crashed. A request that crashes its worker every time is blocked.
//!
//! A crash with several requests in flight makes all of them suspects. `Endpoint::begin` lets only one suspect at a
//! time to a llama-server, so that the next crash convicts one. An innocent request is cleared when it is served once;
//! a suspect that is not sent again is forgotten after [`DEATHS_REMEMBERED`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pause_clock::ActiveInstant;
use crate::worker::bounds::{DEATHS_REMEMBERED, DEATHS_UNTIL_REFUSED, MOST_SUSPECTS};

/// A hash of a request's content: requests with the same fingerprint count as the same request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub u64);

/// What a crash needs to know about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestIdentity {
    pub(super) fingerprint: Option<Fingerprint>,
    /// The id of the API key that the request was sent with.
    pub(super) key: Option<Arc<str>>,
}

/// Returns the key that sent all of these requests; `None` if there are several, or none.
pub(super) fn only_key(requests: &[RequestIdentity]) -> Option<Arc<str>> {
    let key = requests.first()?.key.as_ref()?;
    requests.iter().all(|request| request.key.as_ref() == Some(key)).then(|| Arc::clone(key))
}

/// The suspects of one model, shared by all its workers.
#[derive(Default)]
pub struct CrashSuspects {
    suspects: Mutex<Vec<CrashSuspect>>,
    /// Whether the list is not empty. Nearly always false, so that requests need not take the lock.
    has_any: AtomicBool,
}

struct CrashSuspect {
    fingerprint: Fingerprint,
    crashes: u32,
    last: ActiveInstant,
}

impl CrashSuspects {
    /// Records a crash with the requests in flight, in the order in which they began. Of those that were suspects
    /// before, only the first is accused again: one crash never convicts two requests.
    pub(crate) fn record_crash(&self, served: &[Fingerprint]) {
        let now = ActiveInstant::now();
        let mut suspects = self.suspects();
        suspects.retain(|suspect| (now - suspect.last) < DEATHS_REMEMBERED);
        let mut has_accused_suspect = false;
        for (at, fingerprint) in served.iter().enumerate() {
            if served[..at].contains(fingerprint) {
                // The same request may be in flight twice, but one crash counts once.
                continue;
            }
            match suspects.iter_mut().find(|suspect| suspect.fingerprint == *fingerprint) {
                Some(_) if std::mem::replace(&mut has_accused_suspect, true) => {}
                Some(suspect) => (suspect.crashes, suspect.last) = (suspect.crashes.saturating_add(1), now),
                None => suspects.push(CrashSuspect { fingerprint: *fingerprint, crashes: 1, last: now }),
            }
        }
        // Drops the suspects that are farthest from being blocked, the oldest of them first.
        while suspects.len() > MOST_SUSPECTS {
            let least = suspects.iter().enumerate().min_by_key(|(_, suspect)| (suspect.crashes, suspect.last));
            let Some((least, _)) = least else { break };
            suspects.swap_remove(least);
        }
        // Stored under the lock, so that it matches the list. Pairs with the Acquire loads, which skip the lock.
        self.has_any.store(!suspects.is_empty(), Ordering::Release);
    }

    /// Clears a request of suspicion: a worker has served it.
    pub(crate) fn clear(&self, fingerprint: Fingerprint) {
        if !self.has_any.load(Ordering::Acquire) {
            return;
        }
        let mut suspects = self.suspects();
        suspects.retain(|suspect| suspect.fingerprint != fingerprint);
        self.has_any.store(!suspects.is_empty(), Ordering::Release);
    }

    /// Whether the request must not be sent to a worker again.
    pub(crate) fn is_blocked(&self, fingerprint: Fingerprint) -> bool {
        self.crashes_of(fingerprint) >= DEATHS_UNTIL_REFUSED
    }

    /// Whether the request was in flight when a worker crashed, and has not been served since.
    pub(crate) fn is_suspected(&self, fingerprint: Fingerprint) -> bool {
        self.crashes_of(fingerprint) > 0
    }

    /// Returns how many crashes the request is accused of.
    fn crashes_of(&self, fingerprint: Fingerprint) -> u32 {
        if !self.has_any.load(Ordering::Acquire) {
            return 0;
        }
        let suspects = self.suspects();
        let known = suspects.iter().find(|suspect| suspect.fingerprint == fingerprint);
        known.filter(|suspect| suspect.last.elapsed() < DEATHS_REMEMBERED).map_or(0, |suspect| suspect.crashes)
    }

    fn suspects(&self) -> MutexGuard<'_, Vec<CrashSuspect>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const POISON: Fingerprint = Fingerprint(1);
    const INNOCENT: Fingerprint = Fingerprint(2);

    #[tokio::test(start_paused = true)]
    async fn two_crashes_block_a_request_unless_it_was_served_between_them() {
        let crash_suspects = CrashSuspects::default();
        crash_suspects.record_crash(&[POISON, INNOCENT]);
        assert!(!crash_suspects.is_blocked(POISON), "it is given a second chance");
        crash_suspects.clear(INNOCENT);
        crash_suspects.record_crash(&[POISON, INNOCENT]);
        assert!(crash_suspects.is_blocked(POISON));
        assert!(!crash_suspects.is_blocked(INNOCENT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_crash_counts_once_for_a_request_that_was_in_flight_several_times() {
        let crash_suspects = CrashSuspects::default();
        crash_suspects.record_crash(&[POISON, INNOCENT, POISON, POISON]);
        assert!(!crash_suspects.is_blocked(POISON));
    }

    #[tokio::test(start_paused = true)]
    async fn a_crash_accuses_only_the_first_of_the_earlier_suspects_again() {
        let crash_suspects = CrashSuspects::default();
        crash_suspects.record_crash(&[POISON, INNOCENT]);
        crash_suspects.record_crash(&[Fingerprint(3), POISON, INNOCENT]);
        assert!(crash_suspects.is_blocked(POISON));
        for (fingerprint, suspected) in [(INNOCENT, true), (Fingerprint(3), true), (Fingerprint(4), false)] {
            assert!(!crash_suspects.is_blocked(fingerprint));
            assert_eq!(crash_suspects.is_suspected(fingerprint), suspected, "{fingerprint:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_blocked_request_is_forgotten_after_a_while() {
        let crash_suspects = CrashSuspects::default();
        crash_suspects.record_crash(&[POISON]);
        crash_suspects.record_crash(&[POISON]);
        tokio::time::advance(DEATHS_REMEMBERED - Duration::from_millis(1)).await;
        assert!(crash_suspects.is_blocked(POISON));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!crash_suspects.is_blocked(POISON));
        crash_suspects.record_crash(&[POISON]);
        assert!(!crash_suspects.is_blocked(POISON), "its count starts again at one");
    }

    #[tokio::test(start_paused = true)]
    async fn the_list_is_bounded_and_keeps_the_requests_with_most_crashes() {
        let crash_suspects = CrashSuspects::default();
        crash_suspects.record_crash(&[POISON]);
        crash_suspects.record_crash(&[POISON]);
        for n in 0..10 * MOST_SUSPECTS as u64 {
            crash_suspects.record_crash(&[Fingerprint(100 + n)]);
        }
        assert_eq!(crash_suspects.suspects().len(), MOST_SUSPECTS);
        assert!(crash_suspects.is_blocked(POISON));
    }
}
