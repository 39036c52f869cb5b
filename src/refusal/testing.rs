//! Values for the parts of refusals, for tests that need one refusal of each kind.

use std::time::Duration;

/// A value for a part of a refusal.
pub(super) trait Sample {
    fn sample() -> Self;
}

impl Sample for String {
    fn sample() -> Self {
        "m".to_owned()
    }
}

impl Sample for &'static str {
    fn sample() -> Self {
        "x"
    }
}

impl Sample for usize {
    fn sample() -> Self {
        1
    }
}

impl Sample for bool {
    fn sample() -> Self {
        false
    }
}

impl Sample for Duration {
    fn sample() -> Self {
        Self::from_millis(1_200)
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample() -> Self {
        Some(T::sample())
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample() -> Self {
        vec![T::sample()]
    }
}
