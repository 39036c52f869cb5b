//! What the threads of one lane share: where the gateway listens now, what is being asked of them, and what went wrong.

use super::invariants::Accounts;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// How long a thread that has nothing to do waits before it looks again.
pub(crate) const IDLE_LOOK: Duration = Duration::from_millis(2);

/// One gateway process.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) url: String,
    pub(crate) health_url: String,
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

    pub(crate) fn accounts(&self) -> std::sync::MutexGuard<'_, Accounts> {
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
