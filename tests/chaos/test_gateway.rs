//! One gateway, and the actions that faults and checks take on it.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    checks::journal::JournalReader,
    checks::worker_states::WorkerStates,
    faults::Repair,
    faults::poison_clients::POISON_TEXT,
    setup::{Setup, keys_text},
    shared::{Shared, Target},
    support::{gateway::Gateway, resources, scripted::Control, wait},
};

/// A gateway under test.
pub(crate) struct TestGateway {
    pub(crate) process: Gateway,
    pub(crate) setup: Setup,
    /// The number of gateways that ran before in this lane.
    pub(crate) gateway_number: u64,
    /// The actions that end lasting faults, and when they are due.
    repairs: Vec<(Instant, Repair)>,
    /// Whether the fake that runs may follow a script.
    pub(crate) is_scripted: bool,
    /// Active groups of poison clients: while there are any, every script makes the fake die of their requests.
    pub(crate) poison_clients: usize,
    pub(crate) journal: JournalReader,
    pub(crate) worker_states: WorkerStates,
    /// The runtime folders of the llama-servers seen so far.
    pub(crate) runtime_dirs: HashSet<PathBuf>,
    /// How often faults that depend on timing or on the machine succeeded, for the report.
    pub(crate) notes: BTreeMap<&'static str, usize>,
}

impl TestGateway {
    pub(crate) fn start(setup: Setup) -> Self {
        let process = setup.start();
        TestGateway {
            worker_states: WorkerStates::new(&log_path(&process), setup.unloads_idle),
            process,
            setup,
            gateway_number: 0,
            repairs: Vec::new(),
            is_scripted: false,
            poison_clients: 0,
            journal: JournalReader::default(),
            runtime_dirs: HashSet::new(),
            notes: BTreeMap::new(),
        }
    }

    pub(crate) fn target(&self) -> Target {
        let (url, health_url) = (self.process.url().to_owned(), self.process.health_url().to_owned());
        Target { url, health_url, pid: self.process.pid(), gateway_number: self.gateway_number }
    }

    /// Returns the process id of the running llama-server; `None` while there is none.
    pub(crate) fn worker_pid(&self) -> Option<u32> {
        worker_pids(self.process.pid()).into_iter().next()
    }

    pub(crate) fn signal_worker(&self, signal: Signal) {
        if let Some(pid) = self.worker_pid() {
            send_signal(pid, signal);
        }
    }

    /// Returns the `--port` of the running llama-server.
    pub(crate) fn worker_port(&self) -> Option<u16> {
        let argv = resources::cmdline(self.worker_pid()?);
        let at = argv.iter().position(|word| word == "--port")?;
        argv.get(at + 1)?.parse().ok()
    }

    /// Returns the runtime folder of the running llama-server. The gateway removes it when llama-server has ended.
    pub(crate) fn runtime_dir(&self) -> Option<PathBuf> {
        let environment = resources::environ(self.worker_pid()?);
        let home = environment.iter().find_map(|pair| pair.strip_prefix("HOME="))?;
        Some(Path::new(home).parent()?.to_owned())
    }

    pub(crate) fn repair_after(&mut self, after: Duration, repair: Repair) {
        self.repairs.push((Instant::now() + after, repair));
    }

    pub(crate) fn add_note(&mut self, what: &'static str, times: usize) {
        *self.notes.entry(what).or_default() += times;
    }

    /// Whether a fault has damaged the key file.
    pub(crate) fn has_broken_keys(&self) -> bool {
        self.repairs.iter().any(|(_, repair)| matches!(repair, Repair::RestoreKeys(_)))
    }

    /// Ends the faults that are due to end.
    pub(crate) fn repair_due(&mut self, shared: &Shared) {
        let now = Instant::now();
        let (due, rest) = std::mem::take(&mut self.repairs).into_iter().partition(|(when, _)| *when <= now);
        self.repairs = rest;
        self.apply_repairs(due, shared);
    }

    /// Ends all faults. Kills a llama-server that may follow a script, and returns its process id.
    pub(crate) fn repair_all(&mut self, shared: &Shared) -> Option<u32> {
        let all = std::mem::take(&mut self.repairs);
        self.apply_repairs(all, shared);
        if !std::mem::take(&mut self.is_scripted) {
            return None;
        }
        self.write_script(&json!({}));
        let worker = self.worker_pid();
        worker.into_iter().for_each(|pid| send_signal(pid, Signal::SIGKILL));
        worker
    }

