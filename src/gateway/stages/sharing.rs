//! What a request takes of the limits that replicas share, after this replica's own have allowed it.

use crate::gateway::accounting::record::Record;
use crate::gateway::admission::auth::Caller;
use crate::gateway::admission::shared::share::ShareNeeds;
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::gateway::routes::route::{Route, RouteTarget};
use crate::gateway::service::Gateway;
use crate::refusal::Refusal;

impl Gateway {
    /// Takes what a request of this route needs of the shared limits of its key; does nothing without `LIMITS_STORE`, or
    /// without a key. What it takes is given back, or replaced by what was used, when the request ends.
    ///
    /// # Errors
    /// 429 for the first limit that is reached, of which nothing was taken then.
    pub(in crate::gateway) async fn take_shared(
        &self,
        route: &Route,
        caller: &Caller,
        record: &Record,
    ) -> Result<(), Refusal> {
        let Some((meter, share)) = caller.meter().and_then(|meter| Some((meter, meter.share()?))) else {
            return Ok(());
        };
        let is_for_worker = matches!(route.target, RouteTarget::Worker(_));
        let tokens = record.reservation.as_ref().map(|reservation| reservation.tokens());
        let needs = ShareNeeds {
            key: meter.key_id(),
            limits: meter.minute_limits(),
            // As `Retry::enqueue` and `answer_itself` charge them.
            is_charged: route.needs_slot || !is_for_worker,
            is_held: is_for_worker,
            reserved: caller.budgets().zip(tokens),
            person: caller.person(),
            arrived: record.arrived(),
        };
        let queues = self.model_queues.current();
        let retry_after = queues.only().map_or(RETRY_AFTER_UNKNOWN, |model_queue| model_queue.queue.retry_after());
        share.take(needs, retry_after).await
    }
}
