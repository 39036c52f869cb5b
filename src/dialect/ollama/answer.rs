//! Turns the answer of a worker, whole or event by event, into lines.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;

use super::line::{Counts, Line, write_error};
use super::request::OllamaForm;
use super::tool_calls::ToolCalls;
use super::worker_answer::{Choice, Message, Usage, WorkerAnswer, WorkerTimings, error_text};

/// When something is written.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The time of day.
    pub at: Timestamp,
    /// The time since the request arrived.
    pub elapsed: Duration,
}

/// Writes the lines of one answer. What it holds is bounded by `TOOL_CALL_BYTES`.
#[derive(Debug)]
pub struct AnswerWriter {
    form: OllamaForm,
    /// The model as the client names it.
    model: String,
    tool_calls: ToolCalls,
    usage: Usage,
    timings: WorkerTimings,
    /// Why the answer ended, once the worker has said so.
    reason: Option<&'static str>,
    /// When the first text arrived.
    first_text: Option<Duration>,
    /// Whether the last line, or an error in its place, has been written.
    is_over: bool,
}

impl AnswerWriter {
    /// Creates the writer of an answer. `model` is the model as the client names it.
    pub fn new(form: OllamaForm, model: impl Into<String>) -> Self {
        Self {
            form,
            model: model.into(),
            tool_calls: ToolCalls::default(),
            usage: Usage::default(),
            timings: WorkerTimings::default(),
            reason: None,
            first_text: None,
            is_over: false,
        }
    }

    /// Writes the only line of an answer without text: the model is loaded, or will be unloaded.
    pub fn write_loaded(mut self, is_unload: bool, now: Moment, out: &mut Vec<u8>) {
        self.is_over = true;
        let end = Some((if is_unload { "unload" } else { "load" }, None));
        self.write(&Line { end, ..Line::default() }, now, out);
    }

    /// Writes the line of an answer that has come as a whole.
    ///
    /// # Errors
    /// It is no such answer, with the reason.
    pub fn write_whole(mut self, body: &[u8], now: Moment, out: &mut Vec<u8>) -> Result<(), String> {
        let answer: WorkerAnswer<'_> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        self.count(&answer);
        let choice = answer.choices.as_ref().and_then(|choices| choices.first());
        if choice.is_none() && answer.content.is_none() {
            return Err("it has no choices".to_owned());
        }
        let part = Part::of(&answer, choice);
        self.tool_calls.add(part.tool_calls)?;
        let reason = self.reason.unwrap_or("stop");
        let end = Some((reason, Some(self.counts(now))));
        let tool_calls = self.tool_calls.whole(reason == "length")?;
        let line = Line {
            text: part.text,
            thinking: part.thinking,
            tool_calls,
            log_probabilities: part.log_probabilities,
            end,
        };
        self.write(&line, now, out);
        Ok(())
    }

    /// Writes what the client gets for one event, whose data this is.
    pub fn write_event(&mut self, data: &[u8], now: Moment, out: &mut Vec<u8>) {
        let data = data.trim_ascii();
        if self.is_over || data.is_empty() {
            return;
        }
        if data == b"[DONE]" {
            return self.write_end(now, out);
        }
        let event = serde_json::from_slice::<WorkerAnswer<'_>>(data).ok().filter(|_| data.starts_with(b"{"));
        let Some(event) = event else {
            return self.fail("The backend's answer cannot be used: an event of it is no JSON object", out);
        };
        if let Some(error) = event.error {
            return self.fail(&error_text(error), out);
        }
        self.count(&event);
        let choice = event.choices.as_ref().and_then(|choices| choices.first());
        let part = Part::of(&event, choice);
        if let Err(why) = self.tool_calls.add(part.tool_calls) {
            return self.fail(&format!("The backend's answer cannot be used: {why}"), out);
        }
        if !part.text.is_empty() || !part.thinking.is_empty() || part.log_probabilities.is_some() {
            self.first_text.get_or_insert(now.elapsed);
            let Part { text, thinking, log_probabilities, .. } = part;
            self.write(&Line { text, thinking, log_probabilities, ..Line::default() }, now, out);
        }
        if event.stop == Some(true) {
            self.write_end(now, out);
        }
    }

