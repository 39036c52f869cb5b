//! The public view of a worker: its [`WorkerHandle`], its [`WorkerStatus`], how its process ended last, and why it is
//! lost.
//!
//! The owner in `supervisor/` or `remote/` publishes the status; a handle only reads it.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use super::demand::{Demand, DemandChange, DemandGuard, IdleTime};
use super::diagnosis::cause::{Diagnosis, FailureCause};
use super::endpoint::Endpoint;
use super::endpoint::crash_suspects::{CrashSuspects, Fingerprint};
use super::health::kv_cache::KvCacheGauge;
use super::load_gauge::{LoadGauge, LoadReport};
use super::pin::Pin;
use super::plan::Plan;
use super::state::WorkerState;
use super::worker_metrics::WorkerMetrics;
use crate::telemetry::files::LogFolder;

/// How a llama-server ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastExit {
    /// The exit code, unless a signal ended the process.
    pub code: Option<i32>,
    /// The signal that ended the process.
    pub signal: Option<i32>,
    /// One sentence on the cause and what to do. It contains no path, no key and no text of a client.
    pub hint: Option<String>,
    /// When it ended.
    #[serde(skip)]
    pub at: Timestamp,
    /// The cause, for logs.
    #[serde(skip)]
    pub cause: FailureCause,
    /// The program that ended, by its name in logs.
    #[serde(skip)]
    pub program: String,
    /// The id of the model that it served.
    #[serde(skip)]
    pub model: String,
}

impl LastExit {
    /// Returns the exit of a process of the worker with this plan.
    pub(super) fn new(plan: &Plan, code: Option<i32>, signal: Option<i32>, diagnosis: Diagnosis) -> Self {
        let (hint, program, model) =
            (plan.program.adapt_hint(diagnosis.hint), plan.program.name().into_owned(), plan.model.clone());
        Self { code, signal, hint: Some(hint), at: Timestamp::now(), cause: diagnosis.cause, program, model }
    }
}

/// A snapshot of a worker, as its owner published it.
#[derive(Clone)]
pub struct WorkerStatus {
    /// The state of its state machine.
    pub state: WorkerState,
    /// Whether it was stopped, or never started, because it was not in use, and has not been ready since. Demand wakes
    /// it.
    pub asleep: bool,
    /// Where requests are sent; set only while the worker is [`WorkerState::Ready`].
    pub endpoint: Option<Arc<Endpoint>>,
    /// Restarts since the service started.
    pub restarts: u64,
    /// Whether a process has ever been ready. It tells a reader who missed the state [`WorkerState::Ready`].
    pub has_been_ready: bool,
    /// Processes that ended before they were ready, since the service started.
    pub failed_loads: u64,
    /// What tells the files that it serves from others: those of its last start, or before that, those that were found.
    pub files: u64,
    /// How the last process ended.
    pub last_exit: Option<LastExit>,
    /// Why a remote worker cannot serve, according to its last probe. It names the host and contains no secret.
    pub last_error: Option<String>,
}

impl WorkerStatus {
    /// Returns the state, and whether the worker is asleep.
    pub fn worker_state(&self) -> WorkerCondition {
        WorkerCondition { state: self.state, is_asleep: self.asleep }
    }

    /// Returns the status of a worker before its first start.
    pub(super) fn initial(asleep: bool) -> Self {
        Self {
            state: WorkerState::Stopped,
            asleep,
            endpoint: None,
            restarts: 0,
            has_been_ready: false,
            failed_loads: 0,
            files: 0,
            last_exit: None,
            last_error: None,
        }
    }
}

/// The part of a [`WorkerStatus`] that is cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerCondition {
    /// The state of its state machine.
    pub state: WorkerState,
    /// Whether it is asleep or being woken, see [`WorkerStatus::asleep`].
    pub is_asleep: bool,
}

/// A handle to a worker: its status, its demand, and the requests that it may have crashed on.
#[derive(Clone)]
pub struct WorkerHandle {
    pub(super) status: watch::Receiver<WorkerStatus>,
    pub(super) demand: Arc<Demand>,
    pub(super) suspects: Arc<CrashSuspects>,
    /// `None` in tests of other modules.
    pub(super) metrics: Option<Arc<WorkerMetrics>>,
    /// Where it logs, how far its load is, and its KV cache; `None` for a remote worker.
    pub(super) local: Option<Arc<LocalFacts>>,
}

/// What only a worker has that the gateway runs.
pub(super) struct LocalFacts {
    pub(super) logs: LogFolder,
    pub(super) load: LoadGauge,
    /// Whether it is a llama-server, and no other program.
    pub(super) is_llama_server: bool,
    pub(super) kv_cache: KvCacheGauge,
}

impl WorkerHandle {
    /// Returns the folder of its log files; `None` for a remote worker.
    pub fn log_folder(&self) -> Option<&LogFolder> {
        self.local.as_deref().map(|local| &local.logs)
    }

    /// Returns how far its load is; `None` if nothing is being loaded.
    pub fn load(&self) -> Option<LoadReport> {
        self.local.as_deref()?.load.report(tokio::time::Instant::now())
    }

    /// Returns the share of its KV cache that requests in progress use, from 0 to 1, as it was last seen; `None` if it
    /// does not tell that, or is no llama-server on this machine.
    pub fn kv_cache_usage(&self) -> Option<f64> {
        self.local.as_deref().filter(|local| local.is_llama_server).and_then(|local| local.kv_cache.get())
    }

    /// Returns the current status.
    pub fn status(&self) -> WorkerStatus {
        self.status.borrow().clone()
    }

