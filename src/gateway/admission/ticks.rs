//! The clock of the rate limits: nanoseconds since a start, as one integer that fits an atomic.
//!
//! Owns only the conversion. The caller passes the clock, so that tests can control it.

use governor::clock::{Clock, DefaultClock, Reference};

/// A counter of nanoseconds. Clones count from the same start.
#[derive(Debug, Clone)]
pub(super) struct Ticks<C: Clock = DefaultClock> {
    clock: C,
    start: C::Instant,
}

impl<C: Clock> Ticks<C> {
    /// Starts counting now.
    pub(super) fn new(clock: C) -> Self {
        let start = clock.now();
        Self { clock, start }
    }

    /// Returns the nanoseconds since the start. Overflows after 584 years.
    pub(super) fn now(&self) -> u64 {
        self.clock.now().duration_since(self.start).as_u64()
    }
}
