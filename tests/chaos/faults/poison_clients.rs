//! Clients that send the same deadly request again and again. They alone may be told that their request kills
//! llama-server: what other clients ask is asked only once.

use crate::{
    checks::expectations::{Outcome, Wants, Wish, judge},
    shared::{Door, Target},
    support::{client::Client, gateway::USER},
};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// What the fake can be told to die of.
pub(crate) const DEADLY: &str = "deadly";

/// What such a client is told once its request is known.
const KNOWN: &str = "request_kills_backend";

/// Pause of such a client between two requests.
const BREATHES: Duration = Duration::from_millis(20);

/// Tokens that are asked for: of the real llama-server so many that it is killed in their midst.
const TOKENS: u64 = 300;

type Seen = Vec<(Outcome, usize)>;

/// Such clients, until they are dropped.
pub(crate) struct Killers {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<Seen, String>>>,
    life: u64,
}

impl Killers {
    /// So many that all send the same; `which` tells them from others.
    pub(crate) fn start(target: &Target, count: u64, which: u64, streams: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |n: u64| {
            let (url, stop, life) = (target.url.clone(), Arc::clone(&stop), target.life);
            let said = json!({"messages": [{"role": "user", "content": format!("{DEADLY} {which}")}],
                "max_tokens": TOKENS, "stream": streams});
            let wants = if streams { Wants::ChatStream } else { Wants::Chat };
            std::thread::spawn(move || {
                let mut seen = Seen::new();
                while !stop.load(Ordering::SeqCst) {
                    let id = format!("killer-{which}-{life}-{n}-{}", seen.len());
                    let wish = Wish { id, wants, tokens: None, refusals: &[KNOWN], is_proxied: true };
                    let client = Client::new(&url).key(USER).header("X-Request-Id", &wish.id);
                    let answer = client.try_send("POST", "/v1/chat/completions", said.to_string().as_bytes());
                    let answer = answer.map_err(|error| format!("no answer ({error}) to {wish:?}"))?;
                    let outcome = judge(&wish, &answer, false).map_err(|what| format!("{what}\n  to {wish:?}"))?;
                    let length = if outcome == Outcome::Cut { 0 } else { answer.body.len() };
                    seen.push((outcome, length));
                    std::thread::sleep(BREATHES);
                }
                Ok(seen)
            })
        };
        let clients = (0..count).map(client).collect();
        Killers { stop, clients, life: target.life }
    }

    /// Waits for their last answers, and enters them all into the books; how many were known for what they are.
    pub(crate) fn end(mut self, door: &Door) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let mut known = 0;
        for client in std::mem::take(&mut self.clients) {
            match client.join().unwrap_or_else(|_| Err("a killer panicked".into())) {
                Ok(seen) => {
                    for (outcome, length) in seen {
                        known += usize::from(matches!(&outcome, Outcome::Refused(_, code) if code == KNOWN));
                        door.accounts().note(self.life, true, outcome, Some(length));
                    }
                }
                Err(what) => door.violation(what),
            }
        }
        known
    }
}

impl Drop for Killers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}
