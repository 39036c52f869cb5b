//! The clients of one lane: each asks one thing after the other, of all kinds, and judges what comes.
//!
//! What a client asks follows from its seed alone. Which answers meet which fault does not: that is the threads' doing.

pub(crate) mod http2;

use crate::{
    checks::expectations::{Outcome, Wants, Wish, judge, patience},
    random::Random,
    shared::{Door, IDLE_LOOK, Target},
    support::{
        client::{Client, RawClient, Response},
        gateway::USER,
        wait,
    },
};
use serde_json::json;
use std::{
    io,
    time::{Duration, Instant},
};

/// The longest that any request may take here: QUEUE_TIMEOUT, REQUEST_TIMEOUT and a slow stream, one after the other, on
/// a machine that others use too.
pub(crate) const OUTCOME: Duration = Duration::from_secs(14);

/// A key that comes and goes with the key file.
pub(crate) const GUEST: &str = "guest-secret-0123456789";

/// Longest pause of a client between two requests, in milliseconds.
pub(crate) const THINKS: u64 = 80;

/// Most tokens that are asked of the fake, which has no more, and of the real llama-server.
const FAKE_TOKENS: u64 = 8;
const REAL_TOKENS: u64 = 300;

/// MAX_REQUEST_BODY_SIZE of every gateway here.
pub(crate) const LARGEST_BODY: usize = 64 * 1024;

/// One client.
pub(crate) struct Customer<'a> {
    pub(crate) door: &'a Door,
    pub(crate) random: Random,
    name: String,
    asked: u64,
    is_real: bool,
    connection: Option<(u64, RawClient)>,
}

/// One request, ready to be sent.
#[derive(Clone)]
pub(crate) struct Order {
    pub(crate) wish: Wish,
    pub(crate) client: Client,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) body: Vec<u8>,
    /// Whether the `gateway_` metrics count it, whatever comes of it.
    is_counted: bool,
}

