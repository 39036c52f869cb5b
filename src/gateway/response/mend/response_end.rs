//! A response that was cut at its limit of tokens: `incomplete`, with the reason.
//!
//! Needed with llama-server b11669: it calls every response `completed`. Nothing in its answer says why the response ended,
//! so one with exactly as many tokens as the limit allows counts as cut. The mend can go when
//! `mended_answers::the_events_of_a_response_are_whole` passes without it.

use serde_json::{Value, json};

/// Changes a response that was cut at this number of tokens. Returns whether it was.
pub(super) fn mark_if_cut(response: &mut Value, limit: u64) -> bool {
    let is_cut = response["status"] == "completed"
        && response["usage"]["output_tokens"].as_u64().is_some_and(|tokens| tokens >= limit);
    if is_cut && let Some(members) = response.as_object_mut() {
        members.insert("status".to_owned(), json!("incomplete"));
        members.insert("incomplete_details".to_owned(), json!({"reason": "max_output_tokens"}));
        members.remove("completed_at");
    }
    is_cut
}

/// Returns this whole response with the right status; `None` if it has it.
pub(super) fn of_response(response: &[u8], limit: u64) -> Option<Vec<u8>> {
    let mut response: Value = serde_json::from_slice(response).ok()?;
    mark_if_cut(&mut response, limit).then(|| response.to_string().into_bytes())
}
