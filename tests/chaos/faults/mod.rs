//! The kinds of faults, and how each one is applied to a gateway and ended. `plan.rs` says how often they come.
//!
//! - `poison_clients.rs`: clients that repeat a request that kills llama-server
//! - `port_takers.rs`: foreign servers on the ports of llama-server

pub(crate) mod poison_clients;
pub(crate) mod port_takers;

use std::{
    fs,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    faults::poison_clients::PoisonClients,
    faults::port_takers::{PortTaker, TakerBehaviour},
    shared::Shared,
    support::{
        client::{Client, RawClient},
        gateway::{ADMIN, USER},
        resources,
    },
    test_gateway::{TestGateway, send_signal},
};
use llamagate::pause_clock::MIN_PAUSE;

/// A fault.
///
/// A new kind is a variant here, an arm in `apply`, and a row of the table in `plan.rs`. A fault that a script of the
/// fake can cause needs only the row.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// llama-server gets a signal that ends it.
    Kill(Signal),
    /// llama-server is stopped (SIGSTOP) for a while.
    SuspendWorker(Duration),
    /// The gateway and llama-server are stopped (SIGSTOP), for a moment or for longer than any timeout.
    SuspendAll(Duration),
    /// The well-behaved clients send no requests for a while.
    PauseClients(Duration),
    /// `count` clients repeat one request that kills llama-server; `which` makes the request unique.
    PoisonRequests { count: u64, which: u64, streams: bool, time: Duration },
    /// llama-server accepts connections and does not respond, for a while.
    StopAnswering(Duration),
    /// llama-server is killed, and its next starts follow a script of the fake.
    NextStarts(Value),
    /// llama-server is killed; the next one does not bind its port, and a foreign server takes it.
    PortRace(TakerBehaviour, Duration),
    /// Foreign servers take the ports that the gateway would choose next.
    TakeNextPorts(u16, TakerBehaviour, Duration),
    /// llama-server is killed, and a foreign server takes its port.
    TakeOldPort(TakerBehaviour, Duration),
    /// The disk for logs is full.
    FillDisk(Duration),
    /// The key file is replaced by a valid one, with or without the guest's key.
    ReplaceKeys { guest: bool, comment: u64 },
    /// The key file is invalid or missing for a while.
    BreakKeys(KeyFileDamage, Duration),
    /// The gateway gets this many SIGHUPs.
    Sighup(u64),
    /// `POST /reload`.
    Reload,
    /// This many misbehaving clients connect.
    MisbehavingClients(u64, Misbehaviour, Duration),
    /// The gateway gets SIGTERM, and another one is started.
    ReplaceGateway,
}

/// What is wrong with the key file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum KeyFileDamage {
    Empty,
    CutShort,
    Nonsense,
    Missing,
    Folder,
}

/// How a client misbehaves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Misbehaviour {
    HalfHead,
    HalfBody,
    /// Sends a whole request and does not read the response.
    ReadsNothing,
    /// Sends nothing.
    Silent,
}

