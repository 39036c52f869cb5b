//! The bodies that are posted for a job: chunks, whole results, errors. Pure.
//!
//! A result has the form that RunPod's SDK produces for a generator with `return_aggregate_stream`, as RunPod's own
//! workers for language models do: a list with the chunks of a stream in order, or with the one value of a response
//! that is not a stream.

use bytes::Bytes;
use serde_json::json;
use serde_json::value::RawValue;

use super::input_members::InputMembers;
use crate::runpod::bounds::{CHUNK_MAX_SIZE, RESULT_SIZE};

/// The chunks that were posted, combined into a result.
#[derive(Default)]
pub(super) struct Aggregate {
    /// The elements of the JSON list.
    list: String,
    is_too_large: bool,
}

impl Aggregate {
    /// Adds a chunk.
    pub(super) fn push(&mut self, chunk: &str) {
        let chunk = json!(chunk).to_string();
        if self.is_too_large || self.list.len() + chunk.len() + ENVELOPE.len() > RESULT_SIZE {
            (self.is_too_large, self.list) = (true, String::new());
            return;
        }
        if !self.list.is_empty() {
            self.list.push(',');
        }
        self.list.push_str(&chunk);
    }

    /// Whether the chunks exceed [`RESULT_SIZE`]; then the result is empty.
    pub(super) fn is_too_large(&self) -> bool {
        self.is_too_large
    }

    /// Returns the body of the result.
    pub(super) fn into_body(self) -> Bytes {
        Bytes::from(format!("{{\"output\":[{}]}}", self.list))
    }
}

const ENVELOPE: &str = "{\"output\":[,]}";

/// Returns the body for a chunk of a stream.
pub(super) fn chunk(text: &str) -> Bytes {
    Bytes::from(json!({"output": text}).to_string())
}

/// Returns a response that is not a stream as a JSON value: JSON as it was written, everything else as a string.
pub(super) fn to_value(response: &[u8]) -> Box<RawValue> {
    serde_json::from_slice(response)
        .or_else(|_| RawValue::from_string(json!(String::from_utf8_lossy(response)).to_string()))
        .unwrap_or_default()
}

/// Returns the body for a value as the only chunk, or `None` if it is too large for a chunk, because it cannot be
/// split.
pub(super) fn single(value: &RawValue) -> Option<Bytes> {
    (value.get().len() + ENVELOPE.len() <= CHUNK_MAX_SIZE).then(|| Bytes::from(format!("{{\"output\":{value}}}")))
}

/// Returns the body for a value as the whole result, or `None` if it is too large.
pub(super) fn whole(value: &RawValue) -> Option<Bytes> {
    (value.get().len() + ENVELOPE.len() <= RESULT_SIZE).then(|| Bytes::from(format!("{{\"output\":[{value}]}}")))
}

/// Returns the body that makes a job fail. As in RunPod's SDK, the error is a string, which may contain JSON.
pub(super) fn error(text: &str) -> Bytes {
    Bytes::from(json!({"error": text}).to_string())
}

/// Returns the body for the progress of a job that has no result yet.
pub(super) fn progress(text: &str) -> Bytes {
    Bytes::from(json!({"status": "IN_PROGRESS", "output": text}).to_string())
}

/// Returns the error in a response as a string: its member `error`, else all of it.
pub(super) fn error_of(response: &[u8]) -> String {
    let error_member = || {
        let response: &RawValue = serde_json::from_slice(response).ok()?;
        Some(InputMembers::read(response)?.get("error")?.get().to_owned())
    };
    error_member().unwrap_or_else(|| String::from_utf8_lossy(response).into_owned())
}

/// Returns the error that ends a stream, if this chunk contains one. Only the beginning of a line counts: elsewhere it
/// is text of the model. `is_cut` says that the chunk begins inside an event.
pub(super) fn error_in(chunk: &str, is_cut: bool) -> Option<String> {
    let mut is_error_next = false;
    for line in chunk.lines().skip(usize::from(is_cut)) {
        let data = line.strip_prefix("data:").map(str::trim_start);
        match data {
            Some(data) if is_error_next || has_error(data) => return Some(error_of(data.as_bytes())),
            _ => is_error_next = line == "event: error",
        }
    }
    None
}

