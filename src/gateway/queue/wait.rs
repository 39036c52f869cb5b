//! Waits for a slot and a worker, or, for a request that needs no slot, for a worker alone.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use super::ticket::{QueueEntry, Ticket, TicketKind, WaitEnd};
use super::unavailable::refusal_of;
use super::{Queue, QueueTimeouts};
use crate::fleet::{Lease, LeaseRequest, Model, RequestClass, Unavailable, WorkerChanges};
use crate::gateway::admission::turn::Turn;
use crate::gateway::bounds::{PROBED_WORKER_WAIT, RETRY_AFTER_UNKNOWN};
use crate::pause_clock::{self, ActiveInstant};
use crate::refusal::Refusal;

/// How the wait for a slot and a worker ends.
type LeaseOutcome = Result<(Ticket, Lease), WaitEnd>;

/// The wait for a slot and a worker, to be polled at once: it may hold both already. Most requests do, and do not pay for the
/// state of a wait.
pub(crate) enum LeaseWait<'a> {
    /// Nothing is waited for; `None` once the outcome is taken.
    Over(Option<LeaseOutcome>),
    Waiting(Pin<Box<dyn Future<Output = LeaseOutcome> + Send + 'a>>),
}

impl<'a> LeaseWait<'a> {
    /// Ends the wait at the deadline, with [`Refusal::BackendTimeout`].
    pub(crate) fn until(self, deadline: ActiveInstant) -> LeaseWait<'a> {
        match self {
            Self::Over(outcome) => Self::Over(outcome),
            Self::Waiting(wait) => Self::Waiting(Box::pin(async move {
                let outcome = pause_clock::timeout_at(deadline, wait).await;
                outcome.unwrap_or_else(|_| Err(Refusal::BackendTimeout.into()))
            })),
        }
    }
}

impl Future for LeaseWait<'_> {
    type Output = LeaseOutcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<LeaseOutcome> {
        match &mut *self {
            Self::Over(outcome) => outcome.take().map_or(Poll::Pending, Poll::Ready),
            Self::Waiting(wait) => wait.as_mut().poll(context),
        }
    }
}

