//! W11: one model asked for among few and among many. What it costs to find it, by its id and by an alias, and what a
//! gateway of many takes that is asked for nothing.

use crate::contenders::Running;
use crate::contenders::gateways::{self, Builds};
use crate::measure::CpuTimes;
use crate::options::Options;
use crate::plan::Flow;
use crate::report::Report;
use crate::statistics::Spread;
use crate::traffic::{Ask, Name};
use std::thread;
use std::time::Duration;

const PART: &str = "W11 models";

/// How many models are configured. One of them is loaded, and asked for.
const SIZES: [(u16, &str); 3] = [(1, "1 model"), (10, "10 models"), (200, "200 models")];

const WAYS: [(Way, &str); 2] = [(Name::Id, "by id"), (Name::Alias, "by alias")];

type Way = fn(u16) -> Name;

/// What a request for the loaded model of so many is.
pub(crate) fn ask(models: u16, way: Way) -> Ask {
    Ask { model: way(models - 1), ..Ask::json(256) }
}

/// Each round: all gateways in one order, and then in the opposite one. What many models add is taken within a round.
pub(crate) fn measure(options: &Options, builds: &Builds, report: &mut Report) {
    let gateways = SIZES.map(|(models, name)| gateways::start_fleet(name, &[], &builds.on, models));
    let cases: Vec<(&Running, u16, Way, String)> = gateways
        .iter()
        .zip(SIZES)
        .flat_map(|(gateway, (models, name))| WAYS.map(|(way, how)| (gateway, models, way, format!("{name}, {how}"))))
        .collect();
    let mut found: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    for round in 1..=options.rounds {
        println!("round {round} of {}: {PART}", options.rounds);
        let (mut cpu, mut steal) = (vec![0.0; cases.len()], 0.0_f64);
        for at in (0..cases.len()).chain((0..cases.len()).rev()) {
            let (gateway, models, way, name) = &cases[at];
            let flow = Flow::new(ask(*models, *way), 8, 3_000.0);
            let outcome = gateway.drive(vec![flow], 500, options.window(0), 10_000);
            let tally = &outcome.flows[0];
            assert_eq!(
                (tally.failures(), tally.refused.len()),
                (0, 0),
                "{name}: {:?} {:?}",
                tally.failed,
                tally.refused
            );
            cpu[at] += outcome.proxy_cpu * 1e6 / tally.finished as f64 / 2.0;
            steal = steal.max(outcome.steal * 100.0);
        }
        if steal > options.max_steal {
            println!("  dropped: {steal:.1} % of the time was stolen");
            continue;
        }
        found.iter_mut().zip(cpu).for_each(|(all, cpu)| all.push(cpu));
    }
    for (at, (_, _, _, name)) in cases.iter().enumerate() {
        let Some(cpu) = Spread::of(found[at].clone()) else { continue };
        report.note(PART, &format!("CPU of a request, {name}, µs"), cpu.median);
        let first = at % WAYS.len();
        let added = found[at].iter().zip(&found[first]).map(|(many, one)| many - one).collect();
        let Some(added) = Spread::of(added).filter(|_| at != first) else { continue };
        report.note(PART, &format!("added, {name}, µs"), added.median);
        report.note(PART, &format!("added, {name}, quartiles, µs"), format!("{:.2} to {:.2}", added.low, added.high));
    }
    for (gateway, (_, name)) in gateways.iter().zip(SIZES) {
        report.note(PART, &format!("CPU while idle, {name}, % of one"), idle(gateway, options.window(1_000)));
    }
}

/// The part of one CPU that it takes while nobody asks for anything, in percent.
fn idle(gateway: &Running, window: u64) -> f64 {
    let before = CpuTimes::of(&gateway.proxy);
    thread::sleep(Duration::from_millis(window));
    CpuTimes::of(&gateway.proxy).since(&before) * 1e5 / window as f64
}
