//! What must be true of a gateway that is left in peace again, and of what one leaves that was stopped.

use crate::{
    checks::expectations::Outcome,
    setup::{IDLE_UNLOAD, LOAD_TIMEOUT, QUEUE_TIMEOUT},
    shared::Door,
    support::{
        gateway::ADMIN,
        resources,
        wait::{self, SOON, STOPS, eventually},
    },
    test_gateway::World,
};
use llamagate::worker::bounds::{BACKOFF_FIRST, LOG_PUMP_GRACE, PROBE_INTERVAL_READY, PROBE_TIMEOUT};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The most restarts that fit into RESTART_WINDOW (1 s) with a backoff after each: 500 ms, 1 s, 2 s.
const RESTARTS_IN_WINDOW: u32 = 3;
/// What starting a process and loading (tiny) models takes, with the other threads of this test around.
const STARTING: Duration = Duration::from_secs(5);

/// Requests that wake one that sleeps, at once.
const SLEEPLESS: u32 = 3;

/// Requests that come about when it is put to sleep, and how much later each comes than the one before.
const RACES: u32 = 4;
const RACE_STEP: Duration = Duration::from_millis(2);

/// How soon it must be ready after the last fault: a probe that is under way and the next one find out, what is there
/// ends and its log is read, the longest backoff passes, a load that the script stalls is given up, and the next one
/// succeeds.
fn ready_again() -> Duration {
    let backoff = BACKOFF_FIRST * 2_u32.pow(RESTARTS_IN_WINDOW - 1);
    PROBE_INTERVAL_READY + PROBE_TIMEOUT + LOG_PUMP_GRACE + LOAD_TIMEOUT + backoff + STARTING
}

impl World {
    /// Ends all faults and waits until it serves again; says how long that took.
    pub(crate) fn recover(&mut self, door: &Door) -> Result<Duration, String> {
        let killed = self.heal_all(door);
        let begin = Instant::now();
        let bound = wait::patient(ready_again());
        loop {
            // The gateway may not yet have heard of its end.
            let is_over = killed.is_none_or(resources::pid_gone);
            let would_serve = || self.gateway.health().try_send("GET", "/ping", b"").is_ok_and(|a| a.status() == 200);
            if is_over && would_serve() && self.serves(door) {
                self.dens.extend(self.den());
                return Ok(begin.elapsed());
            }
            if begin.elapsed() > bound {
                return Err(format!("not ready again {bound:?} after the last fault: {}", self.health()));
            }
            std::thread::sleep(wait::POLL);
        }
    }

    /// Whether llama-server answers a request, which needs no slot; it is woken for that.
    fn serves(&self, door: &Door) -> bool {
        door.accounts().may_count();
        self.gateway.client().try_send("GET", "/v1/models", b"").is_ok_and(|answer| answer.status() == 200)
            && self.gateway.client_with(ADMIN).try_send("GET", "/metrics", b"").is_ok_and(|a| a.status() == 200)
    }

    fn health(&self) -> Value {
        self.gateway.health().get("/health").json()
    }

