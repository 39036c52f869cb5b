//! What the threads of one lane share: where the gateway listens now, what is being asked of them, and what went wrong.

use crate::checks::invariants::Accounts;
use llamagate::pause_clock::BEAT_INTERVAL;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// How long a thread that has nothing to do waits before it looks again.
pub(crate) const IDLE_LOOK: Duration = Duration::from_millis(2);

/// One gateway process.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) url: String,
    pub(crate) health_url: String,
    pub(crate) pid: u32,
    /// Counts the gateways of this lane.
    pub(crate) life: u64,
}

/// Shared by the lane, its clients and its watcher.
pub(crate) struct Door {
    target: Mutex<Arc<Target>>,
    /// The gateway is being stopped, or is not there.
    stopping: AtomicBool,
    /// Clients are to finish what they do and to begin nothing.
    hushed: AtomicBool,
    over: AtomicBool,
    busy: AtomicUsize,
    /// When the gateway did not run for so long that it must notice, the last time perhaps until now.
    freezes: Mutex<Vec<(Instant, Option<Instant>)>>,
    violations: Mutex<Vec<String>>,
    pub(crate) accounts: Mutex<Accounts>,
}

/// A client that is doing something.
pub(crate) struct Busy<'a>(&'a Door);

/// Ends the other threads of a lane when the lane ends, in a panic too.
pub(crate) struct Closing<'a>(pub(crate) &'a Door);

impl Door {
    pub(crate) fn new(target: Target) -> Self {
        Door {
            target: Mutex::new(Arc::new(target)),
            stopping: AtomicBool::new(false),
            hushed: AtomicBool::new(false),
            over: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            freezes: Mutex::default(),
            violations: Mutex::default(),
            accounts: Mutex::default(),
        }
    }

    pub(crate) fn target(&self) -> Arc<Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on until `open`, what clients get may be nothing.
    pub(crate) fn close(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    pub(crate) fn open(&self, target: Target) {
        self.accounts().begin_life();
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(target);
        self.stopping.store(false, Ordering::SeqCst);
    }

    /// Whether something that began with `target` has met the end of a gateway.
    pub(crate) fn excuses(&self, target: &Target) -> bool {
        self.stopping.load(Ordering::SeqCst) || self.target().life != target.life
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(crate) fn hush(&self, hushed: bool) {
        self.hushed.store(hushed, Ordering::SeqCst);
    }

    /// From now on until `thaws` the gateway stands still, and llama-server with it.
    pub(crate) fn freezes(&self) {
        self.frozen().push((Instant::now(), None));
    }

    pub(crate) fn thaws(&self) {
        if let Some((_, end)) = self.frozen().last_mut() {
            *end = Some(Instant::now());
        }
    }

    /// The time in which the gateway ran since then, or more.
    pub(crate) fn ran_since(&self, begin: Instant) -> Duration {
        let now = Instant::now();
        let stood_still = |(from, to): &(Instant, Option<Instant>)| {
            let stood_still = to.unwrap_or(now).saturating_duration_since(begin.max(*from));
            stood_still.saturating_sub(BEAT_INTERVAL) // which counts as time
        };
        now.saturating_duration_since(begin).saturating_sub(self.frozen().iter().map(stood_still).sum())
    }

    fn frozen(&self) -> MutexGuard<'_, Vec<(Instant, Option<Instant>)>> {
        self.freezes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leave to begin something; none while the lane is hushed.
    pub(crate) fn enter(&self) -> Option<Busy<'_>> {
        self.busy.fetch_add(1, Ordering::SeqCst);
        let busy = Busy(self);
        (!self.hushed.load(Ordering::SeqCst)).then_some(busy)
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.busy.load(Ordering::SeqCst) == 0
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub(crate) fn violation(&self, what: String) {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}
