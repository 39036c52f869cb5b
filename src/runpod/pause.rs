//! How long to wait before the platform is asked again. Pure but for chance.

use super::wire::Setback;
use crate::settings::bounds::{PLATFORM_BACKOFF_FIRST, PLATFORM_BACKOFF_LONGEST, TOO_MANY_PAUSE};
use std::time::Duration;

/// Of the questions in a row: how many failed.
#[derive(Default)]
pub(super) struct Failures(u32);

impl Failures {
    /// One was answered.
    pub(super) fn forget(&mut self) {
        self.0 = 0;
    }

    /// One more failed: the pause before the next.
    pub(super) fn note(&mut self, setback: &Setback) -> Duration {
        match setback {
            Setback::TooMany => TOO_MANY_PAUSE,
            Setback::Failed(_) => {
                self.0 = self.0.saturating_add(1);
                after_failure(self.0)
            }
        }
    }

    /// Whether the failure that was noted last is the first in a row.
    pub(super) fn is_first(&self) -> bool {
        self.0 == 1
    }
}

/// The pause after so many failures in a row: twice as long after each, and up to a quarter shorter by chance, so that many
/// workers do not come back together.
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
        let mut failures = Failures::default();
        let failed = Setback::Failed("x".into());
        let mut longest = PLATFORM_BACKOFF_FIRST;
        for nth in 0..40 {
            let pause = failures.note(&failed);
            assert!(pause <= longest && pause >= longest.mul_f64(0.74), "{pause:?} {longest:?}");
            assert_eq!(failures.is_first(), nth == 0);
            longest = (longest * 2).min(PLATFORM_BACKOFF_LONGEST);
        }
        failures.forget();
        assert!(failures.note(&failed) <= PLATFORM_BACKOFF_FIRST);
    }

    #[test]
    fn a_platform_that_is_asked_too_often_is_left_alone_for_a_fixed_time() {
        assert_eq!(Failures::default().note(&Setback::TooMany), Duration::from_secs(5));
    }
}
