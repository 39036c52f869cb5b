//! The one task that owns a worker: start, probe, restart with backoff, give up, stop.
//!
//! Which state follows which is `state.rs`'s; this file does what a state needs and reports each change.

mod prepare;
mod watch;

use super::aside::Aside;
use super::budget::Budget;
use super::command::{Den, Launch};
use super::endpoint::Endpoint;
use super::health::Prober;
use super::phases::Phases;
use super::process::{Process, Spawner, code_and_signal};
use super::progress::is_about_a_request;
use super::shortage::shortage;
use super::state::{Event, State};
use super::{Deaths, Handle, LastExit, Status, Wants, diagnosis};
use crate::models::Kind;
use crate::settings::bounds::{BACKEND_PORT_TRIES, LOG_PUMP_GRACE, SHORTAGE_PAUSE};
use crate::settings::options::Engine;
use crate::telemetry::files::{Folder, Tail, pump};
use crate::telemetry::log::CLOCK;
use crate::telemetry::metrics::{Metrics, ModelLabels, StateLabels, WorkerLabels};
use crate::telemetry::trouble::Trouble;
use prepare::FileCheck;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch as channel;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};
use watch::{Ending, Load};

/// Everything that one worker is started with, for its whole life.
pub struct Plan {
    /// The model's id.
    pub model: String,
    /// The number of the worker among those of its model.
    pub number: u32,
    /// The model file.
    pub file: PathBuf,
    /// What the model is for.
    pub kind: Kind,
    /// The llama-server binary.
    pub program: PathBuf,
    /// How llama-server is to run.
    pub engine: Engine,
    /// Environment variables that it inherits.
    pub environment: Vec<(String, String)>,
    /// Where its logs go.
    pub logs: Folder,
    /// Used in log file names.
    pub instance: String,
}

