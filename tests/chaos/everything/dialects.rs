//! Clients of other APIs than OpenAI's chats: embeddings, scores, Ollama's API, and the model of the remote backend.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::Pace;
use crate::{
    checks::{
        expectations::{BACKEND_REFUSALS, Outcome},
        invariants::CountedAs,
    },
    clients::REPEATED_FLEET_REFUSALS,
    fleet::{MODELS, client_key},
    random::Random,
    shared::{IDLE_POLL, Shared, Target},
    support::{
        client::{Client, Response},
        gateway::USER,
        wait,
    },
};
use llamagate::refusal::{CODES, Refusal};

/// The percentage of texts that other clients send too.
const REPETITIONS: u64 = 40;
/// The texts that they share.
const SHARED_TEXTS: u64 = 5;

/// The kinds of calls.
const CALLS: u64 = 9;
/// The model of the remote backend.
const REMOTE_MODEL: &str = "far";
/// The longest until a call is answered at the end, when all faults have ended: a model may load first.
const ANSWERED_AT_LAST: Duration = Duration::from_secs(45);

/// The first answer to each text that clients share: later ones must be equal, whether the cache gives them or a worker.
pub(super) type KnownAnswers = Mutex<BTreeMap<String, Value>>;

/// One client.
pub(super) struct DialectClient<'a> {
    shared: &'a Shared,
    random: Random,
    number: u64,
    sent: u64,
    pace: Pace,
    answers: &'a KnownAnswers,
}

