//! The shapes in which clients expect errors: which paths use which shape, the error event that ends a stream, and the
//! conversion of llama-server's own errors. Does not know what is refused, or why.

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

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
        let segments = || path.split('/').filter(|segment| !segment.is_empty());
        let is_of_api = |(one, next): (&str, &str)| one == "v1" && matches!(next, "messages" | "complete");
        let has_path = || segments().next() == Some("anthropic") || segments().zip(segments().skip(1)).any(is_of_api);
        let is_of_ollama = || {
            let mut segments = segments();
            segments.next() == Some("api") && segments.next().is_some_and(|next| OLLAMA_PATHS.contains(&next))
        };
        match () {
            () if has_anthropic_version || has_path() => Self::Anthropic,
            () if is_of_ollama() => Self::Ollama,
            () => Self::OpenAi,
        }
    }

    /// Returns the body of an error. In Anthropic's shape the type follows from the status, and there are no codes or
    /// parameters.
    pub(super) fn error(
        self,
        status: StatusCode,
        kind: &str,
        code: &str,
        param: Option<&str>,
        message: &str,
    ) -> serde_json::Value {
        let openai_error = || json!({"message": message, "type": kind, "param": param, "code": code});
        match self {
            Self::OpenAi => json!({"error": openai_error()}),
            Self::Anthropic => anthropic_error(status, message),
            Self::Retrieval => json!({"error": openai_error(), "message": message, "detail": message}),
            Self::Voyage => json!({"detail": message}),
            Self::Tei => json!({"error": message, "error_type": tei_type(status)}),
            Self::Ollama => json!({"error": message}),
        }
    }
}

/// Converts an error of llama-server, sent with this status, into the last event of a stream. Returns `None` if
/// `answer` is not such an error. An error that is already in the client's shape is left unchanged.
pub fn event_of_backend(shape: Shape, status: StatusCode, answer: &[u8]) -> Option<Bytes> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    let error = answer.get("error")?;
    if shape != Shape::Anthropic || answer.get("type").is_some_and(|kind| kind == "error") {
        return Some(error_event(shape, &answer));
    }
    let message = error.get("message").and_then(serde_json::Value::as_str).unwrap_or("The backend gave an error");
    Some(error_event(shape, &anthropic_error(status, message)))
}

/// Returns the body of a backend's error, sent with this status, in the shape that the client expects: Anthropic's clients
/// read no other. Returns `None` if it has that shape, or is no JSON with words.
pub fn body_of_backend_error(shape: Shape, status: StatusCode, body: &[u8]) -> Option<Bytes> {
    if shape != Shape::Anthropic {
        return None;
    }
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    if body["type"] == "error" && body["error"].is_object() {
        return None;
    }
    let places = [&body["error"]["message"], &body["error"], &body["message"], &body["detail"]];
    let words = places.into_iter().find_map(serde_json::Value::as_str)?;
    Some(Bytes::from(anthropic_error(status, words).to_string()))
}

/// Returns an error's body as the last event of a stream.
pub(super) fn error_event(shape: Shape, body: &serde_json::Value) -> Bytes {
    Bytes::from(match shape {
        Shape::Anthropic => format!("event: error\ndata: {body}\n\n"),
        // Ollama's streams are lines of JSON.
        Shape::Ollama => format!("{body}\n"),
        Shape::OpenAi | Shape::Retrieval | Shape::Voyage | Shape::Tei => format!("data: {body}\n\n"),
    })
}

fn anthropic_error(status: StatusCode, message: &str) -> serde_json::Value {
    json!({"type": "error", "error": {"type": anthropic_type(status), "message": message}})
}

/// Returns the error type of text-embeddings-inference for a status (`ErrorType` in its router).
fn tei_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        429 => "Overloaded",
        503 => "Unhealthy",
        status if status < 500 => "Validation",
        _ => "Backend",
    }
}

/// Returns Anthropic's error type for a status (from the error reference of its API).
fn anthropic_type(status: StatusCode) -> &'static str {
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

    /// Regression: a 404 of a remote backend, which named a model, was told as a route that the backend lacks.
    #[test]
    fn a_whole_error_of_a_backend_keeps_its_words_in_anthropics_shape() {
        let body = |status, text: &str| {
            body_of_backend_error(Shape::Anthropic, StatusCode::from_u16(status).unwrap(), text.as_bytes())
        };
        let expected =
            |kind: &str| json!({"type": "error", "error": {"type": kind, "message": "no"}}).to_string().into();
        for text in [
            r#"{"error":{"message":"no","type":"x","code":"model_not_found"}}"#,
            r#"{"error":"no"}"#,
            r#"{"object":"error","message":"no"}"#,
            r#"{"detail":"no"}"#,
        ] {
            for (status, kind) in [(404, "not_found_error"), (400, "invalid_request_error"), (500, "api_error")] {
                assert_eq!(body(status, text), Some(expected(kind)), "{text}");
            }
            assert_eq!(body_of_backend_error(Shape::OpenAi, StatusCode::NOT_FOUND, text.as_bytes()), None);
        }
        for text in [r#"{"type":"error","error":{"type":"overloaded_error","message":"no"}}"#, "<html>", "{}", "[]", ""]
        {
            assert_eq!(body(529, text), None, "{text}");
        }
    }

    #[test]
    fn an_error_of_llama_server_is_converted_to_the_clients_shape() {
        let openai_error = br#"{"error":{"code":400,"message":"no","type":"invalid_request_error"}}"#;
        let event = |shape, text: &[u8]| event_of_backend(shape, StatusCode::BAD_REQUEST, text);
        let whole = |start: &[u8], end: &str| Bytes::from([start, end.as_bytes()].concat());
        assert_eq!(
            event(Shape::OpenAi, openai_error),
            Some(whole(
                b"data: ",
                "{\"error\":{\"code\":400,\"message\":\"no\",\"type\":\"invalid_request_error\"}}\n\n"
            ))
        );
        let anthropic = "{\"error\":{\"message\":\"no\",\"type\":\"invalid_request_error\"},\"type\":\"error\"}";
        let expected = Some(whole(b"event: error\ndata: ", &format!("{anthropic}\n\n")));
        assert_eq!(event(Shape::Anthropic, openai_error), expected);
        assert_eq!(event(Shape::Anthropic, anthropic.as_bytes()), expected);
        assert_eq!(event(Shape::OpenAi, b"{\"choices\":[]}"), None);
        assert_eq!(event(Shape::OpenAi, b"Bad Gateway"), None);
    }
}