    /// Returns the current state, and whether the worker is asleep.
    pub fn state(&self) -> WorkerCondition {
        self.status.borrow().worker_state()
    }

    /// Returns what tells the files that it serves from others.
    pub fn files(&self) -> u64 {
        self.status.borrow().files
    }

    /// Returns whether it is asleep in spite of demand, because it does not fit in memory beside pinned models.
    pub fn is_crowded_out(&self) -> bool {
        let status = self.status.borrow();
        let had_no_memory = |exit: &LastExit| exit.cause == FailureCause::NoRoom;
        let is_running = matches!(status.state, WorkerState::Starting | WorkerState::Loading | WorkerState::Ready);
        status.asleep && !is_running && status.last_exit.as_ref().is_some_and(had_no_memory)
    }

    /// Returns whether it has ever been ready.
    pub fn has_been_ready(&self) -> bool {
        self.status.borrow().has_been_ready
    }

    /// Returns the endpoint, if the worker is ready and the endpoint accepts requests: it is neither doubted, paused
    /// nor closed.
    pub fn endpoint(&self) -> Option<Arc<Endpoint>> {
        self.status.borrow().endpoint.as_ref().filter(|endpoint| endpoint.is_open()).cloned()
    }

    /// Returns whether [`Self::endpoint`] returns an endpoint.
    pub fn is_open(&self) -> bool {
        self.status.borrow().endpoint.as_ref().is_some_and(|endpoint| endpoint.is_open())
    }

    /// Wakes the worker, and keeps it loaded as long as the guard lives.
    pub fn demand(&self) -> DemandGuard {
        Demand::guard(&self.demand)
    }

    /// Tells the worker to finish its requests in flight and to stop until there is demand or [`Self::wake`] is called.
    /// Does not wait for that.
    pub fn unload(&self) {
        self.demand.tell(DemandChange::PutAway);
    }

    /// Sets how long the worker stays loaded without a request, in place of `IDLE_UNLOAD`.
    pub fn set_idle_time(&self, time: IdleTime) {
        self.demand.set_idle_time(time);
    }

    /// Returns whether, and why, the worker keeps its memory.
    pub fn pin(&self) -> Pin {
        self.demand.pin()
    }

    /// Sets whether the worker keeps its memory, for as long as this worker is supervised. Loads nothing.
    pub fn set_pin(&self, pin: Pin) {
        self.demand.set_pin(pin);
    }

    /// Starts the worker without demand. A failed worker is started too, with a new restart budget. Does not wait for
    /// that.
    pub fn wake(&self) {
        self.demand.tell(DemandChange::Wake);
    }

    /// Removes the worker from the metrics, because it no longer belongs to a served model.
    pub fn remove_metrics(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.unregister();
        }
    }

    /// Returns whether a request must not be retried, because workers crashed each time they served it.
    pub fn is_blocked(&self, fingerprint: Fingerprint) -> bool {
        self.suspects.is_blocked(fingerprint)
    }

    /// Returns whether a worker crashed while it served this request, and none has served it since.
    pub fn is_suspected(&self, fingerprint: Fingerprint) -> bool {
        self.suspects.is_suspected(fingerprint)
    }

    /// Returns a handle whose [`Self::changed`] reports only changes from now on.
    pub fn subscribe(&self) -> Self {
        let mut handle = self.clone();
        handle.status.mark_unchanged();
        handle
    }

    /// Waits for the next change of the status since this handle was made or last waited. Returns false when the owner
    /// of the worker has ended.
    pub async fn changed(&mut self) -> bool {
        self.status.changed().await.is_ok()
    }

    /// Returns whether its state is [`WorkerState::Ready`].
    pub fn is_ready(&self) -> bool {
        self.status.borrow().state == WorkerState::Ready
    }

    /// Returns why the worker will not serve again although it was not told to stop; `None` if it may serve again.
    pub fn loss(&self) -> Option<WorkerLoss> {
        let status = self.status.borrow();
        match status.state {
            WorkerState::Failed => Some(WorkerLoss::GivenUp(status.last_exit.clone())),
            _ => self.status.has_changed().is_err().then_some(WorkerLoss::Unwatched),
        }
    }
}

/// Why a worker is lost.
#[derive(Debug)]
pub enum WorkerLoss {
    /// It has failed: its restart budget is spent, or a restart cannot help. Contains how it ended last.
    GivenUp(Option<LastExit>),
    /// Its owner task has ended unexpectedly, which is a bug.
    Unwatched,
}

#[cfg(test)]
impl WorkerHandle {
    /// Returns a ready worker at this address, for tests, and the sender that changes its status.
    pub(crate) fn stub(address: std::net::SocketAddr) -> (watch::Sender<WorkerStatus>, Self) {
        let suspects = Arc::<CrashSuspects>::default();
        let key = http::HeaderValue::from_static("Bearer stub");
        let endpoint = Arc::new(Endpoint::new(address, key, Arc::clone(&suspects)).unwrap());
        let status = WorkerStatus {
            state: WorkerState::Ready,
            endpoint: Some(endpoint),
            has_been_ready: true,
            ..WorkerStatus::initial(false)
        };
        let (sender, status) = watch::channel(status);
        (sender, Self { status, demand: Arc::default(), suspects, metrics: None, local: None })
    }

    /// Returns whether there is demand for it.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.demand.is_empty()
    }

    /// Records that the worker crashed while it served this request.
    pub(crate) fn record_crash_by(&self, fingerprint: Fingerprint) {
        self.suspects.record_crash(&[fingerprint]);
    }
}
