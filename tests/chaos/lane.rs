//! One lane from its start to its end: a gateway, its clients, its faults, and the thread that watches the health port.

use std::{
    collections::BTreeMap,
    fmt, thread,
    time::{Duration, Instant},
};

use crate::{
    checks::expectations::Outcome,
    checks::invariants::watch_health_port,
    clients::TrafficClient,
    clients::http2,
    faults::Fault,
    plan::plan,
    random::Random,
    setup::Setup,
    shared::{FinishOnDrop, Shared},
    support::{resources, wait},
    test_gateway::TestGateway,
};

/// Clients that send requests at the same time.
const CLIENTS: u64 = 12;

/// Faults in a round. After each round clients pause, and the idle gateway is checked.
const ROUND: usize = 12;

/// The longest that clients may take to finish their requests.
pub(crate) const FINISH_TIME: Duration = Duration::from_secs(20);

/// How much the gateway's resident memory may grow after the first tenth of the faults. The allocator keeps the memory
/// of a peak, and a longer run meets higher peaks.
pub(crate) const MAX_GROWTH_KIB: u64 = 24 * 1024;

/// How long descriptors are counted for the baseline: several probe intervals.
const BASELINE_WINDOW: Duration = Duration::from_secs(1);

/// The parameters of one lane.
pub(crate) struct Lane {
    pub(crate) number: u64,
    pub(crate) random: Random,
    pub(crate) count: usize,
    pub(crate) setup: Setup,
    pub(crate) may_replace: bool,
}

/// The result of a lane that found nothing wrong.
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
        let mut gateway = TestGateway::start(self.setup);
        let outcome = self.run_faults(&mut gateway);
        outcome.map_err(|problem| {
            format!("{problem}\n{:?}, the last lines of its log:\n{}", gateway.setup, gateway.last_log_lines())
        })
    }

    fn run_faults(mut self, gateway: &mut TestGateway) -> Result<Report, String> {
        let is_real = self.setup.is_real;
        // Drawn before the plan of faults, so that neither depends on the length of the other.
        let mut client_random = Random::new(self.random.next(), 0);
        let steps = plan(&mut self.random, self.count, self.setup, self.may_replace);
        let baseline_fds = count_baseline_fds(gateway);
        let shared = Shared::new(gateway.target());
        let seeds: Vec<Random> = (0..CLIENTS).map(|n| Random::new(client_random.next(), n)).collect();
        let mut longest_recovery = Duration::ZERO;
        let mut resident_kib = (0, 0);
        let longest_health = thread::scope(|scope| {
            let finish = FinishOnDrop(&shared);
            for (n, random) in seeds.into_iter().enumerate() {
                let name = format!("{}{}c{n}", if is_real { "r" } else { "f" }, self.number);
                let client = TrafficClient::new(&shared, random, name, is_real);
                match n {
                    0 => scope.spawn(|| http2::run(client)),
                    _ => scope.spawn(|| client.run()),
                };
            }
            let watcher = scope.spawn(|| watch_health_port(&shared));
            let mut done = Vec::new();
            for (n, step) in steps.iter().enumerate() {
                done.push(format!("{n}: {step:?}"));
                let failed =
                    |problem: String| Err(format!("{problem}\nafter {:#?}", &done[done.len().saturating_sub(ROUND)..]));
                if let Err(problem) = step.fault.apply(gateway, &shared) {
                    return failed(problem);
                }
                if matches!(step.fault, Fault::ReplaceGateway) {
                    resident_kib = (0, 0);
                }
                gateway.pause(step.pause, &shared);
                if (n + 1) % ROUND == 0 || n + 1 == steps.len() {
                    match check_round(gateway, &shared) {
                        Ok(took) => longest_recovery = longest_recovery.max(took),
                        Err(problem) => return failed(problem),
                    }
                    let now = resources::resident_kib(gateway.process.pid());
                    if resident_kib.0 == 0 && n >= steps.len() / 10 {
                        resident_kib.0 = now;
                    }
                    resident_kib.1 = now;
                }
                let violations = shared.violations();
                if !violations.is_empty() {
                    return failed(violations.join("\n"));
                }
            }
            drop(finish);
            watcher.join().map_err(|_| "the thread that watches the health port panicked".to_owned())
        })?;
        let violations = shared.violations();
        if !violations.is_empty() {
            return Err(violations.join("\n"));
        }
        gateway.check_leaks(baseline_fds)?;
        if resident_kib.1 > resident_kib.0 + MAX_GROWTH_KIB {
            return Err(format!("resident memory grew (KiB): {resident_kib:?}"));
        }
        gateway.stop()?;
        let outcomes = std::mem::take(&mut shared.counts().totals);
        for needed in [Outcome::Answered, Outcome::Streamed] {
            if !outcomes.contains_key(&needed) {
                return Err(format!("the run proves nothing, because {needed:?} is missing: {outcomes:?}"));
            }
        }
        Ok(Report {
            outcomes,
            longest_recovery,
            longest_health,
            resident_kib,
            setup: gateway.setup,
            notes: std::mem::take(&mut gateway.notes),
        })
    }
}

/// Ends all faults, waits until the gateway is ready again, pauses the clients and checks the idle gateway. Returns how
/// long the gateway took to become ready.
fn check_round(gateway: &mut TestGateway, shared: &Shared) -> Result<Duration, String> {
    let took = gateway.recover(shared)?;
    shared.set_paused(true);
    wait_until_idle(shared, FINISH_TIME)?;
    gateway.check_idle(shared)?;
    gateway.check_sleep(shared)?;
    gateway.truncate_journal();
    gateway.empty_disk();
    shared.set_paused(false);
    Ok(took)
}

/// Waits until no client has a request in flight.
pub(crate) fn wait_until_idle(shared: &Shared, longest: Duration) -> Result<(), String> {
    let begin = Instant::now();
    while !shared.is_idle() {
        if begin.elapsed() > wait::patient(longest) {
            return Err("clients are still waiting".into());
        }
        thread::sleep(wait::POLL);
    }
    Ok(())
}

/// Counts the descriptors of an idle gateway before its first request; with IDLE_UNLOAD, its llama-server is unloaded.
fn count_baseline_fds(gateway: &TestGateway) -> usize {
    let children = usize::from(!gateway.setup.unloads_idle);
    wait::eventually("the gateway is idle", wait::STOPS, || gateway.process.child_pids().len() == children);
    // Probes open and close connections, so the least count is the baseline.
    let end = Instant::now() + BASELINE_WINDOW;
    let mut least = usize::MAX;
    while Instant::now() < end {
        least = least.min(gateway.process.open_fds());
        thread::sleep(wait::POLL);
    }
    least
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = if self.setup.has_disk {
            "a small disk for logs"
        } else {
            "NO small disk: this machine does not allow mounts"
        };
        let Setup { restarts_hung, unloads_idle, .. } = self.setup;
        writeln!(f, "HANG_TIMEOUT {}, IDLE_UNLOAD {}", on_off(restarts_hung), on_off(unloads_idle))?;
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

fn on_off(setting: bool) -> &'static str {
    if setting { "on" } else { "off" }
}
