//! The queue of each model, in which requests wait for a slot.
//!
//! [`Queue::enter`] grants a slot, queues the request or refuses it, in one step under one lock. A released slot goes
//! directly to the next waiting request. While the model is not ready no slot is granted, and requests wait for the model in
//! the same queue. Dropping a [`Waiting`](ticket::Waiting) leaves the queue; dropping a [`Ticket`](ticket::Ticket) releases
//! its slot. Requests that need no slot, such as `/tokenize`, have a line of their own, with a number of places in flight
//! that does not depend on the workers. When a reload gives a model new workers, the requests that wait move to the queue
//! of the new model.
//!
//! - `ticket.rs`: waiting requests and tickets; a response body keeps its ticket until the response ends
//! - `fair_queue.rs`: the order of the waiting requests, fair between keys and the people behind them
//! - `round_robin.rs`: lines that take turns
//! - `wait.rs`: waits for a slot and for a worker to use it with
//! - `unavailable.rs`: the refusal for each reason why a model cannot serve
//! - `model_queues.rs`: the queues of all models, and which model a request means
//! - `rescan.rs`: scans of the models folder that requests ask for
//! - `credits.rs`: whose turn it is among the priorities
//! - `order.rs`: the order in which waiting requests would be served
//! - `waiting_list.rs`: a look at a queue and who waits in it
//! - `job_capacity.rs`: how many more jobs of a platform's queue may be taken

mod credits;
mod fair_queue;
mod job_capacity;
pub(super) mod model_queues;
mod order;
pub(super) mod rescan;
mod round_robin;
pub(super) mod ticket;
pub(super) mod unavailable;
pub(super) mod wait;
pub(super) mod waiting_list;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, SetOnce, oneshot};
use tokio_util::sync::CancellationToken;

use crate::fleet::{Model, Unavailable};
use crate::gateway::admission::turn::Turn;
use crate::gateway::bounds::{MAX_WAITING_SLOTLESS_REQUESTS, RETRY_AFTER_LONGEST, RETRY_AFTER_UNKNOWN};
use crate::pause_clock::ActiveInstant;
use crate::refusal::Refusal;
use crate::settings::bounds::MAX_SLOTLESS_REQUESTS;
use crate::telemetry::metrics::Metrics;
use fair_queue::FairQueue;
use unavailable::refusal_of;

/// The queue of one model. Clones share it.
#[derive(Clone)]
pub struct Queue(Arc<QueueInner>);

/// A model and its queue.
pub struct ModelQueue {
    /// The model.
    pub model: Arc<Model>,
    /// The requests that wait for the model or hold one of its slots.
    pub queue: Queue,
}

impl ModelQueue {
    /// Returns whether the queue would accept one more request now, and a worker can serve. Then neither [`Queue::enter`] nor
    /// `Retry::select_servable_model` refuses a request for lack of room or of workers.
    pub(super) fn can_serve(&self, needs_slot: bool) -> bool {
        // A model with slots has a worker that can serve.
        let slots = (self.queue.0.slots)();
        slots > 0 && self.queue.check_capacity_locked(&self.queue.lock(), needs_slot, slots).is_ok()
    }
}

struct QueueInner {
    state: Mutex<QueueState>,
    /// Returns the slots of all workers that can serve now; 0 while the model is not ready.
    slots: Box<dyn Fn() -> usize + Send + Sync>,
    /// Cancelled when the queue is closed or retired, no request waits, and no ticket is held.
    drained: CancellationToken,
    /// Cancelled when the queue is closed.
    closing: CancellationToken,
    /// The model that a reload has put in the place of this queue's model. Set under the lock of `state`.
    replacement: SetOnce<Arc<ModelQueue>>,
    timeouts: QueueTimeouts,
    metrics: Arc<Metrics>,
    /// Notified when the number of active or waiting requests changes.
    changed: Arc<Notify>,
}

/// The outcome of a wait in the queue.
enum WaitOutcome {
    /// The request holds a slot now.
    Granted,
    /// The request gets no slot.
    Refused(Refusal),
    /// The request waits in the queue of another model now.
    Moved(NewPlace),
}

/// The place of a request that has moved to the queue of another model.
struct NewPlace {
    model_queue: Arc<ModelQueue>,
    place: Place,
}

/// A place in a fair queue.
struct Place {
    /// The number to leave the fair queue with.
    number: i64,
    outcome: oneshot::Receiver<WaitOutcome>,
}

/// When a request came to its queue.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    at: ActiveInstant,
    /// How long the request had waited in queues before that.
    waited_before: Duration,
}

