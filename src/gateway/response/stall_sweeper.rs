//! The sweeper: one task that ends responses whose clients do not read, and frees what those responses hold.
//!
//! hyper polls a body only when the client has room for more, so the body of a stalled client can check no timeout and
//! cannot notice the end of the service. Its state therefore lives behind a [`SweepHandle`], which is listed in the
//! [`StallSweeper`], and [`StallSweeper::sweep`] checks all of them. This file knows neither what the state is nor what
//! the client is told.
//!
//! `MAX_CONNECTIONS` and `HTTP2_STREAMS` bound the length of the list.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::gateway::bounds::{SWEEP_INTERVAL, SWEEP_INTERVAL_ABORT};
use crate::pause_clock::ActiveInstant;

/// The list of all responses in progress, and the limits for stalled ones.
pub(crate) struct StallSweeper {
    list: Mutex<SweepList>,
    /// Longest time in which a client reads nothing.
    stall_timeout: Duration,
    /// Cancelled when the drain is over; every response in flight then ends.
    abort: CancellationToken,
}

#[derive(Default)]
struct SweepList {
    entries: Vec<Option<SweepEntry>>,
    /// Indexes of `entries` that are free.
    free: Vec<usize>,
}

struct SweepEntry {
    cell: Arc<dyn SweepTarget>,
    /// The generation that the sweeper saw last, and when it saw that generation first.
    last_seen: Option<(u64, ActiveInstant)>,
}

/// Why the sweeper ended a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TerminationReason {
    /// The client has read nothing for too long.
    Stalled,
    /// The deadline of the response has passed.
    TimedOut,
    /// The service is stopping.
    ShutDown,
}

/// State that the sweeper can drop.
pub(super) trait Sweepable: Send + 'static {
    /// Records that the sweeper is about to drop this value for this reason.
    fn terminate(&mut self, reason: TerminationReason);
}

/// Owns a `T` until the last poll, until the handle is dropped, or until the sweeper terminates it.
pub(super) struct SweepHandle<T: Sweepable> {
    cell: Arc<SweepCell<T>>,
    index: usize,
    sweeper: Arc<StallSweeper>,
}

/// The result of polling a `T`.
pub(super) enum PollStep<R> {
    /// It waits for something that will wake the task; it stays alive.
    Pending,
    /// It has something for the client; it stays alive.
    Item(R),
    /// It has the last item for the client, and is dropped.
    Last(R),
}

/// What the owner of the handle gets.
pub(super) enum PollOutcome<R> {
    /// More may follow.
    Item(R),
    /// Nothing will follow.
    Last(R),
    /// The value is gone; holds the reason if the sweeper terminated it.
    Ended(Option<TerminationReason>),
}

struct SweepCell<T> {
    state: Mutex<CellState<T>>,
    /// Odd while the client has to read before the next poll; even while the client waits for llama-server. Grows with
    /// each poll, so an unchanged value means that nothing happened. Changed only under the lock.
    generation: AtomicU64,
    deadline: Option<ActiveInstant>,
}

enum CellState<T> {
    Active(T),
    Done,
    Terminated(TerminationReason),
}

/// A cell as the sweeper sees it.
trait SweepTarget: Send + Sync {
    fn generation(&self) -> u64;
    fn deadline(&self) -> Option<ActiveInstant>;
    /// Terminates and returns the value, unless it is being polled or has been polled since this generation.
    fn take(&self, generation: u64, reason: TerminationReason) -> Option<Box<dyn Send>>;
}

/// Returns whether the client has to read before the value is polled again.
fn is_waiting_for_client(generation: u64) -> bool {
    generation % 2 == 1
}

impl StallSweeper {
    /// Creates a sweeper that ends a response after its client has read nothing for `stall_timeout`, and all responses
    /// once `abort` is cancelled.
    pub(crate) fn new(stall_timeout: Duration, abort: CancellationToken) -> Arc<Self> {
        Arc::new(Self { list: Mutex::default(), stall_timeout, abort })
    }

    /// Waits until all responses are to be aborted.
    pub(super) fn aborted(&self) -> WaitForCancellationFutureOwned {
        self.abort.clone().cancelled_owned()
    }

    /// Ends stalled and overdue responses at regular intervals, until `stop` is cancelled.
    pub(crate) async fn sweep(&self, stop: CancellationToken) {
        let mut timer = interval(SWEEP_INTERVAL);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_aborting = false;
        loop {
            tokio::select! {
                _ = timer.tick() => {}
                () = self.abort.cancelled(), if !is_aborting => {
                    is_aborting = true;
                    timer = interval(SWEEP_INTERVAL_ABORT);
                    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
                }
                () = stop.cancelled() => return,
            }
            self.sweep_once(ActiveInstant::now());
        }
    }

