//! What all workers of a service share: the thread that forks, ports, probes, metrics.

use super::health::Prober;
use super::ports::Ports;
use super::process::Spawner;
use crate::telemetry::metrics::Metrics;
use std::sync::Arc;

/// What all workers of a service share.
pub struct Yard {
    pub(super) spawner: Spawner,
    pub(super) metrics: Arc<Metrics>,
    pub(super) prober: Prober,
    pub(super) ports: Ports,
}

impl Yard {
    /// One for a whole service.
    pub fn new(spawner: Spawner, metrics: Arc<Metrics>) -> Result<Self, reqwest::Error> {
        Ok(Self { spawner, metrics, prober: Prober::new()?, ports: Ports::default() })
    }
}
