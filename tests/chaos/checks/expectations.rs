//! Which responses a client may get: exactly one outcome, well formed, and the response to its own request.

use std::time::Duration;

use serde_json::Value;

use crate::{
    setup::{QUEUE_TIMEOUT, REQUEST_TIMEOUT, STREAM_IDLE_TIMEOUT},
    support::client::{Event, Response},
};
use llamagate::refusal::CODES;

/// What the response to a request must be.
#[derive(Debug, Clone)]
pub(crate) struct Expectation {
    pub(crate) id: String,
    pub(crate) kind: ResponseKind,
    /// Tokens of the prompt and of the response, as the fake counts them; `None` with the real llama-server.
    pub(crate) tokens: Option<(u64, u64)>,
    /// Codes of refusals that this request may get beside those of every request.
    pub(crate) refusals: &'static [&'static str],
    /// Whether the request goes to llama-server when it is not refused.
    pub(crate) is_proxied: bool,
    /// Whether it may get the answer that an equal request waits for.
    pub(crate) may_join: bool,
}

/// The kind of response that the request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseKind {
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
    /// Only a refusal.
    Refusal,
}

/// A well-formed outcome.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// A complete response of the expected kind.
    Answered,
    /// A stream that ends with its end mark.
    Streamed,
    /// A stream whose last event is an error with this code.
    StreamError(String),
    /// A refusal of the gateway: status and code.
    Refused(u16, String),
    /// An error of llama-server with this status.
    BackendError(u16),
    /// A response that broke off before its declared end, so that the client can tell.
    Cut,
    /// No response, because the gateway was being stopped.
    Excused,
    /// The client left before the response was complete.
    Abandoned,
}

impl Outcome {
    /// Whether the worker is certainly gone that had begun to serve the request.
    pub(crate) fn is_cut_at_backend(&self) -> bool {
        match self {
            Outcome::Refused(_, code) | Outcome::StreamError(code) => code == "backend_error",
            _ => false,
        }
    }
}

/// Refusals that any request for llama-server may get during faults.
pub(crate) const BACKEND_REFUSALS: &[&str] =
    &["backend_error", "queue_full", "queue_timeout", "model_loading", "backend_unavailable", "backend_timeout"];

/// Messages of the errors in the fake's scripts.
const SCRIPTED_MESSAGES: [&str; 3] = ["Compute error.", "Invalid input batch.", "scripted"];
/// The message of the one scripted error that the request is to blame for: the gateway answers 400.
const SCRIPTED_FAULT: &str = "Context size has been exceeded.";
/// A part of the message that refuses a poison request, for the Anthropic API, whose errors have no codes.
const POISON_MESSAGE: &str = "died each time";

/// Returns the shortest time after which the gateway may give up with this outcome.
pub(crate) fn least_wait(outcome: &Outcome) -> Duration {
    match outcome {
        Outcome::Refused(_, code) | Outcome::StreamError(code) if code == "queue_timeout" => QUEUE_TIMEOUT,
        Outcome::Refused(_, code) if code == "backend_timeout" => REQUEST_TIMEOUT,
        Outcome::StreamError(code) if code == "backend_timeout" => STREAM_IDLE_TIMEOUT.min(REQUEST_TIMEOUT),
        _ => Duration::ZERO,
    }
}

