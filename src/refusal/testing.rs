//! Sample values for the fields of refusals, for tests that need one refusal of each kind.

use std::time::Duration;

/// A type with a sample value for a field of a refusal.
pub(super) trait SampleValue {
    fn sample() -> Self;
}

impl SampleValue for String {
    fn sample() -> Self {
        "m".to_owned()
    }
}

impl SampleValue for &'static str {
    fn sample() -> Self {
        "x"
    }
}

impl SampleValue for usize {
    fn sample() -> Self {
        1
    }
}

impl SampleValue for bool {
    fn sample() -> Self {
        false
    }
}

impl SampleValue for Duration {
    fn sample() -> Self {
        Self::from_millis(1_200)
    }
}

impl<T: SampleValue> SampleValue for Option<T> {
    fn sample() -> Self {
        Some(T::sample())
    }
}

impl<T: SampleValue> SampleValue for Vec<T> {
    fn sample() -> Self {
        vec![T::sample()]
    }
}
