//! One gateway with all that can be done to it.

use crate::{
    checks::journal::Ledger,
    checks::worker_states::Steps,
    faults::Heal,
    faults::poison_clients::DEADLY,
    setup::{Setup, keys_text},
    shared::{Door, Target},
    support::{gateway::Gateway, resources, scripted::Control, wait},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A gateway under attack.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) setup: Setup,
    pub(crate) life: u64,
    /// What ends the faults that last a while, and when.
    heals: Vec<(Instant, Heal)>,
    /// Whether some life of the fake may follow a script.
    pub(crate) is_scripted: bool,
    /// How many gangs of killers are about: the fake dies of them, whatever else it is told to do.
    pub(crate) killers: usize,
    pub(crate) ledger: Ledger,
    pub(crate) steps: Steps,
    /// The private folders of llama-servers.
    pub(crate) dens: HashSet<PathBuf>,
    /// How often a fault that needs luck had it.
    pub(crate) notes: BTreeMap<&'static str, usize>,
}

impl World {
    pub(crate) fn start(setup: Setup) -> Self {
        let gateway = setup.start();
        World {
            steps: Steps::new(&log_of(&gateway), setup.sleeps),
            gateway,
            setup,
            life: 0,
            heals: Vec::new(),
            is_scripted: false,
            killers: 0,
            ledger: Ledger::default(),
            dens: HashSet::new(),
            notes: BTreeMap::new(),
        }
    }

    pub(crate) fn target(&self) -> Target {
        let (url, health_url) = (self.gateway.url().to_owned(), self.gateway.health_url().to_owned());
        Target { url, health_url, pid: self.gateway.pid(), life: self.life }
    }

    /// The llama-server of this moment; none between two of them.
    pub(crate) fn worker(&self) -> Option<u32> {
        llama_servers(self.gateway.pid()).into_iter().next()
    }

    pub(crate) fn signal_worker(&self, signal: Signal) {
        if let Some(pid) = self.worker() {
            send(pid, signal);
        }
    }

    /// The port that the llama-server of this moment was told to take.
    pub(crate) fn worker_port(&self) -> Option<u16> {
        let argv = resources::cmdline(self.worker()?);
        let at = argv.iter().position(|word| word == "--port")?;
        argv.get(at + 1)?.parse().ok()
    }

    /// The private folder of the llama-server of this moment; it goes with it.
    pub(crate) fn den(&self) -> Option<PathBuf> {
        let environment = resources::environ(self.worker()?);
        let home = environment.iter().find_map(|pair| pair.strip_prefix("HOME="))?;
        Some(Path::new(home).parent()?.to_owned())
    }

    pub(crate) fn later(&mut self, after: Duration, heal: Heal) {
        self.heals.push((Instant::now() + after, heal));
    }

    pub(crate) fn note(&mut self, what: &'static str, times: usize) {
        *self.notes.entry(what).or_default() += times;
    }

    /// Whether a fault has the key file in its hands.
    pub(crate) fn has_broken_keys(&self) -> bool {
        self.heals.iter().any(|(_, heal)| matches!(heal, Heal::GoodKeys(_)))
    }

    /// Ends the faults whose time is over.
    pub(crate) fn heal_due(&mut self, door: &Door) {
        let now = Instant::now();
        let (due, rest) = std::mem::take(&mut self.heals).into_iter().partition(|(when, _)| *when <= now);
        self.heals = rest;
        self.heal(due, door);
    }

    /// Ends all faults. Gives the llama-server that may follow a script and has been told to go.
    pub(crate) fn heal_all(&mut self, door: &Door) -> Option<u32> {
        let all = std::mem::take(&mut self.heals);
        self.heal(all, door);
        if !std::mem::take(&mut self.is_scripted) {
            return None;
        }
        self.script(&json!({}));
        let worker = self.worker();
        worker.into_iter().for_each(|pid| send(pid, Signal::SIGKILL));
        worker
    }