/// The action that ends a lasting fault.
pub(crate) enum Repair {
    ResumeWorker(u32),
    ResumeAnswering,
    EmptyDisk,
    RestoreKeys(u64),
    ReleasePorts(#[expect(dead_code, reason = "held for its drop")] Vec<PortTaker>),
    CloseConnections(#[expect(dead_code, reason = "held for its drop")] Vec<RawClient>),
    ResumeClients,
    KillWorker,
    EndPoisonClients(PoisonClients),
}

impl Fault {
    pub(crate) fn apply(&self, gateway: &mut TestGateway, shared: &Shared) -> Result<(), String> {
        match self {
            Fault::Kill(signal) => gateway.signal_worker(*signal),
            Fault::SuspendWorker(time) => {
                if let Some(pid) = gateway.worker_pid() {
                    send_signal(pid, Signal::SIGSTOP);
                    gateway.repair_after(*time, Repair::ResumeWorker(pid));
                }
            }
            Fault::SuspendAll(time) => suspend_all(gateway, shared, *time),
            Fault::PauseClients(time) => {
                shared.set_paused(true);
                gateway.repair_after(*time, Repair::ResumeClients);
            }
            Fault::PoisonRequests { count, which, streams, time } => {
                if gateway.setup.is_real {
                    gateway.repair_after(*time / 3, Repair::KillWorker);
                    gateway.repair_after(*time * 2 / 3, Repair::KillWorker);
                }
                gateway.poison_clients += 1;
                if !gateway.setup.is_real {
                    script_next_starts(gateway, &json!({}));
                }
                gateway.repair_after(
                    *time,
                    Repair::EndPoisonClients(PoisonClients::start(&shared.target(), *count, *which, *streams)),
                );
            }
            Fault::StopAnswering(time) => {
                gateway.send_command("stop answering");
                gateway.repair_after(*time, Repair::ResumeAnswering);
            }
            Fault::NextStarts(script) => script_next_starts(gateway, script),
            Fault::PortRace(behaviour, time) => port_race(gateway, *behaviour, *time),
            Fault::TakeNextPorts(count, behaviour, time) => {
                let next = gateway.worker_port().map_or(0..0, |port| port + 1..port + 1 + count);
                let takers: Vec<PortTaker> = next.filter_map(|port| PortTaker::take(port, *behaviour)).collect();
                gateway.add_note("next ports taken", takers.len());
                gateway.repair_after(*time, Repair::ReleasePorts(takers));
            }
            Fault::TakeOldPort(behaviour, time) => {
                let port = gateway.worker_port();
                gateway.signal_worker(Signal::SIGKILL);
                // Until the gateway has noticed the exit, it cannot know that the port belongs to another process.
                let is_noticed = wait_until(EXIT_SEEN, || !is_ready(gateway));
                if let Some(taker) = port.filter(|_| is_noticed).and_then(|port| PortTaker::take(port, *behaviour)) {
                    gateway.add_note("old ports taken", 1);
                    gateway.repair_after(*time, Repair::ReleasePorts(vec![taker]));
                }
            }
            Fault::FillDisk(time) => {
                if gateway.setup.has_disk {
                    gateway.fill_disk();
                    gateway.add_note("disk filled", 1);
                    gateway.repair_after(*time, Repair::EmptyDisk);
                }
            }
            Fault::ReplaceKeys { guest, comment } => gateway.write_keys(*guest, *comment),
            Fault::BreakKeys(how, time) => {
                break_keys(gateway, *how);
                gateway.repair_after(*time, Repair::RestoreKeys(time.as_micros() as u64));
            }
            Fault::Sighup(times) => (0..*times).for_each(|_| gateway.process.signal(Signal::SIGHUP)),
            Fault::Reload => {
                let admin = gateway.process.client_with(ADMIN);
                let response = admin.try_send("POST", "/reload", b"").map_err(|e| format!("POST /reload: {e}"))?;
                let is_expected = match response.status() {
                    200 => true,
                    500 => gateway.has_broken_keys(),
                    _ => false,
                };
                if !is_expected || !response.complete {
                    return Err(format!("POST /reload: {} {}", response.status(), response.text()));
                }
            }
            Fault::MisbehavingClients(count, how, time) => {
                connect_misbehaving_clients(gateway, shared, (*count, *how), *time)
            }
            Fault::ReplaceGateway => gateway.replace_gateway(shared)?,
        }
        Ok(())
    }
}

impl Repair {
    pub(crate) fn apply(self, gateway: &mut TestGateway, shared: &Shared) {
        match self {
            Repair::ResumeWorker(pid) => send_signal(pid, Signal::SIGCONT),
            Repair::ResumeAnswering => gateway.send_command("resume"),
            Repair::EmptyDisk => gateway.empty_disk(),
            Repair::RestoreKeys(comment) => gateway.write_keys(true, comment),
            Repair::ReleasePorts(_) | Repair::CloseConnections(_) => {}
            Repair::ResumeClients => shared.set_paused(false),
            Repair::KillWorker => gateway.signal_worker(Signal::SIGKILL),
            Repair::EndPoisonClients(clients) => {
                let refused = clients.end(shared);
                gateway.poison_clients -= 1;
                gateway.add_note("poison requests refused", refused);
            }
        }
    }
}

/// How long a fault waits for the gateway to notice the exit of its child.
const EXIT_SEEN: Duration = Duration::from_secs(1);

/// How long a process may take to stop after SIGSTOP.
const SUSPENDED_SOON: Duration = Duration::from_secs(1);

/// How long a fault waits for the next start of the fake.
const NEXT_START: Duration = Duration::from_secs(3);

/// Waits until `condition` holds; returns false when the deadline passes first.
fn wait_until(deadline: Duration, condition: impl Fn() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < deadline {
        if condition() {
            return true;
        }
        std::thread::sleep(crate::shared::IDLE_POLL);
    }
    false
}

fn is_ready(gateway: &TestGateway) -> bool {
    gateway.process.health().try_send("GET", "/readyz", b"").is_ok_and(|response| response.status() == 200)
}

fn script_next_starts(gateway: &mut TestGateway, script: &Value) {
    gateway.write_script(script);
    gateway.is_scripted = true;
    gateway.signal_worker(Signal::SIGKILL);
}

/// Suspends the gateway and its children. The gateway stops first, so that it starts no further child.
fn suspend_all(gateway: &mut TestGateway, shared: &Shared, time: Duration) {
    let gateway_pid = gateway.process.pid();
    let stop = |pid: u32| {
        send_signal(pid, Signal::SIGSTOP);
        wait_until(SUSPENDED_SOON, || resources::is_stopped(pid) || resources::pid_gone(pid));
    };
    stop(gateway_pid);
    let children = gateway.process.child_pids();
    children.iter().for_each(|pid| stop(*pid));
    if time > MIN_PAUSE {
        shared.mark_suspended();
        std::thread::sleep(time);
        shared.mark_resumed();
        gateway.add_note("long suspensions", 1);
    } else {
        std::thread::sleep(time);
    }
    [&children[..], &[gateway_pid]].concat().into_iter().for_each(|pid| send_signal(pid, Signal::SIGCONT));
}

/// Takes the port that the gateway has chosen before llama-server binds it.
fn port_race(gateway: &mut TestGateway, behaviour: TakerBehaviour, time: Duration) {
    let before = gateway.worker_pid();
    script_next_starts(gateway, &json!({"no_bind": true}));
    let next_port = || gateway.worker_pid().filter(|pid| before != Some(*pid)).and_then(|_| gateway.worker_port());
    if wait_until(NEXT_START, || next_port().is_some())
        && let Some(taker) = next_port().and_then(|port| PortTaker::take(port, behaviour))
    {
        gateway.add_note("port races won", 1);
        gateway.repair_after(time, Repair::ReleasePorts(vec![taker]));
    }
    gateway.write_script(&json!({}));
}

fn break_keys(gateway: &TestGateway, how: KeyFileDamage) {
    let keys = gateway.process.keys_file();
    let outcome = match how {
        KeyFileDamage::Empty => fs::write(keys, ""),
        KeyFileDamage::CutShort => fs::write(keys, "# version\nadmin:admin-sec"),
        KeyFileDamage::Nonsense => fs::write(keys, "user user\n\u{0}\u{1}:::\n=\n"),
        KeyFileDamage::Missing => fs::remove_file(keys),
        KeyFileDamage::Folder => fs::remove_file(&keys).and_then(|()| fs::create_dir(keys)),
    };
    let _ = outcome; // an earlier fault may have put a folder there
}

fn connect_misbehaving_clients(
    gateway: &mut TestGateway,
    shared: &Shared,
    (count, how): (u64, Misbehaviour),
    time: Duration,
) {
    let client = Client::new(gateway.process.url()).key(USER);
    let body = json!({"messages": [{"role": "user", "content": "rude"}], "stream": true, "max_tokens": 8}).to_string();
    let bytes = client.request("POST", "/v1/chat/completions", body.as_bytes());
    let bytes = match how {
        Misbehaviour::HalfHead => &bytes[..40],
        Misbehaviour::HalfBody => &bytes[..bytes.len() - 10],
        Misbehaviour::ReadsNothing => &bytes,
        Misbehaviour::Silent => &[],
    };
    let mut connections = Vec::new();
    for _ in 0..count {
        let Ok(mut connection) = RawClient::try_connect(gateway.process.url()) else { continue };
        shared.counts().add_possible();
        let _ = connection.write(bytes); // fails where the gateway has refused the request early
        connections.push(connection);
    }
    gateway.repair_after(time, Repair::CloseConnections(connections));
}
