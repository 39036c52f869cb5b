//! One gateway with all that can be done to it, and what must be true of it when it is left in peace.

use super::{
    door::{Door, Target},
    faults::Heal,
    invariants::{LINE, SLOTS},
    ledger::Ledger,
    support::{
        gateway::{ADMIN, Backend, Builder, Gateway, USER, can_mount},
        model_file::Kind,
        resources,
        scripted::Control,
        wait::{self, SOON, STOPS, eventually},
    },
    traffic::{GUEST, LARGEST_BODY},
};
use llamagate::settings::bounds::{BACKOFF_FIRST, LOG_PUMP_GRACE, PROBE_INTERVAL_READY, PROBE_TIMEOUT};
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

/// LOAD_TIMEOUT of the gateways in front of the fake.
const LOAD_TIMEOUT: Duration = Duration::from_secs(1);
/// The most restarts that fit into RESTART_WINDOW (1 s) with a backoff after each: 500 ms, 1 s, 2 s.
const RESTARTS_IN_WINDOW: u32 = 3;
/// What starting a process and loading (tiny) models takes, with the other threads of this test around.
const STARTING: Duration = Duration::from_secs(5);
/// The size of the disk for logs.
const DISK_KIB: u32 = 1024;

/// How soon it must be ready after the last fault: a probe that is under way and the next one find out, what is there
/// ends and its log is read, the longest backoff passes, a load that the script stalls is given up, and the next one
/// succeeds.
pub(crate) fn ready_again() -> Duration {
    let backoff = BACKOFF_FIRST * 2_u32.pow(RESTARTS_IN_WINDOW - 1);
    PROBE_INTERVAL_READY + PROBE_TIMEOUT + LOG_PUMP_GRACE + LOAD_TIMEOUT + backoff + STARTING
}

/// A gateway under attack.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) is_real: bool,
    pub(crate) has_disk: bool,
    life: u64,
    /// What ends the faults that last a while, and when.
    heals: Vec<(Instant, Heal)>,
    /// Whether some life of the fake may follow a script.
    pub(crate) is_scripted: bool,
    ledger: Ledger,
    /// The private folders of llama-servers.
    dens: HashSet<PathBuf>,
    /// How often a fault that needs luck had it.
    pub(crate) notes: BTreeMap<&'static str, usize>,
}

impl World {
    pub(crate) fn start(is_real: bool) -> Self {
        let has_disk = can_mount();
        let gateway = started(is_real, has_disk);
        World {
            gateway,
            is_real,
            has_disk,
            life: 0,
            heals: Vec::new(),
            is_scripted: false,
            ledger: Ledger::default(),
            dens: HashSet::new(),
            notes: BTreeMap::new(),
        }
    }

    pub(crate) fn target(&self) -> Target {
        let (url, health_url) = (self.gateway.url().to_owned(), self.gateway.health_url().to_owned());
        Target { url, health_url, life: self.life }
    }

