//! Writes one line: a part of an answer, the last one with its counts, or an error.

use serde::Serialize;
use serde_json::value::RawValue;

use super::request::OllamaForm;
use super::tool_calls::ToolCall;

/// What one line says.
#[derive(Debug, Default)]
pub(super) struct Line<'a> {
    pub(super) text: &'a str,
    pub(super) thinking: &'a str,
    pub(super) tool_calls: Vec<ToolCall<'a>>,
    pub(super) log_probabilities: Option<&'a RawValue>,
    /// Why the answer ended, and its counts; `None` before the end.
    pub(super) end: Option<(&'static str, Option<Counts>)>,
}

/// The counts at the end of an answer. Times are in nanoseconds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    pub(super) total_duration: u64,
    pub(super) load_duration: u64,
    pub(super) prompt_eval_count: u64,
    pub(super) prompt_eval_duration: u64,
    pub(super) eval_count: u64,
    pub(super) eval_duration: u64,
}

#[derive(Serialize)]
struct WrittenMessage<'a> {
    role: &'static str,
    content: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tool_calls: &'a [ToolCall<'a>],
}

#[derive(Serialize)]
struct WrittenLine<'a> {
    model: &'a str,
    created_at: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<WrittenMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<&'a RawValue>,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    done_reason: Option<&'static str>,
    #[serde(flatten)]
    counts: Option<Counts>,
}

impl Line<'_> {
    /// Writes the line and its end to `out`.
    pub(super) fn write(&self, form: OllamaForm, model: &str, created_at: &str, out: &mut Vec<u8>) {
        let is_chat = form == OllamaForm::Chat;
        let message = WrittenMessage {
            role: "assistant",
            content: self.text,
            thinking: self.thinking,
            tool_calls: &self.tool_calls,
        };
        let line = WrittenLine {
            model,
            created_at,
            message: is_chat.then_some(message),
            response: (!is_chat).then_some(self.text),
            thinking: if is_chat { "" } else { self.thinking },
            logprobs: self.log_probabilities,
            done: self.end.is_some(),
            done_reason: self.end.map(|(reason, _)| reason),
            counts: self.end.and_then(|(_, counts)| counts),
        };
        push_line(&line, out);
    }
}

/// Writes an error as a line.
pub(super) fn write_error(message: &str, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct WrittenError<'a> {
        error: &'a str,
    }
    push_line(&WrittenError { error: message }, out);
}

fn push_line(line: &impl Serialize, out: &mut Vec<u8>) {
    // Writing to memory does not fail, and no value here is without a form in JSON.
    let written = serde_json::to_writer(&mut *out, line);
    debug_assert!(written.is_ok(), "{written:?}");
    out.push(b'\n');
}
