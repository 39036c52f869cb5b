//! What must hold in the lane with six models: the budget all the time, and after each round that all models serve, that
//! no request was cut by an eviction, and that nothing is left.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{
    FleetGateway,
    config::{BUDGET_GIB, MODELS, memory_gib},
};
use crate::{
    checks::{invariants::read_usage, recovery::until_soon},
    setup::{LOAD_TIMEOUT, QUEUE_TIMEOUT},
    shared::Shared,
    support::{client::Client, resources, wait},
    test_gateway::worker_pids,
};
use llamagate::worker::bounds::{BACKOFF_FIRST, LOG_PUMP_GRACE, PROBE_INTERVAL_READY, PROBE_TIMEOUT};

/// Time between two looks at the processes.
const LOOK: Duration = Duration::from_millis(20);

/// How soon each of the models must serve after the last fault: a probe fails and the next one too, the old process ends,
/// the longest backoff passes, a load that a script stalls times out, and the next succeeds.
fn recovery_bound() -> Duration {
    PROBE_INTERVAL_READY + PROBE_TIMEOUT + LOG_PUMP_GRACE + LOAD_TIMEOUT + BACKOFF_FIRST * 4 + QUEUE_TIMEOUT * 3
}

/// Returns the running llama-servers of a gateway and their models.
pub(super) fn workers(gateway: u32) -> Vec<(u32, String)> {
    let model_of = |pid: u32| {
        let argv = resources::cmdline(pid);
        let file = argv.iter().position(|word| word == "-m").and_then(|at| argv.get(at + 1)?.rsplit('/').next())?;
        Some((pid, file.trim_end_matches(".gguf").to_owned()))
    };
    worker_pids(gateway).into_iter().filter_map(model_of).collect()
}

/// Looks at the processes and the health port until the lane is finished: the llama-servers never take more memory than
/// the budget, and the health port responds.
pub(crate) fn watch_workers(shared: &Shared, health_url: &str) {
    let gateway = shared.target().pid;
    let mut looks = 0_u64;
    while !shared.is_finished() {
        thread::sleep(LOOK);
        looks += 1;
        if let Err(problem) = check_budget(gateway) {
            shared.report_violation(problem);
        }
        if looks.is_multiple_of(16) {
            let response = Client::new(health_url).try_send("GET", "/livez", b"");
            if response.as_ref().map_or(0, |response| response.status()) != 200 {
                shared.report_violation(format!("/livez: {:?}", response.map(|response| response.status())));
            }
        }
    }
}

fn check_budget(gateway: u32) -> Result<(), String> {
    let sum = |workers: &[(u32, String)]| workers.iter().map(|(_, model)| memory_gib(model)).sum::<u64>();
    let first = workers(gateway);
    if sum(&first) <= BUDGET_GIB {
        return Ok(());
    }
    // One may have replaced another during the look, and a process that forks looks like two for a moment.
    thread::sleep(LOOK);
    let second = workers(gateway);
    let both: Vec<(u32, String)> = first.into_iter().filter(|worker| second.contains(worker)).collect();
    if sum(&both) <= BUDGET_GIB { Ok(()) } else { Err(format!("more memory than the budget is in use: {both:?}")) }
}

/// Ends all faults, waits until every model serves, pauses the clients and checks the idle gateway. Returns how long the
/// slowest model took.
pub(crate) fn check_round(gateway: &mut FleetGateway, shared: &Shared) -> Result<Duration, String> {
    gateway.repair(None, shared);
    for model in std::mem::take(&mut gateway.scripted) {
        gateway.write_script(model, &json!({}));
        gateway.signal_workers(model, Signal::SIGKILL);
    }
    gateway.config.add_all();
    let text = gateway.config.text();
    gateway.reload(&text, 200)?;
    gateway.pause_clients(shared)?;
    let mut slowest = Duration::ZERO;
    for model in MODELS {
        slowest = slowest.max(gateway.wait_served(model, shared)?);
    }
    gateway.check_idle(shared)?;
    shared.set_paused(false);
    Ok(slowest)
}

impl FleetGateway {
    /// Waits until a model serves a request.
    fn wait_served(&mut self, model: &str, shared: &Shared) -> Result<Duration, String> {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "is it there"}], "max_tokens": 1});
        let (begin, bound) = (Instant::now(), wait::patient(recovery_bound()));
        loop {
            shared.counts().add_possible();
            let response = self.process.client().try_send("POST", "/v1/chat/completions", body.to_string().as_bytes());
            let response = response.map_err(|error| format!("no response of {model}: {error}"))?;
            if response.status() == 200 {
                return Ok(begin.elapsed());
            }
            if begin.elapsed() > bound {
                let health = self.process.health().get("/health").json();
                return Err(format!(
                    "{model} does not serve {bound:?} after the last fault: {} {health}",
                    response.text()
                ));
            }
            thread::sleep(wait::POLL);
        }
    }

    /// Checks the gateway while no client sends requests.
    pub(crate) fn check_idle(&mut self, shared: &Shared) -> Result<(), String> {
        until_soon(|| self.check_idle_once(shared))?;
        self.read_journals()?;
        // A worker that is evicted, unloaded or replaced by a reload finishes its requests first.
        let is_terminated = |id: &String| self.journals.values().any(|journal| journal.was_terminated(id));
        match shared.take_cut().into_iter().find(is_terminated) {
            Some(id) => Err(format!("{id} was cut because its model was stopped while it was in use")),
            None => Ok(()),
        }
    }

    fn check_idle_once(&mut self, shared: &Shared) -> Result<(), String> {
        let health = self.process.health();
        let (health, metrics): (Value, Value) = (health.get("/health").json(), health.get("/metrics").json());
        let queue = &health["queue"];
        if (queue["active"].as_u64(), queue["waiting"].as_u64()) != (Some(0), Some(0)) {
            return Err(format!("something is still in flight: {queue}"));
        }
        let known: BTreeSet<&str> =
            health["models"].as_array().into_iter().flatten().filter_map(|model| model["id"].as_str()).collect();
        let has_others = known.len() > MODELS.len() && self.config.is_plain();
        if has_others || !known.is_superset(&BTreeSet::from(MODELS)) {
            return Err(format!("not all models are there: {known:?}"));
        }
        shared.counts().check(&metrics, &read_usage(&self.process))
    }

    /// Stops the gateway with SIGTERM, and checks that it leaves nothing behind.
    pub(crate) fn check_stop(&mut self) -> Result<(), String> {
        self.remember_workers();
        let status = self.process.stop();
        if status.code() != Some(0) {
            return Err(format!("SIGTERM ended the gateway with {status:?}"));
        }
        let remains = |(pid, words): &(&u32, &Vec<String>)| {
            !words.is_empty() && !resources::pid_gone(**pid) && resources::cmdline(**pid) == **words
        };
        match self.seen.iter().find(remains) {
            Some((pid, words)) => Err(format!("process {pid} outlives the gateway: {words:?}")),
            None => Ok(()),
        }
    }
}
