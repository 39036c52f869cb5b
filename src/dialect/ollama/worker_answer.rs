//! Reads the answers and the events of workers: those of OpenAI's chats and completions, and llama-server's own form, which
//! has what stands between two texts.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::fields::{Fields, text};

/// One answer, or one event of a stream.
#[derive(Debug, Default, Deserialize)]
pub(super) struct WorkerAnswer<'a> {
    #[serde(borrow, default)]
    pub(super) choices: Option<Vec<Choice<'a>>>,
    #[serde(default)]
    pub(super) usage: Option<Usage>,
    #[serde(default)]
    pub(super) timings: Option<WorkerTimings>,
    #[serde(borrow, default)]
    pub(super) error: Option<&'a RawValue>,
    /// The text, in llama-server's own form.
    #[serde(borrow, default)]
    pub(super) content: Option<Cow<'a, str>>,
    /// Whether this is the last event, in llama-server's own form.
    #[serde(default)]
    pub(super) stop: Option<bool>,
    /// Why the answer ended, in llama-server's own form.
    #[serde(borrow, default)]
    pub(super) stop_type: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) tokens_evaluated: Option<u64>,
    #[serde(default)]
    pub(super) tokens_predicted: Option<u64>,
}

/// One answer of several; only one is asked for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(borrow, default)]
    pub(super) delta: Option<Message<'a>>,
    #[serde(borrow, default)]
    pub(super) message: Option<Message<'a>>,
    #[serde(borrow, default)]
    pub(super) text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) finish_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) logprobs: Option<LogProbabilities<'a>>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct LogProbabilities<'a> {
    /// Its entries have the members that Ollama's have.
    #[serde(borrow, default)]
    pub(super) content: Option<&'a RawValue>,
}

/// A message, or a part of one.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow, default)]
    pub(super) content: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) reasoning_content: Option<Cow<'a, str>>,
    /// As `reasoning_content`, at some remote backends.
    #[serde(borrow, default)]
    pub(super) reasoning: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) tool_calls: Option<Vec<CallPart<'a>>>,
}

/// A call of a tool, or a part of one.
#[derive(Debug, Default, Deserialize)]
pub(super) struct CallPart<'a> {
    #[serde(default)]
    pub(super) index: Option<u64>,
    #[serde(borrow, default)]
    pub(super) id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) function: Option<FunctionPart<'a>>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct FunctionPart<'a> {
    #[serde(borrow, default)]
    pub(super) name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) arguments: Option<Cow<'a, str>>,
}

/// The token counts of OpenAI's API.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
pub(super) struct Usage {
    #[serde(default)]
    pub(super) prompt_tokens: Option<u64>,
    #[serde(default)]
    pub(super) completion_tokens: Option<u64>,
}

/// The times that llama-server reports, in milliseconds.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
pub(super) struct WorkerTimings {
    /// Tokens of the prompt that were in the cache.
    #[serde(default)]
    pub(super) cache_n: Option<u64>,
    /// Tokens of the prompt that were computed.
    #[serde(default)]
    pub(super) prompt_n: Option<u64>,
    #[serde(default)]
    pub(super) prompt_ms: Option<f64>,
    #[serde(default)]
    pub(super) predicted_n: Option<u64>,
    #[serde(default)]
    pub(super) predicted_ms: Option<f64>,
}

/// Returns what an error says: a text, or the `message` of an object.
pub(super) fn error_text(error: &RawValue) -> String {
    let of_object = || {
        let fields = Fields::within("error", error).ok()?;
        fields.text("message").ok().flatten().map(Cow::into_owned)
    };
    let whole = text("error", error).map(Cow::into_owned).ok();
    whole.or_else(of_object).unwrap_or_else(|| "The backend gave an error".to_owned())
}
