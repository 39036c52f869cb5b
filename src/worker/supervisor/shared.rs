//! What all workers of a service share: the thread that forks, ports, memory, probes, metrics.

use crate::telemetry::metrics::Metrics;
use crate::worker::change_signal::Bell;
use crate::worker::health::probe::Prober;
use crate::worker::memory::budget::Allowance;
use crate::worker::memory::scheduler::Residents;
use crate::worker::process::ports::Ports;
use crate::worker::process::spawner::Spawner;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::SetOnce;

/// What all workers of a service share.
pub struct Yard {
    pub(super) spawner: Spawner,
    pub(super) metrics: Arc<Metrics>,
    pub(super) prober: Prober,
    pub(super) ports: Ports,
    pub(super) bell: Arc<Bell>,
    /// Known once somebody has looked; nothing is started before.
    pub(super) memory: Arc<SetOnce<Memory>>,
    patience: Duration,
}

/// The memory for models, and who has it.
#[derive(Clone)]
pub(super) struct Memory {
    pub(super) allowance: Allowance,
    pub(super) residents: Residents,
}

impl Yard {
    /// One for a whole service, which starts nothing before [`Yard::allow`] is called. A load that waits for room leaves
    /// models alone that are in use for `patience`.
    pub fn new(spawner: Spawner, metrics: Arc<Metrics>, patience: Duration) -> Result<Self, reqwest::Error> {
        let (prober, ports, bell, memory) = (Prober::new()?, Ports::default(), Arc::default(), Arc::default());
        Ok(Self { spawner, metrics, prober, ports, bell, memory, patience })
    }

    /// Says how much memory models may take. Only the first word counts.
    pub fn allow(&self, allowance: Allowance) {
        let (bell, metrics) = (Arc::clone(&self.bell), Arc::clone(&self.metrics));
        let residents = Residents::new(allowance.bytes, self.patience, bell, metrics);
        let _ = self.memory.set(Memory { allowance, residents });
    }
}
