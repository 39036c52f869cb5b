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
    rounds::{FaultLane, Rounds},
    setup::Setup,
    shared::{FinishOnDrop, Shared},
    support::wait,
    test_gateway::TestGateway,
};

/// Clients that send requests at the same time.
const CLIENTS: u64 = 12;

/// The longest that clients may take to finish their requests.
pub(crate) const FINISH_TIME: Duration = Duration::from_secs(20);

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
    rounds: Rounds,
    longest_health: Duration,
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
        let (rounds, longest_health) = thread::scope(|scope| {
            let finish = FinishOnDrop(&shared);
            for (n, random) in seeds.into_iter().enumerate() {
                let name = format!("{}{}c{n}", if is_real { "r" } else { "f" }, self.number);
                let client = TrafficClient::new(&shared, random, name, is_real).with_repetitions(gateway.setup.caches);
                match n {
                    0 => scope.spawn(|| http2::run(client)),
                    _ => scope.spawn(|| client.run()),
                };
            }
            let watcher = scope.spawn(|| watch_health_port(&shared));
            let rounds = Rounds::run(&mut SingleModel { gateway, shared: &shared }, steps)?;
            drop(finish);
            let longest_health =
                watcher.join().map_err(|_| "the thread that watches the health port panicked".to_owned())?;
            Ok::<_, String>((rounds, longest_health))
        })?;
        let violations = shared.violations();
        if !violations.is_empty() {
            return Err(violations.join("\n"));
        }
        gateway.check_leaks(baseline_fds)?;
        gateway.stop()?;
        let outcomes = std::mem::take(&mut shared.counts().totals);
        for needed in [Outcome::Answered, Outcome::Streamed] {
            if !outcomes.contains_key(&needed) {
                return Err(format!("the run proves nothing, because {needed:?} is missing: {outcomes:?}"));
            }
        }
        Ok(Report { outcomes, rounds, longest_health, setup: gateway.setup, notes: std::mem::take(&mut gateway.notes) })
    }
}

/// A gateway with one model, and its clients.
struct SingleModel<'a> {
    gateway: &'a mut TestGateway,
    shared: &'a Shared,
}

impl FaultLane for SingleModel<'_> {
    type Fault = Fault;
    const ROUND: usize = 12;

    fn apply(&mut self, fault: Fault) -> Result<(), String> {
        fault.apply(self.gateway, self.shared)
    }

    fn pause(&mut self, time: Duration) {
        self.gateway.pause(time, self.shared);
    }

    /// Waits until the gateway is ready again, pauses the clients and checks the idle gateway.
    fn check_round(&mut self) -> Result<Duration, String> {
        let (gateway, shared) = (&mut *self.gateway, self.shared);
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

    fn gateway_pid(&self) -> u32 {
        self.gateway.process.pid()
    }

    fn violations(&self) -> Vec<String> {
        self.shared.violations()
    }
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
        let Setup { restarts_hung, unloads_idle, caches, .. } = self.setup;
        let [hang, idle, cache] = [restarts_hung, unloads_idle, caches].map(on_off);
        writeln!(f, "HANG_TIMEOUT {hang}, IDLE_UNLOAD {idle}, CACHE {cache}")?;
        writeln!(
            f,
            "  ready again after {:.1?} at most, health port within {:.1?}, {disk}",
            self.rounds.longest_recovery, self.longest_health
        )?;
        writeln!(
            f,
            "  resident memory {} KiB after a tenth, {} KiB at the end",
            self.rounds.resident_kib.0, self.rounds.resident_kib.1
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
