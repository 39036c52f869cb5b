//! The order of things: which contender has its turn when, and what a round gives.
//!
//! Within a round the contenders run in one order and then in the opposite one, so that a drift of the machine weighs
//! on all of them alike. Every contender is compared with the direct connection of the same round.

use super::contenders::gateways::{self, Builds, OFF};
use super::contenders::peers::Peer;
use super::contenders::{AGAIN, Running};
use super::options::Options;
use super::parts::{fleet, floods, instructions, memory, overload, soak};
use super::report::{Measured, Report};
use super::targets::Target;
use super::workloads::{self, Reading, Workload};
use super::{measure, pinned, targets};
use clap::Parser;

/// Runs the benchmark that the flags ask for.
pub(crate) fn play() {
    let options = Options::parse();
    assert!(pinned::both_cpus_are_there(), "the benchmark needs CPUs {} and {}", pinned::DRIVER_CPU, pinned::PROXY_CPU);
    let builds = match options.built.as_deref() {
        Some([on, bare]) => {
            // A gateway is started in a folder of its own.
            let absolute = |path| std::path::absolute(path).expect("a path");
            Builds { on: absolute(on), bare: absolute(bare) }
        }
        _ => Builds::make(),
    };
    let mut report = Report::new(&options);
    println!("{}", measure::machine());
    if options.instructions || options.soak.is_some() {
        if options.instructions {
            instructions::measure(&options, &builds, &mut report);
        }
        if let Some(minutes) = options.soak {
            soak::measure(minutes, &options, &builds, &mut report);
        }
        show(&report, &options);
        return;
    }
    let workloads: Vec<&Workload> = workloads::ALL.iter().filter(|workload| options.wants(workload.name)).collect();
    if !workloads.is_empty() {
        let contenders = contenders(&options, &builds);
        for round in 1..=options.rounds {
            for workload in &workloads {
                println!("round {round} of {}: {}", options.rounds, workload.name);
                report.measured.push(one_round(&options, workload, &contenders, round));
            }
        }
    }
    if options.wants("W8") {
        floods::measure(&options, &builds, &mut report);
    }
    if options.wants("W10") {
        overload::measure(&options, &builds, &mut report);
    }
    if options.wants("W11") {
        fleet::measure(&options, &builds, &mut report);
    }
    if options.wants("memory") {
        memory::measure(&options, &builds, &mut report);
    }
    show(&report, &options);
}

/// Prints what was found and the targets, and writes both as JSON.
fn show(report: &Report, options: &Options) {
    report.print();
    targets::print(report);
    report.save(options, targets::all(report).iter().map(Target::json).collect());
}

/// Everybody who takes part, the direct connection at both ends.
fn contenders(options: &Options, builds: &Builds) -> Vec<Running> {
    let mock = Running::mock();
    let mut between = Vec::new();
    for peer in [Peer::Nginx, Peer::Haproxy] {
        if !options.wants_contender(peer.name()) {
            continue;
        }
        if peer.program().is_some() {
            between.push(peer.start(&mock));
        } else {
            println!("{} is not there: scripts/bench-peers.sh installs it", peer.name());
        }
    }
    for (name, program, settings) in [("on", &builds.on, &[][..]), ("off", &builds.bare, OFF)] {
        if options.wants_contender(name) {
            between.push(gateways::start(name, program, settings));
        }
    }
    let again = Running::mock_again(AGAIN);
    std::iter::once(mock).chain(between).chain([again]).collect()
}

fn one_round(options: &Options, workload: &Workload, contenders: &[Running], round: usize) -> Measured {
    let mut readings: Vec<(&'static str, Vec<Reading>)> = contenders.iter().map(|it| (it.name, Vec::new())).collect();
    let there = 0..contenders.len();
    for at in there.clone().chain(there.rev()) {
        let window = options.window(workload.window);
        let outcome = contenders[at].drive(vec![workload.flow()], 500, window, 10_000);
        for (reason, count) in &outcome.flows[0].failed {
            println!("  {}: {count} failed: {reason}", contenders[at].name);
        }
        readings[at].1.push(workloads::read(&outcome));
    }
    Measured { workload: workload.name, round, readings }
}
