//! The clients of one lane: each sends requests of all kinds, one after the other, and checks the responses.
//!
//! The seed alone decides which requests a client sends. Which response meets which fault depends on the scheduling of
//! threads.
//!
//! - `http2.rs`: the client that uses HTTP/2

pub(crate) mod http2;

use std::{
    io,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    checks::expectations::{Expectation, Outcome, ResponseKind, classify, least_wait},
    checks::invariants::CountedAs,
    random::Random,
    shared::{IDLE_POLL, Shared, Target},
    support::{
        client::{Client, RawClient, Response},
        gateway::USER,
        wait,
    },
};

/// The longest that any request may take: QUEUE_TIMEOUT, REQUEST_TIMEOUT and a slow stream, one after the other, on a
/// busy machine.
pub(crate) const MAX_REQUEST_TIME: Duration = Duration::from_secs(14);

/// A key that only some versions of the key file contain.
pub(crate) const GUEST_KEY: &str = "guest-secret-0123456789";

/// The prompt that all clients send, where some are equal, and the percentage of prompts that are.
const REPEATED: &str = "again";
const REPETITIONS: u64 = 40;

/// A request that is in flight at each fault looks like their cause.
const REPEATED_REFUSALS: &[&str] = &["request_kills_backend"];

/// The longest pause of a client between two requests, in milliseconds.
pub(crate) const MAX_PAUSE_MS: u64 = 80;

/// The highest `max_tokens` for the fake, which generates no more, and for the real llama-server.
const FAKE_TOKENS: u64 = 8;
const REAL_TOKENS: u64 = 300;

/// MAX_REQUEST_BODY_SIZE of every gateway here.
pub(crate) const MAX_BODY: usize = 64 * 1024;

/// One client.
pub(crate) struct TrafficClient<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) random: Random,
    name: String,
    sent_requests: u64,
    is_real: bool,
    /// The secret that it sends.
    key: String,
    /// The models that it asks for; empty if there is only one.
    models: &'static [&'static str],
    /// Whether some of its requests are equal to those of other clients.
    repeats: bool,
    /// Its longest pause between two requests, in milliseconds.
    longest_pause: u64,
    connection: Option<(u64, RawClient)>,
}

/// One request, ready to be sent.
#[derive(Clone)]
pub(crate) struct PlannedRequest {
    pub(crate) expected: Expectation,
    pub(crate) client: Client,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) body: Vec<u8>,
    counted: CountedAs,
}

