//! The bodies of errors, in each shape, as JSON. Each refused request needs one, so they are written without a tree of
//! values. The members are in alphabetical order.

use http::StatusCode;
use serde::Serialize;

use super::shape::{Shape, anthropic_type, tei_type};

/// Bytes of a body that need no second allocation.
const USUAL_BODY: usize = 512;

/// What a body may tell about an error.
pub(super) struct ErrorFacts<'a> {
    pub(super) status: StatusCode,
    /// The error type of OpenAI's API.
    pub(super) kind: &'a str,
    pub(super) code: &'a str,
    /// The parameter that is at fault.
    pub(super) param: Option<&'a str>,
    pub(super) message: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ErrorBody<'a> {
    OpenAi { error: OpenAiError<'a> },
    Anthropic { error: AnthropicError<'a>, r#type: &'a str },
    Retrieval { detail: &'a str, error: OpenAiError<'a>, message: &'a str },
    Voyage { detail: &'a str },
    Tei { error: &'a str, error_type: &'a str },
    Ollama { error: &'a str },
}

#[derive(Serialize)]
struct OpenAiError<'a> {
    code: &'a str,
    message: &'a str,
    param: Option<&'a str>,
    r#type: &'a str,
}

#[derive(Serialize)]
struct AnthropicError<'a> {
    message: &'a str,
    r#type: &'a str,
}

/// Returns the body of an error. In Anthropic's shape the type follows from the status, and there are no codes or
/// parameters.
pub(super) fn error_body(shape: Shape, facts: &ErrorFacts<'_>) -> String {
    let ErrorFacts { status, kind, code, param, message } = *facts;
    let openai_error = OpenAiError { code, message, param, r#type: kind };
    write_json(&match shape {
        Shape::OpenAi => ErrorBody::OpenAi { error: openai_error },
        Shape::Anthropic => return anthropic_error(status, message),
        Shape::Retrieval => ErrorBody::Retrieval { detail: message, error: openai_error, message },
        Shape::Voyage => ErrorBody::Voyage { detail: message },
        Shape::Tei => ErrorBody::Tei { error: message, error_type: tei_type(status) },
        Shape::Ollama => ErrorBody::Ollama { error: message },
    })
}

/// Returns the body of an error in Anthropic's shape.
pub(super) fn anthropic_error(status: StatusCode, message: &str) -> String {
    let error = AnthropicError { message, r#type: anthropic_type(status) };
    write_json(&ErrorBody::Anthropic { error, r#type: "error" })
}

fn write_json(body: &ErrorBody<'_>) -> String {
    let mut json = Vec::with_capacity(USUAL_BODY);
    // Strings and members with fixed names can always be written, and are UTF-8.
    let is_written = serde_json::to_writer(&mut json, body).is_ok();
    if is_written { String::from_utf8(json).unwrap_or_default() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shape_has_its_own_members_and_quotes_are_escaped() {
        let (status, message) = (StatusCode::NOT_FOUND, "no \"x\"");
        let facts = |param| ErrorFacts { status, kind: "k", code: "c", param, message };
        let openai = r#"{"code":"c","message":"no \"x\"","param":"p","type":"k"}"#;
        for (shape, expected) in [
            (Shape::OpenAi, format!(r#"{{"error":{openai}}}"#)),
            (
                Shape::Anthropic,
                r#"{"error":{"message":"no \"x\"","type":"not_found_error"},"type":"error"}"#.to_owned(),
            ),
            (Shape::Retrieval, format!(r#"{{"detail":"no \"x\"","error":{openai},"message":"no \"x\""}}"#)),
            (Shape::Voyage, r#"{"detail":"no \"x\""}"#.to_owned()),
            (Shape::Tei, r#"{"error":"no \"x\"","error_type":"Validation"}"#.to_owned()),
            (Shape::Ollama, r#"{"error":"no \"x\""}"#.to_owned()),
        ] {
            assert_eq!(error_body(shape, &facts(Some("p"))), expected);
        }
        assert!(error_body(Shape::OpenAi, &facts(None)).contains(r#""param":null"#));
    }
}
