//! What all workers of a service share: the thread that forks, ports, memory, probes, metrics.

use super::allowance::Allowance;
use super::bell::Bell;
use super::health::Prober;
use super::ports::Ports;
use super::process::Spawner;
use super::residents::Residents;
use crate::telemetry::metrics::Metrics;
use std::io;
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
    pub fn new(spawner: Spawner, metrics: Arc<Metrics>, patience: Duration) -> io::Result<Self> {
        let (prober, ports, bell, memory) = (Prober::local()?, Ports::default(), Arc::default(), Arc::default());
        Ok(Self { spawner, metrics, prober, ports, bell, memory, patience })
    }

    /// Says how much memory models may take. Only the first word counts.
    pub fn allow(&self, allowance: Allowance) {
        let (bell, metrics) = (Arc::clone(&self.bell), Arc::clone(&self.metrics));
        let residents = Residents::new(allowance.bytes, self.patience, bell, metrics);
        let _ = self.memory.set(Memory { allowance, residents });
    }
}
