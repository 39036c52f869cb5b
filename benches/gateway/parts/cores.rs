//! The gateway on two cores beside one: what it takes for a request on each, and, where there are enough CPUs, how many
//! more requests it serves.
//!
//! Driver and mock need CPU time too. With fewer than four CPUs they share one with the gateway, so the requests/s on two
//! cores cannot be measured. Its CPU time for a request can: if that does not rise, two cores serve twice as many.

use crate::contenders::gateways::{Builds, Setup};
use crate::options::Options;
use crate::pinned::{self, DRIVER_CPU, PROXY_CPU};
use crate::plan::{Flow, Outcome};
use crate::report::Report;
use crate::statistics::Spread;
use crate::traffic::Exchange;

const PART: &str = "cores";

/// Connections of the closed loop; enough to keep two cores busy.
const CONNECTIONS: usize = 64;

/// CPUs that a direct measurement needs: two for the gateway, one each for the driver and the mock.
const ENOUGH: usize = 4;

/// Runs the gateway on one core and on two, in one order and then in the opposite one, in each round.
pub(crate) fn measure(options: &Options, builds: &Builds, report: &mut Report) {
    let has_enough = pinned::cpus() >= ENOUGH;
    let (two, mock_cpu) = if has_enough { ([PROXY_CPU, 2], 3) } else { ([DRIVER_CPU, PROXY_CPU], DRIVER_CPU) };
    let one = Setup { mock_cpu, ..Setup::new("on one core", &builds.on) }.start();
    let two = Setup { cpus: &two, mock_cpu, ..Setup::new("on two cores", &builds.on) }.start();
    let (mut scale, mut cpu, mut switches, mut rate) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        println!("round {round} of {}: {PART}", options.rounds);
        let turns = [&one, &two, &two, &one].map(|gateway| {
            let flow = Flow::new(Exchange::json(256), CONNECTIONS, 0.0);
            let outcome = gateway.drive(vec![flow], 500, options.window(0), 10_000);
            let tally = &outcome.flows[0];
            assert_eq!(tally.failures(), 0, "{}: {:?}", gateway.name, tally.failed);
            outcome
        });
        if turns.iter().any(|turn| turn.steal * 100.0 > options.max_steal) {
            println!("  dropped for stolen time");
            continue;
        }
        let mean = |of: &dyn Fn(&Outcome) -> f64| {
            ((of(&turns[0]) + of(&turns[3])) / 2.0, (of(&turns[1]) + of(&turns[2])) / 2.0)
        };
        let finished = |turn: &Outcome| turn.flows[0].finished as f64;
        let (cpu_one, cpu_two) = mean(&|turn| turn.proxy_cpu * 1e6 / finished(turn));
        let (rate_one, rate_two) = mean(&|turn| finished(turn) / turn.seconds);
        cpu.push((cpu_one, cpu_two));
        switches.push(mean(&|turn| turn.switches as f64 / finished(turn)));
        scale.push(2.0 * cpu_one / cpu_two);
        rate.push(rate_two / rate_one);
    }
    let mut note = |name: &str, values: Vec<f64>| {
        if let Some(spread) = Spread::of(values) {
            report.note(PART, name, (spread.median * 100.0).round() / 100.0);
        }
    };
    let (on_one, on_two): (Vec<f64>, Vec<f64>) = cpu.into_iter().unzip();
    note("CPU of a request, one core, µs", on_one);
    note("CPU of a request, two cores, µs", on_two);
    let (on_one, on_two): (Vec<f64>, Vec<f64>) = switches.into_iter().unzip();
    note("context switches a request, one core", on_one);
    note("context switches a request, two cores", on_two);
    note("requests for each CPU second on two cores, times those of one, times 2", scale);
    if has_enough {
        note("requests/s on two cores, times one", rate);
    }
}
