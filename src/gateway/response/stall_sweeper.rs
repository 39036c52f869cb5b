//! What answers hold while they are on their way, and the one task that takes it from those that nobody reads.
//!
//! hyper asks a body for more only when the client has room for it, so a body whose client does not read can look at no
//! clock and hear of no end of the service. What it holds therefore lives in a [`Hold`], which is listed in
//! [`Holdings`], and [`Holdings::sweep`] looks at all of them. Owns neither what is held nor what the client is told.
//!
//! The list is as long as there are answers at once, which `MAX_CONNECTIONS` and `HTTP2_STREAMS` bound.

use crate::awake::ActiveInstant;
use crate::gateway::bounds::{SWEEP_INTERVAL, SWEEP_INTERVAL_CUT};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::Poll;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Everything that is held at this moment.
pub(crate) struct Holdings {
    list: Mutex<List>,
    /// Longest time in which a client may not ask for more.
    stall: Duration,
    /// Cancelled when the drain is over: what is still in flight ends.
    cut: CancellationToken,
}

#[derive(Default)]
struct List {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
}

struct Entry {
    cell: Arc<dyn Sweepable>,
    /// The turn in which the sweeper saw it last, and when it saw that turn first.
    seen: Option<(u64, ActiveInstant)>,
}

/// Why something was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// The client has not asked for more for too long.
    Stalled,
    /// It should have been over by now.
    Late,
    /// The service ends.
    Cut,
}

/// What can be held.
pub(super) trait Held: Send + 'static {
    /// It is about to be dropped, for this reason.
    fn is_taken(&mut self, why: Taken);
}

/// Holds a `T` until its owner ends it, is dropped, or the sweeper takes it.
pub(super) struct Hold<T: Held> {
    cell: Arc<Cell<T>>,
    place: usize,
    holdings: Arc<Holdings>,
}

/// What the owner's look at a `T` has led to.
pub(super) enum Step<R> {
    /// It waits for something that will wake it, and goes on holding.
    Waits,
    /// It has something for the client, and goes on holding.
    Gives(R),
    /// It has the last thing for the client, and holds nothing any more.
    Ends(R),
}

/// What the owner gets.
pub(super) enum Given<R> {
    /// More may follow.
    One(R),
    /// Nothing will follow.
    Last(R),
    /// There is nothing any more; why, if the sweeper took it.
    Gone(Option<Taken>),
}

struct Cell<T> {
    state: Mutex<State<T>>,
    /// Odd while it is the client's turn to ask for more, even while the client waits; never the same again. Changed only
    /// under the lock.
    turn: AtomicU64,
    deadline: Option<ActiveInstant>,
}

enum State<T> {
    Held(T),
    Over,
    Taken(Taken),
}

/// Of a cell, what the sweeper needs.
trait Sweepable: Send + Sync {
    fn turn(&self) -> u64;
    fn deadline(&self) -> Option<ActiveInstant>;
    /// What it holds, unless it is being looked at or no longer in this turn.
    fn take(&self, turn: u64, why: Taken) -> Option<Box<dyn Send>>;
}

fn is_clients(turn: u64) -> bool {
    turn % 2 == 1
}

impl Holdings {
    /// Where clients may leave a piece untouched for so long, and everything is taken once `cut` is cancelled.
    pub(crate) fn new(stall: Duration, cut: CancellationToken) -> Arc<Self> {
        Arc::new(Self { list: Mutex::default(), stall, cut })
    }

    /// Ready when everything is about to be taken.
    pub(super) fn cut(&self) -> WaitForCancellationFutureOwned {
        self.cut.clone().cancelled_owned()
    }

