//! Queue tickets: a request that waits, holds a slot, or has yielded its slot and will come back.
//!
//! Dropping any of them releases what it holds. `mod.rs` and `fair_queue.rs` decide which request gets a slot.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{Queue, WaitOutcome};
use crate::gateway::bounds::{MAX_SLOTLESS_REQUESTS, RETRY_AFTER_UNKNOWN};
use crate::pause_clock::{self, ActiveInstant};
use crate::refusal::Refusal;

/// The result of entering a queue.
pub(crate) enum QueueEntry {
    /// The request may start at once.
    Granted(Ticket),
    /// The request waits for a slot.
    Waiting(Waiting),
}

/// A request that waits in the queue. Dropping it leaves the queue.
pub(crate) struct Waiting {
    pub(super) queue: Queue,
    pub(super) key: String,
    /// The number to leave the fair queue with.
    pub(super) number: i64,
    pub(super) outcome: oneshot::Receiver<WaitOutcome>,
    arrival: Arrival,
    needs_slot: bool,
}

/// The right of one request to be in flight, with a slot or without. Dropping it releases the slot.
pub(crate) struct Ticket {
    pub(super) queue: Queue,
    /// How long the request waited in queues, over all attempts.
    pub(crate) waited: Duration,
    pub(super) arrival: Arrival,
    /// When the ticket was granted.
    pub(super) granted: ActiveInstant,
    pub(super) kind: TicketKind,
}

/// When a request came to this queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) at: ActiveInstant,
    /// How long the request had waited in queues before that.
    pub(super) waited_before: Duration,
}

/// A request that has yielded its slot between two attempts, and will come back to the front of the queue.
pub(crate) struct Yielded {
    /// What it still holds: a slotless place, or a mark that makes the drain of the queue wait for it.
    ticket: Ticket,
}

/// What the drop of a ticket releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TicketKind {
    /// A slot.
    Slot,
    /// A place among the requests in flight without a slot.
    Slotless,
    /// A mark that the request comes back for a slot.
    Yielded,
    /// Nothing; it was released before.
    Released,
}

impl Queue {
    /// Takes a slot, or joins the queue under this key. A request that needs no slot takes a place in flight, or joins the
    /// line for those.
    ///
    /// Calls `charge` once there is capacity, before it is taken, so a request that finds the queue full is not charged.
    ///
    /// # Errors
    /// As [`Queue::check_capacity`]; also the error of `charge`. Nothing is taken then.
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
        // Slotless requests count only for the drain; the gauges count slots.
        let (line, places, kind) = match needs_slot {
            true => (&mut state.fair_queue, slots, TicketKind::Slot),
            false => (&mut state.slotless_line, MAX_SLOTLESS_REQUESTS, TicketKind::Slotless),
        };
        if line.try_start(places) {
            self.publish_counts(&mut state);
            return Ok(QueueEntry::Granted(self.new_ticket(arrival, now, kind)));
        }
        let (sender, outcome) = oneshot::channel();
        // Cannot fail: the capacity was checked under the same lock.
        let Ok(number) = line.join(key, sender) else {
            return Err(Refusal::QueueFull(state.estimated_wait(slots)));
        };
        self.grant_slots(&mut state);
        drop(state);
        let (queue, key) = (self.clone(), key.to_owned());
        Ok(QueueEntry::Waiting(Waiting { queue, key, number, outcome, arrival, needs_slot }))
    }

    /// Creates the ticket of a request that arrived at `arrival` and is admitted at `granted`.
    fn new_ticket(&self, arrival: Arrival, granted: ActiveInstant, kind: TicketKind) -> Ticket {
        let waited = arrival.waited_before.saturating_add(granted - arrival.at);
        Ticket { queue: self.clone(), waited, arrival, granted, kind }
    }
}

impl Ticket {
    /// Returns the refusal for a request whose worker is stopped because its model was removed; `None` if it was not.
    pub(crate) fn removal_refusal(&self) -> Option<Refusal> {
        self.queue.lock().closed.clone().filter(|refusal| matches!(refusal, Refusal::ModelRemoved(_)))
    }
}

impl QueueEntry {
    /// Whether the request waits for a slot.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting(waiting) if waiting.needs_slot)
    }

    /// Waits for the ticket until the queue's timeout. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// The refusal when the wait times out or the queue refuses its waiting requests.
    pub(crate) async fn ticket(self) -> Result<Ticket, Refusal> {
        match self {
            Self::Granted(ticket) => Ok(ticket),
            Self::Waiting(waiting) => waiting.ticket().await,
        }
    }
}

impl Waiting {
    /// Waits for the ticket until the queue's timeout.
    ///
    /// # Errors
    /// As [`QueueEntry::ticket`].
    pub(super) async fn ticket(mut self) -> Result<Ticket, Refusal> {
        let timeouts = self.queue.0.timeouts;
        let mut deadline = self.arrival.at + timeouts.queue.unwrap_or(timeouts.request);
        loop {
            match pause_clock::timeout_at(deadline, &mut self.outcome).await {
                Ok(Ok(WaitOutcome::Granted)) => {
                    // The grant was taken from the channel, so the drop of `self` does not release the slot.
                    let kind = if self.needs_slot { TicketKind::Slot } else { TicketKind::Slotless };
                    return Ok(self.queue.new_ticket(self.arrival, ActiveInstant::now(), kind));
                }
                Ok(Ok(WaitOutcome::Refused(refusal))) => return Err(refusal),
                Ok(Err(_)) => return Err(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN)),
                Err(_) => deadline = self.next_deadline()?,
            }
        }
    }
}

