//! Resident memory of the gateway: idle, with requests in flight, with open streams, and afterwards.

use std::thread::sleep;
use std::time::Duration;

use crate::contenders::Contender;
use crate::contenders::gateways::{Builds, Setup};
use crate::measure;
use crate::options::Options;
use crate::plan::{Flow, Outcome};
use crate::report::Report;
use crate::traffic::Exchange;

const PART: &str = "memory";
const STREAMS: usize = 256;
const IN_FLIGHT: usize = 32;

/// Measures requests and streams with separate gateways, so that memory kept by the allocator does not affect the other
/// figure.
pub(crate) fn measure(options: &Options, builds: &Builds, report: &mut Report) {
    println!("memory");
    let mib = |kib: u64| kib as f64 / 1024.0;
    let mut gateway = Setup::new("on", &builds.on).start();
    sleep(Duration::from_secs(2));
    let idle = resident(&gateway);
    report.note(PART, "idle, MiB", mib(idle));
    let exchange = Exchange { pause: 10_000, ..Exchange::json(2048) };
    let outcome = gateway.drive(vec![Flow::new(exchange, IN_FLIGHT, 0.0)], 500, options.window(3_000), 5_000);
    report.note(PART, "32 in flight, MiB", mib(outcome.rss_peak));
    note_failures(report, "32 in flight", &outcome);
    sleep(Duration::from_secs(5));
    report.note(PART, "5 s after 32 in flight, MiB", mib(resident(&gateway)));
    gateway.stop();

    let gateway = Setup::new("on", &builds.on).start();
    sleep(Duration::from_secs(2));
    let before = resident(&gateway);
    let mut flow = Flow::new(Exchange::stream(100_000), STREAMS, 0.0);
    flow.count = Some(STREAMS as u64);
    // All streams are open at once, because a stream takes more than six seconds.
    let outcome = gateway.drive(vec![flow], 0, 3_000, 20_000);
    let each = outcome.rss_peak.saturating_sub(before) as f64 / STREAMS as f64;
    report.note(PART, "each of 256 open streams, KiB", each);
    note_failures(report, "256 streams", &outcome);
    sleep(Duration::from_secs(5));
    report.note(PART, "5 s after 256 streams, MiB", mib(resident(&gateway)));
}

fn resident(gateway: &Contender) -> u64 {
    measure::resident_kib(&[gateway.pid()])
}

fn note_failures(report: &mut Report, when: &str, outcome: &Outcome) {
    report.note(PART, &format!("failures, {when}"), outcome.flows[0].failures());
}
