//! What the metrics show of one worker, as long as it is one of those that are served: a worker that a reload puts in its
//! place is shown under the same name while this one still finishes its requests.

use super::load_phases::{self, LoadTimes};
use super::state::WorkerState;
use crate::telemetry::metrics::{Metrics, ModelLabels, PhaseLabels, StateLabels, WorkerLabels, bytes};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What is shown of one worker.
pub(super) struct WorkerMetrics {
    metrics: Arc<Metrics>,
    labels: WorkerLabels,
    /// The state that is shown; none once it has been taken down.
    shown: Mutex<Option<WorkerState>>,
}

impl WorkerMetrics {
    /// Shows a worker of this model in this state.
    pub(super) fn register(metrics: Arc<Metrics>, model: String, worker: u32, state: WorkerState) -> Arc<Self> {
        let labels = WorkerLabels { model, worker };
        let board = Self { metrics, labels, shown: Mutex::new(Some(state)) };
        // There from the start: from nothing to one is no increase.
        drop(board.metrics.worker_restarts.get_or_create(&board.labels));
        board.count_ready(i64::from(state == WorkerState::Ready));
        board.set(state);
        Arc::new(board)
    }

    /// It is in this state now.
    pub(super) fn set_state(&self, state: WorkerState) {
        let mut shown = self.lock();
        if let Some(before) = shown.as_mut() {
            let before = std::mem::replace(before, state);
            self.count_ready(i64::from(state == WorkerState::Ready) - i64::from(before == WorkerState::Ready));
            self.set(state);
        }
    }

    /// It has been started again.
    pub(super) fn count_restart(&self) {
        if self.lock().is_some() {
            self.metrics.worker_restarts.get_or_create(&self.labels).inc();
        }
    }

    /// It counts for so many bytes when it is loaded.
    pub(super) fn set_need(&self, need: u64) {
        if self.lock().is_some() {
            let labels = ModelLabels { model: self.labels.model.clone() };
            self.metrics.model_memory.get_or_create(&labels).set(bytes(need));
        }
    }

    /// Its load took so long, and the read ahead of it, if there was one.
    pub(super) fn record_load(&self, times: &LoadTimes, prefetch: Option<Duration>) {
        let shown = self.lock();
        if shown.is_none() {
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
                // That of the load before says nothing about this one.
                None => _ = self.metrics.load_phase_seconds.remove(&labels),
            }
        }
    }

    /// Nothing is shown of it from now on.
    pub(super) fn unregister(&self) {
        let mut shown = self.lock();
        let Some(before) = shown.take() else { return };
        self.count_ready(-i64::from(before == WorkerState::Ready));
        self.metrics.worker_restarts.remove(&self.labels);
        for state in WorkerState::ALL {
            self.metrics.worker_state.remove(&self.of_state(state));
        }
        // Those of the model's last load, which was that of a worker like this.
        let model = &self.labels.model;
        self.metrics.load_seconds.remove(&ModelLabels { model: model.clone() });
        self.metrics.model_memory.remove(&ModelLabels { model: model.clone() });
        for phase in load_phases::ALL {
            self.metrics.load_phase_seconds.remove(&PhaseLabels { model: model.clone(), phase });
        }
    }

    fn set(&self, now: WorkerState) {
        for state in WorkerState::ALL {
            self.metrics.worker_state.get_or_create(&self.of_state(state)).set(i64::from(state == now));
        }
    }

    fn count_ready(&self, more: i64) {
        self.metrics.workers_ready.get_or_create(&ModelLabels { model: self.labels.model.clone() }).inc_by(more);
    }

    fn of_state(&self, state: WorkerState) -> StateLabels {
        StateLabels { model: self.labels.model.clone(), worker: self.labels.worker, state: state.as_str() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<WorkerState>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::TextFormat;

    #[test]
    fn one_that_was_taken_down_changes_nothing_of_what_is_shown_of_its_successor() {
        let metrics = Arc::new(Metrics::new("test"));
        let shows = |line: &str| metrics.text(TextFormat::Prometheus).contains(line);
        let put_up = || WorkerMetrics::register(Arc::clone(&metrics), "m".to_owned(), 1, WorkerState::Stopped);
        let old = put_up();
        old.set_state(WorkerState::Ready);
        assert!(shows("llamagate_workers_ready{model=\"m\"} 1\n"));
        old.unregister();
        assert!(shows("llamagate_workers_ready{model=\"m\"} 0\n") && !shows("llamagate_worker_state{"));
        let new = put_up();
        new.set_state(WorkerState::Ready);
        new.count_restart();
        old.set_state(WorkerState::Stopped);
        old.count_restart();
        let secs = Duration::from_secs;
        new.record_load(&LoadTimes { load: secs(2), start: None, weights: secs(2), warm_up: None }, None);
        old.record_load(&LoadTimes { load: secs(9), start: None, weights: secs(9), warm_up: None }, Some(secs(9)));
        old.unregister();
        assert!(shows("llamagate_model_load_seconds{model=\"m\"} 2.0\n") && !shows("phase=\"prefetch\""));
        assert!(shows("llamagate_workers_ready{model=\"m\"} 1\n"));
        assert!(shows("llamagate_worker_state{model=\"m\",worker=\"1\",state=\"ready\"} 1\n"));
        assert!(shows("llamagate_worker_restarts_total{model=\"m\",worker=\"1\"} 1\n"));
    }
}
