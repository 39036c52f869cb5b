//! How many restarts a worker has left, and the backoff before each.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::worker::bounds::{BACKOFF_FIRST, BACKOFF_LONGEST};

/// The restarts of one worker within a sliding window of time.
pub(super) struct RestartBudget {
    limit: u32,
    window: Duration,
    /// The restarts within the window, the oldest first.
    restarts: VecDeque<Instant>,
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

    /// Spends one restart and returns the backoff before it; `None` when the budget is spent.
    pub(super) fn spend(&mut self, now: Instant) -> Option<Duration> {
        while self.restarts.front().is_some_and(|restart| now.duration_since(*restart) >= self.window) {
            self.restarts.pop_front();
        }
        let in_window = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        if in_window >= self.limit {
            return None;
        }
        self.restarts.push_back(now);
        // `checked_shl` fails from 32 restarts on, where the longest backoff applies anyway.
        let doubled = BACKOFF_FIRST.saturating_mul(1u32.checked_shl(in_window).unwrap_or(u32::MAX));
        Some(jittered(doubled.min(BACKOFF_LONGEST)))
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

    #[test]
    fn the_budget_applies_to_a_window_and_backoffs_double() {
        let mut budget = RestartBudget::new(3, Duration::from_secs(60));
        let start = Instant::now();
        for (n, longest) in [500, 1_000, 2_000].into_iter().enumerate() {
            let backoff = budget.spend(start + Duration::from_secs(n as u64)).unwrap();
            let longest = Duration::from_millis(longest);
            assert!(backoff <= longest && backoff >= longest.mul_f64(0.75), "{backoff:?}");
        }
        assert_eq!(budget.spend(start + Duration::from_secs(10)), None);
        assert!(budget.spend(start + Duration::from_secs(61)).is_some(), "the first two are out of the window");
    }

    #[test]
    fn a_budget_of_zero_is_spent_at_once_and_backoffs_have_a_bound() {
        let mut empty = RestartBudget::new(0, Duration::from_secs(60));
        assert_eq!(empty.spend(Instant::now()), None);
        let mut large = RestartBudget::new(100, Duration::from_secs(60));
        let now = Instant::now();
        assert!((0..100).all(|_| large.spend(now).is_some_and(|backoff| backoff <= BACKOFF_LONGEST)));
    }
}
