//! The one task that owns a worker: start, probe, restart with backoff, give up, stop.
//!
//! Which state follows which is `state.rs`'s; this file does what a state needs and reports each change.

use super::command::Launch;
use super::den::Den;
use super::health::{Probe, Prober, Silence, Verdict};
use super::process::{Process, Spawner, code_and_signal};
use super::state::{Event, State};
use super::{Endpoint, Handle, LastExit, Status, diagnosis, gpu, leftovers};
use crate::models::Kind;
use crate::settings::bounds::{
    BACKEND_PORT_TRIES, BACKOFF_FIRST, BACKOFF_LONGEST, LOG_PUMP_GRACE, PROBE_INTERVAL_DOUBTED, PROBE_INTERVAL_LOADING,
    PROBE_INTERVAL_READY,
};
use crate::settings::options::Engine;
use crate::telemetry::files::{Folder, Tail, pump};
use crate::telemetry::log::CLOCK;
use crate::telemetry::metrics::{Metrics, ModelLabels, StateLabels, WorkerLabels};
use crate::telemetry::trouble::Trouble;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

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
    let status = Status { state: State::Stopped, endpoint: None, restarts: 0, failed_loads: 0, last_exit: None };
    let (publish, subscribe) = watch::channel(status);
    let prober = Prober::new()?;
    let budget =
        Budget { limit: plan.engine.restart_limit, window: plan.engine.restart_window.0, spent: VecDeque::new() };
    let mut owner = Owner { plan, spawner, prober, publish, metrics, budget, next_port: 0, departed: BTreeSet::new() };
    owner.next_port = owner.plan.engine.port_backend;
    owner.show_state();
    tasks.spawn(async move { owner.run(stop).await });
    Ok(Handle(subscribe))
}

struct Owner {
    plan: Plan,
    spawner: Spawner,
    prober: Prober,
    publish: watch::Sender<Status>,
    metrics: Arc<Metrics>,
    budget: Budget,
    next_port: u16,
    /// Processes that have ended, and whose memory on the GPU nobody has waited for yet.
    departed: BTreeSet<i32>,
}

/// How one life of a process ended.
enum End {
    /// Somebody asked for it.
    Asked,
    /// By itself, or because it had to be killed.
    Died(LastExit),
}