impl Waiting {
    /// Decides at a deadline whether the wait goes on. Returns the next deadline.
    ///
    /// Without `QUEUE_TIMEOUT` only the wait for a model that is not ready ends, `REQUEST_TIMEOUT` after the model was first
    /// seen not ready. While it is ready, the next deadline is a full `REQUEST_TIMEOUT` away. The wait of a request that needs
    /// no slot always ends.
    ///
    /// # Errors
    /// The refusal when the wait is over: `queue_timeout` if the model is ready, `model_loading` if it is not.
    fn next_deadline(&self) -> Result<ActiveInstant, Refusal> {
        let queue = &self.queue;
        let now = ActiveInstant::now();
        let mut state = queue.lock();
        let slots = (queue.0.slots)();
        state.record_readiness(slots > 0, now);
        let timeouts = queue.0.timeouts;
        match (slots > 0, timeouts.queue) {
            // Those in front of it have no slot that would be measured.
            (true, _) if !self.needs_slot => Err(Refusal::QueueTimeout(RETRY_AFTER_UNKNOWN)),
            (false, _) if !self.needs_slot => Err(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)),
            (true, Some(_)) => Err(Refusal::QueueTimeout(state.estimated_wait(slots))),
            (true, None) => Ok(now + timeouts.request),
            (false, Some(_)) => Err(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)),
            (false, None) => {
                let since = state.unready_since.map_or(self.arrival.at, |since| since.max(self.arrival.at));
                let due = since + timeouts.request;
                if due > now { Ok(due) } else { Err(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)) }
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        let line = if self.needs_slot { &mut state.fair_queue } else { &mut state.slotless_line };
        if line.leave(&self.key, self.number) {
            self.queue.publish_counts(&mut state);
        } else if let Ok(WaitOutcome::Granted) = self.outcome.try_recv() {
            // The slot was granted at the moment the client disconnected: pass it on.
            line.release_slot();
            match self.needs_slot {
                true => self.queue.grant_slots(&mut state),
                false => self.queue.grant_slotless(&mut state),
            }
        }
    }
}

impl Ticket {
    /// Releases the slot and waits at the front of the queue, because the worker went away before the slot was used. If the
    /// queue has been closed since, the wait ends at once with its refusal.
    pub(crate) fn requeue(mut self, key: &str) -> Waiting {
        // The fair queue takes the slot back itself, so the drop must not release it again.
        self.kind = TicketKind::Released;
        let (sender, outcome) = oneshot::channel();
        let mut state = self.queue.lock();
        let number = state.fair_queue.return_to_front(key, sender);
        self.queue.grant_or_refuse(&mut state);
        drop(state);
        let (queue, key, arrival) = (self.queue.clone(), key.to_owned(), self.arrival);
        Waiting { queue, key, number, outcome, arrival, needs_slot: true }
    }
}

impl Ticket {
    /// Releases the slot until the request comes back for its next attempt. A request without a slot keeps its place.
    pub(crate) fn yield_slot(self) -> Yielded {
        if self.kind != TicketKind::Slot {
            return Yielded { ticket: self };
        }
        // Before the slot is released by the drop of `self`: the queue must not look drained in between.
        self.queue.lock().yielded_requests += 1;
        let now = ActiveInstant::now();
        let ticket = self.queue.new_ticket(Arrival { at: now, waited_before: self.waited }, now, TicketKind::Yielded);
        Yielded { ticket }
    }
}

impl Yielded {
    /// Comes back to the front of the queue, regardless of its bound: the request was accepted before. The time of its
    /// earlier attempts does not count as waiting.
    pub(crate) fn requeue(self, key: &str) -> QueueEntry {
        let Self { ticket } = self;
        if ticket.kind != TicketKind::Yielded {
            return QueueEntry::Granted(ticket);
        }
        let queue = ticket.queue.clone();
        let arrival = Arrival { at: ActiveInstant::now(), ..ticket.arrival };
        // `ticket` lives until the end: its mark is removed after the waiting request was added.
        let mut state = queue.lock();
        let (sender, outcome) = oneshot::channel();
        let number = state.fair_queue.join_front(key, sender);
        queue.grant_or_refuse(&mut state);
        drop(state);
        QueueEntry::Waiting(Waiting { queue, key: key.to_owned(), number, outcome, arrival, needs_slot: true })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.kind == TicketKind::Released {
            return;
        }
        let mut state = self.queue.lock();
        match self.kind {
            TicketKind::Released => {}
            TicketKind::Yielded => {
                state.yielded_requests -= 1;
                self.queue.publish_counts(&mut state);
            }
            TicketKind::Slotless => {
                state.slotless_line.release_slot();
                self.queue.grant_slotless(&mut state);
            }
            TicketKind::Slot => {
                // The slot is released and granted to the next request under one lock, so that no newcomer can take it.
                state.fair_queue.release_slot();
                state.service_time.record(self.granted.elapsed());
                self.queue.grant_slots(&mut state);
            }
        }
    }
}
