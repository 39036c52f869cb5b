//! The wait for a slot, in one queue for each model.
//!
//! [`Queue::enter`] is one step under one lock: a slot, a place in the queue, or a refusal, and nothing between them. A
//! slot that is given back goes straight to the next request that waits. While the model is not ready no slot is given,
//! and requests wait for it in the same queue. Dropping a place leaves the queue; dropping a ticket gives the slot back.
//!
//! - `ticket.rs`: the right to be in flight, which the body of an answer keeps, and the place of a request that waits
//! - `fair_queue.rs`: who is next
//! - `wait.rs`: from a place to a slot and a worker
//! - `unavailable.rs`: the refusal for each reason why a model cannot serve
//! - `model_queues.rs`: the queue of each model, and which model a request means
//! - `job_capacity.rs`: how many jobs of a platform's queue may still be taken

mod fair_queue;
mod job_capacity;
pub(super) mod model_queues;
pub(super) mod ticket;
pub(super) mod unavailable;
mod wait;

use crate::fleet::{Model, Unavailable};
use crate::gateway::bounds::{MAX_SLOTLESS_REQUESTS, RETRY_AFTER_LONGEST, RETRY_AFTER_UNKNOWN};
use crate::pause_clock::ActiveInstant;
use crate::refusal::Refusal;
use crate::telemetry::metrics::Metrics;
use fair_queue::FairQueue;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use unavailable::refusal_of;

/// The line of one model.
#[derive(Clone)]
pub struct Queue(Arc<QueueInner>);

struct QueueInner {
    state: Mutex<QueueState>,
    /// The slots of all workers that can serve at this moment.
    slots: Box<dyn Fn() -> usize + Send + Sync>,
    /// Cancelled when the line is closed or retired, nobody waits, the last slot has been given back and the last pass
    /// has ended.
    drained: CancellationToken,
    /// Cancelled when the line is closed.
    closing: CancellationToken,
    timeouts: QueueTimeouts,
    metrics: Arc<Metrics>,
    /// Told when more or fewer hold a slot or wait.
    changed: Arc<Notify>,
}

/// What a waiter is told.
enum WaitOutcome {
    /// It holds a slot now.
    Granted,
    /// It will get none.
    Refused(Refusal),
}

struct QueueState {
    fair_queue: FairQueue<oneshot::Sender<WaitOutcome>>,
    service_time: ServiceTime,
    /// What everybody is told since the line was closed.
    closed: Option<Refusal>,
    /// Nobody new is sent here: the model is no longer served.
    retired: bool,
    /// Requests in flight that hold no slot; the drain waits for them too.
    slotless_requests: usize,
    /// Since when the model has been seen not ready; none while it is. Kept as long as somebody waits.
    unready_since: Option<ActiveInstant>,
    /// What this line has added to the gauges of all lines: requests that hold a slot, and those that wait.
    published_counts: (usize, usize),
}

/// How long a request may wait.
#[derive(Debug, Clone, Copy)]
pub struct QueueTimeouts {
    /// `QUEUE_TIMEOUT`; without one, only the wait for a model that is not ready has an end.
    pub queue: Option<Duration>,
    /// `REQUEST_TIMEOUT`, which bounds the wait for a model where there is no `QUEUE_TIMEOUT`.
    pub request: Duration,
}

impl Queue {
    /// A line where at most `bound` wait. `slots` says how many the workers that can serve at this moment have: none
    /// while the model is not ready. `changed` is told whenever more or fewer hold a slot or wait.
    pub fn new(
        bound: Option<usize>,
        patience: QueueTimeouts,
        slots: impl Fn() -> usize + Send + Sync + 'static,
        metrics: Arc<Metrics>,
        changed: Arc<Notify>,
    ) -> Self {
        let state = QueueState {
            fair_queue: FairQueue::new(bound),
            service_time: ServiceTime::default(),
            closed: None,
            retired: false,
            slotless_requests: 0,
            unready_since: None,
            published_counts: (0, 0),
        };
        Self(Arc::new(QueueInner {
            state: Mutex::new(state),
            slots: Box::new(slots),
            drained: CancellationToken::new(),
            closing: CancellationToken::new(),
            timeouts: patience,
            metrics,
            changed,
        }))
    }

    /// Whether [`Queue::enter`] would let one more in at this moment.
    pub(super) fn check_capacity(&self, needs_slot: bool) -> Result<(), Refusal> {
        self.check_capacity_locked(&self.lock(), needs_slot, (self.0.slots)())
    }

