//! The clock of limits: nanoseconds since a start, as one integer that fits an atomic.
//!
//! Owns only the conversion. Which clock it is comes from outside, so that tests can hold it still.

use governor::clock::{Clock, DefaultClock, Reference};

/// Counts nanoseconds. Clones count from the same start.
#[derive(Debug, Clone)]
pub(super) struct Ticks<C: Clock = DefaultClock> {
    clock: C,
    start: C::Instant,
}

impl<C: Clock> Ticks<C> {
    /// Starts to count.
    pub(super) fn new(clock: C) -> Self {
        let start = clock.now();
        Self { clock, start }
    }

    /// Nanoseconds since the start; enough for 584 years.
    pub(super) fn now(&self) -> u64 {
        self.clock.now().duration_since(self.start).as_u64()
    }
}
