//! The kind of body that a response has, by its `Content-Type` and `Content-Encoding`.

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

/// The kind of body that a response has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentKind {
    /// `text/event-stream`: a stream of server-sent events.
    Stream,
    /// `application/json`: one JSON value.
    Json,
    /// Anything else, and whatever is still packed: it can neither be read nor changed.
    Other,
}

impl ContentKind {
    /// Reads the kind from the headers of a response.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let is_identity = |coding: &[u8]| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity");
        let mut kind = None;
        // One look at each: a look-up by name costs as much as all of a usual response.
        for (name, value) in headers {
            if *name == CONTENT_TYPE {
                kind = kind.or_else(|| Some(Self::of_value(value.as_bytes())));
            } else if *name == CONTENT_ENCODING
                && !value.as_bytes().split(|byte| *byte == b',').all(|coding| is_identity(coding.trim_ascii()))
            {
                return Self::Other;
            }
        }
        kind.unwrap_or(Self::Other)
    }

    /// Reads the kind from the headers of a response, whether it is packed or not.
    pub(super) fn of_type(headers: &HeaderMap) -> Self {
        let content_type = headers.iter().find(|(name, _)| **name == CONTENT_TYPE);
        content_type.map_or(Self::Other, |(_, value)| Self::of_value(value.as_bytes()))
    }

    /// Reads the kind from the value of `Content-Type`, whether the response is packed or not.
    pub(super) fn of_value(content_type: &[u8]) -> Self {
        let content_type = content_type.trim_ascii_start();
        let is = |kind: &str| {
            // Nearly all servers write it like this, and to ignore the case takes ten times as long.
            content_type.starts_with(kind.as_bytes())
                || content_type.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind.as_bytes()))
        };
        if is("application/json") {
            Self::Json
        } else if is("text/event-stream") {
            Self::Stream
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_is_packed_is_neither_a_stream_nor_json() {
        for (kind, coding, expected) in [
            ("text/event-stream", None, ContentKind::Stream),
            (" Text/Event-Stream; charset=utf-8", Some("identity"), ContentKind::Stream),
            ("application/json", Some(" Identity , "), ContentKind::Json),
            ("text/event-stream", Some("gzip"), ContentKind::Other),
            ("application/json", Some("identity, br"), ContentKind::Other),
            ("application/json", Some("zstd"), ContentKind::Other),
            ("text/html", None, ContentKind::Other),
        ] {
            let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
            headers.extend(coding.map(|coding| (CONTENT_ENCODING, HeaderValue::from_static(coding))));
            assert_eq!(ContentKind::of(&headers), expected, "{kind} {coding:?}");
        }
    }
}
