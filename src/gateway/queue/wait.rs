//! From a place in the line to a worker: the wait for one that serves, also of those who need no slot.

use super::ticket::{QueueEntry, Ticket, TicketKind};
use super::unavailable::refusal_of;
use super::{Queue, QueueTimeouts};
use crate::fleet::{Lease, LeaseRequest, Model, RequestClass, Unavailable, WorkerChanges};
use crate::gateway::bounds::{PROBED_WORKER_WAIT, RETRY_AFTER_UNKNOWN};
use crate::pause_clock::{self, ActiveInstant};
use crate::refusal::Refusal;
use std::pin::pin;

impl Queue {
    /// Waits for a slot and for a worker to use it with. A slot whose worker went away in that very moment goes back for
    /// a place at the front. A request under suspicion waits, with its slot, until no other one is in flight; one that has
    /// failed at a worker, until another worker has a slot for it.
    pub(crate) async fn ticket_and_lease(
        &self,
        mut place: QueueEntry,
        key: &str,
        model: &Model,
        wish: &LeaseRequest<'_>,
    ) -> Result<(Ticket, Lease), Refusal> {
        loop {
            // Whoever waits wakes a model that sleeps.
            let _want = place.is_waiting().then(|| model.demand());
            let mut ticket = place.ticket().await.map_err(|refusal| actual_refusal(refusal, model))?;
            if ticket.kind != TicketKind::Slot {
                return Ok((ticket, self.lease_without_slot(model, wish).await?));
            }
            let mut outcome = model.lease(wish);
            if let (Err(Unavailable::Suspected | Unavailable::OnlyTriedBefore), Some(mut changes)) =
                (&outcome, model.subscribe())
            {
                outcome = ticket.worker_available(model, wish, &mut changes).await?;
            }
            match outcome {
                Ok(lease) => {
                    self.0.metrics.queue_wait.inc_by(ticket.waited.as_secs_f64());
                    return Ok((ticket, lease));
                }
                Err(
                    Unavailable::Busy
                    | Unavailable::OnlyTriedBefore
                    | Unavailable::Loading
                    | Unavailable::Asleep
                    | Unavailable::BeingProbed
                    | Unavailable::QuotaExhausted,
                ) => {
                    place = QueueEntry::Waiting(ticket.requeue(key));
                }
                Err(unavailable) => return Err(refusal_of(unavailable, model)),
            }
        }
    }

    /// A lease for whoever needs no slot, and so waits in no line: it waits for a doubt to be looked into and, unless it
    /// only looks, for a model that loads or sleeps.
    async fn lease_without_slot(&self, model: &Model, wish: &LeaseRequest<'_>) -> Result<Lease, Refusal> {
        let settled = |outcome: Result<Lease, Unavailable>| outcome.map_err(|why| refusal_of(why, model));
        let Some(mut changes) = model.subscribe() else { return settled(model.lease(wish)) };
        let works = wish.class != RequestClass::ReadOnly;
        let _want = works.then(|| model.demand());
        let (failed_loads, mut waits_for) = (changes.failed_loads(), None);
        loop {
            let outcome = model.lease(wish);
            let (reason, patience) = match outcome {
                Err(why @ (Unavailable::Loading | Unavailable::Asleep | Unavailable::QuotaExhausted)) if works => {
                    if changes.failed_loads() != failed_loads {
                        return Err(Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN));
                    }
                    let QueueTimeouts { queue, request } = self.0.timeouts;
                    // Who sleeps is loaded in the same wait.
                    let reason = if why == Unavailable::QuotaExhausted { why } else { Unavailable::Loading };
                    (reason, queue.unwrap_or(request))
                }
                Err(Unavailable::BeingProbed) => (Unavailable::BeingProbed, PROBED_WORKER_WAIT),
                _ => return settled(outcome),
            };
            // Each kind of wait has a patience of its own.
            let since = match waits_for {
                Some((before, since)) if before == reason => since,
                _ => ActiveInstant::now(),
            };
            waits_for = Some((reason, since));
            tokio::select! {
                more = pause_clock::timeout_at(since + patience, changes.next()) => match more {
                    Ok(true) => {}
                    Ok(false) => return settled(outcome),
                    Err(_) => return Err(refusal_of(reason, model)),
                },
                () = self.0.closing.cancelled() => return Err(self.closing_refusal()),
            }
        }
    }
}

impl Ticket {
    /// Waits as long as it is suspected and another one of which that is true is in flight, or only a worker has a slot
    /// that has failed at it. What has come of it otherwise.
    async fn worker_available(
        &mut self,
        model: &Model,
        wish: &LeaseRequest<'_>,
        changes: &mut WorkerChanges,
    ) -> Result<Result<Lease, Unavailable>, Refusal> {
        loop {
            let mut freed = pin!(model.slot_freed());
            // Before the look: nothing that happens from here on is missed.
            freed.as_mut().enable();
            match model.lease(wish) {
                Err(Unavailable::Suspected) => self.within_timeout(changes.suspect_left()).await?,
                Err(Unavailable::OnlyTriedBefore) => {
                    let news = async {
                        tokio::select! {
                            () = freed => true,
                            more = changes.next() => more,
                        }
                    };
                    self.within_timeout(news).await?;
                }
                outcome => return Ok(outcome),
            }
        }
    }

    /// Waits for news of its workers, as long as the queue's patience lasts. Without `QUEUE_TIMEOUT` that is
    /// `REQUEST_TIMEOUT` from when the slot was given: it is not held for ever.
    async fn within_timeout(&mut self, news: impl Future<Output = bool>) -> Result<(), Refusal> {
        let inner = &self.queue.0;
        let deadline = match inner.timeouts.queue {
            Some(patience) => self.arrival.at + patience,
            None => self.granted + inner.timeouts.request,
        };
        tokio::select! {
            more = pause_clock::timeout_at(deadline, news) => match more {
                Ok(true) => {}
                Ok(false) => return Err(Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN)),
                Err(_) => return Err(Refusal::QueueTimeout(self.queue.retry_after())),
            },
            () = inner.closing.cancelled() => return Err(self.queue.closing_refusal()),
        }
        self.waited = self.arrival.waited_before.saturating_add(self.arrival.at.elapsed());
        Ok(())
    }
}

/// The end of a wait for a model that has nobody to serve: what it was in truth, where that was no loading.
fn actual_refusal(refusal: Refusal, model: &Model) -> Refusal {
    match (refusal, model.available()) {
        (Refusal::ModelLoading(_), Err(why @ (Unavailable::QuotaExhausted | Unavailable::BreakerOpen))) => {
            refusal_of(why, model)
        }
        (refusal, _) => refusal,
    }
}
