//! Mixed traffic for a long time: does anything grow?

use crate::contenders::Running;
use crate::contenders::gateways::{self, Builds};
use crate::measure;
use crate::options::Options;
use crate::plan::Flow;
use crate::report::Report;
use crate::traffic::Ask;
use std::thread::sleep;
use std::time::Duration;

const PART: &str = "soak";

/// Stretches of traffic, with a look at the idle gateway after each.
const STRETCHES: u64 = 12;

/// Between traffic and look: longer than an idle connection to llama-server is kept.
const REST: Duration = Duration::from_secs(5);

/// What an idle gateway holds.
struct Holds {
    rss: u64,
    files: usize,
    threads: usize,
}

/// Runs for so many minutes.
pub(crate) fn measure(minutes: f64, options: &Options, builds: &Builds, report: &mut Report) {
    let gateway = gateways::start("on", &builds.on, &[]);
    let stretch = (minutes * 60e3 / STRETCHES as f64) as u64;
    // Every stretch must see streams begin and end.
    let window = stretch.saturating_sub(REST.as_millis() as u64).max(options.window(3_000));
    let mut looks = Vec::new();
    let (mut good, mut wrong) = (0, 0);
    println!("| minute | resident MiB | files | threads | good | wrong |\n|---:|---:|---:|---:|---:|---:|");
    for number in 0..=STRETCHES {
        if number > 0 {
            let outcome = gateway.drive(traffic(), 0, window, 20_000);
            good += outcome.flows.iter().map(|tally| tally.good).sum::<u64>();
            let refused = |tally: &crate::plan::Tally| tally.refused.values().sum::<u64>();
            let flows = outcome.flows.iter();
            wrong += flows.map(|it| it.failures() + refused(it)).sum::<u64>() - refused(&outcome.flows[4]);
        }
        sleep(REST);
        let holds = look(&gateway);
        let minute = number as f64 * (window as f64 + REST.as_millis() as f64) / 60e3;
        let Holds { rss, files, threads } = holds;
        println!("| {minute:.1} | {:.2} | {files} | {threads} | {good} | {wrong} |", rss as f64 / 1024.0);
        report.note(
            PART,
            &format!("minute {minute:06.1}: resident KiB, files, threads"),
            vec![rss as usize, files, threads],
        );
        looks.push((minute, holds));
    }
    // The first stretches fill pools and arenas; growth is what comes after them.
    let (from, early) = &looks[looks.len() / 3];
    let (to, late) = &looks[looks.len() - 1];
    report.note(PART, "growth, KiB/min", (late.rss as f64 - early.rss as f64) / (to - from));
    report.note(PART, "more files", late.files as f64 - early.files as f64);
    report.note(PART, "more threads", late.threads as f64 - early.threads as f64);
    report.note(PART, "good", good);
    report.note(PART, "wrong", wrong);
}

fn look(gateway: &Running) -> Holds {
    let pid = gateway.pid();
    Holds { rss: measure::rss(&[pid]), files: measure::open_files(pid), threads: measure::threads(pid) }
}

/// Short answers, long ones, streams, clients that leave in the middle, and strangers.
fn traffic() -> Vec<Flow> {
    vec![
        Flow::new(Ask::json(256), 8, 200.0),
        Flow::new(Ask::json(100 * 1024), 2, 10.0),
        Flow::new(Ask::stream(20_000), 32, 16.0),
        Flow { leaves_after: Some(5), ..Flow::new(Ask::stream(20_000), 4, 10.0) },
        Flow { key: Some("a-key-that-nobody-has".to_owned()), ..Flow::new(Ask::json(256), 2, 20.0) },
    ]
}
