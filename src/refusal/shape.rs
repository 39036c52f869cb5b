//! The shapes in which clients expect errors: which paths use which shape, and the error event that ends a stream. Does not
//! know what is refused, or why.

use std::fmt;

use bytes::Bytes;
use http::StatusCode;

/// The header that Anthropic's clients send with every request.
pub const ANTHROPIC_VERSION: &str = "anthropic-version";

/// What follows `/api/` in the paths of Ollama's API, whether they are served or not.
const OLLAMA_PATHS: [&str; 14] = [
    "blobs",
    "chat",
    "copy",
    "create",
    "delete",
    "embed",
    "embeddings",
    "generate",
    "ps",
    "pull",
    "push",
    "show",
    "tags",
    "version",
];

/// The shape in which a client expects errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{"error":{"message","type","param","code"}}`
    OpenAi,
    /// `{"type":"error","error":{"type","message"}}`
    Anthropic,
    /// As OpenAI's, with `message` and `detail` beside `error`: clients of Cohere, and of Voyage and Jina, read those.
    Retrieval,
    /// `{"detail":TEXT}`: Voyage's own client for Python fails at any other error that it finds beside that.
    Voyage,
    /// `{"error":TEXT,"error_type"}`, of text-embeddings-inference
    Tei,
    /// `{"error":TEXT}`
    Ollama,
}

impl Shape {
    /// Returns the shape that the client of a request expects: Anthropic's for the paths of its API, wherever its client
    /// was told that the API begins, and for every request with the header [`ANTHROPIC_VERSION`]; Ollama's for its paths.
    pub fn of(path: &str, has_anthropic_version: bool) -> Self {
        // Bytes, because every request is looked at, and a search for a character costs more than a short path.
        let mut segments = path.as_bytes().split(|byte| *byte == b'/').filter(|segment| !segment.is_empty());
        let first = segments.next().unwrap_or_default();
        let (mut last, mut shape) = (first, Self::OpenAi);
        for (at, segment) in segments.enumerate() {
            if last == b"v1" && matches!(segment, b"messages" | b"complete") {
                shape = Self::Anthropic;
            } else if at == 0 && first == b"api" && OLLAMA_PATHS.iter().any(|path| path.as_bytes() == segment) {
                shape = Self::Ollama;
            }
            last = segment;
        }
        if has_anthropic_version || first == b"anthropic" { Self::Anthropic } else { shape }
    }
}

/// Returns an error's body as the last event of a stream.
pub(super) fn error_event(shape: Shape, body: impl fmt::Display) -> Bytes {
    Bytes::from(match shape {
        Shape::Anthropic => format!("event: error\ndata: {body}\n\n"),
        // Ollama's streams are lines of JSON.
        Shape::Ollama => format!("{body}\n"),
        Shape::OpenAi | Shape::Retrieval | Shape::Voyage | Shape::Tei => format!("data: {body}\n\n"),
    })
}

/// Returns the error type of text-embeddings-inference for a status (`ErrorType` in its router).
pub(super) fn tei_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        429 => "Overloaded",
        503 => "Unhealthy",
        status if status < 500 => "Validation",
        _ => "Backend",
    }
}

/// Returns Anthropic's error type for a status (from the error reference of its API).
pub(super) fn anthropic_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 | 504 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        status if status < 500 => "invalid_request_error",
        _ => "api_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_and_the_version_header_tell_the_shape() {
        for path in [
            "/v1/messages",
            "/v1/messages/count_tokens",
            "/v1/messages/",
            "//v1/messages",
            "/v1/v1/messages",
            "/anthropic/v1/messages",
            "/anthropic/v1/models",
            "/api/v1/messages",
            "/v1/complete",
        ] {
            assert_eq!(Shape::of(path, false), Shape::Anthropic, "{path}");
        }
        for path in ["/api/chat", "/api/delete", "/api/blobs/sha256:0", "//api//tags"] {
            assert_eq!(Shape::of(path, false), Shape::Ollama, "{path}");
            assert_eq!(Shape::of(path, true), Shape::Anthropic, "{path}");
        }
        for path in ["/api/hello", "/api/v1/rerank", "/api", "/chat/api"] {
            assert_eq!(Shape::of(path, false), Shape::OpenAi, "{path}");
        }
        for path in
            ["/v1/completions", "/v1/chat/completions", "/v1/messages2", "/messages", "/v1/x/messages", "/", "-"]
        {
            assert_eq!(Shape::of(path, false), Shape::OpenAi, "{path}");
            assert_eq!(Shape::of(path, true), Shape::Anthropic, "{path}");
        }
    }
}
