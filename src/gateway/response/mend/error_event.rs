//! An error within a stream of Anthropic's API, in the shape of that API.
//!
//! Needed with llama-server b11669: the data of its `error` events are OpenAI's error object alone. The mend can go when
//! these data have `"type":"error"`.

use http::StatusCode;
use serde_json::{Value, json};

use crate::gateway::response::stream::transform::{EventTransform, StreamEvent};
use crate::refusal::{Shape, event_of_backend};

/// Puts the errors of a stream into shape, and passes on all other events.
pub(super) struct ErrorEvents;

/// Returns the event for these data of an error; `None` if they are in Anthropic's shape, or are no JSON object.
fn in_shape(data: &[u8]) -> Option<Vec<u8>> {
    let error: Value = serde_json::from_slice(data).ok()?;
    if error["type"] == "error" || !error.is_object() {
        return None;
    }
    let error = if error["error"].is_object() { error } else { json!({"error": error}) };
    let code = error["error"]["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    let status = code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    event_of_backend(Shape::Anthropic, status, error.to_string().as_bytes()).map(Vec::from)
}

impl EventTransform for ErrorEvents {
    fn event(&mut self, event: StreamEvent<'_>, out: &mut Vec<u8>) {
        let is_error = event.name == Some("error") || event.name.is_none() && event.data.starts_with(b"{\"error\"");
        match is_error.then(|| in_shape(event.data)).flatten() {
            Some(mended) => out.extend_from_slice(&mended),
            None => out.extend_from_slice(event.raw),
        }
    }
}
