//! W8: refused requests beside good ones: CPU time of a refusal, and the effect on the latency of good requests.

use crate::contenders::Contender;
use crate::contenders::gateways::{Builds, EXPIRED_KEY, LIMITED_KEY, Setup};
use crate::options::Options;
use crate::plan::{Flow, Outcome};
use crate::report::Report;
use crate::statistics::Spread;
use crate::traffic::Exchange;

const PART: &str = "W8 floods";

/// Refused requests per second.
const FLOOD: f64 = 2_000.0;

/// Good requests per second beside them.
const GOOD: f64 = 300.0;

/// Runs, in each round: no flood, 401, 429, and the same in the opposite order.
pub(crate) fn measure(options: &Options, builds: &Builds, report: &mut Report) {
    let gateway = Setup::new("on", &builds.on).start();
    let floods = [None, Some((401, EXPIRED_KEY)), Some((429, LIMITED_KEY))];
    let mut measured: [Vec<(f64, f64)>; 3] = Default::default();
    for round in 1..=options.rounds {
        println!("round {round} of {}: {PART}", options.rounds);
        let mut turns: [Vec<Outcome>; 3] = Default::default();
        for at in [0, 1, 2, 2, 1, 0] {
            turns[at].push(run_turn(&gateway, options, floods[at].map(|(_, key)| key)));
        }
        let calm = cpu_rate(&turns[0]);
        let p99 = |turns: &[Outcome]| mean(turns, |outcome| outcome.flows[0].latency.p99);
        for (at, (status, _)) in floods.iter().enumerate().filter_map(|(at, flood)| Some((at, (*flood)?))) {
            let refusals = mean(&turns[at], |outcome| outcome.flows[1].finished_refusals as f64 / outcome.seconds);
            let refused = |outcome: &Outcome| outcome.flows[1].refused.get(&status).copied().unwrap_or(0);
            // If the gateway does not refuse the flood, there is no cost of a refusal.
            if turns[at].iter().any(|outcome| refused(outcome) * 10 < outcome.flows[1].intended * 9) {
                report.note(PART, &format!("{status}"), "the flood was not refused");
                continue;
            }
            let cost = (cpu_rate(&turns[at]) - calm) / refusals * 1e6;
            measured[at].push((cost, (p99(&turns[at]) / p99(&turns[0]) - 1.0) * 100.0));
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
        let median = |of: fn(&(f64, f64)) -> f64| Spread::of(measured[at].iter().map(of).collect()).map(|it| it.median);
        if let Some((cost, moved)) = median(|pair| pair.0).zip(median(|pair| pair.1)) {
            report.note(PART, &format!("CPU of a {status}, µs"), cost);
            report.note(PART, &format!("{status} flood moves p99 by, %"), moved);
        }
    }
}

fn run_turn(gateway: &Contender, options: &Options, flood: Option<&str>) -> Outcome {
    let mut flows = vec![Flow::new(Exchange::json(256), 8, GOOD)];
    if let Some(key) = flood {
        flows.push(Flow { key: Some(key.to_owned()), ..Flow::new(Exchange::json(256), 8, FLOOD) });
    }
    gateway.drive(flows, 500, options.window(0), 5_000)
}

/// Runs only refused requests, as fast as possible: the CPU time of a refusal without that of waking a CPU for each.
fn at_full_load(gateway: &Contender, options: &Options, report: &mut Report) {
    for (status, key) in [(401, EXPIRED_KEY), (429, LIMITED_KEY)] {
        let flow = Flow { key: Some(key.to_owned()), ..Flow::new(Exchange::json(256), 8, 0.0) };
        let outcome = gateway.drive(vec![flow], 500, options.window(0), 5_000);
        let tally = &outcome.flows[0];
        if tally.refused.get(&status).copied().unwrap_or(0) * 10 > tally.intended * 9 {
            let cost = outcome.proxy_cpu * 1e6 / tally.finished_refusals as f64;
            report.note(PART, &format!("CPU of a {status} at full load, µs"), cost);
            report.note(PART, &format!("{status} at full load, /s"), tally.finished_refusals as f64 / outcome.seconds);
        }
    }
}

/// Returns CPU seconds per second.
fn cpu_rate(turns: &[Outcome]) -> f64 {
    mean(turns, |outcome| outcome.proxy_cpu / outcome.seconds)
}

fn mean(turns: &[Outcome], value: impl Fn(&Outcome) -> f64) -> f64 {
    turns.iter().map(value).sum::<f64>() / turns.len() as f64
}