    fn apply_repairs(&mut self, repairs: Vec<(Instant, Repair)>, shared: &Shared) {
        for (_, repair) in repairs {
            repair.apply(self, shared);
        }
    }

    /// Waits for `time`, and ends the faults that become due to end.
    pub(crate) fn pause(&mut self, time: Duration, shared: &Shared) {
        let end = Instant::now() + time;
        loop {
            self.repair_due(shared);
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(wait::POLL));
        }
    }

    /// Writes the script that the fake reads at its next start.
    pub(crate) fn write_script(&self, script: &Value) {
        let mut script = script.clone();
        if self.poison_clients > 0 {
            script["die_on"] = POISON_TEXT.into();
        }
        self.process.model().rewrite_script(&script);
    }

    pub(crate) fn read_journal(&mut self) -> Result<(), String> {
        self.journal.read(&self.process.model().journal_path())
    }

    /// Connects to the control socket of the running fake.
    fn control(&mut self) -> Option<Control> {
        self.read_journal().ok()?;
        let start = self.journal.latest_start()?;
        let is_current = u64::from(self.worker_pid()?) == start["pid"].as_u64()?;
        is_current.then(|| Control::try_of(start).ok()).flatten()
    }

    /// Sends a command to the running fake, if there is one.
    pub(crate) fn send_command(&mut self, command: &str) {
        if let Some(mut control) = self.control() {
            let _ = control.tell(command); // the fake may be ending
        }
    }

    /// Replaces the key file by a valid one.
    pub(crate) fn write_keys(&self, guest: bool, comment: u64) {
        let keys = self.process.keys_file();
        let draft = keys.with_extension("draft");
        fs::write(&draft, keys_text(guest, comment)).expect("the key file can be written");
        let _ = fs::remove_dir(&keys); // where a fault has put a folder
        fs::rename(draft, keys).expect("the key file can be replaced");
    }

    /// Returns the path of a file on the log disk. Only the gateway's mount namespace has that disk, so the path leads
    /// through `/proc/PID/root`.
    pub(crate) fn path_on_log_disk(&self, name: &str) -> PathBuf {
        let logs = self.process.data_dir().join("logs").join(name);
        let inside = logs.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.process.pid())).join(inside)
    }

    /// Makes space on the log disk. The logs are truncated too, because they fill it as well.
    pub(crate) fn empty_disk(&self) {
        let _ = fs::remove_file(self.path_on_log_disk("ballast"));
        let folders = fs::read_dir(self.path_on_log_disk("")).into_iter().flatten().flatten();
        let files = folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten());
        for file in files.filter(|file| file.path().extension().is_some_and(|name| name == "log")) {
            let _ = fs::OpenOptions::new().write(true).truncate(true).open(file.path()); // it may be pruned now
        }
    }

    pub(crate) fn fill_disk(&self) {
        let Ok(mut ballast) = fs::File::create(self.path_on_log_disk("ballast")) else { return };
        while ballast.write_all(&[0; 4096]).is_ok() {}
    }

    /// Stops the gateway under load and starts another one.
    pub(crate) fn replace_gateway(&mut self, shared: &Shared) -> Result<(), String> {
        self.repair_all(shared);
        self.check_journal()?;
        shared.begin_stop();
        self.stop()?;
        self.gateway_number += 1;
        self.journal = JournalReader::default();
        self.process = self.setup.start();
        self.worker_states = WorkerStates::new(&log_path(&self.process), self.setup.unloads_idle);
        shared.set_target(self.target());
        Ok(())
    }
}

pub(crate) fn send_signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid as i32), signal); // the process may have ended
}

/// Returns the llama-servers of the gateway `gateway_pid`, without the orphans that the gateway has adopted from them.
pub(crate) fn worker_pids(gateway_pid: u32) -> Vec<u32> {
    let is_worker =
        |pid: &u32| !resources::is_zombie(*pid) && resources::cmdline(*pid).iter().any(|word| word == "--port");
    resources::children(gateway_pid).into_iter().filter(is_worker).collect()
}

/// Returns the file that holds the gateway's standard error.
fn log_path(gateway: &Gateway) -> PathBuf {
    gateway.data_dir().join("llamagate.stderr")
}
