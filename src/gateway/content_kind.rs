//! The kind of body that an answer has, by its `Content-Type`.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// The kind of body that llama-server answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentKind {
    /// A stream of events.
    Stream,
    /// One JSON value.
    Json,
    /// Anything else.
    Other,
}

impl ContentKind {
    /// Reads the kind from the headers of an answer.
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
