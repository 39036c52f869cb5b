//! What answers hold while they are on their way, and the one task that takes it from those that nobody reads.
//!
//! hyper asks a body for more only when the client has room for it, so a body whose client does not read can look at no
//! clock and hear of no end of the service. What it holds therefore lives in a [`Hold`], which is listed in
//! [`Holdings`], and [`Holdings::sweep`] looks at all of them. Owns neither what is held nor what the client is told.
//!
//! The list is as long as there are answers at once, which `MAX_CONNECTIONS` and `HTTP2_STREAMS` bound.

use crate::gateway::bounds::{SWEEP_INTERVAL, SWEEP_INTERVAL_ABORT};
use crate::pause_clock::ActiveInstant;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::Poll;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Everything that is held at this moment.
pub(crate) struct StallSweeper {
    list: Mutex<SweepList>,
    /// Longest time in which a client may not ask for more.
    stall_timeout: Duration,
    /// Cancelled when the drain is over: what is still in flight ends.
    abort: CancellationToken,
}

#[derive(Default)]
struct SweepList {
    entries: Vec<Option<SweepEntry>>,
    free: Vec<usize>,
}

struct SweepEntry {
    cell: Arc<dyn SweepTarget>,
    /// The turn in which the sweeper saw it last, and when it saw that turn first.
    last_seen: Option<(u64, ActiveInstant)>,
}

/// Why something was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TerminationReason {
    /// The client has not asked for more for too long.
    Stalled,
    /// It should have been over by now.
    TimedOut,
    /// The service ends.
    ShutDown,
}

/// What can be held.
pub(super) trait Sweepable: Send + 'static {
    /// It is about to be dropped, for this reason.
    fn terminate(&mut self, why: TerminationReason);
}

/// Holds a `T` until its owner ends it, is dropped, or the sweeper takes it.
pub(super) struct SweepHandle<T: Sweepable> {
    cell: Arc<SweepCell<T>>,
    index: usize,
    sweeper: Arc<StallSweeper>,
}

/// What the owner's look at a `T` has led to.
pub(super) enum PollStep<R> {
    /// It waits for something that will wake it, and goes on holding.
    Pending,
    /// It has something for the client, and goes on holding.
    Item(R),
    /// It has the last thing for the client, and holds nothing any more.
    Last(R),
}

/// What the owner gets.
pub(super) enum PollOutcome<R> {
    /// More may follow.
    Item(R),
    /// Nothing will follow.
    Last(R),
    /// There is nothing any more; why, if the sweeper took it.
    Ended(Option<TerminationReason>),
}

struct SweepCell<T> {
    state: Mutex<CellState<T>>,
    /// Odd while it is the client's turn to ask for more, even while the client waits; never the same again. Changed only
    /// under the lock.
    generation: AtomicU64,
    deadline: Option<ActiveInstant>,
}

enum CellState<T> {
    Active(T),
    Done,
    Terminated(TerminationReason),
}

/// Of a cell, what the sweeper needs.
trait SweepTarget: Send + Sync {
    fn generation(&self) -> u64;
    fn deadline(&self) -> Option<ActiveInstant>;
    /// What it holds, unless it is being looked at or no longer in this turn.
    fn take(&self, turn: u64, why: TerminationReason) -> Option<Box<dyn Send>>;
}

fn is_waiting_for_client(turn: u64) -> bool {
    turn % 2 == 1
}

impl StallSweeper {
    /// Where clients may leave a piece untouched for so long, and everything is taken once `cut` is cancelled.
    pub(crate) fn new(stall: Duration, cut: CancellationToken) -> Arc<Self> {
        Arc::new(Self { list: Mutex::default(), stall_timeout: stall, abort: cut })
    }

    /// Ready when everything is about to be taken.
    pub(super) fn aborted(&self) -> WaitForCancellationFutureOwned {
        self.abort.clone().cancelled_owned()
    }

