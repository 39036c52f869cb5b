//! What the owner of a worker holds, and how it reports a change of state.
//!
//! Owns the data alone; what the owner does with them is in the files that add to [`Owner`].

use super::context::WorkerContext;
use super::restart_budget::RestartBudget;
use crate::models::ModelError;
use crate::pause_clock;
use crate::telemetry::throttled_warning::ThrottledWarning;
use crate::worker::demand::OwnerDemand;
use crate::worker::diagnosis::cause::Diagnosis;
use crate::worker::diagnosis::ending::not_started;
use crate::worker::endpoint::crash_suspects::CrashSuspects;
use crate::worker::handle::{LastExit, WorkerStatus};
use crate::worker::local_errors::shortage;
use crate::worker::memory::ledger::CrowdedOut;
use crate::worker::plan::Plan;
use crate::worker::process::blocking::BlockingTask;
use crate::worker::state::{WorkerEvent, WorkerState};
use crate::worker::worker_metrics::WorkerMetrics;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

/// A worker as the task that owns it knows it.
pub(super) struct Owner {
    pub(super) plan: Plan,
    pub(super) shared: Arc<WorkerContext>,
    /// The memory that it took the last time, in bytes.
    pub(super) learned: Option<u64>,
    pub(super) publish: watch::Sender<WorkerStatus>,
    pub(super) board: Arc<WorkerMetrics>,
    pub(super) budget: RestartBudget,
    pub(super) short: Shortage,
    pub(super) demand: OwnerDemand,
    /// Whether the next start follows a death.
    pub(super) is_restart: bool,
    pub(super) deaths: Arc<CrashSuspects>,
    /// Waits until the process before has given back its memory, and gives back its room then.
    pub(super) release: Option<JoinHandle<()>>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) file_check: BlockingTask<FileCheck>,
}

/// A shortage on this machine that keeps llama-server from being started.
#[derive(Default)]
pub(super) struct Shortage {
    since: Option<pause_clock::ActiveInstant>,
    pub(super) trouble: ThrottledWarning,
}

impl Shortage {
    /// It is still there. Whether it has been for so long.
    pub(super) fn has_lasted(&mut self, longest: Duration) -> bool {
        self.since.get_or_insert_with(pause_clock::ActiveInstant::now).elapsed() >= longest
    }
}

/// Why there is no process.
pub(super) enum StartFailure {
    /// Nobody wants it any more.
    Unwanted,
    /// This machine is short of something.
    Short(io::Error),
    /// It could not succeed.
    Hopeless(Diagnosis),
    /// There is no room for it beside pinned models.
    CrowdedOut(CrowdedOut),
}

impl From<io::Error> for StartFailure {
    fn from(error: io::Error) -> Self {
        if shortage(&error).is_some() { Self::Short(error) } else { Self::Hopeless(not_started(&error)) }
    }
}

/// How one life of a process ended.
pub(super) enum LifeEnd {
    /// Somebody asked for it.
    Asked,
    /// Nobody needed it.
    Asleep,
    /// By itself, or because it had to be killed.
    Died(LastExit),
}

/// The outcome of a check of the model file.
pub(super) type FileCheck = Result<(), ModelError>;

impl Owner {
    pub(super) fn state(&self) -> WorkerState {
        self.publish.borrow().state
    }

    /// Takes the step of the state machine and shows it; an event that means nothing now is ignored.
    pub(super) fn apply(&self, event: WorkerEvent) {
        if self.state().after(event).is_some_and(|next| next != self.state()) {
            self.apply_with(event, |_| {});
        }
    }

    /// The same, with what else changes by it: nobody sees one without the other.
    pub(super) fn apply_with(&self, event: WorkerEvent, change: impl FnOnce(&mut WorkerStatus)) {
        let from = self.state();
        self.publish.send_modify(|status| {
            status.state = from.after(event).unwrap_or(from);
            change(status);
        });
        let to = self.state();
        if to != from {
            debug!(model = self.plan.model, worker = self.plan.number, %from, %to, ?event, "worker state");
            self.board.set_state(to);
        }
    }
}
