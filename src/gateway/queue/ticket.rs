//! Queue tickets: a request that waits, holds a slot, has yielded its slot and will come back, or has moved to the queue
//! of the model that replaces its own.
//!
//! Dropping any of them releases what it holds. `mod.rs` and `fair_queue.rs` decide which request gets a slot.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::fair_queue::Batch;
use super::{Arrival, ModelQueue, NewPlace, Place, Queue, WaitOutcome, Waiter};
use crate::gateway::admission::turn::{OwnedTurn, Turn};
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::pause_clock::{self, ActiveInstant};
use crate::refusal::Refusal;
use crate::settings::bounds::MAX_SLOTLESS_REQUESTS;

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
    pub(super) turn: OwnedTurn,
    place: Place,
    arrival: Arrival,
    needs_slot: bool,
}

/// A request whose model got new workers in a reload, and its entry in the queue of the new model.
pub(crate) struct Moved {
    pub(crate) model_queue: Arc<ModelQueue>,
    pub(crate) entry: QueueEntry,
}

/// How a wait ended without a slot.
pub(crate) enum WaitEnd {
    /// The request is refused.
    Refused(Refusal),
    /// The request goes on in the queue of another model.
    Moved(Box<Moved>),
}

impl From<Refusal> for WaitEnd {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
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
    /// Takes a slot, or joins the queue for this turn, for requests that a worker can compute together as `batch` says. A
    /// request that needs no slot takes a place in flight, or joins the line for those.
    ///
    /// Calls `admit` once there is capacity, before it is taken, so a request that finds the queue full is not charged. It is
    /// told whether a worker can serve now.
    ///
    /// # Errors
    /// As [`Queue::check_capacity`]; also the error of `admit`. Nothing is taken then.
    pub(crate) fn enter(
        &self,
        turn: Turn<'_>,
        needs_slot: bool,
        batch: Batch,
        admit: impl FnOnce(bool) -> Result<(), Refusal>,
    ) -> Result<QueueEntry, Refusal> {
        let now = ActiveInstant::now();
        let arrival = Arrival { at: now, waited_before: Duration::ZERO };
        let mut state = self.lock();
        let slots = (self.0.slots)();
        state.record_readiness(slots > 0, now);
        self.check_capacity_locked(&state, needs_slot, slots)?;
        admit(slots > 0)?;
        // Slotless requests count only for the drain; the gauges count slots.
        let (line, places, kind) = match needs_slot {
            true => (&mut state.fair_queue, slots, TicketKind::Slot),
            false => (&mut state.slotless_line, MAX_SLOTLESS_REQUESTS, TicketKind::Slotless),
        };
        if line.try_start(places, batch) {
            self.publish_counts(&mut state);
            return Ok(QueueEntry::Granted(self.new_ticket(arrival, now, kind)));
        }
        let (sender, outcome) = oneshot::channel();
        // Cannot fail: the capacity was checked under the same lock.
        let Ok(number) = line.join(turn, batch, Waiter { arrival, outcome: sender }) else {
            return Err(Refusal::QueueFull(state.estimated_wait(slots)));
        };
        self.grant_slots(&mut state);
        drop(state);
        Ok(QueueEntry::Waiting(self.waiting(turn, needs_slot, Place { number, outcome }, arrival)))
    }

    fn waiting(&self, turn: Turn<'_>, needs_slot: bool, place: Place, arrival: Arrival) -> Waiting {
        Waiting { queue: self.clone(), turn: turn.to_owned(), place, arrival, needs_slot }
    }

    /// Creates the ticket of a request that arrived at `arrival` and is admitted at `granted`.
    fn new_ticket(&self, arrival: Arrival, granted: ActiveInstant, kind: TicketKind) -> Ticket {
        let waited = arrival.waited_at(granted);
        Ticket { queue: self.clone(), waited, arrival, granted, kind }
    }
}

impl Ticket {
    /// Returns when the slot was granted; `None` for a request that needs none.
    pub(crate) fn slot_since(&self) -> Option<ActiveInstant> {
        (self.kind == TicketKind::Slot).then_some(self.granted)
    }