/// Starts the owner of a worker on `tasks`; it ends, with its process, after `stop` is cancelled or when it gives up.
pub fn supervise(
    plan: Plan,
    spawner: Spawner,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> Result<Handle, reqwest::Error> {
    let (publish, status) = channel::channel(Status::first());
    let (wants, deaths) = (Arc::default(), Arc::default());
    let handle = Handle { status, wants: Arc::clone(&wants), deaths: Arc::clone(&deaths) };
    let budget = Budget::new(plan.engine.restart_limit, plan.engine.restart_window.0);
    let (prober, next_port, short) = (Prober::new()?, plan.engine.port_backend, Trouble::default());
    let file_check = Aside::default();
    let owner = Owner { plan, spawner, prober, publish, metrics, budget, next_port, short, file_check, wants, deaths };
    owner.show_state();
    tasks.spawn(async move { owner.run(stop).await });
    Ok(handle)
}

struct Owner {
    plan: Plan,
    spawner: Spawner,
    prober: Prober,
    publish: channel::Sender<Status>,
    metrics: Arc<Metrics>,
    budget: Budget,
    next_port: u16,
    short: Trouble,
    file_check: Aside<FileCheck>,
    wants: Arc<Wants>,
    deaths: Arc<Deaths>,
}

/// How one life of a process ended.
enum End {
    /// Somebody asked for it.
    Asked,
    /// Nobody needed it.
    Asleep,
    /// By itself, or because it had to be killed.
    Died(LastExit),
}

impl Owner {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let (pause, is_restart) = match self.one_life(&stop).await {
                Ok(End::Asked) => return,
                Ok(End::Asleep) => {
                    tokio::select! {
                        () = self.wants.any() => info!(model = self.plan.model, "a request wakes llama-server"),
                        () = stop.cancelled() => return self.happen(Event::StopAsked),
                    }
                    continue;
                }
                Ok(End::Died(exit)) => (self.after_death(exit), true),
                // No fault of llama-server's, and no reason to give it up: the shortage will pass.
                Err(error) if shortage(&error).is_some() => {
                    if let Some(times) = self.short.report_due() {
                        warn!(model = self.plan.model, %error, times, "llama-server cannot be started now");
                    }
                    self.happen(Event::Ended);
                    (Some(SHORTAGE_PAUSE), false)
                }
                Err(error) => {
                    let hint = Some(format!("llama-server could not be started: {error}"));
                    (self.after_death(LastExit { code: None, signal: None, hint }), true)
                }
            };
            let Some(pause) = pause else { return };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return self.happen(Event::StopAsked),
            }
            if is_restart {
                self.publish.send_modify(|status| status.restarts += 1);
                self.metrics.worker_restarts.get_or_create(&self.labels()).inc();
            }
        }
    }

    /// Remembers how it ended. The pause before the next start, or nothing when there will be none.
    fn after_death(&mut self, exit: LastExit) -> Option<Duration> {
        let hint = exit.hint.clone().unwrap_or_else(|| "no cause found in its log".to_owned());
        let (code, signal) = (exit.code, exit.signal);
        self.publish.send_modify(|status| {
            status.last_exit = Some(exit);
            status.failed_loads += u64::from(!status.state.has_served());
        });
        let Some(pause) = self.budget.spend(Instant::now()) else {
            self.happen(Event::BudgetSpent);
            error!(model = self.plan.model, code, signal, hint, "llama-server failed and is given up");
            return None;
        };
        self.happen(Event::Ended);
        let pause_ms = pause.as_millis() as u64;
        warn!(model = self.plan.model, code, signal, hint, pause_ms, "llama-server ended, it will be restarted");
        Some(pause)
    }

    /// From one start to the end of that process.
    async fn one_life(&mut self, stop: &CancellationToken) -> io::Result<End> {
        self.happen(Event::StartBegun);
        let prefetch = tokio::select! {
            prefetch = self.prepare() => prefetch?,
            () = stop.cancelled() => {
                self.happen(Event::StopAsked);
                self.happen(Event::Stopped);
                return Ok(End::Asked);
            }
        };
        let den = Den::new()?;
        let endpoint = Endpoint::new(self.choose_address()?, den.write_new_key()?, Arc::clone(&self.deaths));
        let endpoint = Arc::new(endpoint.map_err(io::Error::other)?);
        let plan = &self.plan;
        let launch = Launch {
            engine: &plan.engine,
            program: &plan.program,
            model: &plan.file,
            id: &plan.model,
            kind: plan.kind,
            address: endpoint.address,
            den: &den,
            inherited: &plan.environment,
        };
        let command_line = launch.command_line();
        let phases = Arc::new(Mutex::new(Phases::begin(Instant::now())));
        let mut process = self.spawner.spawn(command_line).await?;
        info!(model = self.plan.model, pid = process.pid(), port = endpoint.address.port(), "llama-server started");
        let tail = Arc::new(Mutex::new(Tail::default()));
        // On a set of its own, so that it is ended with this life whatever happens.
        let mut pumps = JoinSet::new();
        if let Some(pumping) = self.keep_log(&mut process, &tail, &phases) {
            pumps.spawn(pumping);
        }
        let load = Load { phases: &phases, prefetch };
        let ending = self.watch(&mut process, &endpoint, &tail, load, stop).await;
        self.publish.send_modify(|status| status.endpoint = None);
        let (status, fault) = match ending {
            Ending::Exited(status) => (status, None),
            Ending::Killed(fault) => {
                error!(model = self.plan.model, pid = process.pid(), "llama-server is killed: {fault}");
                (process.kill().await, Some(fault))
            }
            Ending::StopAsked => return self.put_down(process, false).await,
            Ending::Unused => return self.put_down(process, true).await,
        };
        endpoint.has_died();
        // The last lines may still be in the pipe, and they are the ones that tell the cause.
        let _ = tokio::time::timeout(LOG_PUMP_GRACE, pumps.join_next()).await;
        let (code, signal) = code_and_signal(status?);
        let hint = match fault {
            Some(fault) => Some(fault.to_string()),
            None => diagnosis::hint(&tail.lock().unwrap_or_else(PoisonError::into_inner), signal),
        };
        Ok(End::Died(LastExit { code, signal, hint }))
    }

    /// Stops a process that is not needed, for now or for ever.
    async fn put_down(&mut self, mut process: Process, to_sleep: bool) -> io::Result<End> {
        self.publish.send_modify(|status| status.asleep = to_sleep);
        self.happen(Event::StopAsked);
        if to_sleep {
            info!(model = self.plan.model, "nobody has used llama-server for IDLE_UNLOAD, it is stopped");
        }
        let stopped = process.stop().await;
        self.happen(Event::Stopped);
        stopped?;
        info!(model = self.plan.model, "llama-server stopped");
        Ok(if to_sleep { End::Asleep } else { End::Asked })
    }

    /// Writes what the process says to a log file of its own, keeps the end of it, and notes how its load goes on.
    fn keep_log(
        &self,
        process: &mut Process,
        tail: &Arc<Mutex<Tail>>,
        phases: &Arc<Mutex<Phases>>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let output = process.take_output()?;
        let file = self.plan.logs.create("server", &self.plan.instance, CLOCK);
        let (writer, guard) = crate::telemetry::log::behind_a_queue(file);
        let (tail, phases) = (Arc::clone(tail), Arc::clone(phases));
        let observe = move |line: &[u8]| {
            phases.lock().unwrap_or_else(PoisonError::into_inner).says(line, Instant::now());
            !is_about_a_request(line)
        };
        Some(async move {
            pump(output, writer, tail, observe).await;
            drop(guard);
        })
    }

    fn state(&self) -> State {
        self.publish.borrow().state
    }

    /// Takes the step of the state machine and shows it; an event that means nothing now is ignored.
    fn happen(&self, event: Event) {
        let stepped = self.publish.send_if_modified(|status| match status.state.after(event) {
            Some(next) => {
                let changed = next != status.state;
                status.state = next;
                changed
            }
            None => false,
        });
        if stepped {
            self.show_state();
        }
    }

    fn show_state(&self) {
        let now = self.publish.borrow().state;
        // There from the start: from nothing to one is no increase.
        drop(self.metrics.worker_restarts.get_or_create(&self.labels()));
        let WorkerLabels { model, worker } = self.labels();
        for state in State::ALL {
            let labels = StateLabels { model: model.clone(), worker, state: state.as_str() };
            self.metrics.worker_state.get_or_create(&labels).set(i64::from(state == now));
        }
        self.metrics.workers_ready.get_or_create(&ModelLabels { model }).set(i64::from(now == State::Ready));
    }

    fn labels(&self) -> WorkerLabels {
        WorkerLabels { model: self.plan.model.clone(), worker: self.plan.number }
    }

    /// The next free port from `PORT_BACKEND` upwards, a different one at each start so that nothing which still
    /// talks to the old process reaches the new one.
    fn choose_address(&mut self) -> io::Result<SocketAddr> {
        let first = self.plan.engine.port_backend;
        for _ in 0..BACKEND_PORT_TRIES {
            let port = self.next_port;
            let last = first.saturating_add(BACKEND_PORT_TRIES - 1);
            self.next_port = if port >= last { first } else { port + 1 };
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if port != 0 && TcpListener::bind(address).is_ok() {
                return Ok(address);
            }
        }
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
    }
}
