//! One gateway from its start to its end, with its clients, its watcher and its faults.

use crate::{
    checks::expectations::Outcome,
    checks::invariants::watch,
    clients::Customer,
    clients::http2,
    faults::Fault,
    plan::plan,
    random::Random,
    setup::Setup,
    shared::{Closing, Door},
    support::{resources, wait},
    test_gateway::World,
};
use std::{
    collections::BTreeMap,
    fmt, thread,
    time::{Duration, Instant},
};

/// Clients that ask at the same time.
const CLIENTS: u64 = 12;

/// Faults after which all is quiet for a moment, and looked at.
const ROUND: usize = 12;

/// The longest that clients may take to finish what they have begun.
const QUIET: Duration = Duration::from_secs(20);

/// How much more memory the gateway may take than after the first tenth of the faults. The allocator keeps what a peak
/// took, and peaks grow with chance.
const GROWTH_KIB: u64 = 24 * 1024;

/// How long descriptors are counted for the baseline: several times as long as two probes are apart.
const COUNTED: Duration = Duration::from_secs(1);

/// What is to be done.
pub(crate) struct Lane {
    pub(crate) number: u64,
    pub(crate) random: Random,
    pub(crate) count: usize,
    pub(crate) setup: Setup,
    pub(crate) may_replace: bool,
}

/// What came of it.
pub(crate) struct Report {
    outcomes: BTreeMap<Outcome, u64>,
    longest_recovery: Duration,
    longest_health: Duration,
    resident_kib: (u64, u64),
    setup: Setup,
    notes: BTreeMap<&'static str, usize>,
}

impl Lane {
    pub(crate) fn run(self) -> Result<Report, String> {
        let mut world = World::start(self.setup);
        let outcome = self.attack(&mut world);
        outcome.map_err(|what| format!("{what}\n{:?}, the last lines of its log:\n{}", world.setup, world.last_words()))
    }

    fn attack(mut self, world: &mut World) -> Result<Report, String> {
        let is_real = self.setup.is_real;
        // First, so that neither plan depends on the length of the other.
        let mut crowd = Random::new(self.random.next(), 0);
        let steps = plan(&mut self.random, self.count, self.setup, self.may_replace);
        let baseline_fds = baseline(world);
        let door = Door::new(world.target());
        let seeds: Vec<Random> = (0..CLIENTS).map(|n| Random::new(crowd.next(), n)).collect();
        let mut longest_recovery = Duration::ZERO;
        let mut resident_kib = (0, 0);
        let longest_health = thread::scope(|scope| {
            let closing = Closing(&door);
            for (n, random) in seeds.into_iter().enumerate() {
                let name = format!("{}{}c{n}", if is_real { "r" } else { "f" }, self.number);
                let customer = Customer::new(&door, random, name, is_real);
                match n {
                    0 => scope.spawn(|| http2::shop(customer)),
                    _ => scope.spawn(|| customer.shop()),
                };
            }
            let watcher = scope.spawn(|| watch(&door));
            let mut last = Vec::new();
            for (n, step) in steps.iter().enumerate() {
                last.push(format!("{n}: {step:?}"));
                let failed =
                    |what: String| Err(format!("{what}\nafter {:#?}", &last[last.len().saturating_sub(ROUND)..]));
                if let Err(what) = step.fault.apply(world, &door) {
                    return failed(what);
                }
                if matches!(step.fault, Fault::Replace) {
                    resident_kib = (0, 0);
                }
                world.pause(step.pause, &door);
                if (n + 1) % ROUND == 0 || n + 1 == steps.len() {
                    match look(world, &door) {
                        Ok(took) => longest_recovery = longest_recovery.max(took),
                        Err(what) => return failed(what),
                    }
                    let now = resources::resident_kib(world.gateway.pid());
                    if resident_kib.0 == 0 && n >= steps.len() / 10 {
                        resident_kib.0 = now;
                    }
                    resident_kib.1 = now;
                }
                let violations = door.violations();
                if !violations.is_empty() {
                    return failed(violations.join("\n"));
                }
            }
            drop(closing);
            watcher.join().map_err(|_| "the watcher panicked".to_owned())
        })?;
        let violations = door.violations();
        if !violations.is_empty() {
            return Err(violations.join("\n"));
        }
        world.check_leaks(baseline_fds)?;
        if resident_kib.1 > resident_kib.0 + GROWTH_KIB {
            return Err(format!("resident memory grew (KiB): {resident_kib:?}"));
        }
        world.stop()?;
        let outcomes = std::mem::take(&mut door.accounts().totals);
        for wanted in [Outcome::Answered, Outcome::Streamed] {
            if !outcomes.contains_key(&wanted) {
                return Err(format!("a run that proves nothing: {outcomes:?}"));
            }
        }
        Ok(Report {
            outcomes,
            longest_recovery,
            longest_health,
            resident_kib,
            setup: world.setup,
            notes: std::mem::take(&mut world.notes),
        })
    }
}

/// Ends all faults and waits until it is ready again, then until nothing is in flight; says how long the first took.
fn look(world: &mut World, door: &Door) -> Result<Duration, String> {
    let took = world.recover(door)?;
    door.hush(true);
    let begin = Instant::now();
    while !door.is_quiet() {
        if begin.elapsed() > wait::patient(QUIET) {
            return Err("clients are still waiting".into());
        }
        thread::sleep(wait::POLL);
    }
    world.check_quiet(door)?;
    world.check_sleep(door)?;
    world.shorten_ledger();
    world.empty_disk();
    door.hush(false);
    Ok(took)
}

/// Descriptors of a gateway that nobody has asked for anything yet, and whose llama-server sleeps if it ever does.
fn baseline(world: &World) -> usize {
    let children = usize::from(!world.setup.sleeps);
    wait::eventually("it is at rest", wait::STOPS, || world.gateway.child_pids().len() == children);
    // Probes come and go, so the least of many counts.
    let end = Instant::now() + COUNTED;
    let mut least = usize::MAX;
    while Instant::now() < end {
        least = least.min(world.gateway.open_fds());
        thread::sleep(wait::POLL);
    }
    least
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = if self.setup.has_disk {
            "a small disk for logs"
        } else {
            "NO small disk: this machine lets nobody mount one"
        };
        let Setup { finds_hangs, sleeps, .. } = self.setup;
        writeln!(f, "HANG_TIMEOUT {}, IDLE_UNLOAD {}", is_on(finds_hangs), is_on(sleeps))?;
        writeln!(
            f,
            "  ready again after {:.1?} at most, health port within {:.1?}, {disk}",
            self.longest_recovery, self.longest_health
        )?;
        writeln!(
            f,
            "  resident memory {} KiB after a tenth, {} KiB at the end",
            self.resident_kib.0, self.resident_kib.1
        )?;
        writeln!(f, "  {:?}", self.notes)?;
        let outcomes: Vec<String> =
            self.outcomes.iter().map(|(outcome, count)| format!("{outcome:?} {count}")).collect();
        write!(f, "  {}", outcomes.join(", "))
    }
}

fn is_on(setting: bool) -> &'static str {
    if setting { "on" } else { "off" }
}
