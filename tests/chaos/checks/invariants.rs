//! Invariants that hold the whole time: the health port responds, slots and queue keep their bounds, the metrics agree
//! with the clients' counts, and no two llama-servers run at once.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    checks::expectations::Outcome,
    shared::{Shared, Target},
    support::{
        client::Client,
        gateway::{ADMIN, Gateway},
        wait,
    },
    test_gateway::worker_pids,
};

/// MAX_CONCURRENT_REQUESTS of every gateway here.
pub(crate) const SLOTS: u64 = 4;
/// MAX_QUEUE_SIZE of every gateway here: fewer than there are clients, so that it fills up.
pub(crate) const QUEUE_SIZE: u64 = 6;

/// Time between two requests to the health port.
const LOOK: Duration = Duration::from_millis(20);

/// The longest that the health port may take on a busy machine, with a short SIGSTOP of the gateway in between.
const HEALTH_ANSWERS: Duration = Duration::from_secs(5);

/// A count of which a part may not have reached the gateway.
#[derive(Debug, Default)]
struct Tally {
    certain: u64,
    possible: u64,
}

impl Tally {
    fn check(&self, what: &str, counted: u64) -> Result<(), String> {
        let Tally { certain, possible } = *self;
        match (certain..=certain + possible).contains(&counted) {
            true => Ok(()),
            false => Err(format!("{counted} {what} counted, {certain} are certain and {possible} possible")),
        }
    }
}

/// Where the gateway counts a request, whatever its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CountedAs {
    Nothing,
    /// In the `gateway_` metrics alone.
    Request,
    /// In the ledger too.
    Usage,
}

/// Most tokens of a request whose tokens are not known exactly.
const MOST_TOKENS: u64 = 1024;

/// The clients' counts for the current gateway.
#[derive(Debug, Default)]
pub(crate) struct ClientCounts {
    requests: Tally,
    /// Requests for a worker.
    usage: Tally,
    /// Tokens of prompts and answers.
    tokens: Tally,
    /// Bytes of the complete response bodies.
    bytes: u64,
    /// Outcomes over all gateways of the lane.
    pub(crate) totals: BTreeMap<Outcome, u64>,
    gateway_number: u64,
}

impl ClientCounts {
    /// Resets the counts for the next gateway, whose metrics start at 0; `totals` stays.
    pub(crate) fn begin_gateway(&mut self) {
        let totals = std::mem::take(&mut self.totals);
        *self = ClientCounts { totals, gateway_number: self.gateway_number + 1, ..ClientCounts::default() };
    }

    /// Adds a request for a worker that the gateway may or may not count.
    pub(crate) fn add_possible(&mut self) {
        self.add_possible_call();
        self.usage.possible += 1;
        self.tokens.possible += MOST_TOKENS;
    }

    /// Adds a request that the gateway may or may not count, and that no worker serves: the ledger has no usage of it.
    pub(crate) fn add_possible_call(&mut self) {
        self.requests.possible += 1;
    }

    /// Adds a request with its outcome. `tokens` are those of a complete answer, if they are known.
    pub(crate) fn record(
        &mut self,
        gateway_number: u64,
        counted: CountedAs,
        outcome: Outcome,
        bytes: Option<usize>,
        tokens: Option<u64>,
    ) {
        if gateway_number == self.gateway_number && counted != CountedAs::Nothing {
            let is_certain = !matches!(outcome, Outcome::Abandoned | Outcome::Excused);
            let add = |tally: &mut Tally| match is_certain {
                true => tally.certain += 1,
                false => tally.possible += 1,
            };
            add(&mut self.requests);
            if counted == CountedAs::Usage {
                add(&mut self.usage);
            }
            match tokens {
                Some(tokens) if matches!(outcome, Outcome::Answered | Outcome::Streamed) => {
                    self.tokens.certain += tokens;
                }
                _ => self.tokens.possible += tokens.unwrap_or(MOST_TOKENS),
            }
            self.bytes += bytes.unwrap_or(0) as u64;
        }
        *self.totals.entry(outcome).or_default() += 1;
    }

    /// Compares the counts with the gateway's metrics and with `GET /usage`; nothing may be in flight.
    pub(crate) fn check(&self, metrics: &Value, usage: &Value) -> Result<(), String> {
        let metric = |name: &str| metrics["gateway"][name].as_u64().unwrap_or(u64::MAX);
        let counted = metric("requests");
        self.requests.check("requests", counted)?;
        if metric("requests_success") + metric("requests_error") != counted {
            return Err(format!("successes and errors do not add up to all requests: {metrics}"));
        }
        if metric("bytes_sent") < self.bytes {
            return Err(format!("{} bytes counted, clients received {}", metric("bytes_sent"), self.bytes));
        }
        let rows = usage["data"].as_array().ok_or_else(|| format!("no rows of usage: {usage}"))?;
        let sum =
            |names: [&str; 2]| rows.iter().flat_map(|row| names.map(|name| row[name].as_u64().unwrap_or(0))).sum();
        self.usage.check("requests in the ledger", sum(["requests", "refused"]))?;
        self.tokens.check("tokens in the ledger", sum(["prompt_tokens", "completion_tokens"]))
    }
}