/// Returns the outcome of a response.
///
/// # Errors
///
/// If the response is not allowed for this request.
pub(crate) fn classify(expected: &Expectation, response: &Response, is_stopping: bool) -> Result<Outcome, String> {
    let wrong = |problem: &str| {
        Err(format!("{problem}: {} {:?} {:?}", response.status(), response.head.headers, response.text()))
    };
    if response.header("x-request-id") != Some(&expected.id) {
        return wrong("not the response to this request");
    }
    if response.text().contains(crate::faults::port_takers::FOREIGN_BODY) {
        return wrong("a response of a foreign server");
    }
    let is_stream = response.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    if !response.complete {
        let declared = response.header("content-length").is_some() || response.header("transfer-encoding").is_some();
        return match expected.is_proxied && declared && !is_stream {
            true => Ok(Outcome::Cut),
            false => wrong("cut although it must not be"),
        };
    }
    if is_stream {
        return classify_stream(expected, response, is_stopping).or_else(|problem| wrong(&problem));
    }
    let Ok(body) = serde_json::from_slice::<Value>(&response.body) else { return wrong("not JSON") };
    if body.get("error").is_some() {
        return classify_error(expected, response, &body, is_stopping).or_else(|problem| wrong(&problem));
    }
    let is_expected = match expected.kind {
        ResponseKind::Health => matches!(response.status(), 200 | 503) && body["queue"]["active"].is_u64(),
        ResponseKind::Json => response.status() == 200,
        ResponseKind::Chat => {
            response.status() == 200
                && has_own_text(expected, &body, "/choices/0/message/content", ["prompt", "completion"])
        }
        ResponseKind::Completion => {
            response.status() == 200 && has_own_text(expected, &body, "/choices/0/text", ["prompt", "completion"])
        }
        ResponseKind::Messages => {
            response.status() == 200 && has_own_text(expected, &body, "/content/0/text", ["input", "output"])
        }
        _ => false,
    };
    if is_expected { Ok(Outcome::Answered) } else { wrong("not the expected kind of response") }
}

/// Whether a complete response holds exactly the text generated for this request.
fn has_own_text(expected: &Expectation, body: &Value, place: &str, counts: [&str; 2]) -> bool {
    let Some((prompt, completion)) = expected.tokens else { return body.get("usage").is_some() };
    let counted = counts.map(|what| body["usage"][format!("{what}_tokens")].as_u64());
    body.pointer(place).and_then(Value::as_str) == Some(&fake_text(completion))
        && counted == [Some(prompt), Some(completion)]
}

/// Returns the text that the fake generates with this number of tokens.
fn fake_text(tokens: u64) -> String {
    (0..tokens).map(|i| format!("tok{i} ")).collect()
}

/// Returns the outcome of a response whose body is an error.
fn classify_error(
    expected: &Expectation,
    response: &Response,
    body: &Value,
    is_stopping: bool,
) -> Result<Outcome, String> {
    let (status, error) = (response.status(), &body["error"]);
    if !error["message"].is_string() || !error["type"].is_string() {
        return Err("an error without a message or a type".into());
    }
    let message = error["message"].as_str().unwrap_or_default();
    if status == 400 && expected.is_proxied && message == SCRIPTED_FAULT {
        return Ok(Outcome::BackendError(status));
    }
    if let Some(number) = error["code"].as_u64() {
        let is_known = SCRIPTED_MESSAGES.contains(&message);
        let is_backend_error = expected.is_proxied && is_known && number == u64::from(status);
        return if is_backend_error {
            Ok(Outcome::BackendError(status))
        } else {
            Err("an error of neither llama-server nor the gateway".into())
        };
    }
    let is_message = matches!(expected.kind, ResponseKind::Messages | ResponseKind::MessagesStream);
    // The gateway puts llama-server's errors into Anthropic's shape, which has no code.
    if is_message && expected.is_proxied && SCRIPTED_MESSAGES.contains(&message) && error.get("code").is_none() {
        return match (body["type"].as_str(), error["type"].as_str()) {
            (Some("error"), Some("api_error" | "invalid_request_error")) => Ok(Outcome::BackendError(status)),
            _ => Err("an error of llama-server in no shape of Anthropic's".into()),
        };
    }
    let code = match expected.kind {
        ResponseKind::Messages | ResponseKind::MessagesStream
            if body["type"] == "error" && error.get("code").is_none() =>
        {
            if response.text().contains(POISON_MESSAGE) && !is_allowed(expected, "request_kills_backend", is_stopping) {
                return Err("a refusal that is not allowed".into());
            }
            let known = CODES.iter().find(|(of, code)| *of == status && is_allowed(expected, code, is_stopping));
            known.map(|(_, code)| *code)
        }
        ResponseKind::Messages | ResponseKind::MessagesStream => None,
        _ => error.get("param").and(error["code"].as_str()),
    };
    let Some(code) = code else { return Err("an error in no known shape".into()) };
    if !CODES.contains(&(status, code)) || !is_allowed(expected, code, is_stopping) {
        return Err("a refusal that is not allowed".into());
    }
    let needed = match status {
        401 => Some("www-authenticate"),
        429 | 503 => Some("retry-after"),
        _ => None,
    };
    if needed.is_some_and(|name| response.header(name).is_none()) {
        return Err(format!("a refusal without {needed:?}"));
    }
    Ok(Outcome::Refused(status, code.to_owned()))
}

