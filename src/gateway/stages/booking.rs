//! Who a request is booked on, once its body is known: the person behind the key, the priority that the request asks for,
//! and what it may use of the budgets.

use crate::gateway::accounting::record::Record;
use crate::gateway::admission::auth::Caller;
use crate::gateway::admission::budget::reservation::CallerBudgets;
use crate::gateway::prepared_request::ReceivedRequest;
use crate::gateway::request::body::RequestBody;
use crate::gateway::request::envelope::Envelope;
use crate::gateway::request::estimate::{ANSWER_LIMITS, answer_tokens};
use crate::gateway::request::person;
use crate::gateway::service::Gateway;
use crate::keys::Priority;
use crate::refusal::Refusal;

impl Gateway {
    /// Finds the person and the priority of a request, and reserves what it may use until its record closes. Returns the
    /// budgets that its response tells about: those that limit tokens.
    ///
    /// # Errors
    /// [`Refusal::InvalidParameter`] if a header names no person as it should; [`Refusal::BudgetExceeded`].
    pub(in crate::gateway) fn book(
        &self,
        request: &ReceivedRequest<'_>,
        caller: &mut Caller,
        record: &mut Record,
    ) -> Result<Option<CallerBudgets>, Refusal> {
        let ReceivedRequest { route, parts, envelope, body, .. } = *request;
        if caller.trusts_user_headers() {
            let name = person::of_request(envelope, body, &parts.headers)?;
            if let Some(name) = name {
                record.person = self.authenticator.set_person(caller, &name, record.arrived());
            }
        }
        caller.lower_priority(priority_asked_for(envelope, body));
        let Some(budgets) = caller.budgets() else { return Ok(None) };
        let told = budgets.limit_tokens().then(|| budgets.clone());
        if route.needs_slot {
            let (prompt, answer) = match &told {
                Some(budgets) => {
                    let default = || self.default_answer_tokens(request, caller);
                    (budgets.prompt_tokens(body.length()), answer_tokens(route, envelope, body, default))
                }
                None => (0, 0),
            };
            record.reservation = Some(budgets.reserve(prompt, answer, record.arrived())?);
        }
        Ok(told)
    }

    /// Returns the limit on the tokens of an answer that the model's `sampling` sets.
    fn default_answer_tokens(&self, request: &ReceivedRequest<'_>, caller: &Caller) -> Option<u64> {
        let snapshot = self.model_queues.snapshot();
        let found = snapshot.resolve(request.requested_model, request.required_kind, caller).ok()?;
        let sampling = &found.model.policy().rewrite.sampling;
        let limits = sampling.iter().filter(|(name, _)| ANSWER_LIMITS.contains(&name.as_str()));
        limits.filter_map(|(_, value)| value.parse().ok()).max()
    }
}

/// Returns the priority that OpenAI's `service_tier` asks for. A key's own is never raised by it.
fn priority_asked_for(envelope: &Envelope, body: &RequestBody) -> Priority {
    match envelope.short_text(body, "service_tier").as_deref() {
        Some("flex") => Priority::Low,
        Some("default") => Priority::Normal,
        _ => Priority::High,
    }
}
