//! Mixed traffic for a long time: measures whether memory, descriptors or threads grow.

use std::thread::sleep;
use std::time::Duration;

use crate::contenders::Contender;
use crate::contenders::gateways::{Builds, Setup};
use crate::measure;
use crate::options::Options;
use crate::plan::Flow;
use crate::report::Report;
use crate::traffic::Exchange;

const PART: &str = "soak";

/// Number of intervals of traffic; after each, the idle gateway is measured.
const INTERVALS: u64 = 12;

/// Time between traffic and measurement: longer than the gateway keeps an idle connection to llama-server.
const IDLE_TIME: Duration = Duration::from_secs(5);

/// The resources of an idle gateway.
struct Resources {
    rss: u64,
    files: usize,
    threads: usize,
}

/// Runs for `minutes` minutes.
pub(crate) fn measure(minutes: f64, options: &Options, builds: &Builds, report: &mut Report) {
    let gateway = Setup::new("on", &builds.on).start();
    let interval = (minutes * 60e3 / INTERVALS as f64) as u64;
    // Streams must begin and end within each interval.
    let window = interval.saturating_sub(IDLE_TIME.as_millis() as u64).max(options.window(3_000));
    let mut samples = Vec::new();
    let (mut good, mut failed) = (0, 0);
    println!("| minute | resident MiB | files | threads | good | wrong |\n|---:|---:|---:|---:|---:|---:|");
    for number in 0..=INTERVALS {
        if number > 0 {
            let outcome = gateway.drive(traffic(), 0, window, 20_000);
            good += outcome.flows.iter().map(|tally| tally.good).sum::<u64>();
            let refused = |tally: &crate::plan::Tally| tally.refused.values().sum::<u64>();
            let flows = outcome.flows.iter();
            failed += flows.map(|it| it.failures() + refused(it)).sum::<u64>() - refused(&outcome.flows[4]);
        }
        sleep(IDLE_TIME);
        let resources = measure_resources(&gateway);
        let minute = number as f64 * (window as f64 + IDLE_TIME.as_millis() as f64) / 60e3;
        let Resources { rss, files, threads } = resources;
        println!("| {minute:.1} | {:.2} | {files} | {threads} | {good} | {failed} |", rss as f64 / 1024.0);
        report.note(
            PART,
            &format!("minute {minute:06.1}: resident KiB, files, threads"),
            vec![rss as usize, files, threads],
        );
        samples.push((minute, resources));
    }
    // The first intervals fill pools and the allocator's arenas; growth counts after them.
    let (from, early) = &samples[samples.len() / 3];
    let (to, late) = &samples[samples.len() - 1];
    report.note(PART, "growth, KiB/min", (late.rss as f64 - early.rss as f64) / (to - from));
    report.note(PART, "more files", late.files as f64 - early.files as f64);
    report.note(PART, "more threads", late.threads as f64 - early.threads as f64);
    report.note(PART, "good", good);
    report.note(PART, "wrong", failed);
}

fn measure_resources(gateway: &Contender) -> Resources {
    let pid = gateway.pid();
    Resources { rss: measure::resident_kib(&[pid]), files: measure::open_files(pid), threads: measure::threads(pid) }
}

/// Returns the flows: short responses, long ones, streams, clients that disconnect in the middle, and an unknown key.
fn traffic() -> Vec<Flow> {
    vec![
        Flow::new(Exchange::json(256), 8, 200.0),
        Flow::new(Exchange::json(100 * 1024), 2, 10.0),
        Flow::new(Exchange::stream(20_000), 32, 16.0),
        Flow { leave_after: Some(5), ..Flow::new(Exchange::stream(20_000), 4, 10.0) },
        Flow { key: Some("an-unknown-benchmark-key".to_owned()), ..Flow::new(Exchange::json(256), 2, 20.0) },
    ]
}
