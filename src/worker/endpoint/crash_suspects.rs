//! What workers were serving when they died: a request that kills its worker each time is not given another one.
//!
//! A death with several requests in flight accuses all of them. From then on they are suspects, of which `Endpoint::begin`
//! lets only one at a time to a llama-server, so that the next death names one. Whoever is innocent is acquitted by being
//! served once; whoever is not tried again is forgotten after a while.

use crate::pause_clock::ActiveInstant;
use crate::worker::bounds::{DEATHS_REMEMBERED, DEATHS_UNTIL_REFUSED, MOST_SUSPECTS};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a request asks for, as a number: two requests with the same one ask for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub u64);

/// The requests under suspicion. All workers of a model share them.
#[derive(Default)]
pub struct CrashSuspects {
    suspects: Mutex<Vec<CrashSuspect>>,
    /// Whether there are any, which nearly always there are not.
    any: AtomicBool,
}

struct CrashSuspect {
    fingerprint: Fingerprint,
    crashes: u32,
    last: ActiveInstant,
}

impl CrashSuspects {
    /// A worker died while it served these, in the order in which they came to it. Of those that were suspects before,
    /// only the first is accused again: no death convicts two.
    pub(crate) fn record_crash(&self, served: &[Fingerprint]) {
        let now = ActiveInstant::now();
        let mut suspects = self.suspects();
        suspects.retain(|suspect| (now - suspect.last) < DEATHS_REMEMBERED);
        let mut has_named_one = false;
        for (at, fingerprint) in served.iter().enumerate() {
            if served[..at].contains(fingerprint) {
                // Twice in flight, and yet it died once.
                continue;
            }
            match suspects.iter_mut().find(|suspect| suspect.fingerprint == *fingerprint) {
                Some(_) if std::mem::replace(&mut has_named_one, true) => {}
                Some(suspect) => (suspect.crashes, suspect.last) = (suspect.crashes.saturating_add(1), now),
                None => suspects.push(CrashSuspect { fingerprint: *fingerprint, crashes: 1, last: now }),
            }
        }
        while suspects.len() > MOST_SUSPECTS {
            let least = suspects.iter().enumerate().min_by_key(|(_, suspect)| (suspect.crashes, suspect.last));
            let Some((least, _)) = least else { break };
            suspects.swap_remove(least);
        }
        self.any.store(!suspects.is_empty(), Ordering::Release);
    }

    /// A worker served this one to the end.
    pub(crate) fn clear(&self, fingerprint: Fingerprint) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut suspects = self.suspects();
        suspects.retain(|suspect| suspect.fingerprint != fingerprint);
        self.any.store(!suspects.is_empty(), Ordering::Release);
    }

    /// Whether this one is not to be tried again.
    pub(crate) fn is_blocked(&self, fingerprint: Fingerprint) -> bool {
        self.score(fingerprint) >= DEATHS_UNTIL_REFUSED
    }

    /// Whether a worker died while it served this one, which has not been served since.
    pub(crate) fn is_suspected(&self, fingerprint: Fingerprint) -> bool {
        self.score(fingerprint) > 0
    }

    /// How many deaths this one is accused of.
    fn score(&self, fingerprint: Fingerprint) -> u32 {
        if !self.any.load(Ordering::Acquire) {
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
    async fn two_deaths_convict_unless_it_was_served_between_them() {
        let deaths = CrashSuspects::default();
        deaths.record_crash(&[POISON, INNOCENT]);
        assert!(!deaths.is_blocked(POISON), "it is given a second chance");
        deaths.clear(INNOCENT);
        deaths.record_crash(&[POISON, INNOCENT]);
        assert!(deaths.is_blocked(POISON));
        assert!(!deaths.is_blocked(INNOCENT));
    }

    #[tokio::test(start_paused = true)]
    async fn one_death_counts_once_however_often_the_request_was_in_flight() {
        let deaths = CrashSuspects::default();
        deaths.record_crash(&[POISON, INNOCENT, POISON, POISON]);
        assert!(!deaths.is_blocked(POISON));
    }

    #[tokio::test(start_paused = true)]
    async fn of_those_suspected_before_a_death_names_the_first() {
        let deaths = CrashSuspects::default();
        deaths.record_crash(&[POISON, INNOCENT]);
        deaths.record_crash(&[Fingerprint(3), POISON, INNOCENT]);
        assert!(deaths.is_blocked(POISON));
        for (fingerprint, suspected) in [(INNOCENT, true), (Fingerprint(3), true), (Fingerprint(4), false)] {
            assert!(!deaths.is_blocked(fingerprint));
            assert_eq!(deaths.is_suspected(fingerprint), suspected, "{fingerprint:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_conviction_is_forgotten_after_a_while() {
        let deaths = CrashSuspects::default();
        deaths.record_crash(&[POISON]);
        deaths.record_crash(&[POISON]);
        tokio::time::advance(DEATHS_REMEMBERED - Duration::from_millis(1)).await;
        assert!(deaths.is_blocked(POISON));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!deaths.is_blocked(POISON));
        deaths.record_crash(&[POISON]);
        assert!(!deaths.is_blocked(POISON), "it begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn the_list_has_a_bound_and_keeps_the_most_suspicious() {
        let deaths = CrashSuspects::default();
        deaths.record_crash(&[POISON]);
        deaths.record_crash(&[POISON]);
        for n in 0..10 * MOST_SUSPECTS as u64 {
            deaths.record_crash(&[Fingerprint(100 + n)]);
        }
        assert_eq!(deaths.suspects().len(), MOST_SUSPECTS);
        assert!(deaths.is_blocked(POISON));
    }
}
