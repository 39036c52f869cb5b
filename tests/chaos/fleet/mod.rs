//! The lane with six models under a memory budget for three: loads, evictions, models that sleep, and reloads that add,
//! remove and change models, while llama-servers are killed, suspended and hang.
//!
//! - `checks.rs`: what must hold all the time, and after each round
//! - `config.rs`: the configuration file, and how a reload changes it
//! - `faults.rs`: the kinds of faults

mod checks;
mod config;
mod faults;

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    checks::{expectations::Outcome, journal::JournalReader},
    clients::{MAX_BODY, TrafficClient},
    lane::{FINISH_TIME, wait_until_idle},
    random::Random,
    rounds::{FaultLane, Rounds},
    setup::{LOAD_TIMEOUT, QUEUE_TIMEOUT, REQUEST_TIMEOUT, STREAM_IDLE_TIMEOUT, set_times},
    shared::{FinishOnDrop, Shared, Target},
    support::{
        gateway::{ADMIN, Backend, Gateway, USER},
        model_file::Kind,
        resources,
        scripted::Control,
    },
    test_gateway::send_signal,
};
pub(crate) use checks::{check_round, watch_workers};
use config::FleetConfig;
pub(crate) use config::MODELS;
use faults::FleetRepair;
pub(crate) use faults::{FleetFault, draw};
use nix::sys::signal::Signal;

/// Clients that send requests at the same time.
pub(crate) const CLIENTS: u64 = 10;

/// Longer than any request takes, so that no reload cuts one.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// LOAD_TIMEOUT with the real llama-server, on a busy machine.
const REAL_LOAD_TIMEOUT: Duration = Duration::from_secs(20);

/// MAX_WAIT_BEFORE_DRAIN: a busy model is soon drained for another one.
const WAIT_BEFORE_DRAIN: Duration = Duration::from_millis(300);

/// What another lane adds to the six models.
#[derive(Default)]
pub(crate) struct FleetSetup {
    /// Whether the llama-servers are real.
    pub(crate) is_real: bool,
    /// What follows the six models in the configuration.
    pub(crate) more_config: String,
    /// The files of further models of the fake.
    pub(crate) more_files: Vec<(String, Kind)>,
    pub(crate) settings: Vec<(&'static str, String)>,
}

/// The gateway of the lane.
pub(crate) struct FleetGateway {
    pub(crate) process: Gateway,
    is_real: bool,
    config: FleetConfig,
    journals: BTreeMap<&'static str, JournalReader>,
    repairs: Vec<(Instant, FleetRepair)>,
    /// The models whose next starts follow a script.
    scripted: BTreeSet<&'static str>,
    /// All processes of llama-servers that were seen, with their command lines: the kernel gives a process id again.
    seen: BTreeMap<u32, Vec<String>>,
    pub(crate) notes: BTreeMap<&'static str, usize>,
}

/// Runs the lane. Returns what happened, for the report.
///
/// # Errors
///
/// What is wrong, with the end of the gateway's log.
pub(crate) fn run(random: Random, count: usize) -> Result<String, String> {
    let mut gateway = FleetGateway::start(FleetSetup::default());
    let outcome = run_faults(random, count, &mut gateway);
    outcome.map_err(|problem| {
        let output = gateway.process.output();
        let lines: Vec<&str> = output.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        format!("{problem}\n{}\nthe last lines of its log:\n{last}", gateway.config.text())
    })
}

/// Lines of the gateway's log that are shown with a failure.
const LAST_LINES: usize = 100;

fn run_faults(mut random: Random, count: usize, gateway: &mut FleetGateway) -> Result<String, String> {
    let mut client_random = Random::new(random.next(), 0);
    let step = |_| {
        let fault = draw(&mut random);
        let longest = if random.chance(30) { 1200 } else { 300 };
        (fault, Duration::from_millis(random.below(longest)))
    };
    let steps: Vec<(FleetFault, Duration)> = (0..count).map(step).collect();
    let shared = Shared::new(gateway.target());
    let health_url = gateway.process.health_url().to_owned();
    let rounds = thread::scope(|scope| {
        let _finish = FinishOnDrop(&shared);
        for n in 0..CLIENTS {
            let random = Random::new(client_random.next(), n);
            let client = TrafficClient::new(&shared, random, format!("m{n}"), false);
            let client = client.with_models(&MODELS, client_key(n));
            scope.spawn(move || client.run());
        }
        scope.spawn(|| watch_workers(&shared, &health_url));
        Rounds::run(&mut FleetLane { gateway, shared: &shared }, steps)
    })?;
    let violations = shared.violations();
    if !violations.is_empty() {
        return Err(violations.join("\n"));
    }
    gateway.check_stop()?;
    let outcomes = std::mem::take(&mut shared.counts().totals);
    for needed in [Outcome::Answered, Outcome::Streamed] {
        if !outcomes.contains_key(&needed) {
            return Err(format!("the run proves nothing, because {needed:?} is missing: {outcomes:?}"));
        }
    }
    let outcomes: Vec<String> = outcomes.iter().map(|(outcome, count)| format!("{outcome:?} {count}")).collect();
    let (notes, longest) = (&gateway.notes, rounds.longest_recovery);
    Ok(format!("all models serve again after {longest:.1?} at most\n  {notes:?}\n  {}", outcomes.join(", ")))
}

/// Returns the secret of one client. Each has its own, because a key is suspended that kills many workers in a row.
pub(crate) fn client_key(n: u64) -> String {
    format!("client-{n}-secret-0123456789")
}

/// The gateway and its clients.
struct FleetLane<'a> {
    gateway: &'a mut FleetGateway,
    shared: &'a Shared,
}

