//! What a gateway with 200 models takes while no request comes: memory, CPU time, and which threads wake up how often.

use std::thread::sleep;
use std::time::Duration;

use crate::contenders::gateways::{Builds, Setup};
use crate::measure::{self, ThreadCounts};
use crate::report::Report;

const PART: &str = "idle";

const MODELS: u16 = 200;

/// Time after which the start is over.
const SETTLING: Duration = Duration::from_secs(5);

/// How long the gateway is watched: longer than most of its timers, and enough for a thousandth of a CPU.
const WINDOW: Duration = Duration::from_secs(20);

/// Watches an idle gateway.
pub(crate) fn measure(builds: &Builds, report: &mut Report) {
    println!("{PART}");
    let gateway = Setup { models: MODELS, ..Setup::new("on", &builds.on) }.start();
    sleep(SETTLING);
    report.note(PART, "200 models: resident, MiB", measure::resident_kib(&gateway.proxy) as f64 / 1024.0);
    let before = (ThreadCounts::of_cpu_time(&gateway.proxy), measure::switches_by_name(gateway.pid()));
    sleep(WINDOW);
    let seconds = WINDOW.as_secs_f64();
    let used = ThreadCounts::of_cpu_time(&gateway.proxy).seconds_since(&before.0);
    report.note(PART, "200 models: CPU, % of one", used / seconds * 100.0);
    let mut all = 0.0;
    for (name, count) in measure::switches_by_name(gateway.pid()) {
        let rate = (count - before.1.get(&name).copied().unwrap_or(0)) as f64 / seconds;
        all += rate;
        if rate > 0.0 {
            report.note(PART, &format!("200 models: wake-ups/s of {name}"), rate);
        }
    }
    report.note(PART, "200 models: wake-ups/s", all);
}
