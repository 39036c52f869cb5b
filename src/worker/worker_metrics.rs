//! The metrics of one worker, from its registration until it is unregistered.
//!
//! A reload may start a successor with the same labels while the old worker still finishes its requests. From then on
//! only the successor may change the metrics.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::load_phases::{self, LoadTimes};
use super::state::WorkerState;
use crate::telemetry::metrics::{Metrics, ModelLabels, PhaseLabels, RpcServerLabels, StateLabels, WorkerLabels, bytes};

/// The metrics of one worker.
pub(super) struct WorkerMetrics {
    metrics: Arc<Metrics>,
    labels: WorkerLabels,
    /// The state in the metrics; `None` once the worker is unregistered.
    registered: Mutex<Option<WorkerState>>,
    /// The addresses of rpc-servers in the metrics.
    rpc_servers: Mutex<BTreeSet<String>>,
}

impl WorkerMetrics {
    /// Adds a worker of this model in this state to the metrics.
    pub(super) fn register(metrics: Arc<Metrics>, model: String, worker: u32, state: WorkerState) -> Arc<Self> {
        let labels = WorkerLabels { model, worker };
        let this = Self { metrics, labels, registered: Mutex::new(Some(state)), rpc_servers: Mutex::default() };
        // Created with 0: Prometheus' `increase` does not count the step from no sample to 1.
        drop(this.metrics.worker_restarts.get_or_create(&this.labels));
        this.add_ready(i64::from(state == WorkerState::Ready));
        this.write_state(state);
        Arc::new(this)
    }

    /// Sets the state of the worker.
    pub(super) fn set_state(&self, state: WorkerState) {
        let mut registered = self.lock();
        if let Some(current) = registered.as_mut() {
            let before = std::mem::replace(current, state);
            self.add_ready(i64::from(state == WorkerState::Ready) - i64::from(before == WorkerState::Ready));
            self.write_state(state);
        }
    }

    /// Counts one restart.
    pub(super) fn count_restart(&self) {
        if self.lock().is_some() {
            self.metrics.worker_restarts.get_or_create(&self.labels).inc();
        }
    }

    /// Sets whether an rpc-server of the model works.
    pub(super) fn set_rpc_server(&self, address: &str, is_up: bool) {
        let registered = self.lock();
        if registered.is_none() {
            return;
        }
        self.metrics.rpc_server_up.get_or_create(&self.rpc_server_labels(address)).set(i64::from(is_up));
        self.rpc_servers.lock().unwrap_or_else(PoisonError::into_inner).insert(address.to_owned());
    }

    fn rpc_server_labels(&self, address: &str) -> RpcServerLabels {
        let WorkerLabels { model, worker } = self.labels.clone();
        RpcServerLabels { model, worker, rpc_server: address.to_owned() }
    }

    /// Sets the bytes of memory that the model counts for while it is loaded.
    pub(super) fn set_need(&self, need: u64) {
        if self.lock().is_some() {
            let labels = ModelLabels { model: self.labels.model.clone() };
            self.metrics.model_memory.get_or_create(&labels).set(bytes(need));
        }
    }

    /// Sets the times of the last load, and of the prefetch before it, if there was one.
    pub(super) fn record_load(&self, times: &LoadTimes, prefetch: Option<Duration>) {
        let registered = self.lock();
        if registered.is_none() {
            return;
        }
        let model = &self.labels.model;
        self.metrics.load_seconds.get_or_create(&ModelLabels { model: model.clone() }).set(times.load.as_secs_f64());
        for (phase, time) in [
            (load_phases::PREFETCH, prefetch),
            (load_phases::START, times.start),
            (load_phases::WEIGHTS, Some(times.weights)),
            (load_phases::WARM_UP, times.warm_up),
        ] {
            let labels = PhaseLabels { model: model.clone(), phase };
            match time {
                Some(time) => _ = self.metrics.load_phase_seconds.get_or_create(&labels).set(time.as_secs_f64()),
                // The time of an earlier load must not be read as a part of this one.
                None => _ = self.metrics.load_phase_seconds.remove(&labels),
            }
        }
    }

