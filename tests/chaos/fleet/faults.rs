//! The kinds of faults of the lane with six models, and how each is applied and ended.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{
    FleetGateway,
    config::{ConfigChange, MODELS},
};
use crate::{random::Random, shared::Shared, support::gateway::ADMIN, support::resources, test_gateway::send_signal};

/// A fault.
#[derive(Debug, Clone)]
pub(crate) enum FleetFault {
    /// The llama-servers of a model get a signal that ends them.
    Kill(&'static str, Signal),
    /// All llama-servers are killed at once.
    KillAll,
    /// The llama-servers of a model are stopped (SIGSTOP) for a while.
    Suspend(&'static str, Duration),
    /// The gateway and its llama-servers are stopped for a moment.
    SuspendAll(Duration),
    /// The llama-server of a model accepts connections and does not respond, for a while.
    StopAnswering(&'static str, Duration),
    /// The llama-server of a model is killed, and its next starts follow a script of the fake.
    NextStarts(&'static str, Value),
    /// The configuration changes, and is reloaded.
    Reload(Vec<ConfigChange>),
    /// The configuration changes, and the gateway gets a SIGHUP, or notices it by itself.
    Rewrite { changes: Vec<ConfigChange>, has_signal: bool },
    /// The configuration is broken for a while.
    BreakConfig(Duration),
    /// An operator loads or unloads a model.
    Order(&'static str, &'static str),
    /// The clients send no requests for a while, so that models go to sleep.
    PauseClients(Duration),
}

/// The action that ends a lasting fault.
pub(crate) enum FleetRepair {
    Resume(Vec<u32>),
    ResumeAnswering(&'static str),
    RestoreConfig,
    ResumeClients,
}

/// Draws a fault with its parameters.
pub(crate) fn draw(random: &mut Random) -> FleetFault {
    let model = *random.pick(&MODELS);
    let time = Duration::from_millis(random.between(20, 900));
    match random.below(40) {
        0..7 => {
            FleetFault::Kill(model, *random.pick(&[Signal::SIGKILL, Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGABRT]))
        }
        7 => FleetFault::KillAll,
        8..12 => FleetFault::Suspend(model, time),
        12..14 => FleetFault::SuspendAll(Duration::from_millis(random.between(20, 300))),
        14..16 => FleetFault::StopAnswering(model, time),
        16..23 => FleetFault::NextStarts(model, script(random)),
        23..30 => FleetFault::Reload(changes(random)),
        30..33 => FleetFault::Rewrite { changes: changes(random), has_signal: random.chance(60) },
        33 => FleetFault::BreakConfig(time),
        34..38 => FleetFault::Order(model, if random.chance(50) { "load" } else { "unload" }),
        _ => FleetFault::PauseClients(time),
    }
}

fn changes(random: &mut Random) -> Vec<ConfigChange> {
    (0..random.between(1, 4)).map(|_| ConfigChange::draw(random)).collect()
}

fn script(random: &mut Random) -> Value {
    let after = random.below(6);
    match random.below(11) {
        0 => json!({"exit_at_start": {"code": 1, "stderr": [""]}}),
        1 => json!({"exit_while_loading": {"code": 1, "stderr": [""]}}),
        2 => json!({"load_ms": random.between(100, 700)}),
        3 => json!({"never_ready": true}),
        4 => json!({"no_bind": true}),
        5 => json!({"ignore_sigterm": true}),
        6 => json!({"exit_mid_stream": {"after_frames": after, "code": 1}}),
        7 => json!({"reset_mid_stream": {"after_frames": after}}),
        8 => json!({"drip": {"interval_ms": random.between(5, 200)}}),
        9 => json!({"hold_mid_stream": {"after_frames": after}}),
        _ => json!({"exit_after_requests": random.between(1, 20)}),
    }
}

impl FleetGateway {
    pub(crate) fn apply(&mut self, fault: &FleetFault, shared: &Shared) -> Result<(), String> {
        match fault {
            FleetFault::Kill(model, signal) => self.signal_workers(model, *signal),
            FleetFault::KillAll => MODELS.iter().for_each(|model| self.signal_workers(model, Signal::SIGKILL)),
            FleetFault::Suspend(model, time) => {
                let pids = self.pids_of(model);
                pids.iter().for_each(|pid| send_signal(*pid, Signal::SIGSTOP));
                self.repair_after(*time, FleetRepair::Resume(pids));
            }
            FleetFault::SuspendAll(time) => self.suspend_all(*time),
            FleetFault::StopAnswering(model, time) => {
                self.send_command(model, "stop answering");
                self.repair_after(*time, FleetRepair::ResumeAnswering(model));
            }
            FleetFault::NextStarts(model, script) => {
                self.write_script(model, script);
                self.scripted.insert(model);
                self.signal_workers(model, Signal::SIGKILL);
            }
            FleetFault::Reload(changes) => {
                self.change_config(changes);
                let text = self.config.text();
                self.reload(&text, 200)?;
                self.note("reloads");
            }
            FleetFault::Rewrite { changes, has_signal } => {
                self.change_config(changes);
                self.process.rewrite_config(&self.config.text());
                if *has_signal {
                    self.process.signal(Signal::SIGHUP);
                }
            }
            FleetFault::BreakConfig(time) => {
                self.reload("models: [", 500)?;
                self.repair_after(*time, FleetRepair::RestoreConfig);
            }
            FleetFault::Order(model, order) => {
                let path = format!("/v1/models/{model}/{order}");
                shared.counts().add_possible_call();
                let admin = self.process.client_with(ADMIN);
                let response = admin.try_send("POST", &path, b"").map_err(|error| format!("{path}: {error}"))?;
                if !matches!(response.status(), 202 | 404) {
                    return Err(format!("{path}: {} {}", response.status(), response.text()));
                }
            }
            FleetFault::PauseClients(time) => {
                shared.set_paused(true);
                self.repair_after(*time, FleetRepair::ResumeClients);
            }
        }
        Ok(())
    }

    pub(super) fn apply_repair(&mut self, repair: FleetRepair, shared: &Shared) {
        match repair {
            FleetRepair::Resume(pids) => pids.into_iter().for_each(|pid| send_signal(pid, Signal::SIGCONT)),
            FleetRepair::ResumeAnswering(model) => self.send_command(model, "resume"),
            FleetRepair::RestoreConfig => self.process.rewrite_config(&self.config.text()),
            FleetRepair::ResumeClients => shared.set_paused(false),
        }
    }

    fn repair_after(&mut self, after: Duration, repair: FleetRepair) {
        self.repairs.push((Instant::now() + after, repair));
    }

    fn change_config(&mut self, changes: &[ConfigChange]) {
        changes.iter().for_each(|change| self.config.apply(*change));
    }

    /// Suspends the gateway and its children. The gateway stops first, so that it starts no further child.
    fn suspend_all(&mut self, time: Duration) {
        let gateway = self.process.pid();
        send_signal(gateway, Signal::SIGSTOP);
        let begin = Instant::now();
        while !resources::is_stopped(gateway) && begin.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(crate::shared::IDLE_POLL);
        }
        let children = self.process.child_pids();
        children.iter().for_each(|pid| send_signal(*pid, Signal::SIGSTOP));
        std::thread::sleep(time);
        children.into_iter().chain([gateway]).for_each(|pid| send_signal(pid, Signal::SIGCONT));
    }
}
