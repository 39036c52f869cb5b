//! `ROUTING_STRATEGY`.

use super::value::{Rejected, Value};
use serde::Serialize;

/// How one of a model's workers is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The one with the fewest requests in flight relative to its slots.
    #[default]
    LeastBusy,
    /// One after the other.
    RoundRobin,
    /// By chance, in proportion to their weights.
    WeightedRandom,
    /// By chance.
    SimpleShuffle,
    /// The one that has been quickest to its first byte; now and then another, to learn how quick it is.
    #[serde(rename = "latency-based-routing")]
    LatencyBased,
    /// The first in the order of priority that can serve.
    PriorityFailover,
    /// The one that has served the same beginning of a prompt for the same key, unless it is clearly busier.
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