type Make = fn(&mut Customer<'_>, &Target, String) -> Order;

const MIX: &[(u64, Make)] = &[
    (16, |it, target, id| it.generation(target, id, Wants::Chat)),
    (16, |it, target, id| it.generation(target, id, Wants::ChatStream)),
    (6, |it, target, id| it.generation(target, id, Wants::Completion)),
    (6, |it, target, id| it.generation(target, id, Wants::CompletionStream)),
    (5, |it, target, id| it.generation(target, id, Wants::Messages)),
    (5, |it, target, id| it.generation(target, id, Wants::MessagesStream)),
    (4, |it, target, id| it.small(target, id, "/v1/embeddings", Some("input"))),
    (6, |it, target, id| it.small(target, id, "/tokenize", Some("content"))),
    (6, |it, target, id| it.small(target, id, "/v1/models", None)),
    (3, |it, target, id| it.small(target, id, "/health", None)),
    (2, |it, target, id| it.small(target, id, "/metrics", None)),
    (1, |it, target, id| {
        it.stranger(target, id, Some("nobody-secret-0123456789"), &["invalid_api_key", "rate_limit_exceeded"])
    }),
    (3, |it, target, id| it.stranger(target, id, None, &["missing_api_key"])),
    (1, |it, target, id| it.stranger(target, id, Some(GUEST), GUESTS_REFUSALS)),
    (3, |it, target, id| it.refused(target, id, "/no/such/route", b"{}", &["route_not_found"])),
    (2, |it, target, id| {
        it.refused(target, id, "/v1/chat/completions", &[b' '; LARGEST_BODY + 1], &["payload_too_large"])
    }),
];

const GUESTS_REFUSALS: &[&str] = &["invalid_api_key", "rate_limit_exceeded"];

impl<'a> Customer<'a> {
    pub(crate) fn new(door: &'a Door, random: Random, name: String, is_real: bool) -> Self {
        Customer { door, random, name, asked: 0, is_real, connection: None }
    }

    /// Asks and judges until the lane is over.
    pub(crate) fn shop(mut self) {
        while !self.door.is_over() {
            let thinks = Duration::from_millis(self.random.below(THINKS));
            match self.door.enter() {
                Some(_busy) if !self.door.is_closed() => {
                    if let Err(what) = self.visit() {
                        self.door.violation(format!("{}: {what}", self.name));
                        self.connection = None;
                    }
                }
                _ => {
                    self.connection = None;
                    std::thread::sleep(IDLE_LOOK);
                }
            }
            std::thread::sleep(thinks);
        }
    }

    pub(crate) fn order(&mut self, target: &Target) -> Order {
        let make = *self.random.weighted(MIX);
        self.asked += 1;
        let id = format!("{}-{}-{}", self.name, target.life, self.asked);
        make(self, target, id)
    }

    /// One request, two on one connection, or one that the client leaves.
    fn visit(&mut self) -> Result<(), String> {
        let target = self.door.target();
        let orders = match self.random.below(100) {
            0..8 => vec![self.order(&target), self.order(&target)],
            _ => vec![self.order(&target)],
        };
        // Of a client that sends more than two heads before its turn, nothing more is read as a request (`EARLY_HEADS`).
        let is_too_early = orders.get(1).is_some_and(|order| order.body.len() > LARGEST_BODY);
        let orders = if is_too_early { &orders[..1] } else { &orders[..] };
        let leaves = self.random.chance(6).then(|| self.random.below(100));
        let keeps = self.random.chance(70);
        let begin = Instant::now();
        let outcomes = self.exchange(&target, orders, leaves, keeps);
        let took = self.door.ran_since(begin);
        if took > wait::patient(OUTCOME) {
            return Err(format!("{:?} took {took:?}: {outcomes:?}", orders[0].wish));
        }
        outcomes
    }

    fn exchange(&mut self, target: &Target, orders: &[Order], leaves: Option<u64>, keeps: bool) -> Result<(), String> {
        let (door, begin) = (self.door, Instant::now());
        let account = |order: &Order, outcome: Outcome| order.account(door, target, outcome, None);
        let excused = |what: String| match self.door.excuses(target) {
            true => Ok(()),
            false => Err(format!("{what}: {:?}", orders[0].wish)),
        };
        let kept = self.connection.take().filter(|(life, _)| *life == target.life);
        let is_kept = kept.is_some();
        let mut connection = match kept {
            Some((_, connection)) => connection,
            None => match RawClient::try_connect(&target.url) {
                Ok(connection) => connection,
                Err(error) => return excused(format!("no connection: {error}")),
            },
        };
        let bytes: Vec<u8> = orders.iter().flat_map(Order::bytes).collect();
        let bytes = match leaves {
            Some(percent) if percent < 50 => &bytes[..bytes.len() * percent as usize / 50],
            _ => &bytes,
        };
        // A gateway that refuses a body may close before all of it is sent; its answer is there all the same.
        let sent = connection.write(bytes);
        if leaves.is_some() {
            orders.iter().for_each(|order| account(order, Outcome::Left));
            return Ok(());
        }
        for (nth, order) in orders.iter().enumerate() {
            let answer = match connection.read_response() {
                Ok(answer) => answer,
                Err(error) => {
                    orders[nth..].iter().for_each(|order| account(order, Outcome::Excused));
                    let place = format!("{} of {}, kept: {is_kept}, sent: {sent:?}", nth + 1, orders.len());
                    return excused(format!("no answer ({error}) to {place}: {:?}", order.wish.id));
                }
            };
            order.settle(door, target, &answer, begin)?;
            let closes = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            if closes || !answer.complete {
                // What was sent behind it was never read, or at least never answered.
                orders[nth + 1..].iter().for_each(|order| account(order, Outcome::Left));
                return nothing_follows(connection, &order.wish);
            }
        }
        if keeps {
            self.connection = Some((target.life, connection));
            return Ok(());
        }
        nothing_follows(connection, &orders[orders.len() - 1].wish)
    }

    /// A prompt of so many words that no other request has.
    fn prompt(&mut self) -> (String, u64) {
        let words = self.random.between(1, 30);
        let text = (1..words).fold(format!("{}:{}", self.name, self.asked), |text, word| format!("{text} w{word}"));
        (text, words)
    }

    fn generation(&mut self, target: &Target, id: String, wants: Wants) -> Order {
        let (prompt, words) = self.prompt();
        // The real one is fast: faults must have a chance to meet an answer on its way.
        let tokens = self.random.between(1, if self.is_real { REAL_TOKENS } else { FAKE_TOKENS });
        let streams = matches!(wants, Wants::ChatStream | Wants::CompletionStream | Wants::MessagesStream);
        let message = json!([{"role": "user", "content": prompt}]);
        let usage = json!({"include_usage": true});
        let (path, body, prompt_tokens) = match wants {
            Wants::Completion | Wants::CompletionStream => {
                ("/v1/completions", json!({"prompt": prompt, "max_tokens": tokens, "stream": streams}), words)
            }
            Wants::Messages | Wants::MessagesStream => {
                ("/v1/messages", json!({"messages": message, "max_tokens": tokens, "stream": streams}), words + 1)
            }
            Wants::ChatStream => {
                let body = json!({"messages": message, "max_tokens": tokens, "stream": true, "stream_options": usage});
                ("/v1/chat/completions", body, words + 1)
            }
            _ => ("/v1/chat/completions", json!({"messages": message, "max_tokens": tokens}), words + 1),
        };
        let counts = (!self.is_real).then_some((prompt_tokens, tokens));
        let client = Client::new(&target.url).key(USER);
        Order::new(client, "POST", path, body.to_string().as_bytes(), Wish::proxied(id, wants, counts), true)
    }

    /// A request that takes next to nothing; `says` is the field of its body that tells it from all others.
    fn small(&self, target: &Target, id: String, path: &'static str, says: Option<&str>) -> Order {
        let is_local = ["/health", "/metrics"].contains(&path);
        let wants = if path == "/health" { Wants::Health } else { Wants::Json };
        let body = says.map(|field| json!({ field: id }).to_string()).unwrap_or_default();
        let wish = Wish { is_proxied: !is_local, ..Wish::proxied(id, wants, None) };
        let method = if says.is_some() { "POST" } else { "GET" };
        Order::new(Client::new(&target.url).key(USER), method, path, body.as_bytes(), wish, !is_local)
    }

    /// Somebody whose key may not be known.
    fn stranger(&mut self, target: &Target, id: String, key: Option<&str>, refusals: &'static [&'static str]) -> Order {
        let may_pass = key == Some(GUEST);
        let wants = if may_pass { Wants::Chat } else { Wants::Refusal };
        let (prompt, words) = self.prompt();
        let body = json!({"messages": [{"role": "user", "content": prompt}], "max_tokens": 2}).to_string();
        let tokens = (!self.is_real).then_some((words + 1, 2));
        let wish = Wish { refusals, is_proxied: may_pass, ..Wish::proxied(id, wants, tokens) };
        let client = Client::new(&target.url);
        let client = key.into_iter().fold(client, Client::key);
        Order::new(client, "POST", "/v1/chat/completions", body.as_bytes(), wish, true)
    }

    fn refused(
        &self,
        target: &Target,
        id: String,
        path: &'static str,
        body: &[u8],
        refusals: &'static [&'static str],
    ) -> Order {
        let wish = Wish { refusals, is_proxied: false, ..Wish::proxied(id, Wants::Refusal, None) };
        Order::new(Client::new(&target.url).key(USER), "POST", path, body, wish, false)
    }
}

