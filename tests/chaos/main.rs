//! Chaos: random faults, many of them at the same time, while clients send requests of all kinds. Each request must get
//! exactly one well-formed outcome, the worker may make only allowed state transitions, and nothing may leak.
//!
//! ```text
//! cargo test --test chaos                                        # short
//! CHAOS_FAULTS=2000 cargo test --test chaos -- --nocapture       # a long run
//! CHAOS_SEED=1234 CHAOS_FAULTS=2000 cargo test --test chaos      # the same faults again
//! ```
//!
//! The seed is printed first. It decides the faults, their parameters, their order and their pauses, and which requests
//! each client sends in which order. It does not decide which request meets which fault: that depends on the kernel's
//! scheduler and on the load of the machine, so a failure may need several replays.
//!
//! A *lane* is one gateway with its clients and its faults; several lanes run at the same time. Most have one model; one
//! has six under a memory budget for three, and one takes jobs from RunPod's queue.
//!
//! - `checks/`: which responses are allowed, and what must hold during and after the faults
//! - `clients/`: the requests that clients send
//! - `everything/`: the lane with everything on, and the soak
//! - `faults/`: the kinds of faults
//! - `fleet/`: the lane with six models under a memory budget for three
//! - `jobs/`: the lane with jobs of RunPod's queue
//! - `lane.rs`: one lane with a single model, from its start to its end
//! - `plan.rs`: how often each kind of fault comes
//! - `random.rs`: random numbers from the seed
//! - `rounds.rs`: fault after fault, with a check after each round
//! - `setup.rs`: the settings of the gateways
//! - `shared.rs`: the state that the threads of a lane share
//! - `test_gateway.rs`: one gateway, and the actions that faults and checks take on it

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests start processes and read their environment")]

#[path = "../support/mod.rs"]
mod support;

mod checks;
mod clients;
mod everything;
mod faults;
mod fleet;
mod jobs;
mod lane;
mod plan;
mod random;
mod rounds;
mod setup;
mod shared;
mod test_gateway;

use std::{
    thread,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use lane::{Lane, Report};
use random::Random;
use setup::Setup;
use support::gateway::can_mount;

/// Lanes with the fake llama-server that run at the same time; `CHAOS_LANES` overrides it.
const LANES: u64 = 3;

/// Faults in a short run, over all lanes; `CHAOS_FAULTS` and `CHAOS_REAL_FAULTS` override them.
const SHORT_FAKE: u64 = 150;
const SHORT_REAL: u64 = 36;
const SHORT_FLEET: u64 = 36;
const SHORT_JOBS: u64 = 24;
const SHORT_EVERYTHING: u64 = 12;
const SHORT_REAL_EVERYTHING: u64 = 4;

/// Seconds of a short soak; `SOAK_SECONDS` overrides them.
const SHORT_SOAK: u64 = 8;

#[test]
fn every_client_gets_one_outcome_whatever_the_fake_does() {
    run(
        "every_client_gets_one_outcome_whatever_the_fake_does",
        false,
        number("CHAOS_LANES").unwrap_or(LANES),
        SHORT_FAKE,
    );
}

#[test]
fn every_client_gets_one_outcome_whatever_happens_to_llama_server() {
    run("every_client_gets_one_outcome_whatever_happens_to_llama_server", true, 1, SHORT_REAL);
}

#[test]
fn no_request_is_lost_and_no_budget_is_exceeded_while_models_come_and_go() {
    run_alone("no_request_is_lost_and_no_budget_is_exceeded_while_models_come_and_go", SHORT_FLEET, fleet::run);
}

#[test]
fn every_job_that_is_taken_is_answered_once_whatever_the_platform_does() {
    run_alone("every_job_that_is_taken_is_answered_once_whatever_the_platform_does", SHORT_JOBS, jobs::run);
}

#[test]
fn no_part_of_it_breaks_another_while_all_of_them_fail() {
    run_alone("no_part_of_it_breaks_another_while_all_of_them_fail", SHORT_EVERYTHING, everything::run);
}

#[test]
fn no_part_of_it_breaks_another_with_the_real_llama_server() {
    let faults = number("CHAOS_REAL_FAULTS").unwrap_or(SHORT_REAL_EVERYTHING);
    run_lane(
        "no_part_of_it_breaks_another_with_the_real_llama_server",
        faults,
        ("CHAOS_REAL_FAULTS", "faults"),
        everything::run_real,
    );
}

#[test]
fn nothing_grows_under_mixed_traffic() {
    let seconds = number("SOAK_SECONDS").unwrap_or(SHORT_SOAK);
    let unit = ("SOAK_SECONDS", "seconds of traffic");
    run_lane("nothing_grows_under_mixed_traffic", seconds, unit, everything::soak);
}

/// Runs a lane of another kind.
fn run_alone(test: &str, short: u64, lane: fn(Random, usize) -> Result<String, String>) {
    run_lane(test, number("CHAOS_FAULTS").unwrap_or(short), ("CHAOS_FAULTS", "faults"), lane);
}

/// Runs a lane for this much: the variable that says how much, and what it counts.
fn run_lane(
    test: &str,
    amount: u64,
    (variable, counted): (&str, &str),
    lane: fn(Random, usize) -> Result<String, String>,
) {
    let seed = seed();
    let replay = format!("CHAOS_SEED={seed} {variable}={amount} cargo test --test chaos {test} -- --nocapture");
    println!("chaos: {replay}");
    let begin = Instant::now();
    match lane(Random::new(seed, 1), amount as usize) {
        Ok(report) => println!("{test}: {report}\nchaos: {amount} {counted} in {:.1?}", begin.elapsed()),
        Err(problem) => panic!("{problem}\n{}\nreplay: {replay}", problem.lines().next().unwrap_or("")),
    }
}

fn seed() -> u64 {
    let clock =
        || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64 % 1_000_000_007);
    number("CHAOS_SEED").unwrap_or_else(clock)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

fn run(test: &str, is_real: bool, lanes: u64, short: u64) {
    let seed = seed();
    let faults = number(if is_real { "CHAOS_REAL_FAULTS" } else { "CHAOS_FAULTS" }).unwrap_or(short);
    let variable = if is_real { "CHAOS_REAL_FAULTS" } else { "CHAOS_FAULTS" };
    let replay = format!(
        "CHAOS_SEED={seed} {variable}={faults} CHAOS_LANES={lanes} cargo test --test chaos {test} -- --nocapture"
    );
    println!("chaos: {replay}");
    let begin = Instant::now();
    let has_disk = can_mount();
    let run_lane = |number: u64| {
        let random = Random::new(seed, number + 1);
        let count = (faults * (number + 1) / lanes - faults * number / lanes) as usize;
        // The gateway of lane 0 is never replaced, so that leaks add up.
        let setup = Setup::nth(seed.wrapping_add(number), is_real, has_disk);
        Lane { number, random, count, setup, may_replace: number > 0 }.run()
    };
    let outcomes: Vec<thread::Result<Result<Report, String>>> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes).map(|number| scope.spawn(move || run_lane(number))).collect();
        lanes.into_iter().map(|lane| lane.join()).collect()
    });
    for (number, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(Ok(report)) => println!("lane {number}: {report}"),
            // The reason stands at both ends, so that a shortened log still shows it.
            Ok(Err(problem)) => {
                let reason = problem.lines().next().unwrap_or("");
                panic!("lane {number}: {problem}\nlane {number}: {reason}\nreplay: {replay}")
            }
            Err(_) => panic!("lane {number} panicked, see above\nreplay: {replay}"),
        }
    }
    println!("chaos: {faults} faults in {:.1?}", begin.elapsed());
}
