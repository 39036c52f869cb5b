//! W10: twice as many requests as llama-server can serve: how many are served, and how soon the others are refused.

use crate::contenders::gateways::{Builds, Setting, Setup};
use crate::options::Options;
use crate::plan::Flow;
use crate::report::Report;
use crate::traffic::Exchange;

const PART: &str = "W10 overload";

/// Service time of the mock, in microseconds.
const SERVICE: u64 = 20_000;

const SLOTS: f64 = 4.0;
const SETTINGS: &[Setting] = &[("MAX_CONCURRENT_REQUESTS", "4"), ("MAX_QUEUE_SIZE", "8")];

/// Sends requests at twice the capacity for one window.
pub(crate) fn measure(options: &Options, builds: &Builds, report: &mut Report) {
    println!("{PART}");
    let gateway = Setup { settings: SETTINGS, ..Setup::new("on", &builds.on) }.start();
    let capacity = SLOTS / (SERVICE as f64 / 1e6);
    let exchange = Exchange { pause: SERVICE, ..Exchange::json(256) };
    // More connections than slots and places in the queue, so that the gateway has to refuse requests.
    let flow = Flow::new(exchange, 64, capacity * 2.0);
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
        report.note(PART, "refusals", "none: the queue has no bound");
    } else {
        report.note(PART, "refusals, p50, µs", tally.refusal.p50);
        report.note(PART, "refusals, p99, µs", tally.refusal.p99);
    }
}