/// Makes a request with the given id.
type Make = fn(&mut TrafficClient<'_>, &Target, String) -> PlannedRequest;

/// The kinds of requests, with their weights.
const REQUEST_MIX: &[(u64, Make)] = &[
    (16, |it, target, id| it.text_request(target, id, ResponseKind::Chat)),
    (16, |it, target, id| it.text_request(target, id, ResponseKind::ChatStream)),
    (6, |it, target, id| it.text_request(target, id, ResponseKind::Completion)),
    (6, |it, target, id| it.text_request(target, id, ResponseKind::CompletionStream)),
    (5, |it, target, id| it.text_request(target, id, ResponseKind::Messages)),
    (5, |it, target, id| it.text_request(target, id, ResponseKind::MessagesStream)),
    (4, |it, target, id| it.misdirected_request(target, id)),
    (6, |it, target, id| it.small_request(target, id, "/tokenize", Some("content"))),
    (6, |it, target, id| it.small_request(target, id, "/v1/models", None)),
    (3, |it, target, id| it.small_request(target, id, "/health", None)),
    (2, |it, target, id| it.small_request(target, id, "/metrics", None)),
    (1, |it, target, id| it.request_with_key(target, id, Some("unknown-secret-0123456789"), KEY_REFUSALS)),
    (3, |it, target, id| it.request_with_key(target, id, None, &["missing_api_key"])),
    (1, |it, target, id| it.request_with_key(target, id, Some(GUEST_KEY), KEY_REFUSALS)),
    (3, |it, target, id| it.refused_request(target, id, "/no/such/route", b"{}", &["route_not_found"])),
    (2, |it, target, id| {
        it.refused_request(target, id, "/v1/chat/completions", &[b' '; MAX_BODY + 1], &["payload_too_large"])
    }),
];

/// The kinds of requests to a gateway with several models, with their weights.
const FLEET_MIX: &[(u64, Make)] = &[
    (16, |it, target, id| it.text_request(target, id, ResponseKind::Chat)),
    (16, |it, target, id| it.text_request(target, id, ResponseKind::ChatStream)),
    (6, |it, target, id| it.text_request(target, id, ResponseKind::Completion)),
    (6, |it, target, id| it.text_request(target, id, ResponseKind::CompletionStream)),
    (5, |it, target, id| it.text_request(target, id, ResponseKind::Messages)),
    (5, |it, target, id| it.text_request(target, id, ResponseKind::MessagesStream)),
    (6, |it, target, id| it.small_request(target, id, "/tokenize", Some("content"))),
    (3, |it, target, id| it.small_request(target, id, "/health", None)),
    (3, |it, target, id| it.refused_request(target, id, "/no/such/route", b"{}", &["route_not_found"])),
];

/// Refusals of a request to a gateway whose models come and go: the model is not there now, or three llama-servers that
/// were killed in a row had only requests of this key.
const FLEET_REFUSALS: &[&str] = &["model_not_found", "key_suspended"];

/// The same where some requests are equal.
pub(crate) const REPEATED_FLEET_REFUSALS: &[&str] = &["model_not_found", "key_suspended", "request_kills_backend"];

/// Refusals of a key that the key file does not contain; repeated ones are rate limited.
const KEY_REFUSALS: &[&str] = &["invalid_api_key", "rate_limit_exceeded"];

impl<'a> TrafficClient<'a> {
    pub(crate) fn new(shared: &'a Shared, random: Random, name: String, is_real: bool) -> Self {
        let key = USER.to_owned();
        TrafficClient {
            shared,
            random,
            name,
            sent_requests: 0,
            is_real,
            key,
            models: &[],
            repeats: false,
            longest_pause: MAX_PAUSE_MS,
            connection: None,
        }
    }

    /// Makes it ask for these models, with a key of its own.
    pub(crate) fn with_models(self, models: &'static [&'static str], key: String) -> Self {
        Self { models, key, ..self }
    }

    /// Makes some of its requests equal to those of other clients.
    pub(crate) fn with_repetitions(self, repeats: bool) -> Self {
        Self { repeats, ..self }
    }

    /// Makes it pause for up to this many milliseconds between two requests.
    pub(crate) fn with_pauses(self, longest_pause: u64) -> Self {
        Self { longest_pause, ..self }
    }

    /// Sends requests and checks the responses until the lane is finished.
    pub(crate) fn run(mut self) {
        while !self.shared.is_finished() {
            let pause = Duration::from_millis(self.random.below(self.longest_pause));
            match self.shared.try_begin() {
                Some(_active) if !self.shared.is_stopping() => {
                    if let Err(problem) = self.send_next() {
                        self.shared.report_violation(format!("{}: {problem}", self.name));
                        self.connection = None;
                    }
                }
                _ => {
                    self.connection = None;
                    std::thread::sleep(IDLE_POLL);
                }
            }
            std::thread::sleep(pause);
        }
    }

    /// Makes the next request, with a unique id.
    pub(crate) fn next_request(&mut self, target: &Target) -> PlannedRequest {
        let make = *self.random.weighted(if self.models.is_empty() { REQUEST_MIX } else { FLEET_MIX });
        self.sent_requests += 1;
        let id = format!("{}-{}-{}", self.name, target.gateway_number, self.sent_requests);
        make(self, target, id)
    }

    /// Sends one request, two pipelined ones, or one that the client abandons.
    fn send_next(&mut self) -> Result<(), String> {
        let target = self.shared.target();
        let requests = match self.random.below(100) {
            0..8 => vec![self.next_request(&target), self.next_request(&target)],
            _ => vec![self.next_request(&target)],
        };
        // The gateway keeps only a limited number of bytes that arrive before their turn (`EARLY_HEADS`): it would not
        // read a pipelined request with such a large body.
        let is_too_early = requests.get(1).is_some_and(|request| request.body.len() > MAX_BODY);
        let requests = if is_too_early { &requests[..1] } else { &requests[..] };
        let abandons = self.random.chance(6).then(|| self.random.below(100));
        let keeps_open = self.random.chance(70);
        let begin = Instant::now();
        let outcomes = self.exchange(&target, requests, abandons, keeps_open);
        let took = self.shared.running_time_since(begin);
        if took > wait::patient(MAX_REQUEST_TIME) {
            return Err(format!("{:?} took {took:?}: {outcomes:?}", requests[0].expected));
        }
        outcomes
    }

    fn exchange(
        &mut self,
        target: &Target,
        requests: &[PlannedRequest],
        abandons: Option<u64>,
        keeps_open: bool,
    ) -> Result<(), String> {
        let (shared, begin) = (self.shared, Instant::now());
        let record_outcome =
            |request: &PlannedRequest, outcome: Outcome| request.record_outcome(shared, target, outcome, None);
        let excused = |problem: String| match self.shared.is_excused(target) {
            true => Ok(()),
            false => Err(format!("{problem}: {:?}", requests[0].expected)),
        };
        let kept = self.connection.take().filter(|(gateway_number, _)| *gateway_number == target.gateway_number);
        let is_kept = kept.is_some();
        let mut connection = match kept {
            Some((_, connection)) => connection,
            None => match RawClient::try_connect(&target.url) {
                Ok(connection) => connection,
                Err(error) => return excused(format!("no connection: {error}")),
            },
        };
        let bytes: Vec<u8> = requests.iter().flat_map(PlannedRequest::bytes).collect();
        let bytes = match abandons {
            Some(percent) if percent < 50 => &bytes[..bytes.len() * percent as usize / 50],
            _ => &bytes,
        };
        // A gateway that refuses a body may close before all of it is sent, so a failed write is no violation: the
        // response can still be read.
        let sent = connection.write(bytes);
        if abandons.is_some() {
            requests.iter().for_each(|request| record_outcome(request, Outcome::Abandoned));
            return Ok(());
        }
        for (nth, request) in requests.iter().enumerate() {
            let response = match connection.read_response() {
                Ok(response) => response,
                Err(error) => {
                    requests[nth..].iter().for_each(|request| record_outcome(request, Outcome::Excused));
                    let place = format!("{} of {}, kept: {is_kept}, sent: {sent:?}", nth + 1, requests.len());
                    return excused(format!("no response ({error}) to {place}: {:?}", request.expected.id));
                }
            };
            request.check_response(shared, target, &response, begin)?;
            let closes = response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            if closes || !response.complete {
                // The gateway closes after this response, so it answers no later request.
                requests[nth + 1..].iter().for_each(|request| record_outcome(request, Outcome::Abandoned));
                return check_nothing_follows(connection, &request.expected);
            }
        }
        if keeps_open {
            self.connection = Some((target.gateway_number, connection));
            return Ok(());
        }
        check_nothing_follows(connection, &requests[requests.len() - 1].expected)
    }

    /// Returns a unique prompt and its number of words.
    fn prompt(&mut self) -> (String, u64) {
        let words = self.random.between(1, 30);
        let text =
            (1..words).fold(format!("{}:{}", self.name, self.sent_requests), |text, word| format!("{text} w{word}"));
        (text, words)
    }

    /// Makes a request that generates text.
    fn text_request(&mut self, target: &Target, id: String, kind: ResponseKind) -> PlannedRequest {
        let is_repeated = self.repeats && self.random.chance(REPETITIONS);
        let (prompt, words) = if is_repeated { (REPEATED.to_owned(), 1) } else { self.prompt() };
        // The real llama-server is fast: responses must be long enough that faults meet them in flight.
        let tokens = self.random.between(1, if self.is_real { REAL_TOKENS } else { FAKE_TOKENS });
        let streams =
            matches!(kind, ResponseKind::ChatStream | ResponseKind::CompletionStream | ResponseKind::MessagesStream);
        let message = json!([{"role": "user", "content": prompt}]);
        let usage = json!({"include_usage": true});
        let (path, body, prompt_tokens) = match kind {
            ResponseKind::Completion | ResponseKind::CompletionStream => {
                ("/v1/completions", json!({"prompt": prompt, "max_tokens": tokens, "stream": streams}), words)
            }
            ResponseKind::Messages | ResponseKind::MessagesStream => {
                ("/v1/messages", json!({"messages": message, "max_tokens": tokens, "stream": streams}), words + 1)
            }
            ResponseKind::ChatStream => {
                let body = json!({"messages": message, "max_tokens": tokens, "stream": true, "stream_options": usage});
                ("/v1/chat/completions", body, words + 1)
            }
            _ => ("/v1/chat/completions", json!({"messages": message, "max_tokens": tokens}), words + 1),
        };
        let counts = (!self.is_real).then_some((prompt_tokens, tokens));
        let client = Client::new(&target.url).key(&self.key);
        let body = self.with_model_name(body).to_string();
        let refusals = match (is_repeated, self.models.is_empty()) {
            (true, true) => REPEATED_REFUSALS,
            (true, false) => REPEATED_FLEET_REFUSALS,
            (false, _) => self.fleet_refusals(),
        };
        let expected = Expectation { refusals, may_join: is_repeated, ..Expectation::proxied(id, kind, counts) };
        PlannedRequest::new(client, "POST", path, body.as_bytes(), expected, CountedAs::Usage)
    }

    /// Adds the name of one of its models to a body.
    fn with_model_name(&mut self, mut body: Value) -> Value {
        if !self.models.is_empty() {
            body["model"] = (*self.random.pick(self.models)).into();
        }
        body
    }

    fn fleet_refusals(&self) -> &'static [&'static str] {
        if self.models.is_empty() { &[] } else { FLEET_REFUSALS }
    }

    /// Makes a cheap request; `body_field` is the field of its body that holds the unique id.
    fn small_request(
        &mut self,
        target: &Target,
        id: String,
        path: &'static str,
        body_field: Option<&str>,
    ) -> PlannedRequest {
        let is_local = ["/health", "/metrics"].contains(&path);
        let kind = if path == "/health" { ResponseKind::Health } else { ResponseKind::Json };
        let body = body_field.map(|field| self.with_model_name(json!({ field: id })).to_string()).unwrap_or_default();
        let refusals = if is_local { &[] } else { self.fleet_refusals() };
        let expected = Expectation { is_proxied: !is_local, refusals, ..Expectation::proxied(id, kind, None) };
        let method = if body_field.is_some() { "POST" } else { "GET" };
        let counted = match path {
            _ if is_local => CountedAs::Nothing,
            "/v1/models" => CountedAs::Request,
            _ => CountedAs::Usage,
        };
        PlannedRequest::new(Client::new(&target.url).key(&self.key), method, path, body.as_bytes(), expected, counted)
    }

    /// Makes a chat request with another key, or with none.
    fn request_with_key(
        &mut self,
        target: &Target,
        id: String,
        key: Option<&str>,
        refusals: &'static [&'static str],
    ) -> PlannedRequest {
        let may_pass = key == Some(GUEST_KEY);
        let kind = if may_pass { ResponseKind::Chat } else { ResponseKind::Refusal };
        let (prompt, words) = self.prompt();
        let body = json!({"messages": [{"role": "user", "content": prompt}], "max_tokens": 2}).to_string();
        let tokens = (!self.is_real).then_some((words + 1, 2));
        let expected = Expectation { refusals, is_proxied: may_pass, ..Expectation::proxied(id, kind, tokens) };
        let client = Client::new(&target.url);
        let client = key.into_iter().fold(client, Client::key);
        PlannedRequest::new(client, "POST", "/v1/chat/completions", body.as_bytes(), expected, CountedAs::Usage)
    }

    /// Makes a request that the model cannot serve, because it is of another kind.
    fn misdirected_request(&self, target: &Target, id: String) -> PlannedRequest {
        let request = self.refused_request(target, id, "/v1/embeddings", b"{}", &["wrong_model_kind"]);
        PlannedRequest { counted: CountedAs::Usage, ..request }
    }

    /// Makes a request that the gateway refuses with one of `refusals`, before it has found out what is asked for.
    fn refused_request(
        &self,
        target: &Target,
        id: String,
        path: &'static str,
        body: &[u8],
        refusals: &'static [&'static str],
    ) -> PlannedRequest {
        let expected =
            Expectation { refusals, is_proxied: false, ..Expectation::proxied(id, ResponseKind::Refusal, None) };
        PlannedRequest::new(Client::new(&target.url).key(&self.key), "POST", path, body, expected, CountedAs::Nothing)
    }
}

