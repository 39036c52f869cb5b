//! What somebody in the queue has: a place in the line, a slot, or leave to come back. Each gives back what it holds when
//! it is dropped. Who gets what is `mod.rs`'s.

use super::{Queue, WaitOutcome};
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::pause_clock::{self, ActiveInstant};
use crate::refusal::Refusal;
use std::time::Duration;
use tokio::sync::oneshot;

/// A place in the line, or a slot at once.
pub(crate) enum QueueEntry {
    /// No need to wait.
    Granted(Ticket),
    /// In the line.
    Waiting(Waiting),
}

/// Somebody in the line.
pub(crate) struct Waiting {
    pub(super) queue: Queue,
    pub(super) key: String,
    pub(super) number: i64,
    pub(super) outcome: oneshot::Receiver<WaitOutcome>,
    arrival: Arrival,
}

/// A slot, until it is dropped.
pub(crate) struct Ticket {
    pub(super) queue: Queue,
    /// How long it took to get.
    pub(crate) waited: Duration,
    pub(super) arrival: Arrival,
    pub(super) granted: ActiveInstant,
    pub(super) kind: TicketKind,
}

/// When a request came to this queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) at: ActiveInstant,
    /// How long it had waited in queues before that.
    pub(super) waited_before: Duration,
}

/// Somebody who has left the line, and will come back to its front.
pub(crate) struct Yielded {
    /// In flight meanwhile: the line is not drained without it.
    ticket: Ticket,
    needs_slot: bool,
}

/// What a ticket has to give back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TicketKind {
    /// One of the slots.
    Slot,
    /// Leave to be in flight without one.
    Slotless,
    /// Nothing any more.
    Released,
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
    ) -> Result<QueueEntry, Refusal> {
        let now = ActiveInstant::now();
        let arrival = Arrival { at: now, waited_before: Duration::ZERO };
        let mut state = self.lock();
        let slots = (self.0.slots)();
        state.record_readiness(slots > 0, now);
        self.check_capacity_locked(&state, needs_slot, slots)?;
        charge()?;
        if !needs_slot {
            state.slotless_requests += 1;
            return Ok(QueueEntry::Granted(self.new_ticket(arrival, now, TicketKind::Slotless)));
        }
        if state.fair_queue.try_start(slots) {
            self.publish_counts(&mut state);
            return Ok(QueueEntry::Granted(self.new_ticket(arrival, now, TicketKind::Slot)));
        }
        let (sender, turn) = oneshot::channel();
        let Ok(number) = state.fair_queue.join(key, sender) else {
            return Err(Refusal::QueueFull(state.estimated_wait(slots)));
        };
        self.grant_slots(&mut state);
        drop(state);
        Ok(QueueEntry::Waiting(Waiting { queue: self.clone(), key: key.to_owned(), number, outcome: turn, arrival }))
    }

    /// Makes the ticket of a request that arrived then and is granted this now.
    fn new_ticket(&self, arrival: Arrival, granted: ActiveInstant, holds: TicketKind) -> Ticket {
        let waited = arrival.waited_before.saturating_add(granted - arrival.at);
        Ticket { queue: self.clone(), waited, arrival, granted, kind: holds }
    }
}

impl Ticket {
    /// What whoever holds it is told when its worker is stopped because the model is no longer served; none of any other.
    pub(crate) fn removal_refusal(&self) -> Option<Refusal> {
        self.queue.lock().closed.clone().filter(|refusal| matches!(refusal, Refusal::ModelRemoved(_)))
    }
}

impl QueueEntry {
    /// Whether it is a wait.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting(_))
    }

    /// Waits for the slot, as long as the queue's patience lasts. Dropping the future leaves the line.
    pub(crate) async fn ticket(self) -> Result<Ticket, Refusal> {
        match self {
            Self::Granted(ticket) => Ok(ticket),
            Self::Waiting(waiting) => waiting.ticket().await,
        }
    }
}

