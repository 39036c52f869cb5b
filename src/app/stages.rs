//! What each stage of the start hands to those after it, and to the stop.

use super::model_reconciler::ModelReconciler;
use super::reload::Reloader;
use crate::fleet::Fleet;
use crate::gateway::{Accounting, Gateway, ModelQueues};
use crate::operator::OperatorApi;
use crate::pause_clock::PauseClock;
use crate::platform::Platform;
use crate::preflight::Prepared;
use crate::runpod::QueueWorker;
use crate::settings::{Inputs, Resolved, Settings};
use crate::telemetry::files::LogFolder;
use crate::telemetry::log::LogGuard;
use std::sync::Arc;
use std::thread;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_appender::non_blocking::WorkerGuard;

/// What the service is started with.
pub struct Startup {
    /// Flags and environment, which a reload reads again.
    pub inputs: Inputs,
    /// The configuration that they gave.
    pub resolved: Resolved,
    /// What was checked before the start.
    pub ready: Prepared,
    /// Where the service runs.
    pub platform: Platform,
    /// The writers of the program's own log.
    pub log: Arc<LogGuard>,
}

/// What holds for the whole run, from before the ports are open until everything has stopped.
pub(super) struct Loaded {
    pub(super) settings: Arc<Settings>,
    pub(super) ready: Prepared,
    pub(super) platform: Platform,
    pub(super) log: Arc<LogGuard>,
    /// The tasks of the service, except those of workers and jobs.
    pub(super) tasks: TaskTracker,
    /// Cancelled when the gateway's port closes.
    pub(super) stop_gateway: CancellationToken,
    /// Cancelled when everything else ends.
    pub(super) stop_rest: CancellationToken,
    /// Notices pauses of the whole program.
    pub(super) _beat: PauseClock,
}

/// Metrics and access log.
pub(super) struct Accounts {
    pub(super) books: Arc<Accounting>,
    /// Writes what is queued when it is dropped, so it goes after the last user of the access log.
    pub(super) access_guard: WorkerGuard,
}

/// The models and their workers.
pub(super) struct Models {
    pub(super) fleet: Arc<Fleet>,
    pub(super) lanes: Arc<ModelQueues>,
    pub(super) shelving: Arc<ModelReconciler>,
    pub(super) reload: Arc<Reloader>,
    /// The logs of llama-server.
    pub(super) worker_logs: LogFolder,
}

/// The running service.
pub(super) struct Service {
    pub(super) gateway: Arc<Gateway>,
    pub(super) desk: Arc<OperatorApi>,
    /// Serves the gateway's port.
    pub(super) listening: JoinHandle<()>,
    /// Serves the health port, where that is another one.
    pub(super) health_thread: Option<thread::JoinHandle<()>>,
    /// Takes jobs from a RunPod queue, where there is one.
    pub(super) jobs: Option<QueueWorker>,
}
