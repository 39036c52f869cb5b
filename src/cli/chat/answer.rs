//! One answer, as it streams in.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::screen::{AnswerView, Screen};
use crate::cli::client::{CallError, EventStream, ServiceClient, ServiceError};

const PATH: &str = "/v1/chat/completions";
/// Longest time without a byte of an answer: servers without heartbeats read a long prompt in silence.
const LONGEST_SILENCE: Duration = Duration::from_secs(60 * 60);

/// An answer, whole or as far as it came before it was stopped.
#[derive(Debug, Default)]
pub(super) struct ChatAnswer {
    pub(super) text: String,
    pub(super) reasoning: String,
    model: Option<String>,
    finish_reason: Option<String>,
    usage: Value,
    tokens_per_second: Option<f64>,
    /// Whether Ctrl-C has ended it.
    pub(super) is_stopped: bool,
    /// When its first piece came.
    began: Option<Instant>,
}

/// Asks for an answer and shows it while it comes. Ctrl-C stops it.
///
/// # Errors
/// [`CallError`] if there is no answer, or it breaks off.
pub(super) async fn ask(client: &ServiceClient, body: &Value, screen: Screen) -> Result<ChatAnswer, CallError> {
    let mut answer = ChatAnswer::default();
    let mut view = AnswerView::new(screen);
    let outcome = tokio::select! {
        outcome = read(client, body, &mut answer, &mut view) => outcome,
        _ = tokio::signal::ctrl_c() => {
            answer.is_stopped = true;
            Ok(())
        }
    };
    answer.measure(answer.began.map(|began| began.elapsed()));
    let figures = if outcome.is_ok() { answer.figures() } else { "(broken off)".to_owned() };
    if outcome.is_ok() || answer.began.is_some() {
        view.finish(&figures);
    }
    outcome.map(|()| answer)
}

async fn read(
    client: &ServiceClient,
    body: &Value,
    answer: &mut ChatAnswer,
    view: &mut AnswerView,
) -> Result<(), CallError> {
    let stream: EventStream = client.stream(Method::POST, PATH, Some(body)).await?;
    let mut stream = stream.with_longest_silence(LONGEST_SILENCE);
    while let Some(event) = stream.next().await? {
        if event.data == "[DONE]" {
            return Ok(());
        }
        let chunk: Value = serde_json::from_str(&event.data)
            .map_err(|_| CallError::Broken("the answer is no stream of a chat".to_owned()))?;
        if chunk.get("error").is_some_and(|error| !error.is_null()) {
            return Err(CallError::Refused(Box::new(ServiceError::of_value(StatusCode::OK, &chunk))));
        }
        answer.add(&chunk, view);
        if !view.has_reader() {
            return Ok(());
        }
    }
    Err(CallError::Broken("the answer broke off".to_owned()))
}

impl ChatAnswer {
    fn add(&mut self, chunk: &Value, view: &mut AnswerView) {
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        self.model = self.model.take().or_else(|| text(&chunk["model"]));
        let choice = &chunk["choices"][0];
        let reasoning = text(&choice["delta"]["reasoning_content"]).or_else(|| text(&choice["delta"]["reasoning"]));
        if let Some(piece) = reasoning {
            self.began.get_or_insert_with(Instant::now);
            view.reasoning(&piece);
            self.reasoning.push_str(&piece);
        }
        if let Some(piece) = text(&choice["delta"]["content"]) {
            self.began.get_or_insert_with(Instant::now);
            view.text(&piece);
            self.text.push_str(&piece);
        }
        self.finish_reason = text(&choice["finish_reason"]).or_else(|| self.finish_reason.take());
        if chunk["usage"].is_object() {
            self.usage = chunk["usage"].clone();
        }
        // llama-server's own measure, without the way over the network.
        self.tokens_per_second = chunk["timings"]["predicted_per_second"].as_f64().or(self.tokens_per_second);
    }

    fn measure(&mut self, time: Option<Duration>) {
        let tokens = self.usage["completion_tokens"].as_f64();
        let seconds = time.map(|time| time.as_secs_f64()).filter(|seconds| *seconds > 0.0);
        let measured = tokens.zip(seconds).map(|(tokens, seconds)| tokens / seconds);
        self.tokens_per_second = self.tokens_per_second.filter(|rate| rate.is_finite()).or(measured);
    }

    /// Returns what is shown below the answer.
    fn figures(&self) -> String {
        let count = |name: &str, word: &str| self.usage[name].as_u64().map(|count| format!("{count} {word}"));
        let cached = self.usage["prompt_tokens_details"]["cached_tokens"].as_u64().filter(|cached| *cached > 0);
        let parts = [
            self.is_stopped.then(|| "stopped".to_owned()),
            count("completion_tokens", "tokens"),
            self.tokens_per_second.map(|rate| format!("{rate:.1} tokens/s")),
            count("prompt_tokens", "tokens of prompt"),
            cached.map(|cached| format!("{cached} of them cached")),
            (self.finish_reason.as_deref() == Some("length")).then(|| "cut at its most tokens".to_owned()),
        ];
        format!("({})", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }

    /// Returns the answer for `--json`.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "model": self.model,
            "content": self.text,
            "reasoning": Some(&self.reasoning).filter(|text| !text.is_empty()),
            "finish_reason": self.finish_reason,
            "usage": self.usage,
            "tokens_per_second": self.tokens_per_second,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_reasoning_and_figures_make_an_answer() {
        let (mut answer, mut view) = (ChatAnswer::default(), AnswerView::new(Screen::Hidden));
        for chunk in [
            json!({"model": "m", "choices": [{"delta": {"role": "assistant", "content": null}}]}),
            json!({"model": "m", "choices": [{"delta": {"reasoning_content": "hm"}}]}),
            json!({"choices": [{"delta": {"content": "a"}}]}),
            json!({"choices": [{"delta": {"content": "b"}, "finish_reason": "length"}]}),
            json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2,
                   "prompt_tokens_details": {"cached_tokens": 8}}, "timings": {"predicted_per_second": 12.34}}),
        ] {
            answer.add(&chunk, &mut view);
        }
        assert_eq!((answer.text.as_str(), answer.reasoning.as_str()), ("ab", "hm"));
        let figures = "(2 tokens, 12.3 tokens/s, 9 tokens of prompt, 8 of them cached, cut at its most tokens)";
        assert_eq!(answer.figures(), figures);
        assert_eq!(answer.to_json()["usage"]["completion_tokens"], 2);
    }
}