    /// Takes what has been held too long, until `stop` is cancelled.
    pub(crate) async fn sweep(&self, stop: CancellationToken) {
        let mut ticks = interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut cutting = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.cut.cancelled(), if !cutting => {
                    cutting = true;
                    ticks = interval(SWEEP_INTERVAL_CUT);
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                }
                () = stop.cancelled() => return,
            }
            self.sweep_once(ActiveInstant::now());
        }
    }

    fn sweep_once(&self, now: ActiveInstant) {
        let is_cut = self.cut.is_cancelled();
        let mut taken = Vec::new();
        let mut list = self.lock();
        for entry in list.entries.iter_mut().flatten() {
            let turn = entry.cell.turn();
            let since = match entry.seen {
                Some((seen, since)) if seen == turn => since,
                _ => now,
            };
            entry.seen = Some((turn, since));
            // Whatever waits for something else than its client is woken in time, by its own clock.
            if !is_clients(turn) {
                continue;
            }
            let why = if is_cut {
                Taken::Cut
            } else if entry.cell.deadline().is_some_and(|deadline| deadline <= now) {
                Taken::Late
            } else if now - since >= self.stall {
                Taken::Stalled
            } else {
                continue;
            };
            taken.extend(entry.cell.take(turn, why));
        }
        // What is dropped may itself be in the list.
        drop(list);
        drop(taken);
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    fn add(&mut self, cell: Arc<dyn Sweepable>) -> usize {
        let entry = Some(Entry { cell, seen: None });
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

    fn remove(&mut self, place: usize) -> Option<Entry> {
        self.free.push(place);
        self.entries[place].take()
    }
}

impl<T: Held> Hold<T> {
    /// Holds it, until the deadline at most where the client is slow to take what there is.
    pub(super) fn new(holdings: &Arc<Holdings>, held: T, deadline: Option<ActiveInstant>) -> Self {
        // It is not looked at before the client has room: its turn.
        let cell = Arc::new(Cell { state: Mutex::new(State::Held(held)), turn: AtomicU64::new(1), deadline });
        let listed: Arc<Cell<T>> = Arc::clone(&cell);
        let place = holdings.lock().add(listed);
        Self { cell, place, holdings: Arc::clone(holdings) }
    }

    /// Looks at what is held. While that lasts nobody takes it.
    pub(super) fn step<R>(&self, look: impl FnOnce(&mut T) -> Step<R>) -> Poll<Given<R>> {
        let mut state = self.cell.lock();
        let held = match &mut *state {
            State::Held(held) => held,
            State::Over => return Poll::Ready(Given::Gone(None)),
            State::Taken(why) => return Poll::Ready(Given::Gone(Some(*why))),
        };
        match look(held) {
            Step::Waits => {
                self.cell.turns(false);
                Poll::Pending
            }
            Step::Gives(one) => {
                self.cell.turns(true);
                Poll::Ready(Given::One(one))
            }
            Step::Ends(last) => {
                let held = mem::replace(&mut *state, State::Over);
                self.cell.turns(false);
                drop(state);
                drop(held);
                Poll::Ready(Given::Last(last))
            }
        }
    }

    /// Changes what is held, if it still is.
    pub(super) fn change(&self, change: impl FnOnce(&mut T)) {
        if let State::Held(held) = &mut *self.cell.lock() {
            change(held);
        }
    }
}

impl<T: Held> Drop for Hold<T> {
    fn drop(&mut self) {
        // The last of the two to be dropped drops what is held, when the list is free again.
        let entry = self.holdings.lock().remove(self.place);
        drop(entry);
    }
}

impl<T> Cell<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on to a new turn, under the lock.
    fn turns(&self, to_client: bool) {
        let next = (self.turn.load(Ordering::Relaxed) | 1) + 1 + u64::from(to_client);
        self.turn.store(next, Ordering::Relaxed);
    }
}

impl<T: Held> Sweepable for Cell<T> {
    fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }

    fn deadline(&self) -> Option<ActiveInstant> {
        self.deadline
    }

    fn take(&self, turn: u64, why: Taken) -> Option<Box<dyn Send>> {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if self.turn() != turn || !matches!(*state, State::Held(_)) {
            return None;
        }
        let State::Held(mut held) = mem::replace(&mut *state, State::Taken(why)) else { return None };
        self.turns(false);
        held.is_taken(why);
        Some(Box::new(held))
    }
}

#[cfg(test)]
#[path = "stall_sweeper_tests.rs"]
mod tests;
