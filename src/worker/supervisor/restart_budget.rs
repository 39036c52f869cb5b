//! How many restarts a worker has left, and the backoff before each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::worker::bounds::{BACKOFF_FIRST, BACKOFF_LONGEST};
use crate::worker::endpoint::key_suspensions::KeySuspensions;

/// The restarts of one worker within a sliding window of time.
///
/// Restarts after crashes that a suspended API key caused are free, so that no key can spend the budget.
pub(super) struct RestartBudget {
    limit: u32,
    window: Duration,
    /// The restarts within the window that count, the oldest first.
    restarts: VecDeque<Restart>,
}

/// A restart.
pub(super) struct Restart {
    pub(super) at: Instant,
    /// The API key that sent all requests in flight at the crash before it.
    pub(super) key: Option<Arc<str>>,
}

impl RestartBudget {
    /// Returns a budget of `limit` restarts (`RESTART_LIMIT`) within any `window` (`RESTART_WINDOW`).
    pub(super) fn new(limit: u32, window: Duration) -> Self {
        Self { limit, window, restarts: VecDeque::new() }
    }

    /// Forgets all restarts so far.
    pub(super) fn reset(&mut self) {
        self.restarts.clear();
    }

    /// Spends a restart and returns the backoff before it; `None` when the budget is spent.
    ///
    /// A key that would spend the budget alone is suspended instead, unless `RESTART_LIMIT` allows no restart at all.
    pub(super) fn spend(&mut self, restart: Restart, suspensions: &KeySuspensions) -> Option<Duration> {
        let is_free =
            |restart: &Restart| restart.key.as_deref().is_some_and(|key| suspensions.suspended_for(key).is_some());
        self.restarts.retain(|past| restart.at.duration_since(past.at) < self.window && !is_free(past));
        if let (Some(key), true) = (&restart.key, self.limit > 0 && self.is_full() && !is_free(&restart))
            && self.restarts.iter().all(|past| past.key.as_ref() == Some(key))
        {
            suspensions.suspend(key);
            self.restarts.clear();
        }
        if self.limit > 0 && is_free(&restart) {
            return Some(jittered(BACKOFF_FIRST));
        }
        if self.is_full() {
            return None;
        }
        // `checked_shl` fails from 32 restarts on, where the longest backoff applies anyway.
        let doublings = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        self.restarts.push_back(restart);
        let doubled = BACKOFF_FIRST.saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX));
        Some(jittered(doubled.min(BACKOFF_LONGEST)))
    }

    fn is_full(&self) -> bool {
        self.restarts.len() >= self.limit as usize
    }
}

/// Returns a random duration between three quarters and all of `duration`, so that workers which failed together do not
/// start together.
fn jittered(duration: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(0);
    duration.mul_f64(0.75 + 0.25 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn spend(budget: &mut RestartBudget, at: Instant) -> Option<Duration> {
        budget.spend(Restart { at, key: None }, &KeySuspensions::new(WINDOW))
    }

    #[test]
    fn the_budget_applies_to_a_window_and_backoffs_double() {
        let mut budget = RestartBudget::new(3, WINDOW);
        let start = Instant::now();
        for (n, longest) in [500, 1_000, 2_000].into_iter().enumerate() {
            let backoff = spend(&mut budget, start + Duration::from_secs(n as u64)).unwrap();
            let longest = Duration::from_millis(longest);
            assert!(backoff <= longest && backoff >= longest.mul_f64(0.75), "{backoff:?}");
        }
        assert_eq!(spend(&mut budget, start + Duration::from_secs(10)), None);
        assert!(spend(&mut budget, start + Duration::from_secs(61)).is_some(), "the first two are out of the window");
    }

    #[test]
    fn a_budget_of_zero_is_spent_at_once_and_backoffs_have_a_bound() {
        let mut empty = RestartBudget::new(0, WINDOW);
        assert_eq!(spend(&mut empty, Instant::now()), None);
        let mut large = RestartBudget::new(100, WINDOW);
        let now = Instant::now();
        assert!((0..100).all(|_| spend(&mut large, now).is_some_and(|backoff| backoff <= BACKOFF_LONGEST)));
    }

    /// Records crashes as the supervisor does, each caused by the requests of one key or of several (`None`). Returns
    /// whether the worker may go on after each.
    fn restarts_after(limit: u32, keys: &[Option<&str>]) -> Vec<bool> {
        let (mut budget, suspensions) = (RestartBudget::new(limit, WINDOW), KeySuspensions::new(WINDOW));
        let crash = |key: &Option<&str>| {
            let key = key.map(Arc::from);
            key.iter().for_each(|key| {
                suspensions.record_crash(key);
            });
            budget.spend(Restart { at: Instant::now(), key }, &suspensions).is_some()
        };
        keys.iter().map(crash).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn one_key_never_spends_the_budget_alone() {
        for limit in 1..=6 {
            assert_eq!(restarts_after(limit, &[Some("bad"); 12]), [true; 12], "RESTART_LIMIT={limit}");
        }
        assert_eq!(restarts_after(0, &[Some("bad")]), [false], "no restart is allowed at all");
    }

    #[tokio::test(start_paused = true)]
    async fn crashes_of_a_suspended_key_leave_the_whole_budget_to_others() {
        let (bad, other) = (Some("bad"), None);
        assert_eq!(restarts_after(2, &[bad, bad, bad, other, other, other]), [true, true, true, true, true, false]);
        let mixed = [other, bad, bad, bad, bad, other];
        assert_eq!(restarts_after(3, &mixed), [true; 6], "of six crashes, two count");
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_crashes_for_every_key_is_given_up() {
        let keys = ["a", "b", "c", "d"].map(Some);
        assert_eq!(restarts_after(3, &keys), [true, true, true, false]);
    }
}
