//! Chaos: random faults in a row, one on top of the other, while many clients ask for everything; and the whole time
//! each of them must get exactly one well-formed outcome, the worker's state may only take allowed steps, and nothing
//! may leak.
//!
//! ```text
//! cargo test --test chaos                                        # short
//! CHAOS_FAULTS=2000 cargo test --test chaos -- --nocapture       # the whole of it
//! CHAOS_SEED=1234 CHAOS_FAULTS=2000 cargo test --test chaos      # the same faults again
//! ```
//!
//! The seed is printed first. From it follow the faults, their parameters, their order and their pauses, and what each
//! client asks in which order. What does not follow from it is which request meets which fault at which moment: that is
//! up to the kernel's scheduler and to the other load of the machine. A failure of one run may thus need a few replays.
//!
//! `faults/` lists what is done and `plan.rs` how often, `setup.rs` with which settings, `clients/` what clients ask,
//! `checks/` what must hold.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests start processes of their own and read the environment they got")]

#[path = "../support/mod.rs"]
mod support;

mod checks;
mod clients;
mod faults;
mod lane;
mod plan;
mod random;
mod setup;
mod shared;
mod test_gateway;

use lane::{Lane, Report};
use random::Random;
use setup::Setup;
use std::{
    thread,
    time::{Instant, SystemTime, UNIX_EPOCH},
};
use support::gateway::can_mount;

/// Gateways in front of the fake that are attacked at the same time.
const LANES: u64 = 3;

/// Faults of a short run, over all lanes.
const SHORT_FAKE: u64 = 150;
const SHORT_REAL: u64 = 36;

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

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

fn run(test: &str, is_real: bool, lanes: u64, short: u64) {
    let clock =
        || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64 % 1_000_000_007);
    let seed = number("CHAOS_SEED").unwrap_or_else(clock);
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
        // The first one lives through all of it, so that what leaks adds up.
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
            // The reason at both ends: whoever shows a part of a long text shows one of them.
            Ok(Err(what)) => {
                panic!("lane {number}: {what}\nlane {number}: {}\nreplay: {replay}", what.lines().next().unwrap_or(""))
            }
            Err(_) => panic!("lane {number} panicked; see above\nreplay: {replay}"),
        }
    }
    println!("chaos: {faults} faults in {:.1?}", begin.elapsed());
}