    /// The llama-server of this moment; none between two of them.
    pub(crate) fn worker(&self) -> Option<u32> {
        self.gateway.child_pids().into_iter().find(|pid| !resources::is_zombie(*pid))
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
    fn den(&self) -> Option<PathBuf> {
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
    pub(crate) fn heal_due(&mut self) {
        let now = Instant::now();
        let (due, rest) = std::mem::take(&mut self.heals).into_iter().partition(|(when, _)| *when <= now);
        self.heals = rest;
        self.heal(due);
    }

    /// Ends all faults.
    pub(crate) fn heal_all(&mut self) {
        let all = std::mem::take(&mut self.heals);
        self.heal(all);
        if self.is_scripted {
            self.script(&json!({}));
            self.is_scripted = false;
            self.signal_worker(Signal::SIGKILL);
        }
    }

    fn heal(&mut self, heals: Vec<(Instant, Heal)>) {
        for (_, heal) in heals {
            heal.apply(self);
        }
    }

    /// What the fake does from its next start on.
    pub(crate) fn script(&self, script: &Value) {
        self.gateway.model().rewrite_script(script);
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
        self.heal_all();
        self.check_ledger()?;
        door.close();
        self.stop()?;
        self.life += 1;
        self.ledger = Ledger::default();
        self.gateway = started(self.is_real, self.has_disk);
        door.open(self.target());
        Ok(())
    }

    /// Stops it, and looks for what it leaves.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        let children = self.gateway.child_pids();
        let ports = [self.gateway.url(), self.gateway.health_url()].map(port_of);
        let status = self.gateway.stop();
        if status.code() != Some(0) {
            return Err(format!("SIGTERM ended it with {status:?}"));
        }
        if let Some(left) = self.dens.iter().find(|den| den.exists()) {
            return Err(format!("{} is left", left.display()));
        }
        if let Some(left) = children.into_iter().find(|pid| !resources::pid_gone(*pid)) {
            return Err(format!("process {left} outlives it"));
        }
        match ports.into_iter().find(|port| !resources::port_is_free(*port)) {
            Some(port) => Err(format!("port {port} is still taken")),
            None => Ok(()),
        }
    }

    /// Waits until it is ready after all faults have ended; says how long that took.
    pub(crate) fn recover(&mut self) -> Result<Duration, String> {
        self.heal_all();
        let begin = Instant::now();
        let bound = wait::patient(ready_again());
        loop {
            let ready =
                self.gateway.health().try_send("GET", "/readyz", b"").is_ok_and(|answer| answer.status() == 200);
            if ready && self.serves() {
                self.dens.extend(self.den());
                return Ok(begin.elapsed());
            }
            if begin.elapsed() > bound {
                let health = self.gateway.health().get("/health").text();
                return Err(format!("not ready again {bound:?} after the last fault: {health}"));
            }
            std::thread::sleep(wait::POLL);
        }
    }

    /// Whether a request that needs no slot is served; the `gateway_` metrics do not count it.
    fn serves(&self) -> bool {
        let admin = self.gateway.client_with(ADMIN);
        admin.try_send("GET", "/metrics", b"").is_ok_and(|answer| answer.status() == 200)
    }

    /// What must be true once no client asks for anything: nothing is in flight, and the books agree.
    pub(crate) fn check_quiet(&mut self, door: &Door) -> Result<(), String> {
        let begin = Instant::now();
        let mut wrong = String::new();
        while begin.elapsed() < wait::patient(SOON) {
            let queue = self.gateway.health().get("/health").json()["queue"].clone();
            let metrics = self.gateway.health().get("/metrics").json();
            wrong = match (queue["active"].as_u64(), queue["waiting"].as_u64()) {
                (Some(0), Some(0)) => match door.accounts().check(&metrics) {
                    Ok(()) => return self.check_ledger(),
                    Err(what) => what,
                },
                _ => format!("something is still in flight: {queue}"),
            };
            std::thread::sleep(wait::POLL);
        }
        Err(wrong)
    }

    /// No request was sent to llama-server twice.
    fn check_ledger(&mut self) -> Result<(), String> {
        if self.is_real { Ok(()) } else { self.read_ledger() }
    }

    fn read_ledger(&mut self) -> Result<(), String> {
        self.ledger.read(&self.gateway.model().journal_path())
    }

    /// Forgets what the fake has written down; nothing must be in flight.
    pub(crate) fn shorten_ledger(&mut self) {
        if !self.is_real && self.read_ledger().is_ok() {
            let _ = self.ledger.shorten(&self.gateway.model().journal_path()); // it stays long then
        }
    }

    /// Waits until nothing is left of what was: descriptors, and children beside the one llama-server.
    pub(crate) fn check_leaks(&self, baseline_fds: usize) {
        eventually("file descriptors are back to the baseline", STOPS, || self.gateway.open_fds() <= baseline_fds);
        let children = self.gateway.child_pids();
        let den = self.den();
        let left = self.dens.iter().filter(|old| old.exists() && den.as_ref() != Some(old));
        assert_eq!(left.count(), 0, "folders of llama-servers that have ended");
        assert!(children.len() == 1 && !resources::is_zombie(children[0]), "one llama-server: {children:?}");
    }
}

pub(crate) fn send(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid as i32), signal); // it may have just ended
}

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a url ends with a port")
}

fn keys_text(guest: bool, comment: u64) -> String {
    let guest = if guest { format!("guest:{GUEST}:100000\n") } else { String::new() };
    format!("# version {comment}\nadmin:{ADMIN}:1000000 scope=inference,admin,metrics\nuser:{USER}:1000000\n{guest}")
}

/// A gateway that is ready, and has seen the operator's key at this address: guessers there lock out those it has not.
fn started(is_real: bool, has_disk: bool) -> Gateway {
    let gateway = builder(is_real, has_disk).start_ready();
    assert_eq!(gateway.client_with(ADMIN).send("POST", "/reload", b"").status(), 200);
    gateway
}

fn builder(is_real: bool, has_disk: bool) -> Builder {
    let builder = match is_real {
        true => Gateway::builder().backend(Backend::Real { model: "tiny-chat.gguf" }).set("LOAD_TIMEOUT", "10s"),
        false => Gateway::builder().backend(Backend::Fake { script: json!({}), kind: Kind::Chat }),
    };
    let builder = builder.keys(&keys_text(true, 0)).set_all(&[
        ("RESTART_LIMIT", "1000000"),
        ("RESTART_WINDOW", "1s"),
        ("QUEUE_TIMEOUT", "2s"),
        ("REQUEST_TIMEOUT", "3s"),
        ("STREAM_IDLE_TIMEOUT", "2s"),
        ("CLIENT_HEADER_TIMEOUT", "2s"),
        ("CLIENT_BODY_TIMEOUT", "1s"),
        ("DRAIN_TIMEOUT", "1s"),
        ("LOG_KEEP", "3"),
    ]);
    let builder = builder.set("MAX_REQUEST_BODY_SIZE", LARGEST_BODY).set("MAX_CONCURRENT_REQUESTS", SLOTS);
    let builder = builder.set("MAX_QUEUE_SIZE", LINE);
    let builder = match is_real {
        true => builder,
        false => builder.set("LOAD_TIMEOUT", format!("{}ms", LOAD_TIMEOUT.as_millis())),
    };
    if has_disk { builder.log_disk(DISK_KIB) } else { builder }
}