/// How the answer to a call must look.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// JSON, with a list of this many entries in this place.
    List(&'static str, usize),
    /// JSON, with a text in this place.
    Text(&'static str),
    /// Lines of JSON, the last of which says that it is.
    Lines,
    /// Events with an end mark.
    Events,
}

impl<'a> DialectClient<'a> {
    pub(super) fn new(shared: &'a Shared, random: Random, number: u64, pace: Pace, answers: &'a KnownAnswers) -> Self {
        Self { shared, random, number, sent: 0, pace, answers }
    }

    /// Sends requests and checks the answers until the lane is finished.
    pub(super) fn run(mut self) {
        while !self.shared.is_finished() {
            let pause = Duration::from_millis(self.random.below(self.pace.longest_pause));
            match self.shared.try_begin() {
                Some(_active) => {
                    if let Err(problem) = self.send_next() {
                        self.shared.report_violation(format!("d{}: {problem}", self.number));
                    }
                }
                None => thread::sleep(IDLE_POLL),
            }
            thread::sleep(pause);
        }
    }

    fn send_next(&mut self) -> Result<(), String> {
        self.sent += 1;
        let target = self.shared.target();
        let id = format!("d{}-{}", self.number, self.sent);
        let is_shared = self.random.chance(REPETITIONS);
        let text = if is_shared { format!("again {}", self.random.below(SHARED_TEXTS)) } else { id.clone() };
        let model = *self.random.pick(&MODELS);
        let (path, body, form) = call(self.random.below(CALLS), model, &text);
        let client = Client::new(&target.url).key(&client_key(self.number)).header("X-Request-Id", &id);
        if self.random.chance(5) {
            // Leaves without an answer.
            let _ = client.begin("POST", path, body.to_string().as_bytes());
            self.record(&target, Outcome::Abandoned, None);
            return Ok(());
        }
        let response = client.try_send("POST", path, body.to_string().as_bytes());
        let response = response.map_err(|error| format!("no response ({error}) to POST {path} {body}"))?;
        let outcome = outcome_of(&response, form, &body, &id);
        let outcome = outcome.map_err(|problem| {
            format!(
                "{problem}: {} {:?} {:?} to POST {path} {body}",
                response.status(),
                response.head.headers,
                response.text()
            )
        })?;
        // Not all of these APIs have codes.
        if outcome == Outcome::Cut || response.text().contains(&Refusal::BackendError.to_string()) {
            self.shared.report_cut(&id);
        }
        if let (Outcome::Answered, Form::List(place, _), true, false) = (&outcome, form, is_shared, self.pace.is_real) {
            self.compare(&format!("{path} {body}"), response.json().pointer(place).cloned().unwrap_or_default())?;
        }
        let length = (outcome != Outcome::Cut).then_some(response.body.len());
        self.record(&target, outcome, length);
        Ok(())
    }

    /// Checks that an answer is equal to the first one to the same question.
    fn compare(&self, question: &str, answer: Value) -> Result<(), String> {
        let mut answers = self.answers.lock().unwrap();
        let known = answers.entry(question.to_owned()).or_insert_with(|| answer.clone());
        if *known == answer { Ok(()) } else { Err(format!("{question} got {known} before, and {answer} now")) }
    }

    fn record(&self, target: &Target, outcome: Outcome, length: Option<usize>) {
        self.shared.counts().record(target.gateway_number, CountedAs::Usage, outcome, length, None);
    }
}

/// Sends each kind of call until it is answered, when all faults have ended, and then again: the cache may answer that.
///
/// # Errors
///
/// An answer is not allowed, or there is none.
pub(super) fn check_each_call(target: &Target, shared: &Shared) -> Result<(), String> {
    let mut sent = 0;
    for number in (0..CALLS).chain(0..CALLS) {
        let (path, body, form) = call(number, MODELS[0], "at the end");
        let begin = Instant::now();
        loop {
            shared.counts().add_possible();
            sent += 1;
            let id = format!("end-{sent}");
            let client = Client::new(&target.url).key(USER).header("X-Request-Id", &id);
            let response = client.try_send("POST", path, body.to_string().as_bytes());
            let response = response.map_err(|error| format!("no response ({error}) to POST {path} {body}"))?;
            let outcome = outcome_of(&response, form, &body, &id);
            match outcome.map_err(|problem| format!("{problem}: {} to POST {path} {body}", response.text()))? {
                Outcome::Answered | Outcome::Streamed => break,
                other if begin.elapsed() > wait::patient(ANSWERED_AT_LAST) => {
                    return Err(format!("POST {path} {body} is not answered after all faults: {other:?}"));
                }
                _ => thread::sleep(wait::POLL * 10),
            }
        }
    }
    Ok(())
}

/// Returns one kind of call: path, body, and how the answer must look. `model` is one of the six.
fn call(number: u64, model: &str, text: &str) -> (&'static str, Value, Form) {
    let documents = ["a b", "again", "c"];
    let messages = json!([{"role": "user", "content": text}]);
    match number {
        0 => ("/v1/embeddings", json!({"model": "vectors", "input": [text]}), Form::List("/data", 1)),
        1 => ("/api/embed", json!({"model": "vectors", "input": text}), Form::List("/embeddings", 1)),
        2 => ("/v2/embed", cohere_embed(text), Form::List("/embeddings/float", 1)),
        3 => {
            let body = json!({"model": "ranks", "query": text, "documents": documents});
            ("/v1/rerank", body, Form::List("/results", 3))
        }
        4 => {
            let body = json!({"model": "ranks", "query": text, "documents": documents, "top_n": 2});
            ("/v2/rerank", body, Form::List("/results", 2))
        }
        5 => ("/api/chat", json!({"model": model, "messages": messages, "options": {"num_predict": 4}}), Form::Lines),
        6 => {
            let body = json!({"model": model, "prompt": text, "stream": false, "options": {"num_predict": 4}});
            ("/api/generate", body, Form::Text("/response"))
        }
        7 => (
            "/v1/chat/completions",
            json!({"model": REMOTE_MODEL, "messages": messages}),
            Form::Text("/choices/0/message/content"),
        ),
        _ => {
            ("/v1/chat/completions", json!({"model": REMOTE_MODEL, "messages": messages, "stream": true}), Form::Events)
        }
    }
}

fn cohere_embed(text: &str) -> Value {
    json!({"model": "vectors", "texts": [text], "input_type": "search_query", "embedding_types": ["float"]})
}

/// Returns the outcome of a response.
///
/// # Errors
///
/// The response is not allowed.
fn outcome_of(response: &Response, form: Form, request: &Value, id: &str) -> Result<Outcome, String> {
    if response.header("x-request-id") != Some(id) {
        return Err("not the response to this request".to_owned());
    }
    let declared = response.header("content-length").is_some() || response.header("transfer-encoding").is_some();
    if !response.complete {
        return if declared { Ok(Outcome::Cut) } else { Err("cut, and a client cannot tell".to_owned()) };
    }
    if response.status() != 200 {
        return refused(response, request["model"].as_str().unwrap_or_default());
    }
    let body = || serde_json::from_slice::<Value>(&response.body).map_err(|error| format!("not JSON: {error}"));
    let is_stream = response.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    match form {
        // A remote backend may answer any request with a stream.
        Form::Text(_) if is_stream => events_outcome(&response.text()),
        Form::List(place, count) => match body()?.pointer(place).and_then(Value::as_array) {
            Some(list) if list.len() == count => Ok(Outcome::Answered),
            _ => Err(format!("no list of {count} at {place}")),
        },
        Form::Text(place) => match body()?.pointer(place).is_some_and(Value::is_string) {
            true => Ok(Outcome::Answered),
            false => Err(format!("no text at {place}")),
        },
        Form::Lines => lines_outcome(&response.text()),
        Form::Events => events_outcome(&response.text()),
    }
}

/// Returns the outcome of lines of JSON: the last one says that it is, or is an error.
fn lines_outcome(text: &str) -> Result<Outcome, String> {
    let lines: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
    let lines = lines.map_err(|error| format!("a line is not JSON: {error}"))?;
    let ends = |line: &Value| line["done"] == true || line.get("error").is_some();
    match lines.iter().position(ends) {
        Some(at) if at + 1 == lines.len() && lines[at]["done"] == true => Ok(Outcome::Streamed),
        Some(at) if at + 1 == lines.len() => Ok(Outcome::StreamError("lines".to_owned())),
        _ => Err("the last line does not say that it is".to_owned()),
    }
}

/// Returns the outcome of a stream of OpenAI's events.
fn events_outcome(text: &str) -> Result<Outcome, String> {
    let blocks: Vec<&str> = text.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':')).collect();
    match blocks.last() {
        Some(&"data: [DONE]") => Ok(Outcome::Streamed),
        Some(last) if last.contains("\"error\"") => Ok(Outcome::StreamError("events".to_owned())),
        _ => Err("a stream without its end mark".to_owned()),
    }
}