    /// What must be true once no client asks for anything: nothing is in flight, and the books agree.
    pub(crate) fn check_quiet(&mut self, door: &Door) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            let wrong = match self.is_quiet(door) {
                Ok(()) => break,
                Err(what) => what,
            };
            if begin.elapsed() > wait::patient(SOON) {
                return Err(wrong);
            }
            std::thread::sleep(wait::POLL);
        }
        self.check_ledger()
    }

    fn is_quiet(&mut self, door: &Door) -> Result<(), String> {
        let (health, metrics) = (self.health(), self.gateway.health().get("/metrics").json());
        let queue = &health["queue"];
        if (queue["active"].as_u64(), queue["waiting"].as_u64()) != (Some(0), Some(0)) {
            return Err(format!("something is still in flight: {queue}"));
        }
        door.accounts().check(&metrics)?;
        self.steps.read()?;
        if self.steps.is_ending() {
            return Err("llama-server was told to stop".into());
        }
        match health["models"][0]["restarts"].as_u64() {
            Some(restarts) if restarts == self.steps.restarts => Ok(()),
            restarts => Err(format!("{} restarts were seen, {restarts:?} are told of", self.steps.restarts)),
        }
    }

    /// Where llama-server is put to sleep: it sleeps, and requests that come at once wake it and are all served.
    pub(crate) fn check_sleep(&mut self, door: &Door) -> Result<(), String> {
        if !self.setup.sleeps {
            return Ok(());
        }
        let begin = Instant::now();
        while self.health()["models"][0]["state"] != "stopped" {
            if begin.elapsed() > wait::patient(STOPS) {
                return Err(format!("it does not sleep: {}", self.health()));
            }
            std::thread::sleep(wait::POLL);
        }
        self.wake(door, SLEEPLESS)?;
        for n in 0..RACES {
            // Just before it is put to sleep, and just while it is.
            std::thread::sleep(IDLE_UNLOAD - RACE_STEP + n * RACE_STEP);
            self.wake(door, 1)?;
        }
        self.check_quiet(door)
    }

    /// Sends so many requests at once, all of which must be served.
    fn wake(&self, door: &Door, count: u32) -> Result<(), String> {
        let begin = Instant::now();
        let ask = |n: u32| {
            let body = json!({"prompt": format!("wake {n} {begin:?}"), "max_tokens": 1}).to_string();
            self.gateway.client().begin("POST", "/v1/completions", body.as_bytes()).map_err(|e| e.to_string())
        };
        let clients: Vec<_> = (0..count).map(ask).collect();
        for client in clients {
            let answer = client?.read_response().map_err(|e| format!("no answer to who wakes it: {e}"))?;
            let is_late = begin.elapsed() >= QUEUE_TIMEOUT && answer.text().contains("model_loading");
            if answer.status() != 200 && !is_late {
                return Err(format!("who wakes it gets {} {}", answer.status(), answer.text()));
            }
            door.accounts().note(self.life, true, Outcome::Answered, Some(answer.body.len()));
        }
        Ok(())
    }

    /// Waits until nothing is left of what was: descriptors, processes and folders.
    pub(crate) fn check_leaks(&mut self, baseline_fds: usize) -> Result<(), String> {
        let expected = usize::from(!self.setup.sleeps);
        eventually("processes are as they were", STOPS, || self.gateway.child_pids().len() == expected);
        eventually("file descriptors are back to the baseline", STOPS, || self.gateway.open_fds() <= baseline_fds);
        self.check_ledger()?;
        if let Some(left) = self.ledger.left().first() {
            return Err(format!("what a llama-server has started runs on: {left}"));
        }
        let den = self.den();
        let left: Vec<_> = self.dens.iter().filter(|old| old.exists() && den.as_ref() != Some(old)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("folders of llama-servers that have ended: {left:?}")) }
    }

    /// Stops it, and looks for what it leaves.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        let children = self.gateway.child_pids();
        let ports = [self.gateway.url(), self.gateway.health_url()].map(port_of);
        let status = self.gateway.stop();
        if status.code() != Some(0) {
            return Err(format!("SIGTERM ended it with {status:?}"));
        }
        self.steps.read()?;
        if !self.steps.has_ended() {
            return Err(format!("its last step is none: {:?}", self.steps));
        }
        self.note("wakes", self.steps.wakes);
        self.note("restarts", self.steps.restarts as usize);
        if let Some(left) = self.dens.iter().find(|den| den.exists()) {
            return Err(format!("{} is left", left.display()));
        }
        self.check_ledger()?;
        if let Some(left) = children.into_iter().chain(self.ledger.left()).find(|pid| !resources::pid_gone(*pid)) {
            return Err(format!("process {left} outlives it"));
        }
        match ports.into_iter().find(|port| !resources::port_is_free(*port)) {
            Some(port) => Err(format!("port {port} is still taken")),
            None => Ok(()),
        }
    }

    /// No request was sent to llama-server twice, and there was never more than one llama-server.
    pub(crate) fn check_ledger(&mut self) -> Result<(), String> {
        if self.setup.is_real { Ok(()) } else { self.read_ledger() }
    }

    /// Forgets what the fake has written down; nothing must be in flight.
    pub(crate) fn shorten_ledger(&mut self) {
        if !self.setup.is_real && self.read_ledger().is_ok() {
            let _ = self.ledger.shorten(&self.gateway.model().journal_path()); // it stays long then
        }
    }

    /// The last that the gateway has said.
    pub(crate) fn last_words(&self) -> String {
        let output = self.gateway.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

/// Lines of the gateway's log that are shown with a failure.
const LAST_LINES: usize = 80;

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a url ends with a port")
}
