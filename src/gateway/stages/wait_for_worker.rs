//! The wait of a request for a slot and for a worker to use it with.

use crate::fleet::{Lease, LeaseRequest};
use crate::gateway::accounting::record::Record;
use crate::gateway::admission::auth::Caller;
use crate::gateway::queue::ModelQueue;
use crate::gateway::queue::ticket::{QueueEntry, Ticket, WaitEnd};
use crate::gateway::request::proxied_request::ProxiedRequest;
use crate::gateway::service::Gateway;
use crate::gateway::upstream::retry::Retry;
use crate::refusal::Refusal;

impl Gateway {
    /// Waits for a slot and a worker, of the next model where one has none, and writes the request for it.
    ///
    /// # Errors
    /// The request cannot be served by any of the models that it may go to, or its caller is suspended by then.
    pub(in crate::gateway) async fn wait_for_worker(
        &self,
        request: &mut ProxiedRequest,
        caller: &Caller,
        retry: &mut Retry,
        mut queue_entry: QueueEntry,
        record: &mut Record,
    ) -> Result<(Ticket, Lease), Refusal> {
        let (ticket, mut lease) = loop {
            // Known before a worker is leased, because a lease counts against the quota of a backend.
            if let Some((unfit, refusal)) = request.unfit_workers(&retry.model_queue().model, retry.adapter())
                && !retry.exclude(unfit)
            {
                return Err(refusal);
            }
            let ModelQueue { model, queue } = &**retry.model_queue();
            let affinity = request.affinity(model, &self.prefix_seed, caller.key_id());
            let (avoid, unfit) = (retry.failed_workers(), retry.unfit_workers());
            let (class, key) = (request.request_class(), caller.shared_key_id());
            let lease_request = LeaseRequest { class, key, affinity: &affinity, avoid, unfit };
            let wait = queue.ticket_and_lease(queue_entry, caller.turn(), model, &lease_request);
            match retry.within_deadline(wait).await {
                Ok(tokens) => break tokens,
                // A reload has given the model new workers while the request waited.
                Err(WaitEnd::Moved(moved)) => queue_entry = retry.follow(*moved, caller)?,
                Err(WaitEnd::Refused(refusal)) => {
                    queue_entry = retry.next_after_refusal(&refusal, caller).ok_or(refusal)?;
                    record.set_model(retry.model_queue().model.id());
                    record.begin_wait();
                }
            }
        };
        record.queued = Some(ticket.waited);
        let written = match self.check_suspension(caller) {
            Ok(()) => request.write_for(&retry.model_queue().model, &lease).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = written {
            lease.record_not_sent();
            return Err(refusal);
        }
        Ok((ticket, lease))
    }
}