    /// Returns the refusal for a request whose worker is stopped because a reload has removed or replaced its model; `None`
    /// if none has, or its time to finish is not over.
    pub(crate) fn stop_refusal(&self) -> Option<Refusal> {
        let is_by_reload = |refusal: &Refusal| matches!(refusal, Refusal::ModelRemoved(_) | Refusal::ModelReplaced(..));
        self.queue.lock().closed.clone().filter(is_by_reload)
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
    /// The refusal when the wait times out or the queue refuses its waiting requests; the new entry when the request has
    /// moved to another queue.
    pub(crate) async fn ticket(self) -> Result<Ticket, WaitEnd> {
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
    pub(super) async fn ticket(mut self) -> Result<Ticket, WaitEnd> {
        let timeouts = self.queue.0.timeouts;
        let mut deadline = self.arrival.at + timeouts.queue.unwrap_or(timeouts.request);
        loop {
            match pause_clock::timeout_at(deadline, &mut self.place.outcome).await {
                Ok(Ok(WaitOutcome::Granted)) => {
                    // The grant was taken from the channel, so the drop of `self` does not release the slot.
                    let kind = if self.needs_slot { TicketKind::Slot } else { TicketKind::Slotless };
                    return Ok(self.queue.new_ticket(self.arrival, ActiveInstant::now(), kind));
                }
                Ok(Ok(WaitOutcome::Refused(refusal))) => return Err(refusal.into()),
                Ok(Ok(WaitOutcome::Moved(place))) => return Err(WaitEnd::Moved(Box::new(self.moved_to(place)))),
                Ok(Err(_)) => return Err(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN).into()),
                Err(_) => deadline = self.next_deadline()?,
            }
        }
    }
}

impl Waiting {
    /// Returns the request at its place in the queue of another model.
    fn moved_to(&self, NewPlace { model_queue, place }: NewPlace) -> Moved {
        let waiting = model_queue.queue.waiting(self.turn.as_turn(), self.needs_slot, place, self.arrival);
        let entry = QueueEntry::Waiting(waiting);
        Moved { model_queue, entry }
    }

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
        if state.line(self.needs_slot).leave(self.turn.as_turn(), self.place.number) {
            self.queue.publish_counts(&mut state);
            return;
        }
        match self.place.outcome.try_recv() {
            Ok(WaitOutcome::Granted) => {
                // The slot was granted at the moment the client disconnected: pass it on.
                state.line(self.needs_slot).release_slot();
                match self.needs_slot {
                    true => self.queue.grant_slots(&mut state),
                    false => self.queue.grant_slotless(&mut state),
                }
            }
            Ok(WaitOutcome::Moved(place)) => {
                // It leaves the other queue, which takes the lock of that.
                drop(state);
                drop(self.moved_to(place));
            }
            Ok(WaitOutcome::Refused(_)) | Err(_) => {}
        }
    }
}

impl Ticket {
    /// Releases the slot and waits at the front of the queue, because the worker went away before the slot was used. If the
    /// queue has been closed since, the wait ends at once with its refusal.
    ///
    /// # Errors
    /// The entry in the queue of the model that replaces this one, if a reload came in between.
    pub(crate) fn requeue(mut self, turn: Turn<'_>) -> Result<Waiting, Moved> {
        let queue = self.queue.clone();
        let mut state = queue.lock();
        if queue.0.replacement.initialized() {
            drop(state);
            if let Some(moved) = self.move_to_replacement(turn) {
                return Err(moved);
            }
            state = queue.lock();
        }
        // The fair queue takes the slot back itself, so the drop must not release it again.
        self.kind = TicketKind::Released;
        let (sender, outcome) = oneshot::channel();
        let number = state.fair_queue.return_to_front(turn, Waiter { arrival: self.arrival, outcome: sender });
        queue.grant_or_refuse(&mut state);
        drop(state);
        Ok(queue.waiting(turn, true, Place { number, outcome }, self.arrival))
    }

    /// Whether a reload has given the model new workers since.
    pub(crate) fn is_replaced(&self) -> bool {
        self.queue.0.replacement.initialized()
    }

    /// Releases the slot and enters the queue of the model that replaces this one, at the front: the request has had its
    /// turn. `None` if its model was not replaced, or the new one was removed since.
    pub(crate) fn move_to_replacement(&self, turn: Turn<'_>) -> Option<Moved> {
        self.queue.enter_replacement(turn, self.arrival, self.kind == TicketKind::Slot)
    }
}

impl Queue {
    /// Waits until a reload gives the model new workers.
    pub(super) async fn replaced(&self) {
        self.0.replacement.wait().await;
    }

    /// Enters the queue of the model that replaces this one, or of the one that replaces that.
    fn enter_replacement(&self, turn: Turn<'_>, arrival: Arrival, needs_slot: bool) -> Option<Moved> {
        let mut model_queue = Arc::clone(self.0.replacement.get()?);
        loop {
            let queue = &model_queue.queue;
            let mut state = queue.lock();
            // Read under the lock: a request that enters before the next replacement moves with the others.
            if let Some(next) = queue.0.replacement.get().cloned() {
                drop(state);
                model_queue = next;
                continue;
            }
            if state.retired {
                return None;
            }
            let place = state.join_front(turn, needs_slot, arrival);
            queue.grant_or_refuse(&mut state);
            drop(state);
            let entry = QueueEntry::Waiting(queue.waiting(turn, needs_slot, place, arrival));
            return Some(Moved { model_queue, entry });
        }
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
    ///
    /// # Errors
    /// The entry in the queue of the model that replaces this one, if a reload came in between.
    pub(crate) fn requeue(self, turn: Turn<'_>) -> Result<QueueEntry, Moved> {
        let Self { ticket } = self;
        let needs_slot = ticket.kind == TicketKind::Yielded;
        let queue = ticket.queue.clone();
        let arrival = Arrival { at: ActiveInstant::now(), ..ticket.arrival };
        // `ticket` lives until the end: its mark is removed after the waiting request was added.
        let mut state = queue.lock();
        if queue.0.replacement.initialized() {
            drop(state);
            if let Some(moved) = queue.enter_replacement(turn, arrival, needs_slot) {
                return Err(moved);
            }
            state = queue.lock();
        }
        if !needs_slot {
            drop(state);
            return Ok(QueueEntry::Granted(ticket));
        }
        let place = state.join_front(turn, true, arrival);
        queue.grant_or_refuse(&mut state);
        drop(state);
        Ok(QueueEntry::Waiting(queue.waiting(turn, true, place, arrival)))
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
