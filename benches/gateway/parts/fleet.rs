//! W11: requests for one model among few and among many: CPU time to find the model by its id and by an alias, and CPU
//! time of an idle gateway.

use std::thread;
use std::time::Duration;

use crate::contenders::Contender;
use crate::contenders::gateways::{Builds, Setup};
use crate::measure::ThreadCounts;
use crate::options::Options;
use crate::plan::Flow;
use crate::report::Report;
use crate::statistics::Spread;
use crate::traffic::{Exchange, ModelName};

const PART: &str = "W11 models";

/// Numbers of configured models. One of them is loaded and gets the requests.
const SIZES: [(u16, &str); 3] = [(1, "1 model"), (10, "10 models"), (200, "200 models")];

const NAME_KINDS: [(NameKind, &str); 2] = [(ModelName::Id, "by id"), (ModelName::Alias, "by alias")];

type NameKind = fn(u16) -> ModelName;

/// Returns a request for the loaded model, the last of `models`.
pub(crate) fn exchange(models: u16, name_kind: NameKind) -> Exchange {
    Exchange { model: name_kind(models - 1), ..Exchange::json(256) }
}

/// Runs all gateways in one order and then in the opposite one, in each round. The CPU time that other models add is
/// computed within a round.
pub(crate) fn measure(options: &Options, builds: &Builds, report: &mut Report) {
    let gateways = SIZES.map(|(models, name)| Setup { models, ..Setup::new(name, &builds.on) }.start());
    let cases: Vec<(&Contender, u16, NameKind, String)> = gateways
        .iter()
        .zip(SIZES)
        .flat_map(|(gateway, (models, name))| {
            NAME_KINDS.map(|(name_kind, how)| (gateway, models, name_kind, format!("{name}, {how}")))
        })
        .collect();
    let mut measured: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    for round in 1..=options.rounds {
        println!("round {round} of {}: {PART}", options.rounds);
        let (mut cpu, mut steal) = (vec![0.0; cases.len()], 0.0_f64);
        for at in (0..cases.len()).chain((0..cases.len()).rev()) {
            let (gateway, models, name_kind, name) = &cases[at];
            let flow = Flow::new(exchange(*models, *name_kind), 8, 3_000.0);
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
        measured.iter_mut().zip(cpu).for_each(|(all, cpu)| all.push(cpu));
    }
    for (at, (_, _, _, name)) in cases.iter().enumerate() {
        let Some(cpu) = Spread::of(measured[at].clone()) else { continue };
        report.note(PART, &format!("CPU of a request, {name}, µs"), cpu.median);
        let first = at % NAME_KINDS.len();
        let added = measured[at].iter().zip(&measured[first]).map(|(many, one)| many - one).collect();
        let Some(added) = Spread::of(added).filter(|_| at != first) else { continue };
        report.note(PART, &format!("added, {name}, µs"), added.median);
        report.note(PART, &format!("added, {name}, quartiles, µs"), format!("{:.2} to {:.2}", added.low, added.high));
    }
    for (gateway, (_, name)) in gateways.iter().zip(SIZES) {
        report.note(
            PART,
            &format!("CPU while idle, {name}, % of one"),
            idle_cpu_percent(gateway, options.window(1_000)),
        );
    }
}

/// Returns the CPU time of an idle gateway, in percent of one CPU.
fn idle_cpu_percent(gateway: &Contender, window: u64) -> f64 {
    let before = ThreadCounts::of_cpu_time(&gateway.proxy);
    thread::sleep(Duration::from_millis(window));
    ThreadCounts::of_cpu_time(&gateway.proxy).seconds_since(&before) * 1e5 / window as f64
}
