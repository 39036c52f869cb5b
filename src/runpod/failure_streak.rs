//! Backoff and logging for failed requests to the platform: of several failures in a row only the first is logged as a
//! warning.

use std::time::Duration;

use tracing::{debug, info, warn};

use crate::runpod::bounds::{PLATFORM_BACKOFF_FIRST, PLATFORM_BACKOFF_LONGEST, RATE_LIMITED_PAUSE};

/// The reasons why a request to the platform failed.
#[derive(Debug)]
pub(super) enum PollError {
    /// The platform answered 429 (too many requests).
    TooMany,
    /// Any other reason, as a plain sentence.
    Failed(String),
}

impl PollError {
    /// Returns the reason as a sentence without secrets.
    pub(super) fn sentence(self) -> String {
        match self {
            Self::TooMany => "RunPod answers that it is asked too often".to_owned(),
            Self::Failed(problem) => problem,
        }
    }
}

/// The failures in a row of one kind of request.
pub(super) struct FailureStreak {
    /// Logged when a request fails.
    failure_message: &'static str,
    /// Logged when a request succeeds after failures.
    recovery_message: &'static str,
    /// Failures in a row, including those because of too many requests.
    in_a_row: u32,
    /// Failures in a row that count for the backoff.
    backoff_failures: u32,
}

impl FailureStreak {
    /// Creates a streak without failures.
    pub(super) fn new(failure_message: &'static str, recovery_message: &'static str) -> Self {
        Self { failure_message, recovery_message, in_a_row: 0, backoff_failures: 0 }
    }

    /// Ends the streak after a success, and logs the recovery.
    pub(super) fn reset(&mut self) {
        if self.in_a_row > 0 {
            info!("{}", self.recovery_message);
        }
        (self.in_a_row, self.backoff_failures) = (0, 0);
    }

    /// Records a failure and returns the pause before the next request.
    pub(super) fn record(&mut self, error: PollError) -> Duration {
        let pause = match error {
            // A fixed pause: the platform works and only limits the rate.
            PollError::TooMany => RATE_LIMITED_PAUSE,
            PollError::Failed(_) => {
                self.backoff_failures = self.backoff_failures.saturating_add(1);
                backoff(self.backoff_failures)
            }
        };
        self.in_a_row = self.in_a_row.saturating_add(1);
        let (failure_message, problem) = (self.failure_message, error.sentence());
        if self.is_first() {
            warn!("{failure_message}: {problem}")
        } else {
            debug!("{failure_message}: {problem}")
        }
        pause
    }

    /// Whether the last failure is the first in a row.
    fn is_first(&self) -> bool {
        self.in_a_row == 1
    }
}

/// Returns the backoff after this number of failures in a row. It doubles with each failure and is shortened at random
/// by up to a quarter, so that many workers do not retry at the same time.
pub(super) fn backoff(failures: u32) -> Duration {
    let doubled =
        PLATFORM_BACKOFF_FIRST.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    let random = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX);
    doubled.min(PLATFORM_BACKOFF_LONGEST).mul_f64(0.75 + 0.25 * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_up_to_a_bound_and_is_reset_by_a_success() {
        let mut failures = FailureStreak::new("a", "b");
        let error = || PollError::Failed("x".into());
        let mut longest = PLATFORM_BACKOFF_FIRST;
        for nth in 0..40 {
            let pause = failures.record(error());
            assert!(pause <= longest && pause >= longest.mul_f64(0.74), "{pause:?} {longest:?}");
            assert_eq!(failures.is_first(), nth == 0);
            longest = (longest * 2).min(PLATFORM_BACKOFF_LONGEST);
        }
        failures.reset();
        assert!(failures.record(error()) <= PLATFORM_BACKOFF_FIRST);
    }

    #[test]
    fn a_429_is_followed_by_a_fixed_pause() {
        assert_eq!(FailureStreak::new("a", "b").record(PollError::TooMany), Duration::from_secs(5));
    }

    /// Regression: a 429 did not count as a failure, so the next failure was logged as the first.
    #[test]
    fn a_failure_of_either_kind_can_be_the_first_in_a_row() {
        for errors in
            [[PollError::TooMany, PollError::Failed("x".into())], [PollError::Failed("x".into()), PollError::TooMany]]
        {
            let mut failures = FailureStreak::new("a", "b");
            let firsts = errors.map(|error| {
                failures.record(error);
                failures.is_first()
            });
            assert_eq!(firsts, [true, false]);
        }
    }
}