impl PlannedRequest {
    fn new(
        client: Client,
        method: &'static str,
        path: &'static str,
        body: &[u8],
        expected: Expectation,
        counted: CountedAs,
    ) -> Self {
        let client = client.header("X-Request-Id", &expected.id);
        PlannedRequest { expected, client, method, path, body: body.to_vec(), counted }
    }

    /// Adds the outcome to the clients' counts.
    pub(crate) fn record_outcome(&self, shared: &Shared, target: &Target, outcome: Outcome, bytes: Option<usize>) {
        shared.counts().record(target.gateway_number, self.counted, outcome, bytes, self.tokens());
    }

    /// Returns the tokens of prompt and answer; `None` if they are not known.
    fn tokens(&self) -> Option<u64> {
        match self.expected.kind {
            ResponseKind::Json | ResponseKind::Health | ResponseKind::Refusal => Some(0),
            _ => self.expected.tokens.map(|(prompt, completion)| prompt + completion),
        }
    }

    /// Checks the response to a request that was sent after `begin`, and records its outcome.
    pub(crate) fn check_response(
        &self,
        shared: &Shared,
        target: &Target,
        response: &Response,
        begin: Instant,
    ) -> Result<(), String> {
        let took = shared.running_time_since(begin);
        let outcome = classify(&self.expected, response, shared.is_excused(target));
        let outcome = outcome.map_err(|problem| format!("{problem}\n  to {:?}", self.expected))?;
        // The time of an answer that was joined has begun before.
        if !self.expected.may_join && took < least_wait(&outcome) {
            return Err(format!("the gateway gave up too early, after {took:?}: {outcome:?} to {:?}", self.expected));
        }
        let length = (outcome != Outcome::Cut).then_some(response.body.len());
        if outcome.is_cut_at_backend() {
            shared.report_cut(&self.expected.id);
        }
        // An answer of the cache takes no tokens.
        let is_hit = response.header("x-llamagate-cache") == Some("hit");
        let tokens = if is_hit { Some(0) } else { self.tokens() };
        shared.counts().record(target.gateway_number, self.counted, outcome, length, tokens);
        Ok(())
    }

    fn bytes(&self) -> Vec<u8> {
        self.client.request(self.method, self.path, &self.body)
    }
}

impl Expectation {
    fn proxied(id: String, kind: ResponseKind, tokens: Option<(u64, u64)>) -> Self {
        Expectation { id, kind, tokens, refusals: &[], is_proxied: true, may_join: false }
    }
}

/// Checks that the connection ends without another byte once the client has finished writing.
fn check_nothing_follows(mut connection: RawClient, expected: &Expectation) -> Result<(), String> {
    connection.finish_writing();
    let rest = connection.try_read_to_close();
    match rest {
        Ok(rest) if rest.is_empty() => Ok(()),
        Ok(rest) => Err(format!("{:?} follows the response to {expected:?}", String::from_utf8_lossy(&rest))),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(format!("the connection stays open ({error}) after the response to {expected:?}")),
    }
}