/// Whether a request for this model may be refused like this; `code` is `None` in a shape without codes.
fn is_allowed(model: &str, status: u16, code: Option<&str>) -> bool {
    // The remote backend says so itself: it is broken, or busy.
    if model == REMOTE_MODEL && matches!(status, 429 | 500) {
        return true;
    }
    // Of all models only the six come and go.
    let may_get = |known: &str| match known {
        "model_not_found" => MODELS.contains(&model),
        _ => BACKEND_REFUSALS.contains(&known) || REPEATED_FLEET_REFUSALS.contains(&known),
    };
    let mut rows = CODES.iter().filter(|row| row.0 == status && may_get(row.1));
    rows.any(|row| code.is_none_or(|code| code == row.1))
}

/// Returns the outcome of a refusal, whose shape depends on the API.
fn refused(response: &Response, model: &str) -> Result<Outcome, String> {
    let status = response.status();
    let body: Value = serde_json::from_slice(&response.body).map_err(|error| format!("not JSON: {error}"))?;
    let has_words = ["error", "message"].iter().any(|name| body.get(name).is_some());
    if !has_words {
        return Err("a refusal without words".to_owned());
    }
    let code = body.pointer("/error/code").and_then(Value::as_str);
    if !is_allowed(model, status, code) {
        return Err("a refusal that is not allowed".to_owned());
    }
    if matches!(status, 429 | 503) && response.header("retry-after").is_none() {
        return Err("a refusal without Retry-After".to_owned());
    }
    Ok(Outcome::Refused(status, code.unwrap_or("of an API").to_owned()))
}
