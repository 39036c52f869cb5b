//! How long to wait before the platform is asked again, and the word of it in the log: of many failures in a row one.

use crate::runpod::bounds::{PLATFORM_BACKOFF_FIRST, PLATFORM_BACKOFF_LONGEST, TOO_MANY_PAUSE};
use std::time::Duration;
use tracing::{debug, info, warn};

/// Why a request to the platform brought no answer.
#[derive(Debug)]
pub(super) enum PollError {
    /// The platform answers 429: it is asked too often.
    TooMany,
    /// Anything else, as a plain sentence.
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

/// Of the questions in a row: how many failed.
pub(super) struct FailureStreak {
    /// What is then the matter.
    trouble: &'static str,
    /// What is so again once one is answered.
    again: &'static str,
    /// How many failed, those among them that came too often.
    row: u32,
    /// The others.
    failed: u32,
}

impl FailureStreak {
    /// None so far.
    pub(super) fn new(trouble: &'static str, again: &'static str) -> Self {
        Self { trouble, again, row: 0, failed: 0 }
    }

    /// One was answered.
    pub(super) fn reset(&mut self) {
        if self.row > 0 {
            info!("{}", self.again);
        }
        (self.row, self.failed) = (0, 0);
    }

    /// One more failed: the pause before the next.
    pub(super) fn record(&mut self, setback: PollError) -> Duration {
        let pause = match setback {
            PollError::TooMany => TOO_MANY_PAUSE,
            PollError::Failed(_) => {
                self.failed = self.failed.saturating_add(1);
                after_failure(self.failed)
            }
        };
        self.row = self.row.saturating_add(1);
        let (trouble, problem) = (self.trouble, setback.sentence());
        if self.is_first() {
            warn!("{trouble}: {problem}")
        } else {
            debug!("{trouble}: {problem}")
        }
        pause
    }

    /// Whether the failure that was noted last is the first in a row.
    fn is_first(&self) -> bool {
        self.row == 1
    }
}

/// The pause after so many failures in a row: twice as long after each, and up to a quarter shorter by chance, so that
/// many workers do not come back together.
pub(super) fn after_failure(failures: u32) -> Duration {
    let doubled =
        PLATFORM_BACKOFF_FIRST.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    let random = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX);
    doubled.min(PLATFORM_BACKOFF_LONGEST).mul_f64(0.75 + 0.25 * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_begin_anew_after_an_answer() {
        let mut failures = FailureStreak::new("a", "b");
        let failed = || PollError::Failed("x".into());
        let mut longest = PLATFORM_BACKOFF_FIRST;
        for nth in 0..40 {
            let pause = failures.record(failed());
            assert!(pause <= longest && pause >= longest.mul_f64(0.74), "{pause:?} {longest:?}");
            assert_eq!(failures.is_first(), nth == 0);
            longest = (longest * 2).min(PLATFORM_BACKOFF_LONGEST);
        }
        failures.reset();
        assert!(failures.record(failed()) <= PLATFORM_BACKOFF_FIRST);
    }

    #[test]
    fn a_platform_that_is_asked_too_often_is_left_alone_for_a_fixed_time() {
        assert_eq!(FailureStreak::new("a", "b").record(PollError::TooMany), Duration::from_secs(5));
    }

    /// Regression: the answer that the platform is asked too often counted as none.
    #[test]
    fn whichever_failure_comes_first_is_the_first() {
        for setbacks in
            [[PollError::TooMany, PollError::Failed("x".into())], [PollError::Failed("x".into()), PollError::TooMany]]
        {
            let mut failures = FailureStreak::new("a", "b");
            let firsts = setbacks.map(|setback| {
                failures.record(setback);
                failures.is_first()
            });
            assert_eq!(firsts, [true, false]);
        }
    }
}
