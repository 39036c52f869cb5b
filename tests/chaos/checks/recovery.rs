//! Checks after all faults have ended: the gateway is ready again in time, is idle when no client sends requests,
//! wakes llama-server up, and leaves nothing behind when it is stopped.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    checks::expectations::Outcome,
    checks::invariants::{CountedAs, check_ledger_file, read_usage},
    setup::{IDLE_UNLOAD, LOAD_TIMEOUT, QUEUE_TIMEOUT},
    shared::Shared,
    support::{
        gateway::ADMIN,
        resources,
        wait::{self, SOON, STOPS, eventually},
    },
    test_gateway::TestGateway,
};
use llamagate::worker::bounds::{BACKOFF_FIRST, LOG_PUMP_GRACE, PROBE_INTERVAL_READY, PROBE_TIMEOUT};

/// The most restarts that fit into RESTART_WINDOW (1 s) with a backoff after each: 500 ms, 1 s, 2 s.
const RESTARTS_IN_WINDOW: u32 = 3;
/// The time to start a process and load a tiny model, beside the other threads of this test.
const STARTING: Duration = Duration::from_secs(5);

/// Requests that wake llama-server at the same time.
const WAKING_REQUESTS: u32 = 3;

/// Requests that arrive about when llama-server is put to sleep, and how much later each one arrives than the last.
const RACES: u32 = 4;
const RACE_STEP: Duration = Duration::from_millis(2);

/// Returns how soon the gateway must be ready after the last fault: a running probe and the next one fail, the old
/// process ends and its log is read, the longest backoff passes, a load that the script stalls times out, and the next
/// succeeds.
fn recovery_bound() -> Duration {
    let backoff = BACKOFF_FIRST * 2_u32.pow(RESTARTS_IN_WINDOW - 1);
    PROBE_INTERVAL_READY + PROBE_TIMEOUT + LOG_PUMP_GRACE + LOAD_TIMEOUT + backoff + STARTING
}

/// Repeats a check until it passes; returns its problem if it still fails after [`SOON`].
pub(crate) fn until_soon(mut check: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let begin = Instant::now();
    loop {
        match check() {
            Err(problem) if begin.elapsed() > wait::patient(SOON) => return Err(problem),
            Err(_) => std::thread::sleep(wait::POLL),
            Ok(()) => return Ok(()),
        }
    }
}

impl TestGateway {
    /// Ends all faults and waits until the gateway serves again; returns how long that took.
    pub(crate) fn recover(&mut self, shared: &Shared) -> Result<Duration, String> {
        let killed = self.repair_all(shared);
        let begin = Instant::now();
        let bound = wait::patient(recovery_bound());
        loop {
            // Until the killed llama-server has ended, the gateway may still report it as ready.
            let has_ended = killed.is_none_or(resources::pid_gone);
            let would_serve = || self.process.health().try_send("GET", "/ping", b"").is_ok_and(|a| a.status() == 200);
            if has_ended && would_serve() && self.is_serving(shared) {
                self.runtime_dirs.extend(self.runtime_dir());
                return Ok(begin.elapsed());
            }
            if begin.elapsed() > bound {
                return Err(format!("not ready again {bound:?} after the last fault: {}", self.health()));
            }
            std::thread::sleep(wait::POLL);
        }
    }

    /// Whether llama-server responds to requests that need no slot; such a request wakes it.
    fn is_serving(&self, shared: &Shared) -> bool {
        shared.counts().add_possible();
        self.process.client().try_send("GET", "/v1/models", b"").is_ok_and(|response| response.status() == 200)
            && self.process.client_with(ADMIN).try_send("GET", "/metrics", b"").is_ok_and(|a| a.status() == 200)
    }

    fn health(&self) -> Value {
        self.process.health().get("/health").json()
    }

    /// Waits until nothing is in flight and the counts agree, once no client sends requests.
    pub(crate) fn check_idle(&mut self, shared: &Shared) -> Result<(), String> {
        until_soon(|| self.check_idle_once(shared))?;
        self.check_journal()
    }

    fn check_idle_once(&mut self, shared: &Shared) -> Result<(), String> {
        let (health, metrics) = (self.health(), self.process.health().get("/metrics").json());
        let queue = &health["queue"];
        if (queue["active"].as_u64(), queue["waiting"].as_u64()) != (Some(0), Some(0)) {
            return Err(format!("something is still in flight: {queue}"));
        }
        shared.counts().check(&metrics, &read_usage(&self.process))?;
        self.worker_states.read()?;
        if self.worker_states.is_ending() {
            return Err("llama-server was told to stop".into());
        }
        match health["models"][0]["restarts"].as_u64() {
            Some(restarts) if restarts == self.worker_states.restarts => Ok(()),
            restarts => Err(format!("the log shows {} restarts, /health {restarts:?}", self.worker_states.restarts)),
        }
    }

