//! Answers that the gateway makes itself: whole ones, and streams of server-sent events (HTML standard, section 9.2).

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::made::NextMade;

/// The event that a client of server-sent events has seen last (HTML standard, section 9.2.4).
pub(in crate::gateway) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// A comment, which every client of server-sent events skips.
pub(in crate::gateway) const HEARTBEAT: &[u8] = b": waiting\n\n";

/// An answer of the gateway itself.
pub(in crate::gateway) enum LocalAnswer {
    Whole(Response<Bytes>),
    /// It goes on as long as what it tells of.
    Made(Response<NextMade>),
}

/// Returns an answer of this type.
pub(in crate::gateway) fn response_of<T>(content_type: &'static str, body: T) -> Response<T> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Returns a stream of server-sent events.
pub(in crate::gateway) fn event_stream(next: NextMade) -> LocalAnswer {
    LocalAnswer::Made(response_of("text/event-stream", next))
}

/// Returns the text of one event with this id, if it has one.
pub(in crate::gateway) fn event_text(id: Option<u64>, name: &str, data: &impl Serialize) -> String {
    let mut text = String::new();
    if let Some(id) = id {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "id: {id}");
    }
    // Compact JSON has no line break; what is written here are texts and numbers, which always can be.
    let data = serde_json::to_string(data).unwrap_or_default();
    let _ = write!(text, "event: {name}\ndata: {data}\n\n");
    text
}

/// Returns an answer with this JSON.
pub(in crate::gateway) fn json_response(status: StatusCode, body: &impl Serialize) -> Response<Bytes> {
    // What is written here are texts and numbers, which always can be.
    let body = Bytes::from(serde_json::to_vec(body).unwrap_or_default());
    let mut response = response_of("application/json", body);
    *response.status_mut() = status;
    response
}

/// Returns an answer without a body.
pub(in crate::gateway) fn empty_response(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_json_whatever_its_texts_hold() {
        let data = serde_json::json!({"text": "one\r\ntwo\n\ndata: three"});
        let text = event_text(Some(7), "model", &data);
        assert_eq!(text, "id: 7\nevent: model\ndata: {\"text\":\"one\\r\\ntwo\\n\\ndata: three\"}\n\n");
        assert_eq!(event_text(None, "end", &1), "event: end\ndata: 1\n\n");
    }
}
