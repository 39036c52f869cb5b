//! How occupied each model is, for those who choose between several services or decide how many there are: Kubernetes'
//! Inference Extension, KEDA, a dashboard.
//!
//! Owns the gauges of it. The numbers come from the queues and the workers, and are read at each scrape.

use std::sync::PoisonError;

use super::metrics::{Metrics, ModelLabels};

/// How occupied a model is at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelOccupancy {
    /// Requests that hold a slot.
    pub running: usize,
    /// Requests that wait for a slot.
    pub waiting: usize,
    /// The share of its KV caches that requests in progress use, from 0 to 1; `None` without a llama-server that
    /// tells it.
    pub kv_cache_usage: Option<f64>,
}

impl Metrics {
    /// Sets how occupied each model is, and removes those that are not named. Called before each scrape, with all models
    /// that are served.
    pub fn set_occupancies<'a>(&self, models: impl Iterator<Item = (&'a str, ModelOccupancy)>) {
        // Held to the end: scrapes at the same time would remove what others have set. One that read the models before a
        // reload may bring a model back until the next scrape.
        let mut shown = self.occupied_models.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = std::mem::take(&mut *shown);
        for (model, occupancy) in models {
            gone.remove(model);
            self.set_occupancy(model, occupancy);
            shown.insert(model.to_owned());
        }
        gone.iter().for_each(|model| self.remove_occupancy(model));
    }

    fn set_occupancy(&self, model: &str, occupancy: ModelOccupancy) {
        let labels = ModelLabels { model: model.to_owned() };
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.requests_running.get_or_create(&labels).set(count(occupancy.running));
        self.requests_waiting.get_or_create(&labels).set(count(occupancy.waiting));
        match occupancy.kv_cache_usage {
            Some(share) => _ = self.kv_cache_usage.get_or_create(&labels).set(share),
            None => _ = self.kv_cache_usage.remove(&labels),
        }
    }

    fn remove_occupancy(&self, model: &str) {
        let labels = ModelLabels { model: model.to_owned() };
        self.requests_running.remove(&labels);
        self.requests_waiting.remove(&labels);
        self.kv_cache_usage.remove(&labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::TextFormat;

    #[test]
    fn a_model_has_its_occupancy_as_long_as_it_is_named() {
        let metrics = Metrics::new("test");
        let contains = |line: &str| metrics.text(TextFormat::Prometheus).contains(line);
        let set = |models: &[(&str, ModelOccupancy)]| metrics.set_occupancies(models.iter().copied());
        let busy = ModelOccupancy { running: 2, waiting: 3, kv_cache_usage: Some(0.25) };
        let idle = ModelOccupancy { running: 0, waiting: 0, kv_cache_usage: None };
        set(&[("m", busy), ("other", idle)]);
        assert!(contains("llamagate_requests_running{model=\"m\"} 2\n"));
        assert!(contains("llamagate_requests_waiting{model=\"m\"} 3\n"));
        assert!(contains("llamagate_kv_cache_usage_ratio{model=\"m\"} 0.25\n"));
        set(&[("m", idle), ("other", idle)]);
        assert!(contains("llamagate_requests_waiting{model=\"m\"} 0\n") && !contains("usage_ratio{"));
        set(&[("other", idle)]);
        assert!(!contains("model=\"m\"") && contains("llamagate_requests_waiting{model=\"other\"} 0\n"));
    }
}
