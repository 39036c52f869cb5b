//! Tells requests for embeddings that pass untouched from those that are read, by the members that the envelope has found.
//!
//! The values are not parsed: only the brackets in `input` are looked for, and only in a body with a brace in it.

use bytes::Bytes;
use memchr::memchr;

use crate::dialect::embed::{TRANSLATED_MEMBERS, has_text_objects};
use crate::gateway::request::body::RequestBody;
use crate::gateway::request::envelope::Envelope;

/// Returns whether a request in OpenAI's form, or in llama-server's own, says nothing that llama-server's answer does not
/// respect.
pub(in crate::gateway::translation) fn is_plain(envelope: &Envelope, body: &RequestBody) -> bool {
    if is_own_form(envelope) {
        return true;
    }
    let is_translated = TRANSLATED_MEMBERS.iter().any(|name| envelope.has_value(name));
    // llama-server refuses a null, which clients send for the default.
    let has_null_format = || envelope.has("encoding_format") && !envelope.has_value("encoding_format");
    !is_translated && !has_null_format() && !envelope.values("input").any(|at| has_objects(body, &at))
}

/// Returns whether a request is in llama-server's own form, which no dialect has, or means nothing.
pub(in crate::gateway::translation) fn is_own_form(envelope: &Envelope) -> bool {
    !envelope.has("input") || envelope.has("content")
}

/// Returns whether the value in this range is an array that has objects with a text in it.
fn has_objects(body: &RequestBody, at: &std::ops::Range<usize>) -> bool {
    let pieces = || Envelope::pieces_of(body, at.clone());
    pieces().any(|piece| memchr(b'{', &piece).is_some())
        && has_object_items(pieces())
        && has_text_objects(&pieces().flatten().collect::<Vec<u8>>())
}

/// Returns whether an array has objects as items. The JSON was found to be well-formed before.
fn has_object_items(pieces: impl Iterator<Item = Bytes>) -> bool {
    let (mut depth, mut is_in_string, mut is_escaped) = (0_usize, false, false);
    for byte in pieces.flatten() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_in_string,
            b'"' => is_in_string = !is_in_string,
            _ if is_in_string => {}
            b'{' if depth == 1 => return true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(pieces: &[&str]) -> bool {
        let body = RequestBody::from_pieces(pieces);
        is_plain(&Envelope::of(&body).unwrap(), &body)
    }

    #[test]
    fn a_body_that_llama_server_answers_rightly_is_plain() {
        for body in [
            r#"{"model":"m","input":"x"}"#,
            r#"{"model":"m","input":["x","y"],"encoding_format":"base64","user":"u","an unknown field":{"a":[1]}}"#,
            r#"{"input":[[1,2],[3]],"encoding_format":"float"}"#,
            r#"{"input":"x","encoding_format":"hex"}"#,
            r#"{"input":"x","dimensions":null,"truncate":null,"input_type":null}"#,
            r#"{"input":["a {\"text\": 1} b","[{","\\\"{"]}"#,
            r#"{"input":{"prompt_string":"x","multimodal_data":[]}}"#,
            r#"{"input":[{"prompt_string":"x","multimodal_data":[]}]}"#,
            r#"{"content":"x","dimensions":8}"#,
            r#"{"content":[{"text":"x"}],"input":"x"}"#,
            "{}",
            "no JSON",
        ] {
            assert!(plain(&[body]), "{body}");
        }
    }

    #[test]
    fn a_body_that_llama_server_does_not_understand_is_not_plain() {
        for body in [
            r#"{"input":"x","dimensions":8}"#,
            r#"{"output_dimension":8,"input":"x"}"#,
            r#"{"input":"x","encoding_format":null}"#,
            r#"{"input":"x","input_type":"query"}"#,
            r#"{"input":"x","truncate":true}"#,
            r#"{"input":"x","embedding_type":"base64"}"#,
            r#"{"input":"x","encoding_type":"binary"}"#,
            r#"{"input":"x","late_chunking":false}"#,
            r#"{"input":"x","truncate_prompt_tokens":8}"#,
            r#"{"input":"x","truncation_direction":"left"}"#,
            r#"{"input":"x","truncation_side":"left"}"#,
            r#"{"input":"x","normalize":false}"#,
            r#"{"input":[{"text":"x"}]}"#,
            r#"{"input":["x",  {"text":"x"}]}"#,
            r#"{"input":"x","\u0064imensions":8}"#,
        ] {
            assert!(!plain(&[body]), "{body}");
            for cut in 0..body.len() {
                assert!(!plain(&[&body[..cut], &body[cut..]]), "{body} cut at {cut}");
            }
        }
    }
}
