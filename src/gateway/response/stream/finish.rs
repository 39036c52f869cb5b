//! Whether a stream has said all that it had to say, by the data of its events, for backends that leave out the end mark
//! of their dialect.
//!
//! Used for remote backends and commands only. A llama-server of our own always sends its end mark, and ends its bodies
//! without one when it is being stopped.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::gateway::bounds::{MOST_CHOICES, READ_EVENT};
use crate::gateway::routes::route::StreamEnd;
use crate::gateway::scan::event_data::EventData;
use crate::gateway::scan::sse_framer::SseLine;

/// What the data of an event mean for the end of their stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventMeaning {
    /// The stream goes on, or may go on.
    Goes,
    /// The event only reports token counts.
    ReportsUsage,
    /// The stream has ended with this event.
    Ends,
    /// The stream has ended with an error.
    Fails,
}

/// Reads the data of all events of one stream.
pub(super) struct FinishWatch {
    stream_end: StreamEnd,
    /// The data of the unfinished event, up to [`READ_EVENT`].
    data: EventData,
    /// The choices that have been seen, and whether each has finished.
    choices: BTreeMap<u64, bool>,
    /// Whether a message has given its `stop_reason`.
    has_stopped: bool,
    /// The length of the generated text so far, as it is written in JSON.
    text_bytes: u64,
}

/// An event of OpenAI's chat completions and completions.
#[derive(Deserialize)]
struct CompletionEvent<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<EventChoice<'a>>>,
    #[serde(default)]
    usage: Option<IgnoredAny>,
}

/// The member of an event, in any dialect, that says that the stream has failed.
#[derive(Deserialize)]
struct ErrorEvent<'a> {
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// What an error says.
#[derive(Deserialize)]
struct ErrorMessage<'a> {
    #[serde(borrow, default)]
    message: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct EventChoice<'a> {
    /// A number, which some servers write as a text or with a fraction.
    #[serde(borrow, default)]
    index: Option<&'a RawValue>,
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
    /// The text of a chat.
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    /// The text of a completion.
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
}

/// The text in a piece of a chat or of a message.
#[derive(Deserialize)]
struct TextDelta<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow, default)]
    partial_json: Option<&'a RawValue>,
    /// Why a message ends.
    #[serde(borrow, default)]
    stop_reason: Option<&'a RawValue>,
}

impl TextDelta<'_> {
    fn text_bytes(&self) -> u64 {
        let texts =
            [self.content, self.reasoning_content, self.tool_calls, self.text, self.thinking, self.partial_json];
        texts.into_iter().map(written_length).sum()
    }
}

/// An event of Anthropic's messages.
#[derive(Deserialize)]
struct MessageEvent<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    delta: Option<TextDelta<'a>>,
}

/// An event of OpenAI's responses.
#[derive(Deserialize)]
struct ResponseEvent<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
}

impl FinishWatch {
    pub(super) fn new(stream_end: StreamEnd) -> Self {
        Self {
            stream_end,
            data: EventData::bounded(READ_EVENT),
            choices: BTreeMap::new(),
            has_stopped: false,
            text_bytes: 0,
        }
    }

    /// Reads a line, or a piece of one.
    pub(super) fn read_line(&mut self, line: &SseLine<'_>) {
        self.data.add(line);
    }

    /// Ends the event and returns what its data mean.
    pub(super) fn end_event(&mut self) -> EventMeaning {
        // Taken out for the time in which they are read.
        let mut data = std::mem::replace(&mut self.data, EventData::bounded(READ_EVENT));
        let meaning = data.so_far().map_or(EventMeaning::Goes, |data| self.read_event(data));
        data.begin_event();
        self.data = data;
        meaning
    }

    /// Returns whether the unfinished event is only a part of a JSON value.
    pub(super) fn has_half_event(&self) -> bool {
        self.data.so_far().map(<[u8]>::trim_ascii).is_none_or(|data| {
            data.starts_with(b"{") && serde_json::from_str::<IgnoredAny>(&strict_json(data)).is_err()
        })
    }

    /// Returns whether everything that has begun has finished: each choice, or the message.
    pub(super) fn is_finished(&self) -> bool {
        match self.stream_end {
            StreamEnd::Done => !self.choices.is_empty() && self.choices.values().all(|is_finished| *is_finished),
            StreamEnd::MessageStop => self.has_stopped,
            // Only the last event of a response says that it has finished.
            StreamEnd::ResponseDone | StreamEnd::Unmarked => false,
        }
    }

    /// Returns the length of the generated text so far.
    pub(super) fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    fn read_event(&mut self, data: &[u8]) -> EventMeaning {
        let data = strict_json(data);
        let meaning = match self.stream_end {
            StreamEnd::Done => self.read_completion(&data),
            StreamEnd::MessageStop => self.read_message(&data),
            StreamEnd::ResponseDone => self.read_response(&data),
            StreamEnd::Unmarked => EventMeaning::Goes,
        };
        // Most events have no such text at all, so nearly none is read twice.
        if data.contains("\"error\"") && serde_json::from_str(&data).is_ok_and(|event| has_failed(&event)) {
            return EventMeaning::Fails;
        }
        meaning
    }