impl Order {
    fn new(
        client: Client,
        method: &'static str,
        path: &'static str,
        body: &[u8],
        wish: Wish,
        is_counted: bool,
    ) -> Self {
        let client = client.header("X-Request-Id", &wish.id);
        Order { wish, client, method, path, body: body.to_vec(), is_counted }
    }

    /// Enters the outcome into the books.
    pub(crate) fn account(&self, door: &Door, target: &Target, outcome: Outcome, bytes: Option<usize>) {
        door.accounts().note(target.life, self.is_counted, outcome, bytes);
    }

    /// Judges the answer to a request that was sent after `begin`.
    pub(crate) fn settle(&self, door: &Door, target: &Target, answer: &Response, begin: Instant) -> Result<(), String> {
        let took = door.ran_since(begin);
        let outcome = judge(&self.wish, answer, door.excuses(target));
        let outcome = outcome.map_err(|what| format!("{what}\n  to {:?}", self.wish))?;
        if took < patience(&outcome) {
            return Err(format!("given up after {took:?}: {outcome:?} to {:?}", self.wish));
        }
        let length = (outcome != Outcome::Cut).then_some(answer.body.len());
        self.account(door, target, outcome, length);
        Ok(())
    }

    fn bytes(&self) -> Vec<u8> {
        self.client.request(self.method, self.path, &self.body)
    }
}

impl Wish {
    fn proxied(id: String, wants: Wants, tokens: Option<(u64, u64)>) -> Self {
        Wish { id, wants, tokens, refusals: &[], is_proxied: true }
    }
}

/// There is no second answer: once the client has no more to say, the connection ends without another byte.
fn nothing_follows(mut connection: RawClient, wish: &Wish) -> Result<(), String> {
    connection.finish_writing();
    let rest = connection.try_read_to_close();
    match rest {
        Ok(rest) if rest.is_empty() => Ok(()),
        Ok(rest) => Err(format!("{:?} follows the answer to {wish:?}", String::from_utf8_lossy(&rest))),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(format!("the connection stays open ({error}) after the answer to {wish:?}")),
    }
}
