//! The bodies of errors, in each shape, as JSON. Each refused request needs one, so they are written at once into the memory
//! that they stay in: without a tree of values, and without a copy of the message. The members are in alphabetical order.

use std::fmt::{self, Write as _};

use http::StatusCode;

use super::shape::{Shape, anthropic_type, tei_type};

/// Bytes of a body that need no second allocation.
const USUAL_BODY: usize = 512;

/// What a body may tell about an error.
pub(super) struct ErrorFacts<'a> {
    pub(super) status: StatusCode,
    /// The error type of OpenAI's API. A word, as the code is: neither needs an escape.
    pub(super) kind: &'static str,
    pub(super) code: &'static str,
    /// The parameter that is at fault.
    pub(super) param: Option<&'a str>,
    pub(super) message: &'a dyn fmt::Display,
}

/// The beginning of a body. What is written to it is inside a string, and has its quotes and control characters escaped.
struct JsonText(String);

/// Returns the body of an error. In Anthropic's shape the type follows from the status, and there are no codes or
/// parameters.
pub(super) fn error_body(shape: Shape, facts: &ErrorFacts<'_>) -> String {
    let ErrorFacts { status, message, .. } = *facts;
    let mut json = JsonText::new();
    match shape {
        Shape::OpenAi => json.openai_error(r#"{"error":"#, facts),
        Shape::Anthropic => return anthropic_error(status, message),
        Shape::Retrieval => {
            json.message(r#"{"detail":"#, message);
            json.openai_error(r#","error":"#, facts);
            json.message(r#","message":"#, message);
        }
        Shape::Voyage => json.message(r#"{"detail":"#, message),
        Shape::Tei => {
            json.message(r#"{"error":"#, message);
            json.word(r#","error_type":"#, tei_type(status));
        }
        Shape::Ollama => json.message(r#"{"error":"#, message),
    }
    json.end()
}

/// Returns the body of an error in Anthropic's shape.
pub(super) fn anthropic_error(status: StatusCode, message: &dyn fmt::Display) -> String {
    let mut json = JsonText::new();
    json.message(r#"{"error":{"message":"#, message);
    json.word(r#","type":"#, anthropic_type(status));
    json.word(r#"},"type":"#, "error");
    json.end()
}

impl JsonText {
    fn new() -> Self {
        Self(String::with_capacity(USUAL_BODY))
    }

    /// Appends `before`, which ends with a name, and an error of OpenAI's API.
    fn openai_error(&mut self, before: &str, facts: &ErrorFacts<'_>) {
        self.0.push_str(before);
        self.word(r#"{"code":"#, facts.code);
        self.message(r#","message":"#, facts.message);
        match facts.param {
            Some(param) => self.message(r#","param":"#, &param),
            None => self.0.push_str(r#","param":null"#),
        }
        self.word(r#","type":"#, facts.kind);
        self.0.push('}');
    }

    /// Appends `before`, which ends with a name, and a string of any text.
    fn message(&mut self, before: &str, message: &dyn fmt::Display) {
        self.0.push_str(before);
        self.0.push('"');
        // Writing to memory cannot fail.
        let _ = write!(self, "{message}");
        self.0.push('"');
    }

    /// Appends `before`, which ends with a name, and a string in which nothing needs an escape.
    fn word(&mut self, before: &str, word: &str) {
        for part in [before, "\"", word, "\""] {
            self.0.push_str(part);
        }
    }

    /// Returns the whole body.
    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

impl fmt::Write for JsonText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // All bytes are looked at, because a loop without an early end becomes vector instructions.
        let has_marks =
            text.bytes().fold(false, |found, byte| found | (byte < b' ') | (byte == b'"') | (byte == b'\\'));
        if has_marks {
            // Rare, and the library knows how: a text can always be written.
            let quoted = serde_json::to_string(text).unwrap_or_default();
            let inside = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            self.0.push_str(inside.unwrap_or_default());
        } else {
            self.0.push_str(text);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_shape_has_its_own_members_and_quotes_are_escaped() {
        let (status, message) = (StatusCode::NOT_FOUND, "no \"x\"");
        let facts = |param| ErrorFacts { status, kind: "k", code: "c", param, message: &message };
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

    /// Returns a text of any characters, which a `String` of proptest has not.
    fn text() -> impl Strategy<Value = String> {
        prop::collection::vec(any::<char>(), 0..20).prop_map(String::from_iter)
    }

    proptest! {
        /// Messages and names of parameters may repeat a client's own text.
        #[test]
        fn any_text_is_written_as_serde_json_writes_it(pieces in prop::collection::vec(text(), 0..4)) {
            let text = pieces.concat();
            let mut json = JsonText::new();
            json.0.push('"');
            pieces.iter().try_for_each(|piece| json.write_str(piece)).unwrap();
            json.0.push('"');
            prop_assert_eq!(json.0, serde_json::to_string(&text).unwrap());
        }
    }
}