impl FaultLane for FleetLane<'_> {
    type Fault = FleetFault;
    const ROUND: usize = 12;

    fn apply(&mut self, fault: FleetFault) -> Result<(), String> {
        self.gateway.apply(&fault, self.shared)
    }

    fn pause(&mut self, time: Duration) {
        self.gateway.pause(time, self.shared);
    }

    fn check_round(&mut self) -> Result<Duration, String> {
        check_round(self.gateway, self.shared)
    }

    fn gateway_pid(&self) -> u32 {
        self.gateway.process.pid()
    }

    fn violations(&self) -> Vec<String> {
        self.shared.violations()
    }
}

impl FleetGateway {
    pub(crate) fn start(setup: FleetSetup) -> Self {
        let FleetSetup { is_real, more_config, more_files, settings } = setup;
        let config = FleetConfig::complete(more_config);
        let clients: String = (0..CLIENTS).map(|n| format!("client{n}:{}:1000000\n", client_key(n))).collect();
        let keys = format!("admin:{ADMIN}:1000000 scope=inference,admin,metrics\nuser:{USER}:1000000\n{clients}");
        let backend = match is_real {
            true => Backend::Reals { config: config.text() },
            false => {
                let six = MODELS.iter().map(|model| ((*model).to_owned(), Kind::Chat));
                let file = |(name, kind): (String, Kind)| (format!("{name}.gguf"), json!({}), kind);
                Backend::Fakes { config: config.text(), models: six.chain(more_files).map(file).collect() }
            }
        };
        let builder = Gateway::builder().backend(backend).keys(&keys).set_all(&[
            ("RESTART_LIMIT", "1000000"),
            ("RESTART_WINDOW", "1s"),
            ("CLIENT_HEADER_TIMEOUT", "2s"),
            ("CLIENT_BODY_TIMEOUT", "1s"),
            ("HANG_TIMEOUT", if is_real { "2s" } else { "1s" }),
            ("LOG_KEEP", "3"),
        ]);
        let builder = set_times(
            builder,
            &[
                ("LOAD_TIMEOUT", if is_real { REAL_LOAD_TIMEOUT } else { LOAD_TIMEOUT }),
                ("QUEUE_TIMEOUT", QUEUE_TIMEOUT),
                ("REQUEST_TIMEOUT", REQUEST_TIMEOUT),
                ("STREAM_IDLE_TIMEOUT", STREAM_IDLE_TIMEOUT),
                ("DRAIN_TIMEOUT", DRAIN_TIMEOUT),
                ("MAX_WAIT_BEFORE_DRAIN", WAIT_BEFORE_DRAIN),
            ],
        );
        let builder = settings.into_iter().fold(builder, |builder, (name, value)| builder.set(name, value));
        let process = builder.set("MAX_REQUEST_BODY_SIZE", MAX_BODY).start_ready();
        FleetGateway {
            process,
            is_real,
            config,
            journals: MODELS.iter().map(|model| (*model, JournalReader::of_one_model())).collect(),
            repairs: Vec::new(),
            scripted: BTreeSet::new(),
            seen: BTreeMap::new(),
            notes: BTreeMap::new(),
        }
    }

