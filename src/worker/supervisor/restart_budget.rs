//! How often a worker may be restarted, and how long it waits before.

use crate::worker::bounds::{BACKOFF_FIRST, BACKOFF_LONGEST};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Restarts within a window of time.
pub(super) struct RestartBudget {
    limit: u32,
    window: Duration,
    spent: VecDeque<Instant>,
}

impl RestartBudget {
    /// So many restarts within any window of this length.
    pub(super) fn new(limit: u32, window: Duration) -> Self {
        Self { limit, window, spent: VecDeque::new() }
    }

    /// Counts from nothing again.
    pub(super) fn reset(&mut self) {
        self.spent.clear();
    }

    /// The pause before the next restart, or nothing when the budget is spent.
    pub(super) fn spend(&mut self, now: Instant) -> Option<Duration> {
        while self.spent.front().is_some_and(|restart| now.duration_since(*restart) >= self.window) {
            self.spent.pop_front();
        }
        let in_window = u32::try_from(self.spent.len()).unwrap_or(u32::MAX);
        if in_window >= self.limit {
            return None;
        }
        self.spent.push_back(now);
        let doubled = BACKOFF_FIRST.saturating_mul(1u32.checked_shl(in_window).unwrap_or(u32::MAX));
        Some(jittered(doubled.min(BACKOFF_LONGEST)))
    }
}

/// Between three quarters and all of a duration, so that workers which failed together do not start together.
fn jittered(duration: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(0);
    duration.mul_f64(0.75 + 0.25 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_for_a_window_and_pauses_double() {
        let mut budget = RestartBudget::new(3, Duration::from_secs(60));
        let start = Instant::now();
        for (n, longest) in [500, 1_000, 2_000].into_iter().enumerate() {
            let pause = budget.spend(start + Duration::from_secs(n as u64)).unwrap();
            let longest = Duration::from_millis(longest);
            assert!(pause <= longest && pause >= longest.mul_f64(0.75), "{pause:?}");
        }
        assert_eq!(budget.spend(start + Duration::from_secs(10)), None);
        assert!(budget.spend(start + Duration::from_secs(61)).is_some(), "the first two are out of the window");
    }

    #[test]
    fn a_budget_of_none_gives_up_at_once_and_pauses_have_a_bound() {
        let mut none = RestartBudget::new(0, Duration::from_secs(60));
        assert_eq!(none.spend(Instant::now()), None);
        let mut many = RestartBudget::new(100, Duration::from_secs(60));
        let now = Instant::now();
        assert!((0..100).all(|_| many.spend(now).is_some_and(|pause| pause <= BACKOFF_LONGEST)));
    }
}
