//! What others see of a worker: its [`WorkerHandle`], its [`WorkerStatus`], how it ended last, and why it is lost.

use super::demand::{Demand, DemandChange, DemandGuard};
use super::diagnosis::cause::{Diagnosis, FailureCause};
use super::endpoint::Endpoint;
use super::endpoint::crash_suspects::{CrashSuspects, Fingerprint};
use super::plan::Plan;
use super::state::WorkerState;
use super::worker_metrics::WorkerMetrics;
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::watch;

/// How a llama-server ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastExit {
    /// The exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// One sentence on the cause and what to do. It holds no path, no key and nothing that a client wrote.
    pub hint: Option<String>,
    /// The cause by name, for logs.
    #[serde(skip)]
    pub cause: FailureCause,
    /// What has ended, as logs call it.
    #[serde(skip)]
    pub program: String,
    /// The model that it served.
    #[serde(skip)]
    pub model: String,
}

impl LastExit {
    /// Of a worker with this plan.
    pub(super) fn of(plan: &Plan, code: Option<i32>, signal: Option<i32>, found: Diagnosis) -> Self {
        let (hint, program, model) =
            (plan.program.told(found.hint), plan.program.name().into_owned(), plan.model.clone());
        Self { code, signal, hint: Some(hint), cause: found.cause, program, model }
    }
}

/// What others may know of a worker at this moment.
#[derive(Clone)]
pub struct WorkerStatus {
    /// The state of its state machine.
    pub state: WorkerState,
    /// Whether it was stopped, or never started, because nobody used it, and has not been ready since. Whoever wants it
    /// wakes it.
    pub asleep: bool,
    /// How to reach it; only while it is [`WorkerState::Prepared`].
    pub endpoint: Option<Arc<Endpoint>>,
    /// Restarts since the service started.
    pub restarts: u64,
    /// Whether a process has ever been ready; whoever looks too late for the state sees that.
    pub has_been_ready: bool,
    /// Processes that ended before they were ready, since the service started.
    pub failed_loads: u64,
    /// How the process before ended.
    pub last_exit: Option<LastExit>,
    /// Why a remote worker cannot serve, as its last probe says. It names the host, and nothing that is secret.
    pub last_error: Option<String>,
}

impl WorkerStatus {
    /// Returns where the worker stands.
    pub fn worker_state(&self) -> WorkerCondition {
        WorkerCondition { state: self.state, is_asleep: self.asleep }
    }

    /// Before the first start, for which it may sleep.
    pub(super) fn first(asleep: bool) -> Self {
        Self {
            state: WorkerState::Stopped,
            asleep,
            endpoint: None,
            restarts: 0,
            has_been_ready: false,
            failed_loads: 0,
            last_exit: None,
            last_error: None,
        }
    }
}

/// Where a worker stands, for those who need no more of its [`WorkerStatus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerCondition {
    /// The state of its state machine.
    pub state: WorkerState,
    /// Whether it is asleep or being woken; [`WorkerStatus::asleep`].
    pub is_asleep: bool,
}

/// A worker as others see it.
#[derive(Clone)]
pub struct WorkerHandle {
    pub(super) status: watch::Receiver<WorkerStatus>,
    pub(super) demand: Arc<Demand>,
    pub(super) suspects: Arc<CrashSuspects>,
    /// `None` in tests of other modules.
    pub(super) metrics: Option<Arc<WorkerMetrics>>,
}

impl WorkerHandle {
    /// The present status.
    pub fn status(&self) -> WorkerStatus {
        self.status.borrow().clone()
    }

    /// Returns where it stands at present.
    pub fn state(&self) -> WorkerCondition {
        self.status.borrow().worker_state()
    }

