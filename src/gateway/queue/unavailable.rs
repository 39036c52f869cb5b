//! The refusal for each reason why a model cannot serve a request.

use crate::fleet::{Model, Unavailable};
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::refusal::Refusal;

/// Returns the refusal of a request for this model.
pub(crate) fn refusal_of(unavailable: Unavailable, model: &Model) -> Refusal {
    let retry_after = || model.available_in().unwrap_or(RETRY_AFTER_UNKNOWN);
    match unavailable {
        // Requests wait while one of these holds; this refusal ends a wait that took too long.
        Unavailable::Busy
        | Unavailable::OnlyTriedBefore
        | Unavailable::Loading
        | Unavailable::Asleep
        | Unavailable::Suspected => Refusal::ModelLoading(RETRY_AFTER_UNKNOWN),
        Unavailable::QuotaExhausted => Refusal::QueueTimeout(retry_after()),
        Unavailable::BreakerOpen => Refusal::BackendUnavailable(retry_after()),
        Unavailable::BeingProbed | Unavailable::Down | Unavailable::Absent => {
            Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN)
        }
        Unavailable::Failed => Refusal::BackendFailed,
        Unavailable::Blocked => Refusal::RequestKillsBackend,
    }
}