    /// Removes the worker from the metrics. Later calls of other methods do nothing.
    pub(super) fn unregister(&self) {
        let mut registered = self.lock();
        let Some(before) = registered.take() else { return };
        self.add_ready(-i64::from(before == WorkerState::Ready));
        self.metrics.worker_restarts.remove(&self.labels);
        for state in WorkerState::ALL {
            self.metrics.worker_state.remove(&self.state_labels(state));
        }
        for address in std::mem::take(&mut *self.rpc_servers.lock().unwrap_or_else(PoisonError::into_inner)) {
            self.metrics.rpc_server_up.remove(&self.rpc_server_labels(&address));
        }
        // These have no worker label: they describe the last load of the model.
        let model = &self.labels.model;
        self.metrics.load_seconds.remove(&ModelLabels { model: model.clone() });
        self.metrics.model_memory.remove(&ModelLabels { model: model.clone() });
        for phase in load_phases::ALL {
            self.metrics.load_phase_seconds.remove(&PhaseLabels { model: model.clone(), phase });
        }
    }

    fn write_state(&self, current: WorkerState) {
        for state in WorkerState::ALL {
            self.metrics.worker_state.get_or_create(&self.state_labels(state)).set(i64::from(state == current));
        }
    }

    fn add_ready(&self, change: i64) {
        self.metrics.workers_ready.get_or_create(&ModelLabels { model: self.labels.model.clone() }).inc_by(change);
    }

    fn state_labels(&self, state: WorkerState) -> StateLabels {
        StateLabels { model: self.labels.model.clone(), worker: self.labels.worker, state: state.as_str() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<WorkerState>> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::TextFormat;

    #[test]
    fn an_unregistered_worker_does_not_change_the_metrics_of_its_successor() {
        let metrics = Arc::new(Metrics::new("test"));
        let contains = |line: &str| metrics.text(TextFormat::Prometheus).contains(line);
        let register = || WorkerMetrics::register(Arc::clone(&metrics), "m".to_owned(), 1, WorkerState::Stopped);
        let old = register();
        old.set_state(WorkerState::Ready);
        assert!(contains("llamagate_workers_ready{model=\"m\"} 1\n"));
        old.unregister();
        assert!(contains("llamagate_workers_ready{model=\"m\"} 0\n") && !contains("llamagate_worker_state{"));
        let new = register();
        new.set_state(WorkerState::Ready);
        new.count_restart();
        old.set_state(WorkerState::Stopped);
        old.count_restart();
        let secs = Duration::from_secs;
        new.record_load(&LoadTimes { load: secs(2), start: None, weights: secs(2), warm_up: None }, None);
        old.record_load(&LoadTimes { load: secs(9), start: None, weights: secs(9), warm_up: None }, Some(secs(9)));
        old.unregister();
        assert!(contains("llamagate_model_load_seconds{model=\"m\"} 2.0\n") && !contains("phase=\"prefetch\""));
        assert!(contains("llamagate_workers_ready{model=\"m\"} 1\n"));
        assert!(contains("llamagate_worker_state{model=\"m\",worker=\"1\",state=\"ready\"} 1\n"));
        assert!(contains("llamagate_worker_restarts_total{model=\"m\",worker=\"1\"} 1\n"));
    }

    #[test]
    fn replicas_overwrote_what_each_other_knew_of_an_rpc_server() {
        let metrics = Arc::new(Metrics::new("test"));
        let [first, second] = [0, 1]
            .map(|worker| WorkerMetrics::register(Arc::clone(&metrics), "m".to_owned(), worker, WorkerState::Ready));
        first.set_rpc_server("10.0.0.2:1", true);
        second.set_rpc_server("10.0.0.2:1", false);
        let has = |worker: u32, value: u8| {
            let labels = format!("{{model=\"m\",worker=\"{worker}\",rpc_server=\"10.0.0.2:1\"}}");
            metrics.text(TextFormat::Prometheus).contains(&format!("llamagate_rpc_server_up{labels} {value}\n"))
        };
        assert!(has(0, 1) && has(1, 0));
        second.unregister();
        assert!(has(0, 1) && !has(1, 0));
    }
}
