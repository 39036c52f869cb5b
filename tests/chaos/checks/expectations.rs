//! Whether an answer is one that a client may get: exactly one outcome, well formed, and the answer to its own request.

use crate::{
    setup::{QUEUE_TIMEOUT, REQUEST_TIMEOUT, STREAM_IDLE_TIMEOUT},
    support::client::{Event, Response},
};
use llamagate::refusal::CODES;
use serde_json::Value;
use std::time::Duration;

/// What a client asked for, as far as its answer depends on it.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) id: String,
    pub(crate) wants: Wants,
    /// What the prompt and the answer of a generation count; none where another model counts than the fake.
    pub(crate) tokens: Option<(u64, u64)>,
    /// Codes of refusals that this request may meet beside those of every request.
    pub(crate) refusals: &'static [&'static str],
    /// Whether it goes to llama-server when it is not refused.
    pub(crate) is_proxied: bool,
}

/// The kind of answer that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wants {
    Chat,
    Completion,
    Messages,
    ChatStream,
    CompletionStream,
    MessagesStream,
    /// Any JSON.
    Json,
    /// `/health`, which is 503 while nothing is served.
    Health,
    /// No answer but a refusal.
    Refusal,
}

/// A well-formed outcome.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// A whole answer that was wanted.
    Answered,
    /// A stream that came to its end mark.
    Streamed,
    /// A stream whose last event says why it ended.
    BrokenInBand(String),
    /// A refusal of the gateway, by its code.
    Refused(u16, String),
    /// An error of llama-server's own.
    BackendSays(u16),
    /// A whole answer that broke off before its declared end, which the client can tell.
    Cut,
    /// Nothing, from a gateway that was being stopped.
    Excused,
    /// The client left before it had its answer.
    Left,
}

/// Refusals that any request for llama-server may meet while it suffers.
const SUFFERING: &[&str] =
    &["backend_error", "queue_full", "queue_timeout", "model_loading", "backend_unavailable", "backend_timeout"];

/// What errors scripted into the fake say.
const SCRIPTED: [&str; 4] = ["Compute error.", "Invalid input batch.", "Context size has been exceeded.", "scripted"];
/// What the refusal of a request that kills llama-server says in the dialect that has no codes.
const KILLS: &str = "died each time";
/// What a fake that was started without `--embeddings` says, and how the real one begins to say it.
const UNSUPPORTED: [&str; 2] = ["This server does not support embeddings", "This model does not support embeddings"];

/// The shortest time after which the gateway may give up for this reason.
pub(crate) fn patience(outcome: &Outcome) -> Duration {
    match outcome {
        Outcome::Refused(_, code) | Outcome::BrokenInBand(code) if code == "queue_timeout" => QUEUE_TIMEOUT,
        Outcome::Refused(_, code) if code == "backend_timeout" => REQUEST_TIMEOUT,
        Outcome::BrokenInBand(code) if code == "backend_timeout" => STREAM_IDLE_TIMEOUT.min(REQUEST_TIMEOUT),
        _ => Duration::ZERO,
    }
}

/// The outcome that an answer is, or what is wrong with it.
pub(crate) fn judge(wish: &Wish, answer: &Response, is_stopping: bool) -> Result<Outcome, String> {
    let wrong = |what: &str| Err(format!("{what}: {} {:?} {:?}", answer.status(), answer.head.headers, answer.text()));
    if answer.header("x-request-id") != Some(&wish.id) {
        return wrong("not the answer to this request");
    }
    if answer.text().contains(crate::faults::port_takers::LOOT) {
        return wrong("an answer of a server that is not ours");
    }
    let is_stream = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    if !answer.complete {
        let declared = answer.header("content-length").is_some() || answer.header("transfer-encoding").is_some();
        return match wish.is_proxied && declared && !is_stream {
            true => Ok(Outcome::Cut),
            false => wrong("cut where it must not be"),
        };
    }
    if is_stream {
        return stream(wish, answer, is_stopping).or_else(|what| wrong(&what));
    }
    let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else { return wrong("not JSON") };
    if body.get("error").is_some() {
        return error(wish, answer, &body, is_stopping).or_else(|what| wrong(&what));
    }
    let expected = match wish.wants {
        Wants::Health => matches!(answer.status(), 200 | 503) && body["queue"]["active"].is_u64(),
        Wants::Json => answer.status() == 200,
        Wants::Chat => {
            answer.status() == 200 && says(wish, &body, "/choices/0/message/content", ["prompt", "completion"])
        }
        Wants::Completion => answer.status() == 200 && says(wish, &body, "/choices/0/text", ["prompt", "completion"]),
        Wants::Messages => answer.status() == 200 && says(wish, &body, "/content/0/text", ["input", "output"]),
        _ => false,
    };
    if expected { Ok(Outcome::Answered) } else { wrong("not what was asked for") }
}

/// Whether a whole answer holds the text of this request's generation, and no other.
fn says(wish: &Wish, body: &Value, place: &str, counts: [&str; 2]) -> bool {
    let Some((prompt, completion)) = wish.tokens else { return body.get("usage").is_some() };
    let counted = counts.map(|what| body["usage"][format!("{what}_tokens")].as_u64());
    body.pointer(place).and_then(Value::as_str) == Some(&text(completion))
        && counted == [Some(prompt), Some(completion)]
}

