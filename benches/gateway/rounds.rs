//! The order of the measurements: which contender has its turn when.
//!
//! Within a round the contenders run in one order and then in the opposite one, so that a drift of the machine affects
//! all of them alike. Every contender is compared with the direct connection of the same round.

use clap::Parser;

use super::contenders::gateways::{Builds, OFF, Setup};
use super::contenders::peers::Peer;
use super::contenders::{Contender, SECOND_DIRECT};
use super::options::Options;
use super::parts::{calls, cores, fleet, floods, idle, instructions, memory, overload, soak, start};
use super::plan::Expected;
use super::report::{Measured, Report};
use super::targets::Target;
use super::workloads::{self, Reading, Workload};
use super::{measure, pinned, targets};

/// Runs the parts that the flags select.
pub(crate) fn run() {
    let options = Options::parse();
    assert!(pinned::both_cpus_are_there(), "the benchmark needs CPUs {} and {}", pinned::DRIVER_CPU, pinned::PROXY_CPU);
    let builds = match options.built.as_deref() {
        Some([on, bare]) => {
            // A gateway starts in its own folder, so a relative path would not be found.
            let absolute = |path| std::path::absolute(path).expect("a path");
            Builds { on: absolute(on), bare: absolute(bare), is_optimised: true }
        }
        _ if cfg!(debug_assertions) => Builds::of_tests(),
        _ => Builds::make(!options.check && !options.update),
    };
    let mut report = Report::new(&options);
    println!("{}", measure::machine());
    if options.instructions || options.soak.is_some() {
        let is_good = !options.instructions || instructions::measure(&options, &builds, &mut report);
        if options.check || options.update {
            std::process::exit(i32::from(!is_good));
        }
        if let Some(minutes) = options.soak {
            soak::measure(minutes, &options, &builds, &mut report);
        }
        print_and_save(&report, &options);
        return;
    }
    let workloads: Vec<&Workload> = workloads::ALL.iter().filter(|workload| options.wants_workload(workload)).collect();
    if !workloads.is_empty() || options.wants("calls") {
        let contenders = contenders(&options, &builds);
        for round in 1..=options.rounds {
            for workload in &workloads {
                println!("round {round} of {}: {}", options.rounds, workload.name);
                report.measured.push(one_round(&options, workload, &contenders, round));
            }
        }
        if options.wants("calls") {
            calls::measure(&contenders, &mut report);
        }
    }
    if options.wants("cores") {
        cores::measure(&options, &builds, &mut report);
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
    if options.wants("idle") {
        idle::measure(&builds, &mut report);
    }
    if options.wants("start") {
        start::measure(&builds, &mut report);
    }
    print_and_save(&report, &options);
}

/// Prints the results and the targets, and writes both as JSON.
fn print_and_save(report: &Report, options: &Options) {
    report.print();
    report.print_headline();
    targets::print(report);
    report.save(options, targets::all(report).iter().map(Target::json).collect());
}

/// Starts all contenders, with a direct connection as the first and the last.
fn contenders(options: &Options, builds: &Builds) -> Vec<Contender> {
    let mock = Contender::mock();
    let mut between = Vec::new();
    for peer in Peer::ALL.into_iter().filter(|peer| options.wants_contender(peer.name())) {
        match peer.start(&mock) {
            Ok(contender) => between.push(contender),
            Err(reason) => println!("without {}: {reason}", peer.name()),
        }
    }
    for (name, program, settings) in [("on", &builds.on, &[][..]), ("off", &builds.bare, OFF)] {
        if options.wants_contender(name) {
            between.push(Setup { settings, ..Setup::new(name, program) }.start());
        }
    }
    let again = Contender::another_mock(SECOND_DIRECT);
    std::iter::once(mock).chain(between).chain([again]).collect()
}

fn one_round(options: &Options, workload: &Workload, all: &[Contender], round: usize) -> Measured {
    // A gateway that reads answers is far slower than the rates of the schedules, and its frames cannot be compared.
    let is_for_all = workload.rate == 0.0 && !workload.exchange.stream;
    let takes_part = |contender: &&Contender| is_for_all || contender.expected != Expected::Rewritten;
    let contenders: Vec<&Contender> = all.iter().filter(takes_part).collect();
    let mut readings: Vec<(&'static str, Vec<Reading>)> = contenders.iter().map(|it| (it.name, Vec::new())).collect();
    let indices = 0..contenders.len();
    for at in indices.clone().chain(indices.rev()) {
        let window = options.window(workload.window);
        let outcome = contenders[at].drive(vec![workload.flow()], 500, window, 10_000);
        for (reason, count) in &outcome.flows[0].failed {
            println!("  {}: {count} failed: {reason}", contenders[at].name);
        }
        readings[at].1.push(workloads::read(&outcome));
    }
    Measured { workload: workload.name, round, readings }
}