/// Returns what the ledger has recorded for each key.
pub(crate) fn read_usage(gateway: &Gateway) -> Value {
    gateway.client_with(ADMIN).get("/usage?by=key").json()
}

/// Checks the file of the ledger of a gateway that has ended.
pub(crate) fn check_ledger_file(gateway: &Gateway) -> Result<(), String> {
    check_database(&gateway.data_dir().join("usage.db"))
}

/// Checks a database of a gateway that has ended.
pub(crate) fn check_database(path: &Path) -> Result<(), String> {
    let open = || rusqlite::Connection::open(path);
    let read = || open()?.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    match read() {
        Ok(verdict) if verdict == "ok" => Ok(()),
        other => Err(format!("{} is not sound: {other:?}", path.display())),
    }
}

/// Sends requests to the health port until the lane is finished; returns the longest response time.
pub(crate) fn watch_health_port(shared: &Shared) -> Duration {
    let mut longest = Duration::ZERO;
    let mut restarts = (u64::MAX, 0);
    let mut looks = 0_u64;
    while !shared.is_finished() {
        std::thread::sleep(LOOK);
        let target = shared.target();
        if shared.is_stopping() {
            continue;
        }
        if restarts.0 != target.gateway_number {
            restarts = (target.gateway_number, 0);
        }
        let begin = Instant::now();
        looks += 1;
        let look = match looks % 16 {
            0 => check_alive(&target),
            1 => check_single_worker(target.pid),
            _ => check_health(&target, &mut restarts.1),
        };
        let took = shared.running_time_since(begin);
        if shared.is_excused(&target) {
            continue;
        }
        longest = longest.max(took);
        if let Err(problem) = look {
            shared.report_violation(format!("health port: {problem}"));
        }
        if took > wait::patient(HEALTH_ANSWERS) {
            shared.report_violation(format!("the health port took {took:?}"));
        }
    }
    longest
}

fn check_alive(target: &Target) -> Result<(), String> {
    let response = Client::new(&target.health_url).try_send("GET", "/livez", b"").map_err(|e| e.to_string())?;
    if response.status() == 200 { Ok(()) } else { Err(format!("/livez says {}", response.status())) }
}

/// Returns an error if two llama-servers run at the same time.
fn check_single_worker(gateway: u32) -> Result<(), String> {
    let first = worker_pids(gateway);
    if first.len() < 2 {
        return Ok(());
    }
    // One may have replaced the other during the first look, and a process that forks looks like two for a moment.
    std::thread::sleep(LOOK);
    let second = worker_pids(gateway);
    let both: Vec<_> = first.iter().filter(|pid| second.contains(pid)).collect();
    if both.len() < 2 { Ok(()) } else { Err(format!("llama-servers run side by side: {both:?}")) }
}

fn check_health(target: &Target, restarts: &mut u64) -> Result<(), String> {
    let response = Client::new(&target.health_url).try_send("GET", "/health", b"").map_err(|e| e.to_string())?;
    let health: Value = serde_json::from_slice(&response.body).map_err(|e| format!("{e}: {}", response.text()))?;
    let (active, waiting) = (health["queue"]["active"].as_u64(), health["queue"]["waiting"].as_u64());
    // Requests that had a slot when llama-server died return to the queue, even when it is full.
    if active.is_none_or(|active| active > SLOTS) || waiting.is_none_or(|waiting| waiting > QUEUE_SIZE + SLOTS) {
        return Err(format!("{active:?} are active and {waiting:?} wait"));
    }
    let worker = &health["models"][0];
    let (Some(state), Some(told)) = (worker["state"].as_str(), worker["restarts"].as_u64()) else {
        return Err(format!("no state in {health}"));
    };
    // Here a worker is stopped only to be put to sleep, and the next request wakes it.
    if (response.status() == 200) != ["ready", "stopped", "draining"].contains(&state) {
        return Err(format!("{} while {state}", response.status()));
    }
    match std::mem::replace(restarts, told) {
        before if before <= told => Ok(()),
        before => Err(format!("restarts went from {before} to {told}")),
    }
}
