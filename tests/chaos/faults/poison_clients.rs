//! Clients that repeat one request that kills llama-server. Only they may get the code `request_kills_backend`: other
//! clients send each of their requests once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde_json::json;

use crate::{
    checks::expectations::{Expectation, Outcome, ResponseKind, classify},
    checks::invariants::CountedAs,
    shared::{Shared, Target},
    support::{client::Client, gateway::USER},
};

/// The text of poison requests, for the fake's script field `die_on`.
pub(crate) const POISON_TEXT: &str = "deadly";

/// The code of the refusal once the gateway has identified the request.
const POISON_CODE: &str = "request_kills_backend";

/// The pause of a client between two requests.
const PAUSE: Duration = Duration::from_millis(20);

/// `max_tokens` of the requests: enough that the real llama-server is killed while it generates.
const TOKENS: u64 = 300;

type Seen = Vec<(Outcome, usize)>;

/// A group of clients that send one poison request until they are dropped.
pub(crate) struct PoisonClients {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<Seen, String>>>,
    gateway_number: u64,
}

impl PoisonClients {
    /// Starts `count` clients that send the same request; `which` makes it unique.
    pub(crate) fn start(target: &Target, count: u64, which: u64, streams: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |n: u64| {
            let (url, stop, gateway_number) = (target.url.clone(), Arc::clone(&stop), target.gateway_number);
            let body = json!({"messages": [{"role": "user", "content": format!("{POISON_TEXT} {which}")}],
                "max_tokens": TOKENS, "stream": streams});
            let kind = if streams { ResponseKind::ChatStream } else { ResponseKind::Chat };
            std::thread::spawn(move || {
                let mut seen = Seen::new();
                while !stop.load(Ordering::SeqCst) {
                    let id = format!("poison-{which}-{gateway_number}-{n}-{}", seen.len());
                    let refusals = &[POISON_CODE];
                    let expected = Expectation { id, kind, tokens: None, refusals, is_proxied: true, may_join: true };
                    let client = Client::new(&url).key(USER).header("X-Request-Id", &expected.id);
                    let response = client.try_send("POST", "/v1/chat/completions", body.to_string().as_bytes());
                    let response = response.map_err(|error| format!("no response ({error}) to {expected:?}"))?;
                    let outcome = classify(&expected, &response, false)
                        .map_err(|problem| format!("{problem}\n  to {expected:?}"))?;
                    let length = if outcome == Outcome::Cut { 0 } else { response.body.len() };
                    seen.push((outcome, length));
                    std::thread::sleep(PAUSE);
                }
                Ok(seen)
            })
        };
        let clients = (0..count).map(client).collect();
        PoisonClients { stop, clients, gateway_number: target.gateway_number }
    }

    /// Waits for the last responses and records all outcomes. Returns how many requests were refused as poison.
    pub(crate) fn end(mut self, shared: &Shared) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let mut refused = 0;
        for client in std::mem::take(&mut self.clients) {
            match client.join().unwrap_or_else(|_| Err("a poison client panicked".into())) {
                Ok(seen) => {
                    for (outcome, length) in seen {
                        refused += usize::from(matches!(&outcome, Outcome::Refused(_, code) if code == POISON_CODE));
                        shared.counts().record(self.gateway_number, CountedAs::Usage, outcome, Some(length), None);
                    }
                }
                Err(problem) => shared.report_violation(problem),
            }
        }
        refused
    }
}

impl Drop for PoisonClients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}
