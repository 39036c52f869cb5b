//! The wait for a slot. [`Ticket`] is the right to be in flight; it lives in the answer's body.

use crate::refusal::Refusal;
use crate::settings::bounds::RETRY_AFTER_UNKNOWN;
use crate::telemetry::metrics::Metrics;
use prometheus_client::metrics::gauge::Gauge;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The line of one model: so many in flight, the others wait in the order in which they came.
pub struct Queue {
    slots: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// A slot, until it is dropped.
pub(super) struct Ticket {
    _permit: OwnedSemaphorePermit,
    _active: Counted,
    /// How long it took to get.
    pub(super) waited: Duration,
}

/// One more in a gauge, until it is dropped.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Queue {
    /// A line with so many slots.
    pub fn new(slots: usize, metrics: Arc<Metrics>) -> Self {
        Self { slots: Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS))), metrics }
    }

    /// Waits for a slot. Dropping the future leaves the line.
    pub(super) async fn wait(&self) -> Result<Ticket, Refusal> {
        let arrived = Instant::now();
        let waiting = Counted::new(&self.metrics.queue_depth);
        let permit = Arc::clone(&self.slots).acquire_owned().await;
        drop(waiting);
        let permit = permit.map_err(|_| Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN))?;
        let waited = arrived.elapsed();
        self.metrics.queue_wait.inc_by(waited.as_secs_f64());
        Ok(Ticket { _permit: permit, _active: Counted::new(&self.metrics.active), waited })
    }

    /// Sends everybody away who waits, and whoever comes later.
    pub fn close(&self) {
        self.slots.close();
    }
}
