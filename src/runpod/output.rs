//! What is posted of a job: pieces, whole results, errors. Pure.
//!
//! A result has the form that a generator of RunPod's SDK gives it with `return_aggregate_stream`, which is what their own
//! workers for language models are: a list, of the pieces of a stream in order, or of the one value that was the answer.

use super::input_members::InputMembers;
use crate::runpod::bounds::{CHUNK_MOST, RESULT_SIZE};
use bytes::Bytes;
use serde_json::json;
use serde_json::value::RawValue;

/// The pieces that were posted, put together.
#[derive(Default)]
pub(super) struct Aggregate {
    /// The inner of a JSON list.
    list: String,
    is_too_large: bool,
}

impl Aggregate {
    /// Adds one.
    pub(super) fn push(&mut self, piece: &str) {
        let piece = json!(piece).to_string();
        if self.is_too_large || self.list.len() + piece.len() + EMPTY.len() > RESULT_SIZE {
            (self.is_too_large, self.list) = (true, String::new());
            return;
        }
        if !self.list.is_empty() {
            self.list.push(',');
        }
        self.list.push_str(&piece);
    }

    /// Whether there was more than a result may hold; then it holds nothing.
    pub(super) fn is_too_large(&self) -> bool {
        self.is_too_large
    }

    /// The whole result.
    pub(super) fn into_body(self) -> Bytes {
        Bytes::from(format!("{{\"output\":[{}]}}", self.list))
    }
}

const EMPTY: &str = "{\"output\":[,]}";

/// A piece of a stream: text.
pub(super) fn piece(text: &str) -> Bytes {
    Bytes::from(json!({"output": text}).to_string())
}

/// An answer that is no stream as the value that it is: JSON as it was written, else a text.
pub(super) fn value(answer: &[u8]) -> Box<RawValue> {
    serde_json::from_slice(answer)
        .or_else(|_| RawValue::from_string(json!(String::from_utf8_lossy(answer)).to_string()))
        .unwrap_or_default()
}

/// Such a value as the only piece there is; none if it is larger than a piece may be, for it cannot be cut.
pub(super) fn single(value: &RawValue) -> Option<Bytes> {
    (value.get().len() + EMPTY.len() <= CHUNK_MOST).then(|| Bytes::from(format!("{{\"output\":{value}}}")))
}

/// Such a value as the whole result; none if it is too large.
pub(super) fn whole(value: &RawValue) -> Option<Bytes> {
    (value.get().len() + EMPTY.len() <= RESULT_SIZE).then(|| Bytes::from(format!("{{\"output\":[{value}]}}")))
}

/// What makes a job fail. RunPod's SDK gives errors as texts, which may be JSON.
pub(super) fn error(text: &str) -> Bytes {
    Bytes::from(json!({"error": text}).to_string())
}

/// What is being done for a job that has not been answered.
pub(super) fn progress(text: &str) -> Bytes {
    Bytes::from(json!({"status": "IN_PROGRESS", "output": text}).to_string())
}

/// The error that an answer is, as a text: its own member `error`, else all of it.
pub(super) fn error_of(answer: &[u8]) -> String {
    let of_member = || {
        let answer: &RawValue = serde_json::from_slice(answer).ok()?;
        Some(InputMembers::read(answer)?.get("error")?.get().to_owned())
    };
    of_member().unwrap_or_else(|| String::from_utf8_lossy(answer).into_owned())
}

/// The error that ends a stream, if this piece of it has one. Elsewhere in a line it would be something that the model
/// said. `is_cut` says that the piece begins within an event.
pub(super) fn error_in(piece: &str, is_cut: bool) -> Option<String> {
    let mut follows = false;
    for line in piece.lines().skip(usize::from(is_cut)) {
        let data = line.strip_prefix("data:").map(str::trim_start);
        match data {
            Some(data) if follows || has_error(data) => return Some(error_of(data.as_bytes())),
            _ => follows = line == "event: error",
        }
    }
    None
}

/// Whether data begin with an error. Some servers say with `null` that there is none.
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
    fn the_pieces_of_a_stream_become_a_list() {
        assert_eq!(read(&Aggregate::default().into_body()), json!({"output": []}));
        let mut aggregate = Aggregate::default();
        aggregate.push("data: \"é\"\n\n");
        aggregate.push("data: [DONE]\n\n");
        assert_eq!(read(&aggregate.into_body()), json!({"output": ["data: \"é\"\n\n", "data: [DONE]\n\n"]}));
    }

    #[test]
    fn a_stream_larger_than_a_result_leaves_an_empty_one() {
        let mut aggregate = Aggregate::default();
        let piece = "x".repeat(1024 * 1024);
        for _ in 0..18 {
            aggregate.push(&piece);
        }
        assert!(!aggregate.is_too_large());
        for _ in 0..3 {
            aggregate.push(&piece);
        }
        assert!(aggregate.is_too_large());
        assert_eq!(read(&aggregate.into_body()), json!({"output": []}));
    }

    #[test]
    fn an_answer_stays_as_it_was_written_where_it_is_json() {
        let answer = value(b" {\"z\": 1.0, \"a\": 12345678901234567890123} ");
        assert_eq!(single(&answer).unwrap(), "{\"output\":{\"z\": 1.0, \"a\": 12345678901234567890123}}");
        assert_eq!(whole(&answer).unwrap(), "{\"output\":[{\"z\": 1.0, \"a\": 12345678901234567890123}]}");
        assert_eq!(read(&single(&value(b"# HELP x\n")).unwrap()), json!({"output": "# HELP x\n"}));
        assert_eq!(read(&single(&value(b"")).unwrap()), json!({"output": ""}));
        assert!(whole(&value(&vec![b'x'; RESULT_SIZE])).is_none());
        assert!(single(&value(&vec![b'x'; CHUNK_MOST])).is_none());
    }

    #[test]
    fn an_error_is_a_text() {
        let answer = br#"{"error":{"message":"no","type":"t","code":"c"}}"#;
        assert_eq!(error_of(answer), r#"{"message":"no","type":"t","code":"c"}"#);
        assert_eq!(error_of(br#"{"type":"error","error":{"message":"no"}}"#), r#"{"message":"no"}"#);
        assert_eq!(error_of(b"Bad Gateway"), "Bad Gateway");
        assert_eq!(read(&error("a \"b\"")), json!({"error": "a \"b\""}));
    }

    #[test]
    fn the_error_that_ends_a_stream_is_found_and_what_a_model_says_is_none() {
        for (piece, expected) in [
            ("data: {}\n\ndata: {\"error\":{\"code\":1}}\n\n", Some("{\"code\":1}")),
            ("event: error\r\ndata: {\"type\":\"error\",\"error\":{\"code\":1}}\r\n\r\n", Some("{\"code\":1}")),
            ("event: error\ndata: {\"message\":\"no\"}\n\n", Some("{\"message\":\"no\"}")),
            ("data: {\"content\":\"data: {\\\"error\\\"\"}\n\n", None),
            ("event: message\ndata: {}\n\n", None),
            ("data: {\"error\": null, \"content\":\"x\"}\n\n", None),
            ("data: {\"error\":nul\n\n", Some("{\"error\":nul")),
        ] {
            assert_eq!(error_in(piece, false).as_deref(), expected, "{piece}");
        }
        assert_eq!(error_in("data: {\"error\":1}\n\n", true), None, "within an event it is text");
    }
}
