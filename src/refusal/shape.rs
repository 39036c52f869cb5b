//! The two shapes in which clients expect errors: whose client reads which, the events that end a stream with one, and what
//! llama-server's own error becomes there. What is refused, and why, is not known here.

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

/// The shape in which a client expects errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{"error":{"message","type","param","code"}}`
    OpenAi,
    /// `{"type":"error","error":{"type","message"}}`
    Anthropic,
}

impl Shape {
    /// The shape that the clients of a path expect.
    pub fn of(path: &str) -> Self {
        if path.starts_with("/v1/messages") { Self::Anthropic } else { Self::OpenAi }
    }

    /// The body of an error. Anthropic's own kinds follow from the status; it knows neither codes nor parameters.
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

/// llama-server's own error, given as an answer of this status, as the last event of a stream; none if it is no such
/// error. What is in the shape already stays as it is.
pub fn event_of_backend(shape: Shape, status: StatusCode, answer: &[u8]) -> Option<Bytes> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    let error = answer.get("error")?;
    if shape == Shape::OpenAi || answer.get("type").is_some_and(|kind| kind == "error") {
        return Some(error_event(shape, &answer));
    }
    let message = error.get("message").and_then(serde_json::Value::as_str).unwrap_or("The backend gave an error");
    Some(error_event(shape, &anthropic_error(status, message)))
}

/// An error's body as the last event of a stream.
pub(super) fn error_event(shape: Shape, body: &serde_json::Value) -> Bytes {
    Bytes::from(match shape {
        Shape::OpenAi => format!("data: {body}\n\n"),
        Shape::Anthropic => format!("event: error\ndata: {body}\n\n"),
    })
}

fn anthropic_error(status: StatusCode, message: &str) -> serde_json::Value {
    json!({"type": "error", "error": {"type": anthropic_type(status), "message": message}})
}

/// Anthropic's names for kinds of errors, by status (its API's error reference).
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
    fn an_error_of_llama_server_is_put_into_the_clients_shape() {
        let theirs = br#"{"error":{"code":400,"message":"no","type":"invalid_request_error"}}"#;
        let event = |shape, text: &[u8]| event_of_backend(shape, StatusCode::BAD_REQUEST, text);
        let whole = |start: &[u8], end: &str| Bytes::from([start, end.as_bytes()].concat());
        assert_eq!(
            event(Shape::OpenAi, theirs),
            Some(whole(
                b"data: ",
                "{\"error\":{\"code\":400,\"message\":\"no\",\"type\":\"invalid_request_error\"}}\n\n"
            ))
        );
        let anthropic = "{\"error\":{\"message\":\"no\",\"type\":\"invalid_request_error\"},\"type\":\"error\"}";
        let expected = Some(whole(b"event: error\ndata: ", &format!("{anthropic}\n\n")));
        assert_eq!(event(Shape::Anthropic, theirs), expected);
        assert_eq!(event(Shape::Anthropic, anthropic.as_bytes()), expected);
        assert_eq!(event(Shape::OpenAi, b"{\"choices\":[]}"), None);
        assert_eq!(event(Shape::OpenAi, b"Bad Gateway"), None);
    }
}
