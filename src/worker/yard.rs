//! What all workers of a service share: the thread that forks, ports, memory, probes, metrics.

use super::allowance::Allowance;
use super::bell::Bell;
use super::health::Prober;
use super::ports::Ports;
use super::process::Spawner;
use super::residents::Residents;
use crate::telemetry::metrics::Metrics;
use std::sync::Arc;
use std::time::Duration;

/// What all workers of a service share.
pub struct Yard {
    pub(super) spawner: Spawner,
    pub(super) metrics: Arc<Metrics>,
    pub(super) prober: Prober,
    pub(super) ports: Ports,
    pub(super) allowance: Allowance,
    pub(super) bell: Arc<Bell>,
    pub(super) residents: Residents,
}

impl Yard {
    /// One for a whole service, whose models may take so much memory. A load that waits for room leaves models alone
    /// that are in use for `patience`.
    pub fn new(
        spawner: Spawner,
        metrics: Arc<Metrics>,
        allowance: Allowance,
        patience: Duration,
    ) -> Result<Self, reqwest::Error> {
        let bell = Arc::<Bell>::default();
        let residents = Residents::new(allowance.bytes, patience, Arc::clone(&bell), Arc::clone(&metrics));
        Ok(Self { spawner, metrics, prober: Prober::new()?, ports: Ports::default(), allowance, bell, residents })
    }
}