    /// Takes what has been held too long, until `stop` is cancelled.
    pub(crate) async fn sweep(&self, stop: CancellationToken) {
        let mut ticks = interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut cutting = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.abort.cancelled(), if !cutting => {
                    cutting = true;
                    ticks = interval(SWEEP_INTERVAL_ABORT);
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                }
                () = stop.cancelled() => return,
            }
            self.sweep_once(ActiveInstant::now());
        }
    }

    fn sweep_once(&self, now: ActiveInstant) {
        let is_cut = self.abort.is_cancelled();
        let mut taken = Vec::new();
        let mut list = self.lock();
        for entry in list.entries.iter_mut().flatten() {
            let turn = entry.cell.generation();
            let since = match entry.last_seen {
                Some((seen, since)) if seen == turn => since,
                _ => now,
            };
            entry.last_seen = Some((turn, since));
            // Whatever waits for something else than its client is woken in time, by its own clock.
            if !is_waiting_for_client(turn) {
                continue;
            }
            let why = if is_cut {
                TerminationReason::ShutDown
            } else if entry.cell.deadline().is_some_and(|deadline| deadline <= now) {
                TerminationReason::TimedOut
            } else if now - since >= self.stall_timeout {
                TerminationReason::Stalled
            } else {
                continue;
            };
            taken.extend(entry.cell.take(turn, why));
        }
        // What is dropped may itself be in the list.
        drop(list);
        drop(taken);
    }

    fn lock(&self) -> MutexGuard<'_, SweepList> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SweepList {
    fn add(&mut self, cell: Arc<dyn SweepTarget>) -> usize {
        let entry = Some(SweepEntry { cell, last_seen: None });
        match self.free.pop() {
            Some(place) => {
                self.entries[place] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        }
    }

    fn remove(&mut self, place: usize) -> Option<SweepEntry> {
        self.free.push(place);
        self.entries[place].take()
    }
}

impl<T: Sweepable> SweepHandle<T> {
    /// Holds it, until the deadline at most where the client is slow to take what there is.
    pub(super) fn new(holdings: &Arc<StallSweeper>, held: T, deadline: Option<ActiveInstant>) -> Self {
        // It is not looked at before the client has room: its turn.
        let cell =
            Arc::new(SweepCell { state: Mutex::new(CellState::Active(held)), generation: AtomicU64::new(1), deadline });
        let listed: Arc<SweepCell<T>> = Arc::clone(&cell);
        let place = holdings.lock().add(listed);
        Self { cell, index: place, sweeper: Arc::clone(holdings) }
    }

    /// Looks at what is held. While that lasts nobody takes it.
    pub(super) fn poll_with<R>(&self, look: impl FnOnce(&mut T) -> PollStep<R>) -> Poll<PollOutcome<R>> {
        let mut state = self.cell.lock();
        let held = match &mut *state {
            CellState::Active(held) => held,
            CellState::Done => return Poll::Ready(PollOutcome::Ended(None)),
            CellState::Terminated(why) => return Poll::Ready(PollOutcome::Ended(Some(*why))),
        };
        match look(held) {
            PollStep::Pending => {
                self.cell.advance_generation(false);
                Poll::Pending
            }
            PollStep::Item(one) => {
                self.cell.advance_generation(true);
                Poll::Ready(PollOutcome::Item(one))
            }
            PollStep::Last(last) => {
                let held = mem::replace(&mut *state, CellState::Done);
                self.cell.advance_generation(false);
                drop(state);
                drop(held);
                Poll::Ready(PollOutcome::Last(last))
            }
        }
    }

    /// Changes what is held, if it still is.
    pub(super) fn update(&self, change: impl FnOnce(&mut T)) {
        if let CellState::Active(held) = &mut *self.cell.lock() {
            change(held);
        }
    }
}

impl<T: Sweepable> Drop for SweepHandle<T> {
    fn drop(&mut self) {
        // The last of the two to be dropped drops what is held, when the list is free again.
        let entry = self.sweeper.lock().remove(self.index);
        drop(entry);
    }
}

impl<T> SweepCell<T> {
    fn lock(&self) -> MutexGuard<'_, CellState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on to a new turn, under the lock.
    fn advance_generation(&self, to_client: bool) {
        let next = (self.generation.load(Ordering::Relaxed) | 1) + 1 + u64::from(to_client);
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

    fn take(&self, turn: u64, why: TerminationReason) -> Option<Box<dyn Send>> {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if self.generation() != turn || !matches!(*state, CellState::Active(_)) {
            return None;
        }
        let CellState::Active(mut held) = mem::replace(&mut *state, CellState::Terminated(why)) else { return None };
        self.advance_generation(false);
        held.terminate(why);
        Some(Box::new(held))
    }
}

#[cfg(test)]
#[path = "stall_sweeper_tests.rs"]
mod tests;