    fn sweep_once(&self, now: ActiveInstant) {
        let is_aborting = self.abort.is_cancelled();
        let mut terminated = Vec::new();
        let mut list = self.lock();
        for entry in list.entries.iter_mut().flatten() {
            let generation = entry.cell.generation();
            let since = match entry.last_seen {
                Some((seen, since)) if seen == generation => since,
                _ => now,
            };
            entry.last_seen = Some((generation, since));
            // A response that waits for llama-server is polled again in time by its own timer.
            if !is_waiting_for_client(generation) {
                continue;
            }
            let reason = if is_aborting {
                TerminationReason::ShutDown
            } else if entry.cell.deadline().is_some_and(|deadline| deadline <= now) {
                TerminationReason::TimedOut
            } else if now - since >= self.stall_timeout {
                TerminationReason::Stalled
            } else {
                continue;
            };
            terminated.extend(entry.cell.take(generation, reason));
        }
        // The dropped values may own handles themselves, whose drop locks the list: unlock it first.
        drop(list);
        drop(terminated);
    }

    fn lock(&self) -> MutexGuard<'_, SweepList> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SweepList {
    fn add(&mut self, cell: Arc<dyn SweepTarget>) -> usize {
        let entry = Some(SweepEntry { cell, last_seen: None });
        match self.free.pop() {
            Some(index) => {
                self.entries[index] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        }
    }

    fn remove(&mut self, index: usize) -> Option<SweepEntry> {
        self.free.push(index);
        self.entries[index].take()
    }
}

impl<T: Sweepable> SweepHandle<T> {
    /// Registers a value with the sweeper, which terminates it at `deadline` if the client is still reading then.
    pub(super) fn new(sweeper: &Arc<StallSweeper>, value: T, deadline: Option<ActiveInstant>) -> Self {
        // hyper does not poll the body before the client has room, so the first generation is one that waits for the
        // client.
        let cell = Arc::new(SweepCell {
            state: Mutex::new(CellState::Active(value)),
            generation: AtomicU64::new(1),
            deadline,
        });
        let listed: Arc<SweepCell<T>> = Arc::clone(&cell);
        let index = sweeper.lock().add(listed);
        Self { cell, index, sweeper: Arc::clone(sweeper) }
    }

    /// Polls the value under its lock, so that the sweeper cannot terminate it in the meantime.
    pub(super) fn poll_with<R>(&self, poll: impl FnOnce(&mut T) -> PollStep<R>) -> Poll<PollOutcome<R>> {
        let mut state = self.cell.lock();
        let value = match &mut *state {
            CellState::Active(value) => value,
            CellState::Done => return Poll::Ready(PollOutcome::Ended(None)),
            CellState::Terminated(reason) => return Poll::Ready(PollOutcome::Ended(Some(*reason))),
        };
        match poll(value) {
            PollStep::Pending => {
                self.cell.advance_generation(false);
                Poll::Pending
            }
            PollStep::Item(item) => {
                self.cell.advance_generation(true);
                Poll::Ready(PollOutcome::Item(item))
            }
            PollStep::Last(last) => {
                let value = mem::replace(&mut *state, CellState::Done);
                self.cell.advance_generation(false);
                // Unlock before the drop, which may take long.
                drop(state);
                drop(value);
                Poll::Ready(PollOutcome::Last(last))
            }
        }
    }

    /// Changes the value, if it still exists.
    pub(super) fn update(&self, change: impl FnOnce(&mut T)) {
        if let CellState::Active(value) = &mut *self.cell.lock() {
            change(value);
        }
    }
}

impl<T: Sweepable> Drop for SweepHandle<T> {
    fn drop(&mut self) {
        // The entry and `self.cell` share the value; the last of them drops it. The list must be unlocked by then.
        let entry = self.sweeper.lock().remove(self.index);
        drop(entry);
    }
}

impl<T> SweepCell<T> {
    fn lock(&self) -> MutexGuard<'_, CellState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a new generation. Call it only under the lock, which makes `Relaxed` sufficient for the store.
    fn advance_generation(&self, waits_for_client: bool) {
        let next = (self.generation.load(Ordering::Relaxed) | 1) + 1 + u64::from(waits_for_client);
        self.generation.store(next, Ordering::Relaxed);
    }
}

impl<T: Sweepable> SweepTarget for SweepCell<T> {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn deadline(&self) -> Option<ActiveInstant> {
        self.deadline
    }

    fn take(&self, generation: u64, reason: TerminationReason) -> Option<Box<dyn Send>> {
        // A locked cell is being polled, so it is not stalled.
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if self.generation() != generation || !matches!(*state, CellState::Active(_)) {
            return None;
        }
        let CellState::Active(mut value) = mem::replace(&mut *state, CellState::Terminated(reason)) else {
            return None;
        };
        self.advance_generation(false);
        value.terminate(reason);
        Some(Box::new(value))
    }
}

#[cfg(test)]
#[path = "stall_sweeper_tests.rs"]
mod tests;