    pub(crate) fn target(&self) -> Target {
        let (url, health_url) = (self.process.url().to_owned(), self.process.health_url().to_owned());
        Target { url, health_url, pid: self.process.pid(), gateway_number: 0 }
    }

    /// Returns the running llama-servers of a model.
    fn pids_of(&self, model: &str) -> Vec<u32> {
        let workers = checks::workers(self.process.pid());
        workers.into_iter().filter(|(_, of)| *of == model).map(|(pid, _)| pid).collect()
    }

    pub(crate) fn signal_workers(&self, model: &str, signal: Signal) {
        self.pids_of(model).into_iter().for_each(|pid| send_signal(pid, signal));
    }

    fn remember_workers(&mut self) {
        let workers = checks::workers(self.process.pid());
        self.seen.extend(workers.into_iter().map(|(pid, _)| (pid, resources::cmdline(pid))));
    }

    fn write_script(&mut self, model: &'static str, script: &Value) {
        if !self.is_real {
            self.process.model_file(&format!("{model}.gguf")).rewrite_script(script);
        }
    }

    fn read_journals(&mut self) -> Result<(), String> {
        if self.is_real {
            return Ok(());
        }
        for (model, journal) in &mut self.journals {
            let path = self.process.model_file(&format!("{model}.gguf")).journal_path();
            if path.exists() {
                journal.read(&path).map_err(|problem| format!("{model}: {problem}"))?;
            }
        }
        Ok(())
    }

    /// Sends a command to the latest llama-server of a model, if it runs.
    fn send_command(&mut self, model: &str, command: &str) {
        let _ = self.read_journals(); // a problem is found again at the end of the round
        let start = self.journals.get(model).and_then(JournalReader::latest_start);
        let control = start.and_then(|start| Control::try_of(start).ok());
        if let Some(mut control) = control {
            let _ = control.tell(command); // the fake may be ending
        }
    }

    /// Writes the configuration and reloads it by order.
    ///
    /// # Errors
    ///
    /// The answer is not the expected one.
    fn reload(&mut self, text: &str, expected: u16) -> Result<(), String> {
        self.process.rewrite_config(text);
        let admin = self.process.client_with(ADMIN);
        let response = admin.try_send("POST", "/reload", b"").map_err(|error| format!("POST /reload: {error}"))?;
        match response.status() == expected {
            true => Ok(()),
            false => Err(format!("POST /reload: {} {}", response.status(), response.text())),
        }
    }

    pub(crate) fn note(&mut self, what: &'static str) {
        *self.notes.entry(what).or_default() += 1;
    }

    /// Waits for `time`, and ends the faults that become due to end.
    pub(crate) fn pause(&mut self, time: Duration, shared: &Shared) {
        let end = Instant::now() + time;
        loop {
            self.repair(Some(Instant::now()), shared);
            self.remember_workers();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(crate::shared::IDLE_POLL * 5));
        }
    }

    /// Ends the faults that are due to end by `until`, or all.
    pub(crate) fn repair(&mut self, until: Option<Instant>, shared: &Shared) {
        let is_due = |(when, _): &(Instant, FleetRepair)| until.is_none_or(|until| *when <= until);
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.repairs).into_iter().partition(is_due);
        self.repairs = rest;
        for (_, repair) in due {
            self.apply_repair(repair, shared);
        }
    }

    /// Waits until the clients have finished their requests.
    pub(crate) fn pause_clients(&self, shared: &Shared) -> Result<(), String> {
        shared.set_paused(true);
        wait_until_idle(shared, FINISH_TIME)
    }
}
