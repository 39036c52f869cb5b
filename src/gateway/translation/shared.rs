//! What the requests of all dialects have in common: their limits, the routes of their calls, the identity of an answer.

use http::Method;

use crate::dialect::{AnswerId, FieldError};
use crate::gateway::routes::lookup;
use crate::gateway::routes::route::Route;
use crate::refusal::Refusal;

/// The limits of requests in dialects.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) struct TranslationLimits {
    /// `MAX_RERANK_DOCUMENTS`
    pub(in crate::gateway) max_rerank_documents: usize,
}

/// Returns the route by which a worker is asked for this path.
///
/// # Errors
/// [`Refusal::RouteNotFound`] if the path is not in the route table.
pub(super) fn call_route(path: &str) -> Result<&'static Route, Refusal> {
    lookup::find(&Method::POST, path)
}

/// Returns what distinguishes the answer to a request from others; `what` is the beginning of its id.
pub(super) fn answer_id(what: &str) -> AnswerId {
    let created = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
    AnswerId { id: format!("{what}-{}", uuid::Uuid::now_v7().simple()), created }
}

/// Returns the refusal of a request that is not right in its dialect.
pub(in crate::gateway) fn refusal_of(error: FieldError) -> Refusal {
    match error.field {
        Some(field) => Refusal::InvalidParameter { field, message: error.message },
        None => Refusal::bad_request(error.message),
    }
}