    fn read_completion(&mut self, data: &str) -> EventMeaning {
        let Ok(event) = serde_json::from_str::<CompletionEvent<'_>>(data) else { return EventMeaning::Goes };
        let has_choices = event.choices.is_some();
        let choices = event.choices.unwrap_or_default();
        if choices.is_empty() {
            let reports_usage = has_choices && event.usage.is_some();
            return if reports_usage { EventMeaning::ReportsUsage } else { EventMeaning::Goes };
        }
        for choice in choices {
            let delta = choice.delta.and_then(|delta| serde_json::from_str::<TextDelta<'_>>(delta.get()).ok());
            self.text_bytes += written_length(choice.text) + delta.map_or(0, |delta| delta.text_bytes());
            let index = choice.index.map_or(0, written_index);
            if self.choices.len() < MOST_CHOICES || self.choices.contains_key(&index) {
                // A later event of a choice that has finished may carry its usage.
                *self.choices.entry(index).or_default() |= is_reason(choice.finish_reason);
            }
        }
        EventMeaning::Goes
    }

    fn read_message(&mut self, data: &str) -> EventMeaning {
        let Ok(event) = serde_json::from_str::<MessageEvent<'_>>(data) else { return EventMeaning::Goes };
        self.text_bytes += event.delta.as_ref().map_or(0, TextDelta::text_bytes);
        match event.kind.as_deref() {
            Some("message_stop") => return EventMeaning::Ends,
            Some("error") => return EventMeaning::Fails,
            Some("message_delta") => {
                self.has_stopped |= event.delta.is_some_and(|delta| is_reason(delta.stop_reason));
            }
            _ => {}
        }
        EventMeaning::Goes
    }

    fn read_response(&mut self, data: &str) -> EventMeaning {
        let Ok(event) = serde_json::from_str::<ResponseEvent<'_>>(data) else { return EventMeaning::Goes };
        self.text_bytes += written_length(event.delta);
        match event.kind.as_deref() {
            Some("response.completed" | "response.incomplete" | "response.failed") => EventMeaning::Ends,
            Some("error") => EventMeaning::Fails,
            _ => EventMeaning::Goes,
        }
    }
}

/// Returns whether the `error` of an event says that something has failed. Some servers write it into every event, as
/// `null`, empty, or without a message.
fn has_failed(event: &ErrorEvent<'_>) -> bool {
    let Some(error) = event.error.map(RawValue::get) else { return false };
    let message = serde_json::from_str::<ErrorMessage<'_>>(error).ok().and_then(|error| error.message);
    !matches!(error, "null" | "\"\"" | "false" | "{}" | "[]") && message.is_none_or(|message| !message.is_empty())
}

/// Returns the number of a choice, as servers write it: `1`, `1.0` or `"1"`.
fn written_index(index: &RawValue) -> u64 {
    let text = index.get().trim_matches('"');
    text.split_once('.').map_or(text, |(whole, _)| whole).parse().unwrap_or(0)
}

/// Returns JSON that is strict where the data are not, as that of Python's `json`: `NaN` and infinite numbers become
/// `null`, and what is no UTF-8 becomes a replacement character.
fn strict_json(data: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(data);
    // In JSON these letters stand in strings only.
    if !text.contains("NaN") && !text.contains("Infinity") {
        return text;
    }
    let (mut strict, mut rest, mut is_string) = (String::with_capacity(text.len()), &*text, false);
    while let Some(first) = rest.chars().next() {
        let lax = ["NaN", "-Infinity", "Infinity"].into_iter().find(|lax| !is_string && rest.starts_with(lax));
        let (length, written) = match (lax, first) {
            (Some(lax), _) => (lax.len(), "null"),
            // An escaped character, which may be a quote.
            (None, '\\') => {
                let length = rest.char_indices().nth(2).map_or(rest.len(), |(at, _)| at);
                (length, &rest[..length])
            }
            (None, first) => (first.len_utf8(), &rest[..first.len_utf8()]),
        };
        is_string ^= first == '"';
        strict.push_str(written);
        rest = &rest[length..];
    }
    Cow::Owned(strict)
}

/// Returns the length of a string without its quotes, or of another value.
fn written_length(value: Option<&RawValue>) -> u64 {
    let text = value.map_or("", RawValue::get);
    if text == "null" { 0 } else { text.trim_matches('"').len() as u64 }
}

/// Whether a reason for the end is given. Some servers write an empty one until there is one.
fn is_reason(reason: Option<&RawValue>) -> bool {
    reason.is_some_and(|reason| !matches!(reason.get(), "null" | "\"\""))
}

#[cfg(test)]
#[path = "finish_tests.rs"]
mod tests;