    /// Whether it sleeps though it was wanted: there was no room for it beside pinned models.
    pub fn is_crowded_out(&self) -> bool {
        let status = self.status.borrow();
        let has_found_none = |exit: &LastExit| exit.cause == FailureCause::NoRoom;
        let is_there = matches!(status.state, WorkerState::Starting | WorkerState::Loading | WorkerState::Ready);
        status.asleep && !is_there && status.last_exit.as_ref().is_some_and(has_found_none)
    }

    /// Whether it has ever been ready.
    pub fn has_been_ready(&self) -> bool {
        self.status.borrow().has_been_ready
    }

    /// The endpoint, if the worker is ready, nobody doubts it and requests may be sent to it.
    pub fn endpoint(&self) -> Option<Arc<Endpoint>> {
        self.status.borrow().endpoint.as_ref().filter(|endpoint| endpoint.is_open()).cloned()
    }

    /// Whether there is such an endpoint.
    pub fn is_open(&self) -> bool {
        self.status.borrow().endpoint.as_ref().is_some_and(|endpoint| endpoint.is_open())
    }

    /// Wakes the worker, and keeps it from sleep as long as what is returned lives.
    pub fn demand(&self) -> DemandGuard {
        Demand::guard(&self.demand)
    }

    /// Has the worker finish what it serves and sleep until it is wanted, or woken. Returns at once.
    pub fn unload(&self) {
        self.demand.tell(DemandChange::PutAway);
    }

    /// Starts the worker though nobody wants it, also one that has been given up: its restarts are counted anew. Returns at
    /// once.
    pub fn wake(&self) {
        self.demand.tell(DemandChange::Wake);
    }

    /// Shows nothing of the worker in the metrics any more: it is not one of those that are served.
    pub fn remove_metrics(&self) {
        if let Some(board) = &self.metrics {
            board.unregister();
        }
    }

    /// Whether a request is not to be tried again, because workers died each time they served it.
    pub fn is_blocked(&self, fingerprint: Fingerprint) -> bool {
        self.suspects.is_blocked(fingerprint)
    }

    /// Whether a worker died while it served this request, which has not been served since.
    pub fn is_suspected(&self, fingerprint: Fingerprint) -> bool {
        self.suspects.is_suspected(fingerprint)
    }

    /// The same worker for somebody who waits for what changes from now on.
    pub fn subscribe(&self) -> Self {
        let mut handle = self.clone();
        handle.status.mark_unchanged();
        handle
    }

    /// Waits for the next change of the status since this handle was made, or last waited. False when its owner has
    /// ended.
    pub async fn changed(&mut self) -> bool {
        self.status.changed().await.is_ok()
    }

    /// Whether it can be sent requests, as far as its state tells.
    pub fn is_ready(&self) -> bool {
        self.status.borrow().state == WorkerState::Ready
    }

    /// Why it serves never again though nobody has asked for that; none if it may.
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
    /// Its restarts are spent; how it ended last.
    GivenUp(Option<LastExit>),
    /// Its owner has ended, by a defect of ours.
    Unwatched,
}

#[cfg(test)]
impl WorkerHandle {
    /// A ready worker at this address, for the tests of others; it changes as the sender says.
    pub(crate) fn stub(address: std::net::SocketAddr) -> (watch::Sender<WorkerStatus>, Self) {
        let deaths = Arc::<CrashSuspects>::default();
        let key = http::HeaderValue::from_static("Bearer stub");
        let endpoint = Arc::new(Endpoint::new(address, key, Arc::clone(&deaths)).unwrap());
        let status = WorkerStatus {
            state: WorkerState::Ready,
            endpoint: Some(endpoint),
            has_been_ready: true,
            ..WorkerStatus::first(false)
        };
        let (sender, status) = watch::channel(status);
        (sender, Self { status, demand: Arc::default(), suspects: deaths, metrics: None })
    }

    /// Whether somebody wants it.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.demand.is_empty()
    }

    /// Has its worker die while it serves this.
    pub(crate) fn record_crash_by(&self, fingerprint: Fingerprint) {
        self.suspects.record_crash(&[fingerprint]);
    }
}