/// What the fake says in so many tokens.
fn text(tokens: u64) -> String {
    (0..tokens).map(|i| format!("tok{i} ")).collect()
}

fn error(wish: &Wish, answer: &Response, body: &Value, is_stopping: bool) -> Result<Outcome, String> {
    let (status, error) = (answer.status(), &body["error"]);
    if !error["message"].is_string() || !error["type"].is_string() {
        return Err("an error without a message or a type".into());
    }
    if let Some(number) = error["code"].as_u64() {
        let message = error["message"].as_str().unwrap_or_default();
        let is_known = SCRIPTED.contains(&message) || UNSUPPORTED.iter().any(|known| message.starts_with(known));
        let is_theirs = wish.is_proxied && is_known && number == u64::from(status);
        return if is_theirs { Ok(Outcome::BackendSays(status)) } else { Err("an error of nobody's".into()) };
    }
    let code = match wish.wants {
        Wants::Messages | Wants::MessagesStream if body["type"] == "error" && error.get("code").is_none() => {
            if answer.text().contains(KILLS) && !is_allowed(wish, "request_kills_backend", is_stopping) {
                return Err("a refusal that must not be".into());
            }
            let known = CODES.iter().find(|(of, code)| *of == status && is_allowed(wish, code, is_stopping));
            known.map(|(_, code)| *code)
        }
        Wants::Messages | Wants::MessagesStream => None,
        _ => error.get("param").and(error["code"].as_str()),
    };
    let Some(code) = code else { return Err("an error in no known shape".into()) };
    if !CODES.contains(&(status, code)) || !is_allowed(wish, code, is_stopping) {
        return Err("a refusal that must not be".into());
    }
    let needed = match status {
        401 => Some("www-authenticate"),
        429 | 503 => Some("retry-after"),
        _ => None,
    };
    if needed.is_some_and(|name| answer.header(name).is_none()) {
        return Err(format!("a refusal without {needed:?}"));
    }
    Ok(Outcome::Refused(status, code.to_owned()))
}

fn is_allowed(wish: &Wish, code: &str, is_stopping: bool) -> bool {
    (code == "shutting_down" && is_stopping)
        || wish.refusals.contains(&code)
        || (wish.is_proxied && SUFFERING.contains(&code))
}

/// A stream ends with its end mark or with one error, and nothing follows either.
fn stream(wish: &Wish, answer: &Response, is_stopping: bool) -> Result<Outcome, String> {
    if answer.status() != 200 {
        return Err("a stream with an error's status".into());
    }
    let text = answer.text();
    if !text.ends_with("\n\n") {
        return Err("a stream that ends within an event".into());
    }
    let blocks = text.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(": "));
    let events: Vec<Event> = blocks.map(|block| Event::parse(block, Duration::ZERO)).collect();
    let json = |event: &Event| serde_json::from_str::<Value>(&event.data).ok();
    let Some((last, before)) = events.split_last() else { return Err("a stream of nothing".into()) };
    let is_error = |event: &Event| {
        event.name.as_deref() == Some("error") || json(event).is_some_and(|data| data.get("error").is_some())
    };
    let is_end = |event: &Event| match wish.wants {
        Wants::MessagesStream => event.name.as_deref() == Some("message_stop"),
        _ => event.is_done(),
    };
    if let Some(early) = before.iter().find(|event| is_error(event) || is_end(event) || json(event).is_none()) {
        return Err(format!("{early:?} is not the last event"));
    }
    if is_error(last) {
        let error = &json(last).unwrap_or_default()["error"];
        let code = match &error["code"] {
            Value::String(code) => code.clone(),
            Value::Number(code) => code.to_string(),
            _ if wish.wants == Wants::MessagesStream => "anthropic".to_owned(),
            _ => return Err("an error event without a code".into()),
        };
        if last.data.contains(KILLS) && !is_allowed(wish, "request_kills_backend", is_stopping) {
            return Err("an error event that must not be".into());
        }
        let is_known = code == "500" || code == "anthropic" || is_allowed(wish, &code, is_stopping);
        return if is_known { Ok(Outcome::BrokenInBand(code)) } else { Err("an error event that must not be".into()) };
    }
    if !is_end(last) {
        return Err("a stream without its end mark".into());
    }
    let Some((prompt, completion)) = wish.tokens else { return Ok(Outcome::Streamed) };
    let values: Vec<Value> = before.iter().filter_map(json).collect();
    let said: String = values.iter().filter_map(token).collect();
    let counted = |what: &[&str]| {
        let told = |value: &Value| what.iter().find_map(|place| value.pointer(place)?.as_u64());
        values.iter().rev().find_map(told)
    };
    let prompts = counted(&["/usage/prompt_tokens", "/message/usage/input_tokens"]);
    let completions = counted(&["/usage/completion_tokens", "/usage/output_tokens"]);
    match said == self::text(completion) && prompts == Some(prompt) && completions == Some(completion) {
        true => Ok(Outcome::Streamed),
        false => Err(format!("a stream of another request's text: {said:?} {prompts:?} {completions:?}")),
    }
}

/// The text of one event, in any dialect.
fn token(value: &Value) -> Option<&str> {
    let places = ["/choices/0/delta/content", "/choices/0/text", "/delta/text"];
    places.iter().find_map(|place| value.pointer(place)?.as_str())
}
