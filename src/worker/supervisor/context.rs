//! The resources that all workers of a service share: the thread that forks, metrics, the prober, ports, memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SetOnce;

use crate::telemetry::metrics::Metrics;
use crate::worker::change_signal::ChangeSignal;
use crate::worker::endpoint::key_suspensions::KeySuspensions;
use crate::worker::health::probe::Prober;
use crate::worker::memory::budget::MemoryBudget;
use crate::worker::memory::learned::LearnedMemory;
use crate::worker::memory::scheduler::MemoryScheduler;
use crate::worker::process::help::HelpReader;
use crate::worker::process::ports::PortPool;
use crate::worker::process::spawner::Spawner;

/// The resources that all workers of a service share.
pub struct WorkerContext {
    pub(super) spawner: Spawner,
    pub(super) help: HelpReader,
    pub(super) metrics: Arc<Metrics>,
    pub(super) prober: Prober,
    pub(super) ports: PortPool,
    /// The API keys that are suspended for crashes.
    pub(super) key_suspensions: Arc<KeySuspensions>,
    /// Notified when a wait for memory may be over.
    pub(super) change_signal: Arc<ChangeSignal>,
    /// Set by [`WorkerContext::set_memory_budget`]; no process is started before.
    pub(super) memory: SetOnce<SharedMemory>,
    /// How long a load that waits for memory does not evict a model that is in use (`MAX_WAIT_BEFORE_DRAIN`).
    wait_before_drain: Duration,
}

/// The memory budget for models, the scheduler that grants it, and what models used before.
pub(super) struct SharedMemory {
    pub(super) budget: MemoryBudget,
    pub(super) scheduler: MemoryScheduler,
    pub(super) learned: LearnedMemory,
}

impl WorkerContext {
    /// Returns the context of a service, which starts no process before [`WorkerContext::set_memory_budget`] is called.
    /// A load that waits for memory does not evict a model that is in use for `wait_before_drain`.
    ///
    /// # Errors
    ///
    /// When the HTTP client that probes workers cannot be built.
    pub fn new(
        spawner: Spawner,
        metrics: Arc<Metrics>,
        key_suspensions: Arc<KeySuspensions>,
        wait_before_drain: Duration,
    ) -> io::Result<Self> {
        let (prober, ports, change_signal) = (Prober::local()?, PortPool::default(), Arc::default());
        let (help, memory) = (HelpReader::new(spawner.clone()), SetOnce::new());
        Ok(Self { spawner, help, metrics, prober, ports, key_suspensions, change_signal, memory, wait_before_drain })
    }

    /// Returns the reader of what llama-servers say of their arguments.
    pub fn help_reader(&self) -> &HelpReader {
        &self.help
    }

    /// Sets how much memory models may take and what they took before, and so lets workers start. Only the first call has an
    /// effect.
    pub fn set_memory_budget(&self, budget: MemoryBudget, learned: LearnedMemory) {
        let (signal, metrics) = (Arc::clone(&self.change_signal), Arc::clone(&self.metrics));
        let scheduler = MemoryScheduler::new(budget.bytes, self.wait_before_drain, signal, metrics);
        let _ = self.memory.set(SharedMemory { budget, scheduler, learned });
    }
}