impl Arrival {
    /// Returns how long the request has waited in queues by then.
    fn waited_at(self, now: ActiveInstant) -> Duration {
        self.waited_before.saturating_add(now - self.at)
    }
}

/// A request that waits, as its queue sees it.
struct Waiter {
    arrival: Arrival,
    outcome: oneshot::Sender<WaitOutcome>,
}

struct QueueState {
    fair_queue: FairQueue<Waiter>,
    service_time: ServiceTime,
    /// The refusal of every request once the queue is closed.
    closed: Option<Refusal>,
    /// Whether the model has left the configuration: the queue gets no new requests.
    retired: bool,
    /// The requests that need no slot: in flight, or waiting for their turn. The drain waits for them, too.
    slotless_line: FairQueue<Waiter>,
    /// Requests that have yielded their slot between two attempts. The drain waits for them, too.
    yielded_requests: usize,
    /// When the model was first seen not ready; `None` while it is ready. Updated when a request enters and
    /// while requests wait.
    unready_since: Option<ActiveInstant>,
    /// What this queue has added to the gauges of all queues: active requests and waiting requests.
    published_counts: (usize, usize),
}

/// How long a request may wait.
#[derive(Debug, Clone, Copy)]
pub struct QueueTimeouts {
    /// `QUEUE_TIMEOUT`. Without it only the wait for a model that is not ready is limited.
    pub queue: Option<Duration>,
    /// `REQUEST_TIMEOUT`, which limits the wait for a model that is not ready if there is no `QUEUE_TIMEOUT`.
    pub request: Duration,
    /// `MAX_PRIORITY_WAIT`, after which a request counts as one of high priority.
    pub priority: Duration,
}

impl Queue {
    /// Creates a queue in which at most `bound` requests wait. `slots` returns the slots of all workers that can serve now,
    /// 0 while the model is not ready. `changed` is notified when the number of active or waiting requests changes.
    pub fn new(
        bound: Option<usize>,
        timeouts: QueueTimeouts,
        slots: impl Fn() -> usize + Send + Sync + 'static,
        metrics: Arc<Metrics>,
        changed: Arc<Notify>,
    ) -> Self {
        let state = QueueState {
            fair_queue: FairQueue::new(bound),
            service_time: ServiceTime::default(),
            closed: None,
            retired: false,
            slotless_line: FairQueue::new(Some(MAX_WAITING_SLOTLESS_REQUESTS)),
            yielded_requests: 0,
            unready_since: None,
            published_counts: (0, 0),
        };
        Self(Arc::new(QueueInner {
            state: Mutex::new(state),
            slots: Box::new(slots),
            drained: CancellationToken::new(),
            closing: CancellationToken::new(),
            replacement: SetOnce::new(),
            timeouts,
            metrics,
            changed,
        }))
    }

    /// Checks that [`Queue::enter`] would accept one more request now.
    ///
    /// # Errors
    /// The refusal that [`Queue::enter`] would return: the queue is full, closed, replaced, or drained after it was retired.
    pub(super) fn check_capacity(&self, needs_slot: bool) -> Result<(), Refusal> {
        self.check_capacity_locked(&self.lock(), needs_slot, (self.0.slots)())
    }

    /// Returns how many requests that need a slot may enter now; `usize::MAX` without `MAX_QUEUE_SIZE`.
    pub(super) fn places(&self) -> usize {
        self.lock().fair_queue.places((self.0.slots)())
    }

