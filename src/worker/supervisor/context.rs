//! What all workers of a service share: the thread that forks, metrics, probes, ports, memory.

use crate::telemetry::metrics::Metrics;
use crate::worker::change_signal::ChangeSignal;
use crate::worker::health::probe::Prober;
use crate::worker::memory::budget::MemoryBudget;
use crate::worker::memory::scheduler::MemoryScheduler;
use crate::worker::process::ports::PortPool;
use crate::worker::process::spawner::Spawner;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::SetOnce;

/// What all workers of a service share.
pub struct WorkerContext {
    pub(super) spawner: Spawner,
    pub(super) metrics: Arc<Metrics>,
    pub(super) prober: Prober,
    pub(super) ports: PortPool,
    pub(super) bell: Arc<ChangeSignal>,
    /// Set by [`WorkerContext::allow`]; no process is started before.
    pub(super) memory: SetOnce<SharedMemory>,
    patience: Duration,
}

/// The memory for models, and who has it.
pub(super) struct SharedMemory {
    pub(super) allowance: MemoryBudget,
    pub(super) residents: MemoryScheduler,
}

impl WorkerContext {
    /// Returns the context of a whole service, which starts no process before [`WorkerContext::allow`] is called. A load that
    /// waits for memory leaves a model that is in use alone for `patience`.
    ///
    /// # Errors
    ///
    /// When the HTTP client that probes workers cannot be built.
    pub fn new(spawner: Spawner, metrics: Arc<Metrics>, patience: Duration) -> io::Result<Self> {
        let (prober, ports, bell, memory) = (Prober::local()?, PortPool::default(), Arc::default(), SetOnce::new());
        Ok(Self { spawner, metrics, prober, ports, bell, memory, patience })
    }

    /// Sets how much memory models may take, which lets workers start. Only the first call counts.
    pub fn set_memory_budget(&self, allowance: MemoryBudget) {
        let (bell, metrics) = (Arc::clone(&self.bell), Arc::clone(&self.metrics));
        let residents = MemoryScheduler::new(allowance.bytes, self.patience, bell, metrics);
        let _ = self.memory.set(SharedMemory { allowance, residents });
    }
}
