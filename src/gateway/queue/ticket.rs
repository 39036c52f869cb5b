//! What somebody in the queue has: a place in the line, a slot, or leave to come back. Each gives back what it holds when
//! it is dropped. Who gets what is `mod.rs`'s.

use super::{Queue, Turn};
use crate::awake::{self, ActiveInstant};
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::refusal::Refusal;
use std::time::Duration;
use tokio::sync::oneshot;

/// A place in the line, or a slot at once.
pub(crate) enum Place {
    /// No need to wait.
    Slot(Ticket),
    /// In the line.
    InLine(Waiting),
}

/// Somebody in the line.
pub(crate) struct Waiting {
    pub(super) queue: Queue,
    pub(super) key: String,
    pub(super) number: i64,
    pub(super) turn: oneshot::Receiver<Turn>,
    arrival: Arrival,
}

/// A slot, until it is dropped.
pub(crate) struct Ticket {
    pub(super) queue: Queue,
    /// How long it took to get.
    pub(crate) waited: Duration,
    pub(super) arrival: Arrival,
    pub(super) granted: ActiveInstant,
    pub(super) holds: Grant,
}

/// When a request came to this queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) at: ActiveInstant,
    /// How long it had waited in queues before that.
    pub(super) waited_before: Duration,
}

/// Somebody who has left the line, and will come back to its front.
pub(crate) struct Aside {
    /// In flight meanwhile: the line is not drained without it.
    pass: Ticket,
    needs_slot: bool,
}

/// What a ticket has to give back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grant {
    /// One of the slots.
    Slot,
    /// Leave to be in flight without one.
    Pass,
    /// Nothing any more.
    Nothing,
}

impl Queue {
    /// A slot or a place in the line of this key, or the reason why there is neither; whoever needs no slot waits for
    /// none. Once it is sure that there is one, and before it is taken, `charge` may refuse too: what is refused for want
    /// of room is never charged.
    pub(crate) fn enter(
        &self,
        key: &str,
        needs_slot: bool,
        charge: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<Place, Refusal> {
        let now = ActiveInstant::now();
        let arrival = Arrival { at: now, waited_before: Duration::ZERO };
        let mut state = self.lock();
        let slots = (self.0.slots)();
        state.sees(slots > 0, now);
        self.check_room(&state, needs_slot, slots)?;
        charge()?;
        if !needs_slot {
            state.passes += 1;
            return Ok(Place::Slot(self.ticket(arrival, now, Grant::Pass)));
        }
        if state.line.start(slots) {
            self.show(&mut state);
            return Ok(Place::Slot(self.ticket(arrival, now, Grant::Slot)));
        }
        let (sender, turn) = oneshot::channel();
        let Ok(number) = state.line.join(key, sender) else {
            return Err(Refusal::QueueFull(state.time_until_a_place(slots)));
        };
        self.serve(&mut state);
        drop(state);
        Ok(Place::InLine(Waiting { queue: self.clone(), key: key.to_owned(), number, turn, arrival }))
    }

    /// Makes the ticket of a request that arrived then and is granted this now.
    fn ticket(&self, arrival: Arrival, granted: ActiveInstant, holds: Grant) -> Ticket {
        let waited = arrival.waited_before.saturating_add(granted - arrival.at);
        Ticket { queue: self.clone(), waited, arrival, granted, holds }
    }
}

impl Ticket {
    /// What whoever holds it is told when its worker is stopped because the model is no longer served; none of any other.
    pub(crate) fn removal(&self) -> Option<Refusal> {
        self.queue.lock().closed.clone().filter(|refusal| matches!(refusal, Refusal::ModelRemoved(_)))
    }
}

impl Place {
    /// Whether it is a wait.
    pub(crate) fn is_in_line(&self) -> bool {
        matches!(self, Self::InLine(_))
    }