impl Queue {
    /// Waits for a slot and for a worker to use it with.
    ///
    /// If the worker went away when the slot was granted, the request goes back to the front of the queue. A suspected request
    /// (a worker died while serving it) waits with its slot until no other suspect is in flight. A retry waits with its slot
    /// until a worker at which it has not failed has a free slot, and a request that some workers cannot serve until one that
    /// can has one.
    ///
    /// # Errors
    /// The refusal when the wait times out, the queue is closed, or the model cannot serve the request; the entry in the
    /// queue of the new model when a reload replaces this one.
    pub(crate) fn ticket_and_lease<'a>(
        &'a self,
        entry: QueueEntry,
        turn: Turn<'a>,
        model: &'a Model,
        request: &'a LeaseRequest<'a>,
    ) -> LeaseWait<'a> {
        let entry = match entry {
            QueueEntry::Granted(ticket) if ticket.kind == TicketKind::Slot => match model.lease(request) {
                Ok(lease) => return LeaseWait::Over(Some(Ok(self.with_lease(ticket, lease)))),
                Err(_) => QueueEntry::Granted(ticket),
            },
            entry => entry,
        };
        LeaseWait::Waiting(Box::pin(self.wait_for_lease(entry, turn, model, request)))
    }

    /// Counts how long the request has waited for its slot.
    fn with_lease(&self, ticket: Ticket, lease: Lease) -> (Ticket, Lease) {
        self.0.metrics.queue_wait.inc_by(ticket.waited.as_secs_f64());
        (ticket, lease)
    }

    /// Waits as [`Queue::ticket_and_lease`] does, for a request that cannot be sent at once.
    async fn wait_for_lease(
        &self,
        mut entry: QueueEntry,
        turn: Turn<'_>,
        model: &Model,
        request: &LeaseRequest<'_>,
    ) -> Result<(Ticket, Lease), WaitEnd> {
        loop {
            // Wakes a sleeping model, and keeps it awake while the request waits for a slot.
            let _demand = entry.is_waiting().then(|| model.demand_without(request.unfit));
            let mut ticket = entry.ticket().await.map_err(|end| match end {
                WaitEnd::Refused(refusal) => actual_refusal(refusal, model).into(),
                moved @ WaitEnd::Moved(_) => moved,
            })?;
            if ticket.kind != TicketKind::Slot {
                let arrival = ticket.arrival.at;
                let lease = tokio::select! {
                    biased;
                    () = self.replaced() => None,
                    lease = self.lease_without_slot(model, request, arrival) => Some(lease?),
                };
                if let Some(lease) = lease {
                    return Ok((ticket, lease));
                }
                let moved = ticket.move_to_replacement(turn);
                return Err(match moved {
                    Some(moved) => WaitEnd::Moved(Box::new(moved)),
                    None => Refusal::ModelRemoved(model.id().to_owned()).into(),
                });
            }
            let mut outcome = model.lease(request);
            if let (Err(Unavailable::Suspected | Unavailable::OnlyTriedBefore), Some(mut changes)) =
                (&outcome, model.subscribe())
            {
                let _demand = (!request.unfit.is_empty()).then(|| model.demand_without(request.unfit));
                outcome = tokio::select! {
                    biased;
                    () = self.replaced() => outcome,
                    outcome = ticket.worker_available(model, request, &mut changes) => outcome?,
                };
            }
            if outcome.is_err()
                && let Some(moved) = ticket.move_to_replacement(turn)
            {
                return Err(WaitEnd::Moved(Box::new(moved)));
            }
            match outcome {
                Ok(lease) => return Ok(self.with_lease(ticket, lease)),
                Err(
                    Unavailable::Busy
                    | Unavailable::OnlyTriedBefore
                    | Unavailable::Loading
                    | Unavailable::Asleep
                    | Unavailable::BeingProbed
                    | Unavailable::QuotaExhausted,
                ) => {
                    // The worker may serve again soon: it loads, is probed, or has no slot or quota left for now.
                    let waiting = ticket.requeue(turn).map_err(|moved| WaitEnd::Moved(Box::new(moved)))?;
                    entry = QueueEntry::Waiting(waiting);
                }
                Err(unavailable) => return Err(refusal_of(unavailable, model).into()),
            }
        }
    }

    /// Waits for a lease for a request that needs no slot, and has its place in flight. Waits while a worker is being probed
    /// and, unless the request is read-only, while the model loads or sleeps; that wait counts from the arrival, so that
    /// requests that had to wait for their place wait no longer than others.
    ///
    /// # Errors
    /// The refusal when the wait times out, the queue is closed, a load fails, or the model cannot serve the request.
    async fn lease_without_slot(
        &self,
        model: &Model,
        request: &LeaseRequest<'_>,
        arrival: ActiveInstant,
    ) -> Result<Lease, Refusal> {
        let is_inference = request.class != RequestClass::ReadOnly;
        let or_refusal = |outcome: Result<Lease, Unavailable>| {
            outcome.map_err(|why| match why {
                // Nothing loads it for this request, so a client that repeats it would do so forever.
                Unavailable::Asleep if !is_inference => Refusal::ModelNotLoaded(model.id().to_owned()),
                why => refusal_of(why, model),
            })
        };
        let Some(mut changes) = model.subscribe() else { return or_refusal(model.lease(request)) };
        let _demand = is_inference.then(|| model.demand_without(request.unfit));
        let (failed_loads, mut current_wait) = (changes.failed_loads(), None);
        loop {
            let outcome = model.lease(request);
            let (reason, timeout) = match outcome {
                Err(why @ (Unavailable::Loading | Unavailable::Asleep | Unavailable::QuotaExhausted))
                    if is_inference =>
                {
                    // A load failed during the wait; the next one may take as long, so the client is refused now.
                    if changes.failed_loads() != failed_loads {
                        return Err(Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN));
                    }
                    let QueueTimeouts { queue, request: longest, .. } = self.0.timeouts;
                    // A sleeping model becomes a loading one within the same wait: one timeout for both.
                    let reason = if why == Unavailable::QuotaExhausted { why } else { Unavailable::Loading };
                    (reason, queue.unwrap_or(longest))
                }
                Err(Unavailable::BeingProbed) => (Unavailable::BeingProbed, PROBED_WORKER_WAIT),
                _ => return or_refusal(outcome),
            };
            // Each kind of wait has its own timeout, counted from its own start, or from the arrival.
            let since = match current_wait {
                Some((before, since)) if before == reason => since,
                None if reason != Unavailable::BeingProbed => arrival,
                _ => ActiveInstant::now(),
            };
            current_wait = Some((reason, since));
            tokio::select! {
                change = pause_clock::timeout_at(since + timeout, changes.next()) => match change {
                    Ok(true) => {}
                    Ok(false) => return or_refusal(outcome),
                    Err(_) => return Err(refusal_of(reason, model)),
                },
                () = self.0.closing.cancelled() => return Err(self.closing_refusal()),
            }
        }
    }
}

