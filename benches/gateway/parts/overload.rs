//! W10: twice as many requests as llama-server can do. What still gets done, and how soon the others are told.

use crate::contenders::gateways::{self, Builds, Setting};
use crate::options::Options;
use crate::plan::Flow;
use crate::report::Report;
use crate::traffic::Ask;

const PART: &str = "W10 overload";

/// Service time of the mock, in microseconds.
const SERVICE: u64 = 20_000;

const SLOTS: f64 = 4.0;
const SETTINGS: &[Setting] = &[("MAX_CONCURRENT_REQUESTS", "4"), ("MAX_QUEUE_SIZE", "8")];

/// Offers twice the capacity for one window.
pub(crate) fn measure(options: &Options, builds: &Builds, report: &mut Report) {
    println!("{PART}");
    let gateway = gateways::start("on", &builds.on, SETTINGS);
    let capacity = SLOTS / (SERVICE as f64 / 1e6);
    let ask = Ask { pause: SERVICE, ..Ask::json(256) };
    // More connections than slots and places in the line, so that it is the gateway that has to say no.
    let flow = Flow::new(ask, 64, capacity * 2.0);
    let outcome = gateway.drive(vec![flow], 1_000, options.window(2_000), 30_000);
    let tally = &outcome.flows[0];
    report.note(PART, "offered, requests/s", capacity * 2.0);
    report.note(PART, "done, requests/s", tally.finished as f64 / outcome.seconds);
    report.note(PART, "done, % of capacity", tally.finished as f64 / outcome.seconds / capacity * 100.0);
    report.note(PART, "good answers, p50, µs", tally.latency.p50);
    report.note(PART, "good answers, p99, µs", tally.latency.p99);
    report.note(PART, "gone wrong", tally.failures());
    for (status, count) in &tally.refused {
        report.note(PART, &format!("refused with {status}"), *count);
    }
    if tally.refused.is_empty() {
        report.note(PART, "refusals", "none: the line has no bound");
    } else {
        report.note(PART, "refusals, p50, µs", tally.refusal.p50);
        report.note(PART, "refusals, p99, µs", tally.refusal.p99);
    }
}
