//! Converts errors of backends into the shape that a client expects.

use bytes::Bytes;
use http::StatusCode;

use super::bodies::anthropic_error;
use super::shape::{Shape, error_event};

/// Converts an error of llama-server, sent with this status, into the last event of a stream. Returns `None` if
/// `answer` is not such an error. An error that is already in the client's shape is left unchanged.
pub fn event_of_backend(shape: Shape, status: StatusCode, answer: &[u8]) -> Option<Bytes> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    let error = answer.get("error")?;
    if shape != Shape::Anthropic || answer.get("type").is_some_and(|kind| kind == "error") {
        return Some(error_event(shape, &answer));
    }
    let message = error.get("message").and_then(serde_json::Value::as_str).unwrap_or("The backend gave an error");
    Some(error_event(shape, anthropic_error(status, &message)))
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
    Some(Bytes::from(anthropic_error(status, &words)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
