//! The values that each stage of the startup passes to the later stages and to the shutdown.

use std::sync::Arc;
use std::thread;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_appender::non_blocking::WorkerGuard;

use super::models::reconciler::ModelReconciler;
use super::reload::reloader::Reloader;
use crate::cores::CoreThreads;
use crate::fleet::{Fleet, KeySuspensions};
use crate::gateway::{Accounting, Gateway, ModelQueues};
use crate::ledger::LedgerGuard;
use crate::operator::OperatorApi;
use crate::pause_clock::PauseClock;
use crate::platform::Platform;
use crate::preflight::Prepared;
use crate::runpod::QueueWorker;
use crate::service_note::PublishedNote;
use crate::settings::{Inputs, Resolved, Settings};
use crate::shared_limits::LimitsStore;
use crate::telemetry::files::LogFolder;
use crate::telemetry::log::LogGuard;

/// The inputs of [`run`](super::run).
pub struct Startup {
    /// Flags and environment, which a reload reads again.
    pub inputs: Inputs,
    /// The configuration that was resolved from them.
    pub resolved: Resolved,
    /// The results of the checks before the start.
    pub ready: Prepared,
    /// The platform that the service runs on.
    pub platform: Platform,
    /// The writers of the program's own log.
    pub log: Arc<LogGuard>,
}

/// State that lives for the whole run, from before the ports are open until everything has stopped.
pub(super) struct RunContext {
    pub(super) settings: Arc<Settings>,
    pub(super) ready: Prepared,
    pub(super) platform: Platform,
    pub(super) log: Arc<LogGuard>,
    /// The tasks of the service, except those of workers and jobs.
    pub(super) tasks: TaskTracker,
    /// The threads that serve the gateway's port.
    pub(super) cores: CoreThreads,
    /// Cancelled when the gateway's port closes.
    pub(super) stop_gateway: CancellationToken,
    /// Cancelled when everything else stops.
    pub(super) stop_rest: CancellationToken,
    /// Detects pauses of the whole process.
    pub(super) _pause_clock: PauseClock,
}

/// The metrics, the access log and the usage ledger.
pub(super) struct Accounts {
    pub(super) accounting: Arc<Accounting>,
    /// Writes the queued lines when it is dropped. Must be dropped after the last user of the access log.
    pub(super) access_guard: WorkerGuard,
    /// Writes the last usage when it is dropped. Dropped after all requests have ended; `None` if none is recorded.
    pub(super) ledger_guard: Option<LedgerGuard>,
}

/// The models and their workers.
pub(super) struct ModelServices {
    pub(super) fleet: Arc<Fleet>,
    pub(super) key_suspensions: Arc<KeySuspensions>,
    pub(super) queues: Arc<ModelQueues>,
    pub(super) reconciler: Arc<ModelReconciler>,
    pub(super) reloader: Arc<Reloader>,
    /// The logs of llama-server.
    pub(super) worker_logs: LogFolder,
}

/// The running service.
pub(super) struct Service {
    pub(super) gateway: Arc<Gateway>,
    pub(super) operator_api: Arc<OperatorApi>,
    /// The task that serves the gateway's port.
    pub(super) listening: JoinHandle<()>,
    /// The thread that serves the health port; `None` if both ports are the same.
    pub(super) health_thread: Option<thread::JoinHandle<()>>,
    /// The worker of a RunPod queue; `None` if there is no queue.
    pub(super) jobs: Option<QueueWorker>,
    /// Where commands on this machine find the service; `None` if that could not be written.
    pub(super) note: Option<Arc<PublishedNote>>,
    /// The server through which replicas share limits; `None` without `LIMITS_STORE`.
    pub(super) limits_store: Option<Arc<LimitsStore>>,
}
