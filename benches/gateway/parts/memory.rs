//! Resident memory of the gateway: idle, with requests in flight, with open streams, with a large request, and afterwards.
//!
//! Each figure has a gateway of its own, so that memory kept by the allocator does not affect another.

use std::thread::sleep;
use std::time::Duration;

use crate::contenders::Contender;
use crate::contenders::gateways::{Builds, Setting, Setup};
use crate::measure;
use crate::options::Options;
use crate::plan::{Flow, Outcome};
use crate::report::Report;
use crate::traffic::Exchange;

const PART: &str = "memory";
const IN_FLIGHT: usize = 32;

/// Numbers of streams that are open at once.
const STREAMS: [usize; 2] = [256, 4_096];

/// The largest request body that the gateway takes by default, in bytes.
const LARGE: usize = 10 << 20;

/// Room for all streams.
const SETTINGS: &[Setting] = &[("MAX_CONCURRENT_REQUESTS", "4096"), ("MAX_CONNECTIONS", "8192")];

/// Time between two frames, in microseconds. A stream takes 13 s, so that all of them are open at once.
const PAUSE: u64 = 200_000;

/// Time after which an idle gateway is measured.
const SETTLING: Duration = Duration::from_secs(2);

/// Time after traffic: longer than the gateway keeps an idle connection to llama-server.
const COOLING: Duration = Duration::from_secs(5);

/// Measures all of it.
pub(crate) fn measure(options: &Options, builds: &Builds, report: &mut Report) {
    println!("{PART}");
    requests(options, builds, report);
    for streams in STREAMS {
        open_streams(streams, builds, report);
    }
    large_request(builds, report);
}

fn requests(options: &Options, builds: &Builds, report: &mut Report) {
    let gateway = Setup::new("on", &builds.on).start();
    report.note(PART, "idle, MiB", mib(settled(&gateway)));
    let exchange = Exchange { pause: 10_000, ..Exchange::json(2048) };
    let outcome = gateway.drive(vec![Flow::new(exchange, IN_FLIGHT, 0.0)], 500, options.window(3_000), 5_000);
    report.note(PART, "32 in flight, MiB", mib(outcome.rss_peak));
    note_failures(report, "32 in flight", &outcome);
    sleep(COOLING);
    report.note(PART, "5 s after 32 in flight, MiB", mib(resident(&gateway)));
}

fn open_streams(streams: usize, builds: &Builds, report: &mut Report) {
    let gateway = Setup { settings: SETTINGS, ..Setup::new("on", &builds.on) }.start();
    let before = settled(&gateway);
    let mut flow = Flow::new(Exchange::stream(PAUSE), streams, 0.0);
    flow.count = Some(streams as u64);
    // The requests are sent in the window; the streams go on after it.
    let outcome = gateway.drive(vec![flow], 0, 8_000, 60_000);
    let each = outcome.rss_peak.saturating_sub(before) as f64 / streams as f64;
    report.note(PART, &format!("each of {streams} open streams, KiB"), each);
    report.note(PART, &format!("good, {streams} streams"), outcome.flows[0].good);
    note_failures(report, &format!("{streams} streams"), &outcome);
    sleep(COOLING);
    report.note(PART, &format!("5 s after {streams} streams, MiB"), mib(resident(&gateway)));
}

/// Sends one request with the largest body, and compares the peak with the body's size.
fn large_request(builds: &Builds, report: &mut Report) {
    let gateway = Setup::new("on", &builds.on).start();
    let before = settled(&gateway);
    measure::reset_peak(gateway.pid());
    let mut flow = Flow::new(Exchange { request_size: LARGE, ..Exchange::json(256) }, 1, 0.0);
    flow.count = Some(1);
    let outcome = gateway.drive(vec![flow], 0, 10_000, 10_000);
    let added = measure::peak_kib(gateway.pid()).saturating_sub(before);
    report.note(PART, "a request of 10 MiB, times its size", added as f64 * 1024.0 / LARGE as f64);
    note_failures(report, "a request of 10 MiB", &outcome);
    sleep(COOLING);
    report.note(PART, "5 s after a request of 10 MiB, MiB", mib(resident(&gateway)));
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn settled(gateway: &Contender) -> u64 {
    sleep(SETTLING);
    resident(gateway)
}

fn resident(gateway: &Contender) -> u64 {
    measure::resident_kib(&[gateway.pid()])
}

fn note_failures(report: &mut Report, when: &str, outcome: &Outcome) {
    let tally = &outcome.flows[0];
    report.note(PART, &format!("failures, {when}"), tally.failures() + tally.refused.values().sum::<u64>());
}
