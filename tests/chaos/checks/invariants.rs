//! What must hold the whole time: the health port, the counts of the line, the books, and never two llama-servers.

use crate::{
    checks::expectations::Outcome,
    shared::{Door, Target},
    support::{client::Client, wait},
    test_gateway::llama_servers,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// MAX_CONCURRENT_REQUESTS of every gateway here.
pub(crate) const SLOTS: u64 = 4;
/// MAX_QUEUE_SIZE of every gateway here: less than there are clients, so that it fills up.
pub(crate) const LINE: u64 = 6;

/// Time between two looks at the health port.
const LOOK: Duration = Duration::from_millis(20);

/// The longest that the health port may take to answer on a machine that others use too; a gateway that is stopped for
/// a short moment by SIGSTOP is in it.
const HEALTH_ANSWERS: Duration = Duration::from_secs(5);

/// What the clients of one gateway have counted.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    /// Requests that the gateway must have counted, and those that it may have counted.
    pub(crate) certain: u64,
    pub(crate) possible: u64,
    /// Bytes of the bodies that came whole.
    pub(crate) bytes: u64,
    /// Outcomes of all gateways of the lane.
    pub(crate) totals: BTreeMap<Outcome, u64>,
    life: u64,
}

impl Accounts {
    /// The next gateway starts with empty books.
    pub(crate) fn begin_life(&mut self) {
        let totals = std::mem::take(&mut self.totals);
        *self = Accounts { totals, life: self.life + 1, ..Accounts::default() };
    }

    /// One more request that the gateway counts or not.
    pub(crate) fn may_count(&mut self) {
        self.possible += 1;
    }

    pub(crate) fn note(&mut self, life: u64, is_counted: bool, outcome: Outcome, bytes: Option<usize>) {
        if life == self.life && is_counted {
            match outcome {
                Outcome::Left | Outcome::Excused => self.possible += 1,
                _ => self.certain += 1,
            }
            self.bytes += bytes.unwrap_or(0) as u64;
        }
        *self.totals.entry(outcome).or_default() += 1;
    }

    /// What the gateway's own books say when nothing is in flight, or why they are wrong.
    pub(crate) fn check(&self, metrics: &Value) -> Result<(), String> {
        let of = |name: &str| metrics["gateway"][name].as_u64().unwrap_or(u64::MAX);
        let counted = of("requests");
        if counted < self.certain || counted > self.certain + self.possible {
            let (certain, possible) = (self.certain, self.possible);
            return Err(format!("{counted} requests counted, {certain} were answered and {possible} left"));
        }
        if of("requests_success") + of("requests_error") != counted {
            return Err(format!("successes and errors are not all requests: {metrics}"));
        }
        if of("bytes_sent") < self.bytes {
            return Err(format!("{} bytes counted, clients have {}", of("bytes_sent"), self.bytes));
        }
        Ok(())
    }
}

/// Looks at the health port until the lane is over; returns the longest answer.
pub(crate) fn watch(door: &Door) -> Duration {
    let mut longest = Duration::ZERO;
    let mut restarts = (u64::MAX, 0);
    let mut looks = 0_u64;
    while !door.is_over() {
        std::thread::sleep(LOOK);
        let target = door.target();
        if door.is_closed() {
            continue;
        }
        if restarts.0 != target.life {
            restarts = (target.life, 0);
        }
        let begin = Instant::now();
        looks += 1;
        let look = match looks % 16 {
            0 => is_alive(&target),
            1 => are_alone(target.pid),
            _ => look(&target, &mut restarts.1),
        };
        let took = door.ran_since(begin);
        if door.excuses(&target) {
            continue;
        }
        longest = longest.max(took);
        if let Err(what) = look {
            door.violation(format!("health port: {what}"));
        }
        if took > wait::patient(HEALTH_ANSWERS) {
            door.violation(format!("the health port took {took:?}"));
        }
    }
    longest
}

fn is_alive(target: &Target) -> Result<(), String> {
    let answer = Client::new(&target.health_url).try_send("GET", "/livez", b"").map_err(|e| e.to_string())?;
    if answer.status() == 200 { Ok(()) } else { Err(format!("/livez says {}", answer.status())) }
}

/// Whether no two llama-servers run at the same time.
fn are_alone(gateway: u32) -> Result<(), String> {
    let first = llama_servers(gateway);
    if first.len() < 2 {
        return Ok(());
    }
    // One may have followed the other while they were looked for, and one that forks looks like two for a moment.
    std::thread::sleep(LOOK);
    let second = llama_servers(gateway);
    let both: Vec<_> = first.iter().filter(|pid| second.contains(pid)).collect();
    if both.len() < 2 { Ok(()) } else { Err(format!("llama-servers run side by side: {both:?}")) }
}

fn look(target: &Target, restarts: &mut u64) -> Result<(), String> {
    let answer = Client::new(&target.health_url).try_send("GET", "/health", b"").map_err(|e| e.to_string())?;
    let health: Value = serde_json::from_slice(&answer.body).map_err(|e| format!("{e}: {}", answer.text()))?;
    let (active, waiting) = (health["queue"]["active"].as_u64(), health["queue"]["waiting"].as_u64());
    // Those who had a slot already when llama-server went away are back in line whatever its bound.
    if active.is_none_or(|active| active > SLOTS) || waiting.is_none_or(|waiting| waiting > LINE + SLOTS) {
        return Err(format!("{active:?} are active and {waiting:?} wait"));
    }
    let worker = &health["models"][0];
    let (Some(state), Some(told)) = (worker["state"].as_str(), worker["restarts"].as_u64()) else {
        return Err(format!("no state in {health}"));
    };
    // Nobody stops it but to put it to sleep, and whoever asks wakes it.
    if (answer.status() == 200) != ["ready", "stopped", "draining"].contains(&state) {
        return Err(format!("{} while {state}", answer.status()));
    }
    match std::mem::replace(restarts, told) {
        before if before <= told => Ok(()),
        before => Err(format!("restarts went from {before} to {told}")),
    }
}