    fn check_capacity_locked(&self, state: &QueueState, needs_slot: bool, slots: usize) -> Result<(), Refusal> {
        if let Some(refusal) = &state.closed {
            return Err(refusal.clone());
        }
        // Its workers may be gone: whoever still comes has to look for the model again.
        if self.is_drained() {
            return Err(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN));
        }
        let (has_room, comes_back) = match needs_slot {
            true => (state.fair_queue.has_capacity(slots), state.estimated_wait(slots)),
            false => (state.slotless_requests < MAX_SLOTLESS_REQUESTS, RETRY_AFTER_UNKNOWN),
        };
        if has_room {
            return Ok(());
        }
        Err(Refusal::QueueFull(comes_back))
    }

    /// Sends everybody away who waits, and whoever comes later: the service is being stopped.
    pub fn close(&self) {
        self.close_with(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN));
    }

    /// The same because the workers are being stopped: of a model that is no longer served, or that has others now.
    pub fn close_for_worker_stop(&self, removed: Option<&str>) {
        let others = Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN);
        self.close_with(removed.map_or(others, |model| Refusal::ModelRemoved(model.to_owned())));
    }

    fn close_with(&self, refusal: Refusal) {
        let mut state = self.lock();
        self.refuse_waiting(&mut state, &refusal);
        state.closed = Some(refusal);
        self.0.closing.cancel();
        self.publish_counts(&mut state);
    }

    /// What whoever waits is told when the line is closed.
    fn closing_refusal(&self) -> Refusal {
        self.lock().closed.clone().unwrap_or(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN))
    }

    /// Nobody new comes: once those who wait have been served too, it is drained.
    pub(super) fn retire(&self) {
        let mut state = self.lock();
        state.retired = true;
        self.publish_counts(&mut state);
    }

    /// Waits until the line is closed or retired and nothing is in flight any more, be it with a slot or without.
    pub async fn drained(&self) {
        self.0.drained.cancelled().await;
    }

    /// Whether that is so.
    pub(super) fn is_drained(&self) -> bool {
        self.0.drained.is_cancelled()
    }

    /// Gives out slots when the model becomes ready, and answers everybody who waits when its load fails, until `stop`.
    pub async fn follow(self, model: Arc<Model>, stop: CancellationToken) {
        let Some(mut changes) = model.subscribe() else { return };
        let following = async {
            let mut failed_loads = changes.failed_loads();
            loop {
                {
                    let mut state = self.lock();
                    let failed = changes.failed_loads();
                    let has_failed = std::mem::replace(&mut failed_loads, failed) != failed;
                    // Those who may go elsewhere do, where others wait.
                    let may_go_elsewhere = !model.policy().fallbacks.is_empty();
                    let refusal = match model.available() {
                        Err(Unavailable::Failed) => Some(refusal_of(Unavailable::Failed, &model)),
                        Err(why @ (Unavailable::Down | Unavailable::BreakerOpen)) if may_go_elsewhere => {
                            Some(refusal_of(why, &model))
                        }
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
                if !changes.next().await {
                    return;
                }
            }
        };
        stop.run_until_cancelled(following).await;
    }

    /// When a client that is turned away now should come back.
    pub(super) fn retry_after(&self) -> Duration {
        self.lock().estimated_wait((self.0.slots)())
    }

    /// Requests that hold a slot, and requests that wait for one.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.fair_queue.active(), state.fair_queue.waiting())
    }

    /// Hands free slots to those who wait, as long as the model can serve them.
    fn grant_slots(&self, state: &mut QueueState) {
        if state.fair_queue.waiting() > 0 {
            let slots = (self.0.slots)();
            state.record_readiness(slots > 0, ActiveInstant::now());
            while let Some(waiter) = state.fair_queue.grant_next(slots) {
                // A waiter that has just left finds its turn in `Waiting::drop` and passes it on.
                let _ = waiter.send(WaitOutcome::Granted);
            }
        }
        self.publish_counts(state);
    }

    /// Serves somebody who has come back to the line, unless it was closed meanwhile.
    fn grant_or_refuse(&self, state: &mut QueueState) {
        match state.closed.clone() {
            Some(refusal) => self.refuse_waiting(state, &refusal),
            None => self.grant_slots(state),
        }
    }

    fn refuse_waiting(&self, state: &mut QueueState, refusal: &Refusal) {
        for waiter in state.fair_queue.take_all() {
            let _ = waiter.send(WaitOutcome::Refused(refusal.clone()));
        }
        self.publish_counts(state);
    }

    fn publish_counts(&self, state: &mut QueueState) {
        let now = (state.fair_queue.active(), state.fair_queue.waiting());
        let before = std::mem::replace(&mut state.published_counts, now);
        let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.0.metrics.active.inc_by(signed(now.0) - signed(before.0));
        self.0.metrics.queue_depth.inc_by(signed(now.1) - signed(before.1));
        if now != before {
            self.0.changed.notify_waiters();
        }
        if (state.closed.is_some() || state.retired) && now == (0, 0) && state.slotless_requests == 0 {
            self.0.drained.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    /// Notes whether the model is ready at this moment.
    fn record_readiness(&mut self, open: bool, now: ActiveInstant) {
        match open {
            true => self.unready_since = None,
            false => _ = self.unready_since.get_or_insert(now),
        }
    }

    /// The time in which one of so many slots comes free, and with it a place in the line.
    fn estimated_wait(&self, slots: usize) -> Duration {
        let slots = u32::try_from(slots).unwrap_or(u32::MAX).max(1);
        self.service_time.mean.map_or(RETRY_AFTER_UNKNOWN, |mean| (mean / slots).min(RETRY_AFTER_LONGEST))
    }
}

/// How long a slot is held: a mean in which the newest request counts for a fifth.
#[derive(Default)]
struct ServiceTime {
    mean: Option<Duration>,
}

impl ServiceTime {
    fn record(&mut self, held: Duration) {
        self.mean = Some(self.mean.map_or(held, |mean| (mean * 4 + held) / 5));
    }
}

#[cfg(test)]
mod tests;
