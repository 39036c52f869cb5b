//! What is refused before the body of a request is read, at no cost to either side.

use std::sync::Arc;

use crate::gateway::accounting::record::Record;
use crate::gateway::admission::auth::{Caller, RequestSource};
use crate::gateway::admission::rate;
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::gateway::queue::ModelQueue;
use crate::gateway::queue::model_queues::check_single_kind;
use crate::gateway::request::proxied_request::RequestReaders;
use crate::gateway::routes::route::Route;
use crate::gateway::service::Gateway;
use crate::gateway::upstream::retry::Retry;
use crate::models::ModelKind;
use crate::refusal::Refusal;

impl Gateway {
    /// Refuses what can be refused without the body.
    pub(in crate::gateway) fn check_before_body(
        &self,
        route: &'static Route,
        required_kind: Option<ModelKind>,
        source: RequestSource,
        caller: &mut Caller,
        record: &mut Record,
    ) -> Result<(), Refusal> {
        if !self.is_open_to(source) {
            return Err(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN));
        }
        self.check_suspension(caller)?;
        if let Some(model_queue) = self.model_queues.current().only() {
            return self.check_single_model(model_queue, route, required_kind, caller, record);
        }
        check_rate(route, caller, record)?;
        caller.hold_permit(rate::enter(caller.meter(), || RETRY_AFTER_UNKNOWN)?);
        Ok(())
    }

    /// Refuses what the gateway's single model cannot serve now, or at all. Every request means that model, whatever name
    /// its body says.
    fn check_single_model(
        &self,
        model_queue: &Arc<ModelQueue>,
        route: &'static Route,
        required_kind: Option<ModelKind>,
        caller: &mut Caller,
        record: &mut Record,
    ) -> Result<(), Refusal> {
        record.set_model(model_queue.model.id());
        let model = model_queue.model.info();
        caller.check_model_or_adapter(&model)?;
        check_single_kind(&model, required_kind, caller)?;
        check_rate(route, caller, record)?;
        caller.hold_permit(rate::enter(caller.meter(), || model_queue.queue.retry_after())?);
        if model_queue.can_serve(route.needs_slot) {
            return Ok(());
        }
        // A check only: `Retry::enqueue` begins the attempts that count, because a reload may add models before that.
        let readers = RequestReaders::of_any(&model);
        let (model_queues, model_queue) = (Arc::clone(&self.model_queues), Arc::clone(model_queue));
        Retry::new(self.retry_policy, route, required_kind, readers, model_queues, model_queue)
            .select_servable_model(caller)
    }
}

/// Refuses a request that the key's limits a minute, or its budgets, do not allow now. A request that needs no slot is not
/// charged, and so not refused either.
fn check_rate(route: &Route, caller: &Caller, record: &Record) -> Result<(), Refusal> {
    if !route.needs_slot {
        return Ok(());
    }
    rate::check(caller.meter())?;
    caller.check_budget(record.arrived())
}