    fn heal(&mut self, heals: Vec<(Instant, Heal)>, door: &Door) {
        for (_, heal) in heals {
            heal.apply(self, door);
        }
    }

    /// Lets time pass, and ends the faults whose time is over meanwhile.
    pub(crate) fn pause(&mut self, time: Duration, door: &Door) {
        let end = Instant::now() + time;
        loop {
            self.heal_due(door);
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(wait::POLL));
        }
    }

    /// What the fake does from its next start on.
    pub(crate) fn script(&self, script: &Value) {
        let mut script = script.clone();
        if self.killers > 0 {
            script["die_on"] = DEADLY.into();
        }
        self.gateway.model().rewrite_script(&script);
    }

    pub(crate) fn read_ledger(&mut self) -> Result<(), String> {
        self.ledger.read(&self.gateway.model().journal_path())
    }

    /// The control socket of the fake of this moment.
    fn control(&mut self) -> Option<Control> {
        self.read_ledger().ok()?;
        let start = self.ledger.latest_start()?;
        let is_this = u64::from(self.worker()?) == start["pid"].as_u64()?;
        is_this.then(|| Control::try_of(start).ok()).flatten()
    }

    /// Says something to the fake of this moment, if there is one.
    pub(crate) fn tell(&mut self, command: &str) {
        if let Some(mut control) = self.control() {
            let _ = control.tell(command); // it may just be ending
        }
    }

    pub(crate) fn write_keys(&self, guest: bool, comment: u64) {
        let keys = self.gateway.keys_file();
        let draft = keys.with_extension("draft");
        fs::write(&draft, keys_text(guest, comment)).expect("the key file can be written");
        let _ = fs::remove_dir(&keys); // where a fault has put a folder
        fs::rename(draft, keys).expect("the key file can be replaced");
    }

    /// A file on the disk of the logs, which only the gateway has mounted.
    pub(crate) fn on_disk(&self, name: &str) -> PathBuf {
        let logs = self.gateway.data_dir().join("logs").join(name);
        let inside = logs.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.gateway.pid())).join(inside)
    }

    /// Makes room: the logs themselves fill it too.
    pub(crate) fn empty_disk(&self) {
        let _ = fs::remove_file(self.on_disk("ballast"));
        let folders = fs::read_dir(self.on_disk("")).into_iter().flatten().flatten();
        let files = folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten());
        for file in files.filter(|file| file.path().extension().is_some_and(|name| name == "log")) {
            let _ = fs::OpenOptions::new().write(true).truncate(true).open(file.path()); // it may just be pruned
        }
    }

    pub(crate) fn fill_disk(&self) {
        let Ok(mut ballast) = fs::File::create(self.on_disk("ballast")) else { return };
        while ballast.write_all(&[0; 4096]).is_ok() {}
    }

    /// SIGTERM under load, and another gateway in its place.
    pub(crate) fn replace_gateway(&mut self, door: &Door) -> Result<(), String> {
        self.heal_all(door);
        self.check_ledger()?;
        door.close();
        self.stop()?;
        self.life += 1;
        self.ledger = Ledger::default();
        self.gateway = self.setup.start();
        self.steps = Steps::new(&log_of(&self.gateway), self.setup.sleeps);
        door.open(self.target());
        Ok(())
    }
}

pub(crate) fn send(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid as i32), signal); // it may have just ended
}

/// The llama-servers of the gateway with this process id; not what they have left to it.
pub(crate) fn llama_servers(gateway: u32) -> Vec<u32> {
    let is_one =
        |pid: &u32| !resources::is_zombie(*pid) && resources::cmdline(*pid).iter().any(|word| word == "--port");
    resources::children(gateway).into_iter().filter(is_one).collect()
}

/// What a gateway writes to standard error.
fn log_of(gateway: &Gateway) -> PathBuf {
    gateway.data_dir().join("llamagate.stderr")
}
