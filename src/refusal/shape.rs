//! The two shapes in which clients expect errors: which paths use which shape, the error event that ends a stream, and
//! the conversion of llama-server's own errors. Does not know what is refused, or why.

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

/// The header that Anthropic's clients send with every request.
pub const ANTHROPIC_VERSION: &str = "anthropic-version";

/// The shape in which a client expects errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{"error":{"message","type","param","code"}}`
    OpenAi,
    /// `{"type":"error","error":{"type","message"}}`
    Anthropic,
}

impl Shape {
    /// Returns the shape that the client of a request expects: Anthropic's for the paths of its API, wherever its client
    /// was told that the API begins, and for every request with the header [`ANTHROPIC_VERSION`].
    pub fn of(path: &str, has_anthropic_version: bool) -> Self {
        let segments = || path.split('/').filter(|segment| !segment.is_empty());
        let is_of_api = |(one, next): (&str, &str)| one == "v1" && matches!(next, "messages" | "complete");
        let has_path = || segments().next() == Some("anthropic") || segments().zip(segments().skip(1)).any(is_of_api);
        if has_anthropic_version || has_path() { Self::Anthropic } else { Self::OpenAi }
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
        match self {
            Self::OpenAi => json!({"error": {"message": message, "type": kind, "param": param, "code": code}}),
            Self::Anthropic => anthropic_error(status, message),
        }
    }
}

/// Converts an error of llama-server, sent with this status, into the last event of a stream. Returns `None` if
/// `answer` is not such an error. An error that is already in the client's shape is left unchanged.
pub fn event_of_backend(shape: Shape, status: StatusCode, answer: &[u8]) -> Option<Bytes> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    let error = answer.get("error")?;
    if shape == Shape::OpenAi || answer.get("type").is_some_and(|kind| kind == "error") {
        return Some(error_event(shape, &answer));
    }
    let message = error.get("message").and_then(serde_json::Value::as_str).unwrap_or("The backend gave an error");
    Some(error_event(shape, &anthropic_error(status, message)))
}

/// Returns an error's body as the last event of a stream.
pub(super) fn error_event(shape: Shape, body: &serde_json::Value) -> Bytes {
    Bytes::from(match shape {
        Shape::OpenAi => format!("data: {body}\n\n"),
        Shape::Anthropic => format!("event: error\ndata: {body}\n\n"),
    })
}

fn anthropic_error(status: StatusCode, message: &str) -> serde_json::Value {
    json!({"type": "error", "error": {"type": anthropic_type(status), "message": message}})
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
        for path in
            ["/v1/completions", "/v1/chat/completions", "/v1/messages2", "/messages", "/v1/x/messages", "/", "-"]
        {
            assert_eq!(Shape::of(path, false), Shape::OpenAi, "{path}");
            assert_eq!(Shape::of(path, true), Shape::Anthropic, "{path}");
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
