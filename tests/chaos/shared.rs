//! The state that the threads of one lane share: the gateway's address, pause and stop flags, and violations.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::checks::invariants::ClientCounts;
use llamagate::pause_clock::BEAT_INTERVAL;

/// The polling interval of a thread that has nothing to do, and of faults that wait for a condition.
pub(crate) const IDLE_POLL: Duration = Duration::from_millis(2);

/// One gateway process.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) url: String,
    pub(crate) health_url: String,
    pub(crate) pid: u32,
    /// 0 for the first gateway of the lane, one more for each replacement.
    pub(crate) gateway_number: u64,
}

/// Shared by the lane, its clients and the thread that watches the health port.
pub(crate) struct Shared {
    target: Mutex<Arc<Target>>,
    /// Whether the gateway is being stopped or does not run.
    stopping: AtomicBool,
    /// Whether clients finish their requests and begin no new ones.
    paused: AtomicBool,
    finished: AtomicBool,
    active_clients: AtomicUsize,
    /// Begin and end of each suspension that is long enough for the gateway to notice; no end while it lasts.
    suspensions: Mutex<Vec<(Instant, Option<Instant>)>>,
    violations: Mutex<Vec<String>>,
    /// The ids of requests that were cut since the last `take_cut`.
    cut: Mutex<Vec<String>>,
    pub(crate) counts: Mutex<ClientCounts>,
}

/// Counts a client as active until it is dropped.
pub(crate) struct ActiveClient<'a>(&'a Shared);

/// Tells the other threads of a lane to end when it is dropped, also by a panic.
pub(crate) struct FinishOnDrop<'a>(pub(crate) &'a Shared);

impl Shared {
    pub(crate) fn new(target: Target) -> Self {
        Shared {
            target: Mutex::new(Arc::new(target)),
            stopping: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            active_clients: AtomicUsize::new(0),
            suspensions: Mutex::default(),
            violations: Mutex::default(),
            cut: Mutex::default(),
            counts: Mutex::default(),
        }
    }

    pub(crate) fn target(&self) -> Arc<Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Marks the gateway as stopping: until `set_target`, a request may get no response.
    pub(crate) fn begin_stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Sets the gateway that clients use from now on.
    pub(crate) fn set_target(&self, target: Target) {
        self.counts().begin_gateway();
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(target);
        self.stopping.store(false, Ordering::SeqCst);
    }

    /// Whether a request to `target` may fail because the gateway was stopped in the meantime.
    pub(crate) fn is_excused(&self, target: &Target) -> bool {
        self.stopping.load(Ordering::SeqCst) || self.target().gateway_number != target.gateway_number
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
    }

    /// Records that the gateway and llama-server are suspended from now until `mark_resumed`.
    pub(crate) fn mark_suspended(&self) {
        self.lock_suspensions().push((Instant::now(), None));
    }

    pub(crate) fn mark_resumed(&self) {
        if let Some((_, end)) = self.lock_suspensions().last_mut() {
            *end = Some(Instant::now());
        }
    }

    /// Returns the time since `begin` without suspensions; never less than the gateway's own clock counted.
    pub(crate) fn running_time_since(&self, begin: Instant) -> Duration {
        let now = Instant::now();
        let suspended = |(from, to): &(Instant, Option<Instant>)| {
            let suspended = to.unwrap_or(now).saturating_duration_since(begin.max(*from));
            suspended.saturating_sub(BEAT_INTERVAL) // the gateway's clock counts up to this much of a pause
        };
        now.saturating_duration_since(begin).saturating_sub(self.lock_suspensions().iter().map(suspended).sum())
    }

    fn lock_suspensions(&self) -> MutexGuard<'_, Vec<(Instant, Option<Instant>)>> {
        self.suspensions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the caller as active; returns `None` while the clients are paused.
    pub(crate) fn try_begin(&self) -> Option<ActiveClient<'_>> {
        // Counted before the flag is read: a pause that is set after this read sees the client as active.
        self.active_clients.fetch_add(1, Ordering::SeqCst);
        let active = ActiveClient(self);
        (!self.paused.load(Ordering::SeqCst)).then_some(active)
    }

    /// Whether no client is active.
    pub(crate) fn is_idle(&self) -> bool {
        self.active_clients.load(Ordering::SeqCst) == 0
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::SeqCst)
    }

    pub(crate) fn report_violation(&self, violation: String) {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(violation);
    }

    /// Records that the worker of this request has gone.
    pub(crate) fn report_cut(&self, id: &str) {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).push(id.to_owned());
    }

    /// Returns the requests that were cut since the last call.
    pub(crate) fn take_cut(&self) -> Vec<String> {
        std::mem::take(&mut self.cut.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn counts(&self) -> MutexGuard<'_, ClientCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ActiveClient<'_> {
    fn drop(&mut self) {
        self.0.active_clients.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for FinishOnDrop<'_> {
    fn drop(&mut self) {
        self.0.finished.store(true, Ordering::SeqCst);
    }
}