impl Owner {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let exit = match self.one_life(&stop).await {
                Ok(End::Asked) => return,
                Ok(End::Died(exit)) => exit,
                Err(error) => LastExit {
                    code: None,
                    signal: None,
                    hint: Some(format!("llama-server could not be started: {error}")),
                },
            };
            let hint = exit.hint.clone().unwrap_or_else(|| "no cause found in its log".to_owned());
            let (code, signal) = (exit.code, exit.signal);
            self.publish.send_modify(|status| {
                status.last_exit = Some(exit);
                status.failed_loads += u64::from(!matches!(status.state, State::Ready | State::Unhealthy));
            });
            let Some(pause) = self.budget.spend(Instant::now()) else {
                self.happen(Event::BudgetSpent);
                error!(model = self.plan.model, code, signal, hint, "llama-server failed and is given up");
                return;
            };
            self.happen(Event::Ended);
            warn!(
                model = self.plan.model,
                code,
                signal,
                hint,
                pause_ms = pause.as_millis() as u64,
                "llama-server ended, it will be restarted"
            );
            let released = gpu::released(std::mem::take(&mut self.departed), &stop);
            tokio::select! {
                _ = async { tokio::join!(tokio::time::sleep(pause), released) } => {}
                () = stop.cancelled() => {
                    self.happen(Event::StopAsked);
                    return;
                }
            }
            self.publish.send_modify(|status| status.restarts += 1);
            self.metrics.worker_restarts.get_or_create(&self.labels()).inc();
        }
    }

    /// From one start to the end of that process.
    async fn one_life(&mut self, stop: &CancellationToken) -> io::Result<End> {
        leftovers::clear_earlier(stop).await;
        let mut den = Den::new()?;
        let endpoint = Endpoint::new(self.choose_address()?, den.write_new_key()?);
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
        let mut process = self.spawner.spawn(launch.command_line()).await?;
        den.inhabit(process.pid())?;
        self.happen(Event::Spawned);
        info!(model = self.plan.model, pid = process.pid(), port = endpoint.address.port(), "llama-server started");
        let tail = Arc::new(Mutex::new(Tail::default()));
        let pumping = process.take_output().map(|output| {
            let file = self.plan.logs.create("server", &self.plan.instance, CLOCK);
            let (writer, guard) = crate::telemetry::log::behind_a_queue(file);
            let tail = Arc::clone(&tail);
            async move {
                pump(output, writer, tail).await;
                drop(guard);
            }
        });
        // On a set of its own, so that it is ended with this life whatever happens.
        let mut pumps = tokio::task::JoinSet::new();
        if let Some(pumping) = pumping {
            pumps.spawn(pumping);
        }
        let ending = self.watch(&mut process, &endpoint, &tail, stop).await;
        self.publish.send_modify(|status| status.endpoint = None);
        let status = match ending {
            Ending::Exited(status) => status,
            Ending::Kill => process.kill().await,
            Ending::StopAsked => {
                self.happen(Event::StopAsked);
                process.stop().await
            }
        }?;
        self.departed = leftovers::clear(&mut den, process.pid()).await;
        // The last lines may still be in the pipe, and they are the ones that tell the cause.
        let _ = tokio::time::timeout(LOG_PUMP_GRACE, pumps.join_next()).await;
        if self.publish.borrow().state == State::Draining {
            self.happen(Event::Stopped);
            info!(model = self.plan.model, "llama-server stopped");
            return Ok(End::Asked);
        }
        let (code, signal) = code_and_signal(status);
        let hint = diagnosis::hint(&tail.lock().unwrap_or_else(PoisonError::into_inner), signal);
        Ok(End::Died(LastExit { code, signal, hint }))
    }

    /// Probes a running process until it ends, must be killed, or is to be stopped.
    async fn watch(
        &mut self,
        process: &mut Process,
        endpoint: &Arc<Endpoint>,
        tail: &Mutex<Tail>,
        stop: &CancellationToken,
    ) -> Ending {
        let started = Instant::now();
        let mut progress = Progress::new(started);
        let mut silence = Silence::default();
        let mut unasked = Trouble::default();
        let mut ticks = tokio::time::interval(PROBE_INTERVAL_LOADING);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_due = tokio::select! {
                status = process.wait() => return Ending::Exited(status),
                () = stop.cancelled() => return Ending::StopAsked,
                () = endpoint.doubted() => false,
                () = tokio::time::sleep(PROBE_INTERVAL_DOUBTED), if endpoint.is_doubted() => false,
                _ = ticks.tick() => true,
            };
            let (asked, doubts, is_doubted) = (Instant::now(), endpoint.doubts(), endpoint.is_doubted());
            let state = self.publish.borrow().state;
            let has_served = matches!(state, State::Ready | State::Unhealthy);
            let asking = async {
                if has_served { self.prober.probe(endpoint).await } else { self.prober.first_probe(endpoint).await }
            };
            let probe = tokio::select! {
                probe = asking => probe,
                status = process.wait() => return Ending::Exited(status),
                () = stop.cancelled() => return Ending::StopAsked,
            };
            match probe {
                Probe::Ready => {
                    silence = Silence::default();
                    endpoint.dispel(doubts);
                    if endpoint.is_doubted() {
                        // Somebody did so while it was asked; the answer may be older than what it broke.
                        continue;
                    }
                    if is_doubted {
                        // Whoever waits for it is told.
                        self.publish.send_modify(|_| {});
                    }
                    if state != State::Ready {
                        self.become_ready(endpoint, started, has_served);
                        ticks = tokio::time::interval_at(Instant::now() + PROBE_INTERVAL_READY, PROBE_INTERVAL_READY);
                        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    }
                }
                Probe::Stranger => {
                    error!(port = endpoint.address.port(), "another server answers on llama-server's port");
                    return Ending::Kill;
                }
                Probe::Loading if !has_served => self.happen(Event::AnswersLoading),
                Probe::Loading | Probe::Silent if has_served => {
                    let verdict = silence.goes_on(asked, is_due, is_doubted);
                    if verdict == Verdict::Restart {
                        error!(model = self.plan.model, "llama-server stays silent and is killed");
                        return Ending::Kill;
                    }
                    if verdict == Verdict::Unhealthy && state == State::Ready {
                        warn!(model = self.plan.model, "llama-server no longer answers its probes");
                        self.publish.send_modify(|status| status.endpoint = None);
                        self.happen(Event::ProbesFailed);
                    }
                }
                Probe::Loading | Probe::Silent => {}
                // Not even a reason to give up a load: what it has to say is not known.
                Probe::Unasked(cause) => {
                    if let Some(times) = unasked.report_due() {
                        warn!(model = self.plan.model, %cause, times, "llama-server could not be asked how it is");
                    }
                    continue;
                }
            }
            let still_loading = !matches!(self.publish.borrow().state, State::Ready | State::Unhealthy);
            if still_loading && progress.stalled_for(process, tail) >= self.plan.engine.load_timeout.0 {
                error!(
                    model = self.plan.model,
                    "the model load made no progress for LOAD_TIMEOUT, llama-server is killed"
                );
                return Ending::Kill;
            }
        }
    }

    fn become_ready(&self, endpoint: &Arc<Endpoint>, started: Instant, has_served: bool) {
        self.publish.send_modify(|status| status.endpoint = Some(Arc::clone(endpoint)));
        self.happen(Event::AnswersReady);
        if has_served {
            info!(model = self.plan.model, "llama-server answers its probes again");
        } else {
            let load = started.elapsed();
            let labels = ModelLabels { model: self.plan.model.clone() };
            self.metrics.load_seconds.get_or_create(&labels).set(load.as_secs_f64());
            info!(model = self.plan.model, load_ms = load.as_millis() as u64, "llama-server is ready");
        }
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

/// Why watching a process ended.
enum Ending {
    Exited(io::Result<ExitStatus>),
    Kill,
    StopAsked,
}

/// Whether a load moves: new log lines, or more memory in use.
struct Progress {
    since: Instant,
    lines: u64,
    pages: u64,
}

impl Progress {
    fn new(now: Instant) -> Self {
        Self { since: now, lines: 0, pages: 0 }
    }

    fn stalled_for(&mut self, process: &Process, tail: &Mutex<Tail>) -> Duration {
        let lines = tail.lock().unwrap_or_else(PoisonError::into_inner).seen();
        let pages = process.resident_pages().unwrap_or(0);
        if lines > self.lines || pages > self.pages {
            *self = Self { since: Instant::now(), lines, pages: pages.max(self.pages) };
        }
        self.since.elapsed()
    }
}

/// How often a worker may be restarted, and how long it waits before.
struct Budget {
    limit: u32,
    window: Duration,
    spent: VecDeque<Instant>,
}

impl Budget {
    /// The pause before the next restart, or nothing when the budget is spent.
    fn spend(&mut self, now: Instant) -> Option<Duration> {
        while self.spent.front().is_some_and(|restart| now.duration_since(*restart) >= self.window) {
            self.spent.pop_front();
        }
        let in_window = u32::try_from(self.spent.len()).unwrap_or(u32::MAX);
        if in_window >= self.limit {
            return None;
        }
        self.spent.push_back(now);
        let doubled = BACKOFF_FIRST.saturating_mul(1u32.checked_shl(in_window).unwrap_or(u32::MAX));
        Some(jittered(doubled.min(BACKOFF_LONGEST)))
    }
}

/// Between three quarters and all of a duration, so that workers which failed together do not start together.
fn jittered(duration: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(0);
    duration.mul_f64(0.75 + 0.25 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_for_a_window_and_pauses_double() {
        let mut budget = Budget { limit: 3, window: Duration::from_secs(60), spent: VecDeque::new() };
        let start = Instant::now();
        for (n, longest) in [500, 1_000, 2_000].into_iter().enumerate() {
            let pause = budget.spend(start + Duration::from_secs(n as u64)).unwrap();
            let longest = Duration::from_millis(longest);
            assert!(pause <= longest && pause >= longest.mul_f64(0.75), "{pause:?}");
        }
        assert_eq!(budget.spend(start + Duration::from_secs(10)), None);
        assert!(budget.spend(start + Duration::from_secs(61)).is_some(), "the first two are out of the window");
    }

    #[test]
    fn a_budget_of_none_gives_up_at_once_and_pauses_have_a_bound() {
        let mut none = Budget { limit: 0, window: Duration::from_secs(60), spent: VecDeque::new() };
        assert_eq!(none.spend(Instant::now()), None);
        let mut many = Budget { limit: 100, window: Duration::from_secs(60), spent: VecDeque::new() };
        let now = Instant::now();
        assert!((0..100).all(|_| many.spend(now).is_some_and(|pause| pause <= BACKOFF_LONGEST)));
    }
}
