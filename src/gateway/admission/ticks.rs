//! The clock of the rate limits: nanoseconds since a start, as one integer that fits an atomic.
//!
//! Owns only the conversion. The caller passes the clock, so that tests can control it.

use std::time::Instant;

use governor::clock::{Clock, Reference};

use crate::pause_clock;

/// The clock of all limits. Runs on while the program is paused, and is read once per poll of a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct LimitClock;

impl Clock for LimitClock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        pause_clock::kernel_now().into_std()
    }
}

/// A counter of nanoseconds. Clones count from the same start.
#[derive(Debug, Clone)]
pub(super) struct Ticks<C: Clock = LimitClock> {
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
