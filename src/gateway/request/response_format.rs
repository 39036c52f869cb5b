//! The format of a response (`text.format` of OpenAI's API), as llama-server is told it.
//!
//! Needed with llama-server b11669: on `/v1/responses` it ignores `text.format` and obeys `response_format`, which that API
//! does not have. The splice can go when `mended_answers::a_response_has_the_format_that_was_asked_for` passes without it.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::body::RequestBody;
use super::body_view::gather;
use super::envelope::Envelope;
use super::rewrite::RESPONSE_FORMAT;

/// The member `text` of a request.
#[derive(Deserialize)]
struct TextMember {
    #[serde(default)]
    format: Option<Box<RawValue>>,
}

/// Returns the value of `response_format` that means the same as `text.format` of this request. `None` if the request asks
/// for plain text, or has a `response_format` already.
pub(super) fn of_text_format(body: &RequestBody, envelope: &Envelope) -> Option<String> {
    let member = envelope.members.iter().rfind(|member| member.is_named("text") && member.first == b'{')?;
    let has_its_own = |member: &super::body_view::BodyMember| member.is_named(RESPONSE_FORMAT) && !member.is_null();
    if envelope.members.iter().any(has_its_own) {
        return None;
    }
    let TextMember { format } = serde_json::from_slice(&gather(body, member.value.clone())).ok()?;
    meaning(format?.get())
}

/// Returns the meaning of a format. One of an unknown type stays as it is: llama-server's refusal names it.
fn meaning(format: &str) -> Option<String> {
    let mut members: Map<String, Value> = serde_json::from_str(format).ok()?;
    match members.get("type")?.as_str()? {
        "text" => None,
        "json_schema" => {
            members.remove("type");
            Some(json!({"type": "json_schema", "json_schema": members}).to_string())
        }
        _ => Some(format.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spliced(body: &str) -> Option<Value> {
        let body = RequestBody::default().with_pieces([bytes::Bytes::from(body.to_owned())].into());
        let envelope = Envelope::of(&body).unwrap();
        of_text_format(&body, &envelope).map(|text| serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn the_format_of_a_response_becomes_that_of_a_chat() {
        for (body, expected) in [
            (
                r#"{"text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object"},"strict":true}}}"#,
                Some(json!({
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": true},
                })),
            ),
            (r#"{"text":{"format":{"type":"json_object"}}}"#, Some(json!({"type": "json_object"}))),
            (r#"{"text":{"format":{"type":"poem"}}}"#, Some(json!({"type": "poem"}))),
            (r#"{"text":{"format":{"type":"text"},"verbosity":"low"}}"#, None),
            (r#"{"text":{"verbosity":"low"}}"#, None),
            (r#"{"text":{"format":null}}"#, None),
            (r#"{"text":null}"#, None),
            (r#"{"text":"x"}"#, None),
            (r#"{"text":{"format":{"type":"json_object"}},"response_format":{"type":"text"}}"#, None),
        ] {
            assert_eq!(spliced(body), expected, "{body}");
        }
    }
}
