//! Which task a connection wakes, and when none.
//!
//! hyper's connection is a state machine on one side of channels, and the request on the other. Where one task polls both
//! sides, a wake-up from one side for the other would only have the task polled a second time for nothing. Wake-ups that
//! come from the socket, a timer or the runtime reach the task.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// The wake-ups of one connection.
#[derive(Default)]
pub(super) struct Wakeups {
    task: Mutex<Option<Waker>>,
    /// Whether nothing is woken now.
    is_muted: AtomicBool,
}

impl Wakeups {
    /// Directs them to this task from now on.
    pub(super) fn direct_to(&self, task: &Waker) {
        let mut directed = self.lock();
        if directed.as_ref().is_some_and(|known| known.will_wake(task)) {
            return;
        }
        let before = directed.replace(task.clone());
        // Unlocked first, because the last handle to a task may be dropped with it.
        drop(directed);
        drop(before);
    }

    /// Takes this step without waking anything. The connection must be polled after it, unless the step was its last.
    pub(super) fn mute<T>(&self, step: impl FnOnce() -> T) -> T {
        // Relaxed, because the step runs on this thread.
        self.is_muted.store(true, Ordering::Relaxed);
        let outcome = step();
        self.is_muted.store(false, Ordering::Relaxed);
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Wakeups {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_muted.load(Ordering::Relaxed) {
            return;
        }
        if let Some(task) = &*self.lock() {
            task.wake_by_ref();
        }
    }
}
