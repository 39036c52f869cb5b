//! The queue in front of the writer.
//!
//! An event wakes the writer only if the queue was empty: the writer then sleeps for [`LEDGER_BATCH_TIME`] and takes all
//! that have come meanwhile.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::bounds::{KEPT_EVENTS, LEDGER_BATCH_TIME, WAITING_EVENTS};
use super::event::Recorded;

/// Events that wait, and what the writer is asked for.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<InboxState>,
    /// Notified when the writer has something to do.
    wanted: Condvar,
    /// Notified when the writer has done what was asked for.
    done: Condvar,
}

#[derive(Debug, Default)]
struct InboxState {
    waiting: Vec<Recorded>,
    dropped: u64,
    /// How often a flush was asked for.
    flushes_wanted: u64,
    /// Up to which of those everything was written, or could not be.
    flushes_done: u64,
    is_stopping: bool,
}

/// What the writer takes out at once.
pub(super) struct Delivery {
    pub(super) events: Vec<Recorded>,
    /// Events that found the queue full since the last delivery.
    pub(super) dropped: u64,
    /// The number of the last flush that was asked for.
    pub(super) flush: u64,
    /// Whether this is the last one.
    pub(super) is_last: bool,
    /// Whether someone waits for it.
    pub(super) is_urgent: bool,
}

impl Inbox {
    /// Queues an event. Waits for nothing but the lock.
    pub(super) fn put(&self, recorded: Recorded) {
        let mut state = self.lock();
        if state.waiting.len() >= WAITING_EVENTS || state.is_stopping {
            state.dropped += 1;
            return;
        }
        state.waiting.push(recorded);
        let is_first = state.waiting.len() == 1;
        drop(state);
        if is_first {
            self.wanted.notify_one();
        }
    }

    /// Takes what has come, once something has, or at `due`.
    pub(super) fn take(&self, due: Option<Instant>) -> Delivery {
        let mut state = self.lock();
        let left = |due: Instant| due.saturating_duration_since(Instant::now());
        while state.waiting.is_empty() && !state.is_urgent() && due.is_none_or(|due| !left(due).is_zero()) {
            state = match due {
                Some(due) => self.wait(state, left(due)),
                None => self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        let batch_end = Instant::now() + LEDGER_BATCH_TIME;
        while !state.waiting.is_empty() && !state.is_urgent() && !left(batch_end).is_zero() {
            state = self.wait(state, left(batch_end));
        }
        let events = std::mem::take(&mut state.waiting);
        let dropped = std::mem::take(&mut state.dropped);
        let (flush, is_last, is_urgent) = (state.flushes_wanted, state.is_stopping, state.is_urgent());
        Delivery { events, dropped, flush, is_last, is_urgent }
    }

    /// Gives the memory of a delivery back to the queue, if it is not much.
    pub(super) fn give_back(&self, mut emptied: Vec<Recorded>) {
        emptied.clear();
        let mut state = self.lock();
        if emptied.capacity() <= KEPT_EVENTS && state.waiting.capacity() == 0 {
            state.waiting = emptied;
        }
    }

    /// Says that the writer has dealt with everything up to this flush.
    pub(super) fn finish(&self, flush: u64) {
        self.lock().flushes_done = flush;
        self.done.notify_all();
    }

    /// Waits until the writer has dealt with what was put before, `longest` at most.
    pub(super) fn flush(&self, longest: Duration) {
        let mut state = self.lock();
        state.flushes_wanted += 1;
        let flush = state.flushes_wanted;
        self.wanted.notify_one();
        let is_pending = |state: &mut InboxState| state.flushes_done < flush;
        drop(self.done.wait_timeout_while(state, longest, is_pending));
    }

    /// Asks the writer to write what is there and to end.
    pub(super) fn stop(&self) {
        self.lock().is_stopping = true;
        self.wanted.notify_one();
    }

    fn wait<'a>(&self, state: MutexGuard<'a, InboxState>, longest: Duration) -> MutexGuard<'a, InboxState> {
        self.wanted.wait_timeout(state, longest).unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, InboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InboxState {
    fn is_urgent(&self) -> bool {
        self.is_stopping || self.flushes_done < self.flushes_wanted
    }
}
