//! The data of the task that owns a worker, and how it publishes a change of state.
//!
//! The other files of this folder add the methods of [`Owner`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::context::WorkerContext;
use super::owner_peers::OwnerPeers;
use super::restart_budget::RestartBudget;
use crate::models::ModelError;
use crate::pause_clock;
use crate::telemetry::throttled_warning::ThrottledWarning;
use crate::worker::demand::OwnerDemand;
use crate::worker::diagnosis::cause::Diagnosis;
use crate::worker::diagnosis::ending::not_started;
use crate::worker::endpoint::crash_suspects::CrashSuspects;
use crate::worker::handle::{LastExit, LocalFacts, WorkerStatus};
use crate::worker::local_errors::shortage;
use crate::worker::memory::learned::{LoadedFiles, MemoryKey};
use crate::worker::memory::ledger::CrowdedOut;
use crate::worker::peers::fault::PeerLoss;
use crate::worker::plan::Plan;
use crate::worker::process::blocking::BlockingTask;
use crate::worker::served_files::ServedFiles;
use crate::worker::state::{WorkerEvent, WorkerState};
use crate::worker::worker_metrics::WorkerMetrics;

/// The state of the task that owns a worker.
pub(super) struct Owner {
    pub(super) plan: Plan,
    pub(super) shared: Arc<WorkerContext>,
    /// The memory that its process used the last time, in bytes, also in an earlier run of the service.
    pub(super) measured_memory: Option<u64>,
    /// What that memory depends on; `None` before the first preparation of a start.
    pub(super) memory_key: Option<MemoryKey>,
    pub(super) status: watch::Sender<WorkerStatus>,
    pub(super) metrics: Arc<WorkerMetrics>,
    /// Where the worker logs, and how far its load is.
    pub(super) local: Arc<LocalFacts>,
    /// The bytes of the model's files, as of the last check.
    pub(super) file_size: Option<u64>,
    pub(super) restart_budget: RestartBudget,
    pub(super) shortage: Shortage,
    pub(super) peers: OwnerPeers,
    pub(super) demand: OwnerDemand,
    /// Whether the next start follows the end of a process.
    pub(super) is_restart: bool,
    pub(super) crash_suspects: Arc<CrashSuspects>,
    /// The API key that sent all requests in flight at the last crash, until the crash is charged.
    pub(super) crash_key: Option<Arc<str>>,
    /// The task that waits until the memory of the last process is released, and drops its reservation then.
    pub(super) memory_release: Option<JoinHandle<()>>,
    /// The tasks of the service, which a shutdown waits for.
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) file_check: BlockingTask<FileCheck>,
}

/// A shortage on this machine that prevents a start, for instance of file descriptors.
#[derive(Default)]
pub(super) struct Shortage {
    since: Option<pause_clock::ActiveInstant>,
    pub(super) warning: ThrottledWarning,
}

impl Shortage {
    /// Records that the shortage lasts, and returns whether it has lasted for `longest`.
    pub(super) fn has_lasted(&mut self, longest: Duration) -> bool {
        self.since.get_or_insert_with(pause_clock::ActiveInstant::now).elapsed() >= longest
    }
}

/// Why no process was started.
pub(super) enum StartFailure {
    /// The demand has gone.
    Unwanted,
    /// This machine is short of something; another attempt may succeed soon.
    Shortage(io::Error),
    /// The start cannot succeed as things are.
    Failed(Diagnosis),
    /// There is not enough memory beside pinned models.
    CrowdedOut(CrowdedOut),
    /// These `rpc-server`s of its model cannot be used.
    PeersUnusable(Vec<PeerLoss>),
}

impl From<io::Error> for StartFailure {
    fn from(error: io::Error) -> Self {
        if shortage(&error).is_some() { Self::Shortage(error) } else { Self::Failed(not_started(&error)) }
    }
}

/// How one life of a process ended.
pub(super) enum LifeEnd {
    /// The worker was stopped for good.
    Stopped,
    /// The worker was not needed any more.
    Asleep,
    /// The process ended by itself, or had to be killed.
    Exited(LastExit),
}

/// The result of a check of the model file, and of a look at the other files.
pub(super) type FileCheck = Result<(LoadedFiles, ServedFiles), ModelError>;

impl Owner {
    /// Returns the current state.
    pub(super) fn state(&self) -> WorkerState {
        self.status.borrow().state
    }

    /// Applies an event to the state machine and publishes the new state; ignores an event that changes nothing.
    pub(super) fn apply(&self, event: WorkerEvent) {
        if self.state().after(event).is_some_and(|next| next != self.state()) {
            self.apply_with(event, |_| {});
        }
    }

    /// Applies an event together with other changes of the status. A reader sees all of them at once, or none.
    pub(super) fn apply_with(&self, event: WorkerEvent, change: impl FnOnce(&mut WorkerStatus)) {
        let from = self.state();
        self.status.send_modify(|status| {
            status.state = from.after(event).unwrap_or(from);
            change(status);
        });
        let to = self.state();
        if to != from {
            debug!(model = self.plan.model, worker = self.plan.number, %from, %to, ?event, "worker state");
            self.metrics.set_state(to);
        }
    }
}
