//! What all workers of a service share: the thread that forks, metrics, probes, ports, memory.

use crate::telemetry::metrics::Metrics;
use crate::worker::change_signal::Bell;
use crate::worker::health::probe::Prober;
use crate::worker::memory::budget::Allowance;
use crate::worker::memory::scheduler::Residents;
use crate::worker::process::ports::Ports;
use crate::worker::process::spawner::Spawner;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::SetOnce;

/// What all workers of a service share.
pub struct Shared {
    pub(super) spawner: Spawner,
    pub(super) metrics: Arc<Metrics>,
    pub(super) prober: Prober,
    pub(super) ports: Ports,
    pub(super) bell: Arc<Bell>,
    /// Set by [`Shared::allow`]; no process is started before.
    pub(super) memory: SetOnce<Memory>,
    patience: Duration,
}

/// The memory for models, and who has it.
pub(super) struct Memory {
    pub(super) allowance: Allowance,
    pub(super) residents: Residents,
}

impl Shared {
    /// Returns the context of a whole service, which starts no process before [`Shared::allow`] is called. A load that
    /// waits for memory leaves a model that is in use alone for `patience`.
    ///
    /// # Errors
    ///
    /// When the HTTP client that probes workers cannot be built.
    pub fn new(spawner: Spawner, metrics: Arc<Metrics>, patience: Duration) -> io::Result<Self> {
        let (prober, ports, bell, memory) = (Prober::local()?, Ports::default(), Arc::default(), SetOnce::new());
        Ok(Self { spawner, metrics, prober, ports, bell, memory, patience })
    }

    /// Sets how much memory models may take, which lets workers start. Only the first call counts.
    pub fn allow(&self, allowance: Allowance) {
        let (bell, metrics) = (Arc::clone(&self.bell), Arc::clone(&self.metrics));
        let residents = Residents::new(allowance.bytes, self.patience, bell, metrics);
        let _ = self.memory.set(Memory { allowance, residents });
    }
}