/// Whether data begin with an error. Some servers send `"error": null` if there is none.
fn has_error(data: &str) -> bool {
    let is_null = |data| {
        let members = InputMembers::read(serde_json::from_str(data).ok()?)?;
        Some(members.get("error")?.get() == "null")
    };
    data.starts_with("{\"error\"") && is_null(data) != Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn read(body: &Bytes) -> Value {
        serde_json::from_slice(body).unwrap()
    }

    #[test]
    fn the_chunks_of_a_stream_become_a_list() {
        assert_eq!(read(&Aggregate::default().into_body()), json!({"output": []}));
        let mut aggregate = Aggregate::default();
        aggregate.push("data: \"é\"\n\n");
        aggregate.push("data: [DONE]\n\n");
        assert_eq!(read(&aggregate.into_body()), json!({"output": ["data: \"é\"\n\n", "data: [DONE]\n\n"]}));
    }

    #[test]
    fn a_stream_that_is_too_large_has_an_empty_result() {
        let mut aggregate = Aggregate::default();
        let chunk = "x".repeat(1024 * 1024);
        for _ in 0..18 {
            aggregate.push(&chunk);
        }
        assert!(!aggregate.is_too_large());
        for _ in 0..3 {
            aggregate.push(&chunk);
        }
        assert!(aggregate.is_too_large());
        assert_eq!(read(&aggregate.into_body()), json!({"output": []}));
    }

    #[test]
    fn a_json_response_is_passed_on_as_it_was_written() {
        let response = to_value(b" {\"z\": 1.0, \"a\": 12345678901234567890123} ");
        assert_eq!(single(&response).unwrap(), "{\"output\":{\"z\": 1.0, \"a\": 12345678901234567890123}}");
        assert_eq!(whole(&response).unwrap(), "{\"output\":[{\"z\": 1.0, \"a\": 12345678901234567890123}]}");
        assert_eq!(read(&single(&to_value(b"# HELP x\n")).unwrap()), json!({"output": "# HELP x\n"}));
        assert_eq!(read(&single(&to_value(b"")).unwrap()), json!({"output": ""}));
        assert!(whole(&to_value(&vec![b'x'; RESULT_SIZE])).is_none());
        assert!(single(&to_value(&vec![b'x'; CHUNK_MAX_SIZE])).is_none());
    }

    #[test]
    fn an_error_is_a_string() {
        let response = br#"{"error":{"message":"no","type":"t","code":"c"}}"#;
        assert_eq!(error_of(response), r#"{"message":"no","type":"t","code":"c"}"#);
        assert_eq!(error_of(br#"{"type":"error","error":{"message":"no"}}"#), r#"{"message":"no"}"#);
        assert_eq!(error_of(b"Bad Gateway"), "Bad Gateway");
        assert_eq!(read(&error("a \"b\"")), json!({"error": "a \"b\""}));
    }

    #[test]
    fn the_error_that_ends_a_stream_is_found_but_not_in_text_of_the_model() {
        for (chunk, expected) in [
            ("data: {}\n\ndata: {\"error\":{\"code\":1}}\n\n", Some("{\"code\":1}")),
            ("event: error\r\ndata: {\"type\":\"error\",\"error\":{\"code\":1}}\r\n\r\n", Some("{\"code\":1}")),
            ("event: error\ndata: {\"message\":\"no\"}\n\n", Some("{\"message\":\"no\"}")),
            ("data: {\"content\":\"data: {\\\"error\\\"\"}\n\n", None),
            ("event: message\ndata: {}\n\n", None),
            ("data: {\"error\": null, \"content\":\"x\"}\n\n", None),
            ("data: {\"error\":nul\n\n", Some("{\"error\":nul")),
        ] {
            assert_eq!(error_in(chunk, false).as_deref(), expected, "{chunk}");
        }
        assert_eq!(error_in("data: {\"error\":1}\n\n", true), None, "inside an event it is text");
    }
}