fn is_allowed(expected: &Expectation, code: &str, is_stopping: bool) -> bool {
    (code == "shutting_down" && is_stopping)
        || expected.refusals.contains(&code)
        || (expected.is_proxied && BACKEND_REFUSALS.contains(&code))
}

/// Returns the outcome of a stream. It must end with its end mark or with one error, and nothing may follow.
fn classify_stream(expected: &Expectation, response: &Response, is_stopping: bool) -> Result<Outcome, String> {
    if response.status() != 200 {
        return Err("a stream with an error's status".into());
    }
    let text = response.text();
    if !text.ends_with("\n\n") {
        return Err("a stream that ends within an event".into());
    }
    let blocks = text.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(": "));
    let events: Vec<Event> = blocks.map(|block| Event::parse(block, Duration::ZERO)).collect();
    let json = |event: &Event| serde_json::from_str::<Value>(&event.data).ok();
    let Some((last, before)) = events.split_last() else { return Err("a stream without events".into()) };
    let is_error = |event: &Event| {
        event.name.as_deref() == Some("error") || json(event).is_some_and(|data| data.get("error").is_some())
    };
    let is_end = |event: &Event| match expected.kind {
        ResponseKind::MessagesStream => event.name.as_deref() == Some("message_stop"),
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
            _ if expected.kind == ResponseKind::MessagesStream => "anthropic".to_owned(),
            _ => return Err("an error event without a code".into()),
        };
        if last.data.contains(POISON_MESSAGE) && !is_allowed(expected, "request_kills_backend", is_stopping) {
            return Err("an error event that is not allowed".into());
        }
        let is_known = code == "500" || code == "anthropic" || is_allowed(expected, &code, is_stopping);
        return if is_known {
            Ok(Outcome::StreamError(code))
        } else {
            Err("an error event that is not allowed".into())
        };
    }
    if !is_end(last) {
        return Err("a stream without its end mark".into());
    }
    let Some((prompt, completion)) = expected.tokens else { return Ok(Outcome::Streamed) };
    let values: Vec<Value> = before.iter().filter_map(json).collect();
    let streamed: String = values.iter().filter_map(token_text).collect();
    let counted = |what: &[&str]| {
        let count_in = |value: &Value| what.iter().find_map(|place| value.pointer(place)?.as_u64());
        values.iter().rev().find_map(count_in)
    };
    let prompts = counted(&["/usage/prompt_tokens", "/message/usage/input_tokens"]);
    let completions = counted(&["/usage/completion_tokens", "/usage/output_tokens"]);
    match streamed == fake_text(completion) && prompts == Some(prompt) && completions == Some(completion) {
        true => Ok(Outcome::Streamed),
        false => Err(format!("a stream of another request's text: {streamed:?} {prompts:?} {completions:?}")),
    }
}

/// Returns the text of one event, of any API.
fn token_text(value: &Value) -> Option<&str> {
    let places = ["/choices/0/delta/content", "/choices/0/text", "/delta/text"];
    places.iter().find_map(|place| value.pointer(place)?.as_str())
}
