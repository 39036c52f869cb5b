//! W8: refused requests beside good ones. What a refusal costs, and whether the good ones notice.

use crate::contenders::Running;
use crate::contenders::gateways::{self, Builds, OLD_KEY, SLOW_KEY};
use crate::options::Options;
use crate::plan::{Flow, Outcome};
use crate::report::Report;
use crate::statistics::Spread;
use crate::traffic::Ask;

const PART: &str = "W8 floods";

/// Refused requests a second.
const FLOOD: f64 = 2_000.0;

/// Good requests a second beside them.
const GOOD: f64 = 300.0;

/// Each round: calm, 401, 429, and back.
pub(crate) fn measure(options: &Options, builds: &Builds, report: &mut Report) {
    let gateway = gateways::start("on", &builds.on, &[]);
    let floods = [None, Some((401, OLD_KEY)), Some((429, SLOW_KEY))];
    let mut found: [Vec<(f64, f64)>; 3] = Default::default();
    for round in 1..=options.rounds {
        println!("round {round} of {}: {PART}", options.rounds);
        let mut turns: [Vec<Outcome>; 3] = Default::default();
        for at in [0, 1, 2, 2, 1, 0] {
            turns[at].push(turn(&gateway, options, floods[at].map(|(_, key)| key)));
        }
        let calm = cpu_rate(&turns[0]);
        let p99 = |turns: &[Outcome]| mean(turns, |outcome| outcome.flows[0].latency.p99);
        for (at, (status, _)) in floods.iter().enumerate().filter_map(|(at, flood)| Some((at, (*flood)?))) {
            let refusals = mean(&turns[at], |outcome| outcome.flows[1].finished_refusals as f64 / outcome.seconds);
            let refused = |outcome: &Outcome| outcome.flows[1].refused.get(&status).copied().unwrap_or(0);
            // A limit that is not there lets the flood through; then there is no refusal to speak of.
            if turns[at].iter().any(|outcome| refused(outcome) * 10 < outcome.flows[1].intended * 9) {
                report.note(PART, &format!("{status}"), "the flood was not refused");
                continue;
            }
            let cost = (cpu_rate(&turns[at]) - calm) / refusals * 1e6;
            found[at].push((cost, (p99(&turns[at]) / p99(&turns[0]) - 1.0) * 100.0));
            let latency = mean(&turns[at], |outcome| outcome.flows[1].refusal.p99);
            report.note(PART, &format!("{status} answered within, p99, µs"), latency);
            let reconnects = turns[at].iter().map(|outcome| outcome.flows[1].reconnects).sum::<u64>();
            report.note(PART, &format!("{status}: connections closed by the gateway in the last round"), reconnects);
        }
        for outcome in turns.iter().flatten().filter(|outcome| outcome.flows[0].failures() > 0) {
            report.note(PART, "good requests that failed", outcome.flows[0].failures());
        }
    }
    at_full_load(&gateway, options, report);
    for (at, status) in [(1, 401), (2, 429)] {
        let median = |of: fn(&(f64, f64)) -> f64| Spread::of(found[at].iter().map(of).collect()).map(|it| it.median);
        if let Some((cost, moved)) = median(|pair| pair.0).zip(median(|pair| pair.1)) {
            report.note(PART, &format!("CPU of a {status}, µs"), cost);
            report.note(PART, &format!("{status} flood moves p99 by, %"), moved);
        }
    }
}

fn turn(gateway: &Running, options: &Options, flood: Option<&str>) -> Outcome {
    let mut flows = vec![Flow::new(Ask::json(256), 8, GOOD)];
    if let Some(key) = flood {
        flows.push(Flow { key: Some(key.to_owned()), ..Flow::new(Ask::json(256), 8, FLOOD) });
    }
    gateway.drive(flows, 500, options.window(0), 5_000)
}

/// Refusals without anything else, as many as go: their cost without that of waking a CPU for each.
fn at_full_load(gateway: &Running, options: &Options, report: &mut Report) {
    for (status, key) in [(401, OLD_KEY), (429, SLOW_KEY)] {
        let flow = Flow { key: Some(key.to_owned()), ..Flow::new(Ask::json(256), 8, 0.0) };
        let outcome = gateway.drive(vec![flow], 500, options.window(0), 5_000);
        let tally = &outcome.flows[0];
        if tally.refused.get(&status).copied().unwrap_or(0) * 10 > tally.intended * 9 {
            let cost = outcome.proxy_cpu * 1e6 / tally.finished_refusals as f64;
            report.note(PART, &format!("CPU of a {status} at full load, µs"), cost);
            report.note(PART, &format!("{status} at full load, /s"), tally.finished_refusals as f64 / outcome.seconds);
        }
    }
}

/// CPU seconds a second.
fn cpu_rate(turns: &[Outcome]) -> f64 {
    mean(turns, |outcome| outcome.proxy_cpu / outcome.seconds)
}

fn mean(turns: &[Outcome], value: impl Fn(&Outcome) -> f64) -> f64 {
    turns.iter().map(value).sum::<f64>() / turns.len() as f64
}
