//! Everything that is done to a gateway: each kind of fault, and the arm that does it. `plan.rs` says how often.

pub(crate) mod poison_clients;
pub(crate) mod port_takers;

use crate::{
    faults::poison_clients::Killers,
    faults::port_takers::{Manner, Thief},
    shared::Door,
    support::{
        client::{Client, RawClient},
        gateway::{ADMIN, USER},
        resources,
    },
    test_gateway::{World, send},
};
use llamagate::pause_clock::PAUSE_LEAST;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{
    fs,
    time::{Duration, Instant},
};

/// One thing that goes wrong.
///
/// A new kind is a variant here, an arm in `apply`, and a row of the table in `plan.rs`. One that the fake can be told to
/// have by a script needs the row alone.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// llama-server gets a signal that ends it.
    Kill(Signal),
    /// llama-server is stopped (SIGSTOP) for a while.
    Freeze(Duration),
    /// The gateway and llama-server are stopped, for a moment or for longer than any patience.
    FreezeAll(Duration),
    /// The clients that behave ask for nothing for a while.
    Lull(Duration),
    /// So many clients send the same deadly request again and again; the number tells it from others.
    Killers { count: u64, which: u64, streams: bool, time: Duration },
    /// llama-server accepts connections and answers nobody, for a while.
    Mute(Duration),
    /// llama-server is killed, and the next ones do what a script of the fake says.
    NextLives(Value),
    /// llama-server is killed; the next one binds no port, and somebody else takes it.
    PortRace(Manner, Duration),
    /// The ports that come next are taken.
    NextPorts(u16, Manner, Duration),
    /// llama-server is killed, and somebody takes the port it had.
    OldPort(Manner, Duration),
    /// No byte of a log can be written.
    DiskFull(Duration),
    /// The key file is replaced by a good one, with or without a guest.
    KeysReplaced { guest: bool, comment: u64 },
    /// The key file is not what it should be, for a while.
    KeysBroken(Break, Duration),
    /// SIGHUP, so many times.
    Hangup(u64),
    /// `POST /reload`.
    Reload,
    /// Clients that are no help.
    RudeClients(u64, Rudeness, Duration),
    /// SIGTERM to the gateway, and another one in its place.
    Replace,
}

/// What is wrong with the key file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Break {
    Empty,
    CutShort,
    Nonsense,
    Missing,
    Folder,
}

/// How a client is no help.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rudeness {
    HalfHead,
    HalfBody,
    /// Sends all, reads nothing.
    ReadsNothing,
    /// Sends nothing.
    Silent,
}

