//! The tasks that wait for the next piece of an answer in flight. Whatever the answer waits for wakes all of them: which
//! of them will be polled first is not known.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// The tasks that wait. Each client of the answer has one.
#[derive(Default)]
pub(super) struct FlightWaiters(Mutex<Vec<Waker>>);

impl FlightWaiters {
    /// Adds a task, which is woken once.
    pub(super) fn add(&self, task: &Waker) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|known| known.will_wake(task)) {
            waiting.push(task.clone());
        }
    }

    /// Wakes all tasks but this one, which needs no waking.
    pub(super) fn wake_others(&self, running: &Waker) {
        let waiting = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().filter(|task| !task.will_wake(running)).for_each(Waker::wake);
    }
}

impl Wake for FlightWaiters {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_others(Waker::noop());
    }
}
