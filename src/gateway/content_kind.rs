//! The kind of body that a response has, by its `Content-Type`.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// The kind of body that a response has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentKind {
    /// `text/event-stream`: a stream of server-sent events.
    Stream,
    /// `application/json`: one JSON value.
    Json,
    /// Anything else.
    Other,
}

impl ContentKind {
    /// Reads the kind from the headers of a response.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let content_type = headers.get(CONTENT_TYPE).map_or(&[][..], |value| value.as_bytes()).trim_ascii_start();
        let is = |kind: &str| {
            content_type.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind.as_bytes()))
        };
        if is("text/event-stream") {
            Self::Stream
        } else if is("application/json") {
            Self::Json
        } else {
            Self::Other
        }
    }
}
