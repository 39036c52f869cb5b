//! `ROUTING_STRATEGY`: the names of the strategies. `fleet/choice/` implements them.

use serde::Serialize;

use super::value::{Rejected, Value};

/// How one of a model's workers is chosen for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The worker with the fewest requests in flight relative to its slots.
    #[default]
    LeastBusy,
    /// Each worker in turn.
    RoundRobin,
    /// A random worker, in proportion to the weights.
    WeightedRandom,
    /// A random worker.
    SimpleShuffle,
    /// The worker with the shortest time to first byte; occasionally another, to measure it.
    #[serde(rename = "latency-based-routing")]
    LatencyBased,
    /// The first worker in the order of priority that can serve.
    PriorityFailover,
    /// The worker that has served the same prompt prefix for the same key, unless it is clearly busier.
    PrefixAffinity,
}

impl Value for Strategy {
    fn parse(text: &str) -> Result<Self, Rejected> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "least-busy" => Self::LeastBusy,
            "round-robin" => Self::RoundRobin,
            "weighted-random" => Self::WeightedRandom,
            "simple-shuffle" => Self::SimpleShuffle,
            "latency-based-routing" => Self::LatencyBased,
            "priority-failover" => Self::PriorityFailover,
            "prefix-affinity" => Self::PrefixAffinity,
            _ => {
                return Err(Rejected::new(
                    "least-busy, round-robin, weighted-random, simple-shuffle, latency-based-routing, priority-failover or prefix-affinity",
                ));
            }
        })
    }
}
