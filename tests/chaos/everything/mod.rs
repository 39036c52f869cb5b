//! The lane with everything on: the six models under a memory budget for three, beside them a model for embeddings, one for
//! scores and a remote backend; TLS with a certificate that is replaced, the usage ledger, the cache, the feed with
//! listeners, jobs of RunPod's queue, downloads from a hub that fails, and traces to a collector that comes and goes.
//!
//! The same without faults is a soak: mixed traffic for a while, and between two parts of it a look at what the idle
//! gateway holds.
//!
//! - `checks.rs`: what must hold after each round, and at the end
//! - `collector.rs`: a collector of traces that comes and goes
//! - `dialects.rs`: clients of other APIs than OpenAI's chats
//! - `faults.rs`: the kinds of faults, and how each is applied and ended
//! - `listeners.rs`: clients of the feed
//! - `neighbours.rs`: the other programs: the hub, the platform, the remote backend, the collector
//! - `soak.rs`: traffic without faults, and whether anything grows

mod checks;
mod collector;
mod dialects;
mod faults;
mod listeners;
mod neighbours;
mod soak;

use std::{
    sync::{Arc, atomic::AtomicU64},
    thread,
    time::{Duration, Instant},
};

use crate::{
    checks::expectations::Outcome,
    clients::TrafficClient,
    fleet::{CLIENTS, FleetGateway, MODELS, client_key, watch_workers},
    random::Random,
    rounds::{FaultLane, Rounds},
    shared::{FinishOnDrop, IDLE_POLL, Shared},
};
use dialects::{DialectClient, KnownAnswers};
use faults::{Fault, Repair};
use listeners::listen;
use neighbours::Neighbours;
pub(crate) use soak::soak;

/// Clients of the other APIs.
const DIALECT_CLIENTS: u64 = 4;
/// Clients of the feed.
const LISTENERS: u64 = 3;
/// Jobs that wait at the platform while faults happen.
const WAITING_JOBS: usize = 2;

/// Faults among which each neighbour certainly has one.
const MANY_FAULTS: usize = 200;

/// Lines of the gateway's log that are shown with a failure.
const LAST_LINES: usize = 100;

/// The gateway of the lane and what is around it.
struct Everything {
    fleet: FleetGateway,
    around: Neighbours,
    random: Random,
    repairs: Vec<(Instant, Repair)>,
    /// Snapshots that the listeners of the feed have got.
    snapshots: Arc<AtomicU64>,
}

/// Runs the lane with the fake. Returns what happened, for the report.
///
/// # Errors
///
/// What is wrong, with the end of the gateway's log.
pub(crate) fn run(random: Random, count: usize) -> Result<String, String> {
    run_with(random, count, false)
}

/// The same with the real llama-server.
pub(crate) fn run_real(random: Random, count: usize) -> Result<String, String> {
    run_with(random, count, true)
}

fn run_with(mut random: Random, count: usize, is_real: bool) -> Result<String, String> {
    let own = Random::new(random.next(), 7);
    let mut everything = Everything::start(own, is_real);
    let outcome = everything.run_faults(random, count, is_real);
    everything.explain(outcome)
}

/// How the clients behave.
#[derive(Clone, Copy)]
struct Pace {
    is_real: bool,
    /// The longest pause of a client between two requests, in milliseconds.
    longest_pause: u64,
}

impl Everything {
    fn start(random: Random, is_real: bool) -> Self {
        let around = Neighbours::start();
        let fleet = FleetGateway::start(around.setup(is_real));
        Self { fleet, around, random, repairs: Vec::new(), snapshots: Arc::default() }
    }

    /// Adds the end of the log to a problem.
    fn explain<T>(&self, outcome: Result<T, String>) -> Result<T, String> {
        outcome.map_err(|problem| {
            let output = self.fleet.process.output();
            let lines: Vec<&str> = output.lines().collect();
            let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
            format!("{problem}\nthe last lines of its log:\n{last}")
        })
    }

