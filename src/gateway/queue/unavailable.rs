//! The refusal for each reason why a model cannot serve a request.

use crate::fleet::{Model, Unavailable};
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::refusal::Refusal;

/// Returns what a client of this model is told.
pub(crate) fn refusal_of(unavailable: Unavailable, model: &Model) -> Refusal {
    let opens_in = || model.available_in().unwrap_or(RETRY_AFTER_UNKNOWN);
    match unavailable {
        // Nobody who is suspected is turned away for that; it waits.
        Unavailable::Busy
        | Unavailable::OnlyTriedBefore
        | Unavailable::Loading
        | Unavailable::Asleep
        | Unavailable::Suspected => Refusal::ModelLoading(RETRY_AFTER_UNKNOWN),
        Unavailable::QuotaExhausted => Refusal::QueueTimeout(opens_in()),
        Unavailable::BreakerOpen => Refusal::BackendUnavailable(opens_in()),
        Unavailable::BeingProbed | Unavailable::Down | Unavailable::Absent => {
            Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN)
        }
        Unavailable::Failed => Refusal::BackendFailed,
        Unavailable::Blocked => Refusal::RequestKillsBackend,
    }
}
