//! What is shown of the models: their states, and the sum of them.

use crate::worker::{LastExit, WorkerCondition, WorkerState};
use serde::Serialize;

/// What is shown of a model.
#[derive(Debug, Serialize)]
pub struct ModelStatus {
    /// The id that clients use.
    pub id: String,
    /// The state of the worker that is nearest to serving.
    pub state: WorkerState,
    /// Restarts of all its workers since the service started.
    pub restarts: u64,
    /// How a process before ended.
    pub last_exit: Option<LastExit>,
}

/// The states of all models at one moment.
#[derive(Debug)]
pub struct FleetReport {
    /// Whether requests are served at all: the state of the best worker.
    pub best: ServiceStatus,
    /// The state that is shown. It is [`ServiceStatus::Degraded`] where some models are served and others are not.
    pub shown: ServiceStatus,
    /// The models, in the order in which they are listed.
    pub models: Vec<ModelStatus>,
}

/// Whether the service as a whole can serve, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceStatus {
    /// Requests are served, at once or as soon as a model that sleeps has been woken.
    Ok,
    /// No request is served yet.
    Loading,
    /// No request is served now, which may pass.
    Degraded,
    /// No request will be served again.
    Failed,
}

impl ServiceStatus {
    /// Of a worker that stands there.
    pub(super) fn of(worker: WorkerCondition) -> Self {
        match worker.state {
            WorkerState::Ready => Self::Ok,
            // A request starts it.
            WorkerState::Stopped | WorkerState::Draining if worker.is_asleep => Self::Ok,
            WorkerState::Stopped | WorkerState::Starting | WorkerState::Loading => Self::Loading,
            WorkerState::Unhealthy | WorkerState::Backoff | WorkerState::Draining => Self::Degraded,
            WorkerState::Failed => Self::Failed,
        }
    }

    /// The service serves as well as the best worker; one without workers lacks none.
    pub(super) fn best(workers: impl Iterator<Item = Self>) -> Self {
        workers.min().unwrap_or(Self::Ok)
    }
}