/// What ends a fault that lasts.
pub(crate) enum Heal {
    Continue(u32),
    Resume,
    EmptyDisk,
    GoodKeys(u64),
    Leave(#[expect(dead_code, reason = "held for its drop")] Vec<Thief>),
    HangUp(#[expect(dead_code, reason = "held for its drop")] Vec<RawClient>),
    Speak,
    Kill,
    Catch(Killers),
}

impl Fault {
    pub(crate) fn apply(&self, world: &mut World, door: &Door) -> Result<(), String> {
        match self {
            Fault::Kill(signal) => world.signal_worker(*signal),
            Fault::Freeze(time) => {
                if let Some(pid) = world.worker() {
                    send(pid, Signal::SIGSTOP);
                    world.later(*time, Heal::Continue(pid));
                }
            }
            Fault::FreezeAll(time) => freeze_all(world, door, *time),
            Fault::Lull(time) => {
                door.hush(true);
                world.later(*time, Heal::Speak);
            }
            Fault::Killers { count, which, streams, time } => {
                if world.setup.is_real {
                    world.later(*time / 3, Heal::Kill);
                    world.later(*time * 2 / 3, Heal::Kill);
                }
                world.killers += 1;
                if !world.setup.is_real {
                    next_lives(world, &json!({}));
                }
                world.later(*time, Heal::Catch(Killers::start(&door.target(), *count, *which, *streams)));
            }
            Fault::Mute(time) => {
                world.tell("stop answering");
                world.later(*time, Heal::Resume);
            }
            Fault::NextLives(script) => next_lives(world, script),
            Fault::PortRace(manner, time) => port_race(world, *manner, *time),
            Fault::NextPorts(count, manner, time) => {
                let next = world.worker_port().map_or(0..0, |port| port + 1..port + 1 + count);
                let thieves: Vec<Thief> = next.filter_map(|port| Thief::take(port, *manner)).collect();
                world.note("next ports taken", thieves.len());
                world.later(*time, Heal::Leave(thieves));
            }
            Fault::OldPort(manner, time) => {
                let port = world.worker_port();
                world.signal_worker(Signal::SIGKILL);
                // Not sooner: between an end and the moment that the gateway hears of it nobody can tell who has a port.
                let gone = until(NOTICED, || !is_ready(world));
                if let Some(thief) = port.filter(|_| gone).and_then(|port| Thief::take(port, *manner)) {
                    world.note("old ports taken", 1);
                    world.later(*time, Heal::Leave(vec![thief]));
                }
            }
            Fault::DiskFull(time) => {
                if world.setup.has_disk {
                    world.fill_disk();
                    world.note("disk filled", 1);
                    world.later(*time, Heal::EmptyDisk);
                }
            }
            Fault::KeysReplaced { guest, comment } => world.write_keys(*guest, *comment),
            Fault::KeysBroken(how, time) => {
                break_keys(world, *how);
                world.later(*time, Heal::GoodKeys(time.as_micros() as u64));
            }
            Fault::Hangup(times) => (0..*times).for_each(|_| world.gateway.signal(Signal::SIGHUP)),
            Fault::Reload => {
                let admin = world.gateway.client_with(ADMIN);
                let answer = admin.try_send("POST", "/reload", b"").map_err(|e| format!("POST /reload: {e}"))?;
                let is_expected = match answer.status() {
                    200 => true,
                    500 => world.has_broken_keys(),
                    _ => false,
                };
                if !is_expected || !answer.complete {
                    return Err(format!("POST /reload: {} {}", answer.status(), answer.text()));
                }
            }
            Fault::RudeClients(count, how, time) => rude_clients(world, door, (*count, *how), *time),
            Fault::Replace => world.replace_gateway(door)?,
        }
        Ok(())
    }
}

impl Heal {
    pub(crate) fn apply(self, world: &mut World, door: &Door) {
        match self {
            Heal::Continue(pid) => send(pid, Signal::SIGCONT),
            Heal::Resume => world.tell("resume"),
            Heal::EmptyDisk => world.empty_disk(),
            Heal::GoodKeys(comment) => world.write_keys(true, comment),
            Heal::Leave(_) | Heal::HangUp(_) => {}
            Heal::Speak => door.hush(false),
            Heal::Kill => world.signal_worker(Signal::SIGKILL),
            Heal::Catch(killers) => {
                let known = killers.end(door);
                world.killers -= 1;
                world.note("killers refused", known);
            }
        }
    }
}

/// How long the gateway may take to see that its child has ended, before a fault gives up waiting for it.
const NOTICED: Duration = Duration::from_secs(1);

/// How long a process may take to stand still once it was told to.
const STOPS_SOON: Duration = Duration::from_secs(1);

/// How long a fault waits for the life of a fake that it has ordered.
const NEXT_LIFE: Duration = Duration::from_secs(3);

fn until(deadline: Duration, holds: impl Fn() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < deadline {
        if holds() {
            return true;
        }
        std::thread::sleep(crate::shared::IDLE_LOOK);
    }
    false
}

fn is_ready(world: &World) -> bool {
    world.gateway.health().try_send("GET", "/readyz", b"").is_ok_and(|answer| answer.status() == 200)
}

fn next_lives(world: &mut World, script: &Value) {
    world.script(script);
    world.is_scripted = true;
    world.signal_worker(Signal::SIGKILL);
}

/// All of them, and nobody is born meanwhile: llama-server's parent is stopped first.
fn freeze_all(world: &mut World, door: &Door, time: Duration) {
    let gateway = world.gateway.pid();
    let stop = |pid: u32| {
        send(pid, Signal::SIGSTOP);
        until(STOPS_SOON, || resources::is_stopped(pid) || resources::pid_gone(pid));
    };
    stop(gateway);
    let children = world.gateway.child_pids();
    children.iter().for_each(|pid| stop(*pid));
    if time > PAUSE_LEAST {
        door.freezes();
        std::thread::sleep(time);
        door.thaws();
        world.note("long freezes", 1);
    } else {
        std::thread::sleep(time);
    }
    [&children[..], &[gateway]].concat().into_iter().for_each(|pid| send(pid, Signal::SIGCONT));
}

/// Between the moment that the gateway chooses a port and the moment that llama-server binds it, somebody else does.
fn port_race(world: &mut World, manner: Manner, time: Duration) {
    let before = world.worker();
    next_lives(world, &json!({"no_bind": true}));
    let next = || world.worker().filter(|pid| before != Some(*pid)).and_then(|_| world.worker_port());
    if until(NEXT_LIFE, || next().is_some())
        && let Some(thief) = next().and_then(|port| Thief::take(port, manner))
    {
        world.note("port races won", 1);
        world.later(time, Heal::Leave(vec![thief]));
    }
    world.script(&json!({}));
}

fn break_keys(world: &World, how: Break) {
    let keys = world.gateway.keys_file();
    let outcome = match how {
        Break::Empty => fs::write(keys, ""),
        Break::CutShort => fs::write(keys, "# version\nadmin:admin-sec"),
        Break::Nonsense => fs::write(keys, "user user\n\u{0}\u{1}:::\n=\n"),
        Break::Missing => fs::remove_file(keys),
        Break::Folder => fs::remove_file(&keys).and_then(|()| fs::create_dir(keys)),
    };
    let _ = outcome; // a fault before may have put a folder there
}

fn rude_clients(world: &mut World, door: &Door, (count, how): (u64, Rudeness), time: Duration) {
    let client = Client::new(world.gateway.url()).key(USER);
    let body = json!({"messages": [{"role": "user", "content": "rude"}], "stream": true, "max_tokens": 8}).to_string();
    let bytes = client.request("POST", "/v1/chat/completions", body.as_bytes());
    let bytes = match how {
        Rudeness::HalfHead => &bytes[..40],
        Rudeness::HalfBody => &bytes[..bytes.len() - 10],
        Rudeness::ReadsNothing => &bytes,
        Rudeness::Silent => &[],
    };
    let mut there = Vec::new();
    for _ in 0..count {
        let Ok(mut connection) = RawClient::try_connect(world.gateway.url()) else { continue };
        door.accounts().may_count();
        let _ = connection.write(bytes); // whoever is refused early may not get that far
        there.push(connection);
    }
    world.later(time, Heal::HangUp(there));
}
