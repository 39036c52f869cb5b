//! The reported states: of each model, and of the service as a whole.

use serde::Serialize;

use super::worker_counters::WorkerKind;
use crate::worker::{LastExit, LoadReport, WorkerCondition, WorkerState};

/// The reported state of a model.
#[derive(Debug, Serialize)]
pub struct ModelStatus {
    /// The id that clients use.
    pub id: String,
    /// The state of the worker that is nearest to serving.
    pub state: WorkerState,
    /// Restarts of all its workers since the service started.
    pub restarts: u64,
    /// How the last process of a worker ended.
    pub last_exit: Option<LastExit>,
}

/// The reported state of one worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerReport {
    /// The number of the worker among those of its model.
    pub worker: u32,
    /// The operator of the worker.
    pub kind: WorkerKind,
    /// The state.
    pub state: WorkerState,
    /// Whether it was stopped, or never started, because it was not in use: a request wakes it.
    pub asleep: bool,
    /// Maximum number of requests that hold a slot.
    pub slots: usize,
    /// Restarts since the service started.
    pub restarts: u64,
    /// How far its load is; `None` if nothing is being loaded.
    pub load: Option<LoadReport>,
    /// How its last process ended.
    pub last_exit: Option<LastExit>,
    /// Why a remote worker cannot serve, according to its last probe.
    pub last_error: Option<String>,
}

/// The states of all models at one moment.
#[derive(Debug)]
pub struct FleetReport {
    /// Whether requests can be served at all: the status of the best worker.
    pub best: ServiceStatus,
    /// The reported status. It is [`ServiceStatus::Degraded`] if some models can be served and others cannot.
    pub shown: ServiceStatus,
    /// The models, in the order in which they are listed.
    pub models: Vec<ModelStatus>,
}

/// Whether the service as a whole can serve, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceStatus {
    /// Requests are served, at once or after a sleeping model has been woken.
    Ok,
    /// No request is served yet.
    Loading,
    /// No request is served now, but that may change.
    Degraded,
    /// No request will be served again.
    Failed,
}

impl ServiceStatus {
    /// Returns the status of a worker in this condition.
    pub(super) fn of(worker: WorkerCondition) -> Self {
        match worker.state {
            WorkerState::Ready => Self::Ok,
            // The next request starts the worker.
            WorkerState::Stopped | WorkerState::Draining if worker.is_asleep => Self::Ok,
            WorkerState::Stopped | WorkerState::Starting | WorkerState::Loading => Self::Loading,
            WorkerState::Unhealthy | WorkerState::Backoff | WorkerState::Draining => Self::Degraded,
            WorkerState::Failed => Self::Failed,
        }
    }

    /// Returns the status of the best worker, or `Ok` if there are no workers.
    pub(super) fn best(workers: impl Iterator<Item = Self>) -> Self {
        workers.min().unwrap_or(Self::Ok)
    }
}