    /// Waits for the slot, as long as the queue's patience lasts. Dropping the future leaves the line.
    pub(crate) async fn ticket(self) -> Result<Ticket, Refusal> {
        match self {
            Self::Slot(ticket) => Ok(ticket),
            Self::InLine(waiting) => waiting.ticket().await,
        }
    }
}

impl Waiting {
    pub(super) async fn ticket(mut self) -> Result<Ticket, Refusal> {
        let patience = self.queue.0.patience;
        let mut deadline = self.arrival.at + patience.queue.unwrap_or(patience.request);
        loop {
            match awake::timeout_at(deadline, &mut self.turn).await {
                Ok(Ok(Turn::Yours)) => {
                    // Taken out of its channel, the turn is not found again by the drop of `self`.
                    return Ok(self.queue.ticket(self.arrival, ActiveInstant::now(), Grant::Slot));
                }
                Ok(Ok(Turn::Never(refusal))) => return Err(refusal),
                Ok(Err(_)) => return Err(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN)),
                Err(_) => deadline = self.look_again()?,
            }
        }
    }
}

impl Waiting {
    /// The wait has lasted as long as it may for now: when to look again, or why it is over. Without `QUEUE_TIMEOUT` only
    /// the wait for a model that is not ready has an end, `REQUEST_TIMEOUT` after it was first seen so; while it is
    /// ready, that is at least so long away.
    fn look_again(&self) -> Result<ActiveInstant, Refusal> {
        let queue = &self.queue;
        let now = ActiveInstant::now();
        let mut state = queue.lock();
        let slots = (queue.0.slots)();
        state.sees(slots > 0, now);
        let patience = queue.0.patience;
        match (slots > 0, patience.queue) {
            (true, Some(_)) => Err(Refusal::QueueTimeout(state.time_until_a_place(slots))),
            (true, None) => Ok(now + patience.request),
            (false, Some(_)) => Err(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)),
            (false, None) => {
                let since = state.unready_since.map_or(self.arrival.at, |since| since.max(self.arrival.at));
                let due = since + patience.request;
                if due > now { Ok(due) } else { Err(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)) }
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        if state.line.leave(&self.key, self.number) {
            self.queue.show(&mut state);
        } else if let Ok(Turn::Yours) = self.turn.try_recv() {
            // The turn came in the very moment in which the client left.
            state.line.finish();
            self.queue.serve(&mut state);
        }
    }
}

impl Ticket {
    /// Gives the slot back for a place at the front of the line: the worker went away before the slot was used. In a line
    /// that was closed meanwhile there is no place; the wait ends at once.
    pub(crate) fn back_in_line(mut self, key: &str) -> Waiting {
        self.holds = Grant::Nothing;
        let (sender, turn) = oneshot::channel();
        let mut state = self.queue.lock();
        let number = state.line.return_to_front(key, sender);
        self.queue.serve_or_dissolve(&mut state);
        drop(state);
        Waiting { queue: self.queue.clone(), key: key.to_owned(), number, turn, arrival: self.arrival }
    }
}

impl Ticket {
    /// Gives the slot back for a while.
    pub(crate) fn step_aside(self) -> Aside {
        self.queue.lock().passes += 1;
        let now = ActiveInstant::now();
        let pass = self.queue.ticket(Arrival { at: now, waited_before: self.waited }, now, Grant::Pass);
        Aside { pass, needs_slot: self.holds == Grant::Slot }
    }
}

impl Aside {
    /// Comes back, before all others and whatever the bound: the request was let in before. The time in which it was
    /// served is none that it has waited.
    pub(crate) fn back_in_line(self, key: &str) -> Place {
        let Self { pass, needs_slot } = self;
        if !needs_slot {
            return Place::Slot(pass);
        }
        let queue = pass.queue.clone();
        let arrival = Arrival { at: ActiveInstant::now(), ..pass.arrival };
        let mut state = queue.lock();
        let (sender, turn) = oneshot::channel();
        let number = state.line.join_front(key, sender);
        queue.serve_or_dissolve(&mut state);
        drop(state);
        Place::InLine(Waiting { queue, key: key.to_owned(), number, turn, arrival })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.holds == Grant::Nothing {
            return;
        }
        let mut state = self.queue.lock();
        if self.holds == Grant::Pass {
            state.passes -= 1;
            self.queue.show(&mut state);
            return;
        }
        state.line.finish();
        state.service.note(self.granted.elapsed());
        self.queue.serve(&mut state);
    }
}