impl Ticket {
    /// Waits while the request is suspected and another suspect is in flight, or while only workers at which it has failed,
    /// or that cannot serve it, have a free slot. Returns the first other outcome of a lease.
    ///
    /// # Errors
    /// The refusal when the wait times out or the queue is closed.
    async fn worker_available(
        &mut self,
        model: &Model,
        request: &LeaseRequest<'_>,
        changes: &mut WorkerChanges,
    ) -> Result<Result<Lease, Unavailable>, Refusal> {
        loop {
            let mut freed = pin!(model.slot_freed());
            // Registered before the lease is tried, so that a slot released after the attempt is not missed.
            freed.as_mut().enable();
            match model.lease(request) {
                Err(Unavailable::Suspected) => self.within_timeout(changes.suspect_left()).await?,
                Err(Unavailable::OnlyTriedBefore) => {
                    let change = async {
                        tokio::select! {
                            () = freed => true,
                            more = changes.next() => more,
                        }
                    };
                    self.within_timeout(change).await?;
                }
                outcome => return Ok(outcome),
            }
        }
    }

    /// Waits for `change` until `QUEUE_TIMEOUT` after the arrival. Without that setting, until `REQUEST_TIMEOUT` after the slot
    /// was granted, so that an idle slot is not held forever.
    ///
    /// # Errors
    /// The refusal when the wait times out, the queue is closed, or the model has no more changes (`change` returns false).
    async fn within_timeout(&mut self, change: impl Future<Output = bool>) -> Result<(), Refusal> {
        let inner = &self.queue.0;
        let deadline = match inner.timeouts.queue {
            Some(timeout) => self.arrival.at + timeout,
            None => self.granted + inner.timeouts.request,
        };
        tokio::select! {
            outcome = pause_clock::timeout_at(deadline, change) => match outcome {
                Ok(true) => {}
                Ok(false) => return Err(Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN)),
                Err(_) => return Err(Refusal::QueueTimeout(self.queue.retry_after())),
            },
            () = inner.closing.cancelled() => return Err(self.queue.closing_refusal()),
        }
        // The time spent with an unused slot counts as waiting.
        self.waited = self.arrival.waited_before.saturating_add(self.arrival.at.elapsed());
        Ok(())
    }
}

/// Replaces `model_loading` at the end of a wait if the model is not loading: its quota is exhausted, or its breaker is open.
fn actual_refusal(refusal: Refusal, model: &Model) -> Refusal {
    match (refusal, model.available()) {
        (Refusal::ModelLoading(_), Err(why @ (Unavailable::QuotaExhausted | Unavailable::BreakerOpen))) => {
            refusal_of(why, model)
        }
        (refusal, _) => refusal,
    }
}