    /// Where IDLE_UNLOAD is on: waits until llama-server sleeps, then checks that requests wake it and are all served.
    pub(crate) fn check_sleep(&mut self, shared: &Shared) -> Result<(), String> {
        if !self.setup.unloads_idle {
            return Ok(());
        }
        let begin = Instant::now();
        while self.health()["models"][0]["state"] != "stopped" {
            if begin.elapsed() > wait::patient(STOPS) {
                return Err(format!("llama-server does not sleep: {}", self.health()));
            }
            std::thread::sleep(wait::POLL);
        }
        self.send_waking_requests(shared, WAKING_REQUESTS)?;
        for n in 0..RACES {
            // The first arrive just before llama-server is put to sleep, the last while it is.
            std::thread::sleep(IDLE_UNLOAD - RACE_STEP + n * RACE_STEP);
            self.send_waking_requests(shared, 1)?;
        }
        self.check_idle(shared)
    }

    /// Sends `count` requests at once. All must be served, unless the load takes longer than QUEUE_TIMEOUT.
    fn send_waking_requests(&self, shared: &Shared, count: u32) -> Result<(), String> {
        let begin = Instant::now();
        let send = |n: u32| {
            let body = json!({"prompt": format!("wake {n} {begin:?}"), "max_tokens": 1}).to_string();
            self.process.client().begin("POST", "/v1/completions", body.as_bytes()).map_err(|e| e.to_string())
        };
        let clients: Vec<_> = (0..count).map(send).collect();
        for client in clients {
            let response = client?
                .read_response()
                .map_err(|e| format!("no response to a request that wakes llama-server: {e}"))?;
            let is_late = begin.elapsed() >= QUEUE_TIMEOUT && response.text().contains("model_loading");
            if response.status() != 200 && !is_late {
                return Err(format!("a request that wakes llama-server got {} {}", response.status(), response.text()));
            }
            let (answered, length) = (Outcome::Answered, Some(response.body.len()));
            shared.counts().record(self.gateway_number, CountedAs::Usage, answered, length, None);
        }
        Ok(())
    }

    /// Waits until descriptors and processes are back to what they were, and checks that no folder is left.
    pub(crate) fn check_leaks(&mut self, baseline_fds: usize) -> Result<(), String> {
        let expected = usize::from(!self.setup.unloads_idle);
        eventually("the number of child processes is back to the start", STOPS, || {
            self.process.child_pids().len() == expected
        });
        eventually("file descriptors are back to the baseline", STOPS, || self.process.open_fds() <= baseline_fds);
        self.check_journal()?;
        if let Some(pid) = self.journal.leftover_pids().first() {
            return Err(format!("a process that a llama-server has started still runs: {pid}"));
        }
        let runtime_dir = self.runtime_dir();
        let leftover: Vec<_> =
            self.runtime_dirs.iter().filter(|old| old.exists() && runtime_dir.as_ref() != Some(old)).collect();
        if leftover.is_empty() {
            Ok(())
        } else {
            Err(format!("folders of llama-servers that have ended: {leftover:?}"))
        }
    }

    /// Stops the gateway with SIGTERM, and checks that it leaves nothing behind.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        let children = self.process.child_pids();
        let ports = [self.process.url(), self.process.health_url()].map(port_of);
        let status = self.process.stop();
        if status.code() != Some(0) {
            return Err(format!("SIGTERM ended the gateway with {status:?}"));
        }
        check_ledger_file(&self.process)?;
        self.worker_states.read()?;
        if !self.worker_states.has_ended() {
            return Err(format!("the worker is not stopped: {:?}", self.worker_states));
        }
        self.add_note("wakes", self.worker_states.wakes);
        self.add_note("restarts", self.worker_states.restarts as usize);
        if let Some(leftover) = self.runtime_dirs.iter().find(|runtime_dir| runtime_dir.exists()) {
            return Err(format!("{} was not removed", leftover.display()));
        }
        self.check_journal()?;
        if let Some(pid) =
            children.into_iter().chain(self.journal.leftover_pids()).find(|pid| !resources::pid_gone(*pid))
        {
            return Err(format!("process {pid} outlives the gateway"));
        }
        match ports.into_iter().find(|port| !resources::port_is_free(*port)) {
            Some(port) => Err(format!("port {port} is still taken")),
            None => Ok(()),
        }
    }

    /// Checks that no request was sent to llama-server twice and that two llama-servers never ran at once.
    pub(crate) fn check_journal(&mut self) -> Result<(), String> {
        if self.setup.is_real { Ok(()) } else { self.read_journal() }
    }

    /// Empties the fake's journal; nothing may be in flight.
    pub(crate) fn truncate_journal(&mut self) {
        if !self.setup.is_real && self.read_journal().is_ok() {
            let _ = self.journal.truncate(&self.process.model().journal_path()); // on an error it stays long
        }
    }

    /// Returns the end of the gateway's log.
    pub(crate) fn last_log_lines(&self) -> String {
        let output = self.process.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

/// Lines of the gateway's log that are shown with a failure.
const LAST_LINES: usize = 80;

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a url ends with a port")
}
