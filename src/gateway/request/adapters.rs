//! Requests for an adapter of a model: at which routes, and with which members.
//!
//! Owns what llama-server would not obey, so that it is refused: its conversion of Anthropic's messages drops `lora`.

use super::body::RequestBody;
use super::body_view::gather;
use super::envelope::Envelope;
use crate::fleet::{Model, ModelInfo, WorkerKind};
use crate::gateway::bounds::{MEND_MEMBER, RETRY_AFTER_UNKNOWN};
use crate::gateway::routes::route::{Route, StreamEnd};
use crate::refusal::Refusal;

/// The member that says which adapters count.
pub(super) const LORA: &str = "lora";

/// Returns whether llama-server obeys `lora` at this route.
pub(super) fn takes_lora(route: &Route) -> bool {
    route.may_stream && route.stream_end != StreamEnd::MessageStop
}

/// Checks that a request can be served with this adapter of a model.
///
/// # Errors
/// [`Refusal::InvalidParameter`] at a route where llama-server takes no adapter, or if the request names adapters too.
pub(super) fn check_adapter(
    route: &Route,
    (envelope, body): (&Envelope, &RequestBody),
    model: &ModelInfo,
    adapter: &str,
) -> Result<(), Refusal> {
    let name = model.id_with(adapter);
    let refuse = |field: &str, message: String| Err(Refusal::InvalidParameter { field: field.to_owned(), message });
    if route.needs_slot && !takes_lora(route) {
        let message = format!("llama-server takes no adapter at {}: ask for {name} at another route", route.path);
        return refuse("model", message);
    }
    match names_adapters(envelope, body) {
        true => refuse(LORA, format!("{name} names an adapter already: leave lora out, or ask for {}", model.id)),
        false => Ok(()),
    }
}

/// Returns whether a request says itself which adapters count.
pub(super) fn names_adapters(envelope: &Envelope, body: &RequestBody) -> bool {
    let is_given = envelope.members.iter().any(|member| member.is_named(LORA) && !member.is_null());
    is_given && !has_empty_lora(envelope, body)
}

/// Returns whether a request has an empty list of adapters, which llama-server takes for none at all.
pub(super) fn has_empty_lora(envelope: &Envelope, body: &RequestBody) -> bool {
    let member = envelope.members.iter().rfind(|member| member.is_named(LORA));
    member.filter(|member| member.value.len() <= MEND_MEMBER).is_some_and(|member| {
        let value = gather(body, member.value.clone());
        value.into_iter().filter(|byte| !byte.is_ascii_whitespace()).eq(*b"[]")
    })
}

/// Returns the numbers of the workers that do not have the adapters of a model, and the refusal if no other has them
/// either.
pub(super) fn workers_without_adapters(model: &Model) -> Option<(Vec<u32>, Refusal)> {
    let others = model.members().filter(|member| member.kind != WorkerKind::Local);
    let numbers: Vec<u32> = others.map(|member| member.number).collect();
    (!numbers.is_empty()).then_some((numbers, Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN)))
}