impl Waiting {
    pub(super) async fn ticket(mut self) -> Result<Ticket, Refusal> {
        let patience = self.queue.0.timeouts;
        let mut deadline = self.arrival.at + patience.queue.unwrap_or(patience.request);
        loop {
            match pause_clock::timeout_at(deadline, &mut self.outcome).await {
                Ok(Ok(WaitOutcome::Granted)) => {
                    // Taken out of its channel, the turn is not found again by the drop of `self`.
                    return Ok(self.queue.new_ticket(self.arrival, ActiveInstant::now(), TicketKind::Slot));
                }
                Ok(Ok(WaitOutcome::Refused(refusal))) => return Err(refusal),
                Ok(Err(_)) => return Err(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN)),
                Err(_) => deadline = self.next_deadline()?,
            }
        }
    }
}

impl Waiting {
    /// The wait has lasted as long as it may for now: when to look again, or why it is over. Without `QUEUE_TIMEOUT` only
    /// the wait for a model that is not ready has an end, `REQUEST_TIMEOUT` after it was first seen so; while it is
    /// ready, that is at least so long away.
    fn next_deadline(&self) -> Result<ActiveInstant, Refusal> {
        let queue = &self.queue;
        let now = ActiveInstant::now();
        let mut state = queue.lock();
        let slots = (queue.0.slots)();
        state.record_readiness(slots > 0, now);
        let patience = queue.0.timeouts;
        match (slots > 0, patience.queue) {
            (true, Some(_)) => Err(Refusal::QueueTimeout(state.estimated_wait(slots))),
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
        if state.fair_queue.leave(&self.key, self.number) {
            self.queue.publish_counts(&mut state);
        } else if let Ok(WaitOutcome::Granted) = self.outcome.try_recv() {
            // The turn came in the very moment in which the client left.
            state.fair_queue.release_slot();
            self.queue.grant_slots(&mut state);
        }
    }
}

impl Ticket {
    /// Gives the slot back for a place at the front of the line: the worker went away before the slot was used. In a line
    /// that was closed meanwhile there is no place; the wait ends at once.
    pub(crate) fn requeue(mut self, key: &str) -> Waiting {
        self.kind = TicketKind::Released;
        let (sender, turn) = oneshot::channel();
        let mut state = self.queue.lock();
        let number = state.fair_queue.return_to_front(key, sender);
        self.queue.grant_or_refuse(&mut state);
        drop(state);
        Waiting { queue: self.queue.clone(), key: key.to_owned(), number, outcome: turn, arrival: self.arrival }
    }
}

impl Ticket {
    /// Gives the slot back for a while.
    pub(crate) fn yield_slot(self) -> Yielded {
        self.queue.lock().slotless_requests += 1;
        let now = ActiveInstant::now();
        let pass = self.queue.new_ticket(Arrival { at: now, waited_before: self.waited }, now, TicketKind::Slotless);
        Yielded { ticket: pass, needs_slot: self.kind == TicketKind::Slot }
    }
}

impl Yielded {
    /// Comes back, before all others and whatever the bound: the request was let in before. The time in which it was
    /// served is none that it has waited.
    pub(crate) fn requeue(self, key: &str) -> QueueEntry {
        let Self { ticket: pass, needs_slot } = self;
        if !needs_slot {
            return QueueEntry::Granted(pass);
        }
        let queue = pass.queue.clone();
        let arrival = Arrival { at: ActiveInstant::now(), ..pass.arrival };
        let mut state = queue.lock();
        let (sender, turn) = oneshot::channel();
        let number = state.fair_queue.join_front(key, sender);
        queue.grant_or_refuse(&mut state);
        drop(state);
        QueueEntry::Waiting(Waiting { queue, key: key.to_owned(), number, outcome: turn, arrival })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.kind == TicketKind::Released {
            return;
        }
        let mut state = self.queue.lock();
        if self.kind == TicketKind::Slotless {
            state.slotless_requests -= 1;
            self.queue.publish_counts(&mut state);
            return;
        }
        state.fair_queue.release_slot();
        state.service_time.record(self.granted.elapsed());
        self.queue.grant_slots(&mut state);
    }
}