    fn check_capacity_locked(&self, state: &QueueState, needs_slot: bool, slots: usize) -> Result<(), Refusal> {
        if let Some(refusal) = &state.closed {
            return Err(refusal.clone());
        }
        // The workers of a drained queue may be stopped, so the client has to resolve the model again. A queue that was
        // replaced has handed its requests on. Only a retired queue is either, as long as it is not closed.
        if state.retired && (self.is_drained() || self.0.replacement.initialized()) {
            return Err(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN));
        }
        match needs_slot {
            true if state.fair_queue.has_capacity(slots) => Ok(()),
            true => Err(Refusal::QueueFull(state.estimated_wait(slots))),
            false if state.slotless_line.has_capacity(MAX_SLOTLESS_REQUESTS) => Ok(()),
            false => Err(Refusal::QueueFull(RETRY_AFTER_UNKNOWN)),
        }
    }

    /// Refuses all waiting and future requests, because the service is shutting down.
    pub fn close(&self) {
        self.close_with(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN));
    }

    /// Refuses all waiting and future requests, because the workers of the model are being stopped: it was removed from the
    /// configuration, or has new workers in another queue.
    pub fn close_for_worker_stop(&self, model: &str) {
        self.close_with(match self.0.replacement.initialized() {
            true => Refusal::ModelReplaced(model.to_owned(), RETRY_AFTER_UNKNOWN),
            false => Refusal::ModelRemoved(model.to_owned()),
        });
    }

    fn close_with(&self, refusal: Refusal) {
        let mut state = self.lock();
        // Refused and closed under one lock: no request can enter in between.
        self.refuse_waiting(&mut state, &refusal);
        state.closed = Some(refusal);
        self.0.closing.cancel();
        self.publish_counts(&mut state);
    }

    /// Returns the refusal of waiting requests when the queue is closed.
    fn closing_refusal(&self) -> Refusal {
        self.lock().closed.clone().unwrap_or(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN))
    }

    /// Marks the queue as getting no new requests. It is drained once all its requests have been served.
    ///
    /// With a `replacement`, the requests that wait move to its queue, in their order, before those that wait there. Their
    /// timeouts go on.
    pub(super) fn retire(&self, replacement: Option<&Arc<ModelQueue>>) {
        let mut state = self.lock();
        state.retired = true;
        if let Some(replacement) = replacement {
            let _ = self.0.replacement.set(Arc::clone(replacement)); // a queue is retired once
            self.hand_on(&mut state, replacement);
        }
        self.publish_counts(&mut state);
    }

    /// Moves all waiting requests to the front of another queue.
    fn hand_on(&self, state: &mut QueueState, replacement: &Arc<ModelQueue>) {
        let queue = &replacement.queue;
        // Always the older queue's lock first.
        let mut target = queue.lock();
        let mut moved = Vec::new();
        for needs_slot in [true, false] {
            for (turn, Waiter { arrival, outcome }) in state.line(needs_slot).take_by_turn().into_iter().rev() {
                let place = target.join_front(turn.as_turn(), needs_slot, arrival);
                moved.push((outcome, NewPlace { model_queue: Arc::clone(replacement), place }));
            }
        }
        queue.grant_or_refuse(&mut target);
        drop(target);
        for (outcome, moved) in moved {
            // Cannot fail: a dropped `Waiting` leaves this queue under the lock of `state`.
            let _ = outcome.send(WaitOutcome::Moved(moved));
        }
    }

    /// Waits until the queue is closed or retired and no request is waiting or in flight, with a slot or without.
    pub async fn drained(&self) {
        self.0.drained.cancelled().await;
    }

    /// Whether the queue is drained; see [`Queue::drained`].
    pub(super) fn is_drained(&self) -> bool {
        self.0.drained.is_cancelled()
    }

    /// Follows the state of the model until `stop`: grants slots when it becomes ready, and refuses all waiting requests when
    /// it can no longer be expected to serve them.
    pub async fn follow(self, model: Arc<Model>, stop: CancellationToken) {
        let Some(mut changes) = model.subscribe() else { return };
        let following = async {
            let mut failed_loads = changes.failed_loads();
            loop {
                {
                    let mut state = self.lock();
                    let failed = changes.failed_loads();
                    let has_failed = std::mem::replace(&mut failed_loads, failed) != failed;
                    // With a fallback a refused request goes to the other model; without one it keeps waiting.
                    let has_fallback = !model.policy().fallbacks.is_empty();
                    let refusal = match model.available() {
                        Err(Unavailable::Failed) => Some(refusal_of(Unavailable::Failed, &model)),
                        Err(why @ (Unavailable::Down | Unavailable::BreakerOpen)) if has_fallback => {
                            Some(refusal_of(why, &model))
                        }
                        // A failed load is final for the waiting requests only if no other worker can be expected.
                        _ if has_failed && model.is_hopeless() => {
                            Some(Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN))
                        }
                        _ => None,
                    };
                    if let Some(refusal) = refusal {
                        self.refuse_waiting(&mut state, &refusal);
                    }
                    self.grant_slots(&mut state);
                }
                // The lock is released here: a guard must not be held across the wait.
                if !changes.next().await {
                    return;
                }
            }
        };
        stop.run_until_cancelled(following).await;
    }

    /// Returns the `Retry-After` for a client that is refused now.
    pub(super) fn retry_after(&self) -> Duration {
        self.lock().estimated_wait((self.0.slots)())
    }

    /// Returns the number of requests that hold a slot, and of those that wait for one.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.fair_queue.active(), state.fair_queue.waiting())
    }

    /// Grants free slots to waiting requests while the model is ready.
    fn grant_slots(&self, state: &mut QueueState) {
        if state.fair_queue.waiting() > 0 {
            let slots = (self.0.slots)();
            let now = ActiveInstant::now();
            state.record_readiness(slots > 0, now);
            let longest = self.0.timeouts.priority;
            let is_overdue = |waiter: &Waiter| waiter.arrival.waited_at(now) >= longest;
            while let Some(waiter) = state.fair_queue.grant_next(slots, is_overdue) {
                // Cannot fail: a dropped `Waiting` leaves the queue under this lock. One that is dropped after this finds the
                // grant in its channel and releases the slot.
                let _ = waiter.outcome.send(WaitOutcome::Granted);
            }
        }
        self.publish_counts(state);
    }

    /// Gives free places in flight to waiting requests that need no slot.
    fn grant_slotless(&self, state: &mut QueueState) {
        while let Some(waiter) = state.slotless_line.grant_next(MAX_SLOTLESS_REQUESTS, |_| false) {
            // As in `grant_slots`.
            let _ = waiter.outcome.send(WaitOutcome::Granted);
        }
        self.publish_counts(state);
    }

    /// Grants slots after a request was put back into the queue, or refuses it if the queue has been closed since.
    fn grant_or_refuse(&self, state: &mut QueueState) {
        match state.closed.clone() {
            Some(refusal) => self.refuse_waiting(state, &refusal),
            None => {
                self.grant_slotless(state);
                self.grant_slots(state);
            }
        }
    }

    /// Refuses all waiting requests.
    fn refuse_waiting(&self, state: &mut QueueState, refusal: &Refusal) {
        let slotless = state.slotless_line.take_all();
        for waiter in state.fair_queue.take_all().into_iter().chain(slotless) {
            let _ = waiter.outcome.send(WaitOutcome::Refused(refusal.clone()));
        }
        self.publish_counts(state);
    }

    /// Updates the gauges, notifies `changed`, and ends the drain if this was the last request. Called after every change of
    /// the counts.
    fn publish_counts(&self, state: &mut QueueState) {
        let now = (state.fair_queue.active(), state.fair_queue.waiting());
        let before = std::mem::replace(&mut state.published_counts, now);
        // All queues share the gauges, so only the difference is added.
        let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.0.metrics.active.inc_by(signed(now.0) - signed(before.0));
        self.0.metrics.queue_depth.inc_by(signed(now.1) - signed(before.1));
        if now != before {
            self.0.changed.notify_waiters();
        }
        let slotless = state.slotless_line.active() + state.slotless_line.waiting() + state.yielded_requests;
        if (state.closed.is_some() || state.retired) && now == (0, 0) && slotless == 0 {
            self.0.drained.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    /// Returns the line of the requests that need a slot, or of those that need none.
    fn line(&mut self, needs_slot: bool) -> &mut FairQueue<Waiter> {
        if needs_slot { &mut self.fair_queue } else { &mut self.slotless_line }
    }

    /// Adds a request at the front of its line, regardless of the bound: it was accepted before.
    fn join_front(&mut self, turn: Turn<'_>, needs_slot: bool, arrival: Arrival) -> Place {
        let (sender, outcome) = oneshot::channel();
        let number = self.line(needs_slot).join_front(turn, Waiter { arrival, outcome: sender });
        Place { number, outcome }
    }

    /// Records whether the model is ready now.
    fn record_readiness(&mut self, is_ready: bool, now: ActiveInstant) {
        match is_ready {
            true => self.unready_since = None,
            false => _ = self.unready_since.get_or_insert(now),
        }
    }

    /// Estimates the time until one of `slots` slots is released.
    fn estimated_wait(&self, slots: usize) -> Duration {
        let slots = u32::try_from(slots).unwrap_or(u32::MAX).max(1);
        self.service_time.mean.map_or(RETRY_AFTER_UNKNOWN, |mean| (mean / slots).min(RETRY_AFTER_LONGEST))
    }
}

/// The mean time for which a slot is held: an exponential moving average with a weight of 1/5.
#[derive(Default)]
struct ServiceTime {
    mean: Option<Duration>,
}

impl ServiceTime {
    /// Adds the time for which one slot was held.
    fn record(&mut self, held: Duration) {
        self.mean = Some(self.mean.map_or(held, |mean| (mean * 4 + held) / 5));
    }
}

#[cfg(test)]
mod tests;
