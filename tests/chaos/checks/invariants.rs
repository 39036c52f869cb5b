//! Invariants that hold the whole time: the health port responds, slots and queue keep their bounds, the metrics agree
//! with the clients' counts, and no two llama-servers run at once.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    checks::expectations::Outcome,
    shared::{Shared, Target},
    support::{client::Client, wait},
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

/// The clients' counts for the current gateway.
#[derive(Debug, Default)]
pub(crate) struct ClientCounts {
    /// Requests that the gateway must have counted.
    pub(crate) certain: u64,
    /// Requests that the gateway may have counted.
    pub(crate) possible: u64,
    /// Bytes of the complete response bodies.
    pub(crate) bytes: u64,
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

    /// Adds a request that the gateway may or may not count.
    pub(crate) fn add_possible(&mut self) {
        self.possible += 1;
    }

    pub(crate) fn record(&mut self, gateway_number: u64, is_counted: bool, outcome: Outcome, bytes: Option<usize>) {
        if gateway_number == self.gateway_number && is_counted {
            match outcome {
                Outcome::Abandoned | Outcome::Excused => self.possible += 1,
                _ => self.certain += 1,
            }
            self.bytes += bytes.unwrap_or(0) as u64;
        }
        *self.totals.entry(outcome).or_default() += 1;
    }

    /// Compares the counts with the gateway's metrics; nothing may be in flight.
    pub(crate) fn check(&self, metrics: &Value) -> Result<(), String> {
        let metric = |name: &str| metrics["gateway"][name].as_u64().unwrap_or(u64::MAX);
        let counted = metric("requests");
        if counted < self.certain || counted > self.certain + self.possible {
            let (certain, possible) = (self.certain, self.possible);
            return Err(format!("{counted} requests counted, {certain} were answered and {possible} abandoned"));
        }
        if metric("requests_success") + metric("requests_error") != counted {
            return Err(format!("successes and errors do not add up to all requests: {metrics}"));
        }
        if metric("bytes_sent") < self.bytes {
            return Err(format!("{} bytes counted, clients received {}", metric("bytes_sent"), self.bytes));
        }
        Ok(())
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