    /// Writes the last line, with the counts, unless it has been written.
    pub fn write_end(&mut self, now: Moment, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let reason = self.reason.unwrap_or("stop");
        match self.tool_calls.whole(reason == "length") {
            Ok(tool_calls) if !tool_calls.is_empty() => {
                self.write(&Line { tool_calls, ..Line::default() }, now, out);
            }
            Ok(_) => {}
            Err(why) => return write_error(&format!("The backend's answer cannot be used: {why}"), out),
        }
        self.write(&Line { end: Some((reason, Some(self.counts(now)))), ..Line::default() }, now, out);
    }

    /// Writes an error as the last line, unless that has been written.
    pub fn fail(&mut self, message: &str, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.is_over, true) {
            write_error(message, out);
        }
    }

    fn write(&self, line: &Line<'_>, now: Moment, out: &mut Vec<u8>) {
        line.write(self.form, &self.model, &format!("{:.9}", now.at), out);
    }

    /// Remembers what an answer or an event says about its end.
    fn count(&mut self, answer: &WorkerAnswer<'_>) {
        let choice = answer.choices.as_ref().and_then(|choices| choices.first());
        let reason = choice.and_then(|choice| choice.finish_reason.as_deref());
        let own_reason = answer.stop_type.as_deref().filter(|_| answer.stop != Some(false));
        self.reason = reason.or(own_reason).map(reason_of).or(self.reason);
        if let Some(usage) = answer.usage {
            self.usage = usage;
        }
        if answer.tokens_predicted.is_some() && answer.stop == Some(true) {
            self.usage = Usage { prompt_tokens: answer.tokens_evaluated, completion_tokens: answer.tokens_predicted };
        }
        if let Some(timings) = answer.timings {
            self.timings = timings;
        }
    }

    /// Returns the counts. Without llama-server's times they are those that were seen here, and what is neither of prompt
    /// nor of answer counts as loading: the wait for the model and for a slot.
    fn counts(&self, now: Moment) -> Counts {
        let WorkerTimings { cache_n, prompt_n, prompt_ms, predicted_n, predicted_ms } = self.timings;
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let of_milliseconds = |time: f64| (time.max(0.0) * 1e6) as u64;
        let total = nanoseconds(now.elapsed);
        let first_text = self.first_text.map(nanoseconds);
        let seen = total - first_text.unwrap_or(0).min(total);
        let eval_duration = predicted_ms.map_or(seen, of_milliseconds);
        let prompt_eval_duration = prompt_ms.map_or(first_text.unwrap_or(0), of_milliseconds);
        let computed = || prompt_n.map(|computed| computed + cache_n.unwrap_or(0));
        Counts {
            total_duration: total,
            load_duration: total.saturating_sub(eval_duration.saturating_add(prompt_eval_duration)),
            prompt_eval_count: self.usage.prompt_tokens.or_else(computed).unwrap_or(0),
            prompt_eval_duration,
            eval_count: self.usage.completion_tokens.or(predicted_n).unwrap_or(0),
            eval_duration,
        }
    }
}

/// What an answer or an event says.
struct Part<'a> {
    text: &'a str,
    thinking: &'a str,
    tool_calls: &'a [super::worker_answer::CallPart<'a>],
    log_probabilities: Option<&'a serde_json::value::RawValue>,
}

impl<'a> Part<'a> {
    fn of(answer: &'a WorkerAnswer<'a>, choice: Option<&'a Choice<'a>>) -> Self {
        let message: Option<&Message<'_>> = choice.and_then(|choice| choice.delta.as_ref().or(choice.message.as_ref()));
        let text = choice.and_then(|choice| choice.text.as_deref()).or(answer.content.as_deref());
        let text = message.and_then(|message| message.content.as_deref()).or(text);
        let thinking = message.and_then(|message| message.reasoning_content.as_ref().or(message.reasoning.as_ref()));
        Self {
            text: text.unwrap_or_default(),
            thinking: thinking.map(Cow::as_ref).unwrap_or_default(),
            tool_calls: message.and_then(|message| message.tool_calls.as_deref()).unwrap_or_default(),
            log_probabilities: choice.and_then(|choice| choice.logprobs.as_ref()?.content),
        }
    }
}

/// Returns Ollama's word for the reason why an answer ended. A call of a tool is a regular end.
fn reason_of(reason: &str) -> &'static str {
    match reason {
        // llama-server's own form calls it `limit`.
        "length" | "limit" => "length",
        _ => "stop",
    }
}