    fn run_faults(&mut self, mut random: Random, count: usize, is_real: bool) -> Result<String, String> {
        let client_random = Random::new(random.next(), 0);
        let step = |_| {
            let fault = faults::draw(&mut random, is_real);
            let longest = if random.chance(25) { 700 } else { 200 };
            (fault, Duration::from_millis(random.below(longest)))
        };
        let steps: Vec<(Fault, Duration)> = (0..count).map(step).collect();
        let shared = Shared::new(self.fleet.target());
        let pace = Pace { is_real, longest_pause: if is_real { 300 } else { 100 } };
        let rounds = self.with_clients(&shared, client_random, pace, |lane| {
            Rounds::run(&mut Faulty { lane, shared: &shared }, steps)
        })?;
        self.check_end(&shared)?;
        if count >= MANY_FAULTS {
            self.around.check_used()?;
        }
        let outcomes = std::mem::take(&mut shared.counts().totals);
        for needed in [Outcome::Answered, Outcome::Streamed] {
            if !outcomes.contains_key(&needed) {
                return Err(format!("the run proves nothing, because {needed:?} is missing: {outcomes:?}"));
            }
        }
        let outcomes: Vec<String> = outcomes.iter().map(|(outcome, count)| format!("{outcome:?} {count}")).collect();
        let resident = rounds.resident_kib;
        let longest = rounds.longest_recovery;
        Ok(format!(
            "all models serve again after {longest:.1?} at most; resident memory {} KiB after a tenth, {} KiB at the end\n  {:?}\n  {}\n  {}",
            resident.0,
            resident.1,
            self.fleet.notes,
            self.around.report(),
            outcomes.join(", ")
        ))
    }

    /// Runs `work` while the clients send requests and the feed has listeners.
    fn with_clients<T>(
        &mut self,
        shared: &Shared,
        mut random: Random,
        pace: Pace,
        work: impl FnOnce(&mut Self) -> Result<T, String>,
    ) -> Result<T, String> {
        let health_url = self.fleet.process.health_url().to_owned();
        let answers = KnownAnswers::default();
        let snapshots = Arc::clone(&self.snapshots);
        let done = thread::scope(|scope| {
            let _finish = FinishOnDrop(shared);
            for n in 0..CLIENTS - DIALECT_CLIENTS {
                let random = Random::new(random.next(), n);
                let client = TrafficClient::new(shared, random, format!("e{n}"), pace.is_real);
                let client = client.with_models(&MODELS, client_key(n)).with_repetitions(true);
                let client = client.with_pauses(pace.longest_pause);
                scope.spawn(move || client.run());
            }
            for n in CLIENTS - DIALECT_CLIENTS..CLIENTS {
                let random = Random::new(random.next(), n);
                let client = DialectClient::new(shared, random, n, pace, &answers);
                scope.spawn(move || client.run());
            }
            for n in 0..LISTENERS {
                let random = Random::new(random.next(), CLIENTS + n);
                let snapshots = &*snapshots;
                scope.spawn(move || listen(shared, random, snapshots));
            }
            scope.spawn(|| watch_workers(shared, &health_url));
            work(self)
        })?;
        match shared.violations() {
            none if none.is_empty() => Ok(done),
            violations => Err(violations.join("\n")),
        }
    }

    /// Offers jobs for `time`, so that some always wait, and ends the faults that become due to end.
    fn pause(&mut self, time: Duration, shared: &Shared) {
        let end = Instant::now() + time;
        loop {
            self.repair(Some(Instant::now()));
            if self.around.platform.waiting_jobs() < WAITING_JOBS {
                self.around.offer_job(&mut self.random);
                shared.counts().add_possible();
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.fleet.pause(left.min(IDLE_POLL * 20), shared);
        }
    }
}

/// The lane with its clients, as its faults see it.
struct Faulty<'a> {
    lane: &'a mut Everything,
    shared: &'a Shared,
}

impl FaultLane for Faulty<'_> {
    type Fault = Fault;
    const ROUND: usize = 25;

    fn apply(&mut self, fault: Fault) -> Result<(), String> {
        self.lane.apply(fault, self.shared)
    }

    fn pause(&mut self, time: Duration) {
        self.lane.pause(time, self.shared);
    }

    fn check_round(&mut self) -> Result<Duration, String> {
        self.lane.check_round(self.shared)
    }

    fn gateway_pid(&self) -> u32 {
        self.lane.fleet.process.pid()
    }

    fn violations(&self) -> Vec<String> {
        self.shared.violations()
    }
}
