//! The supervisor: the one task that owns a worker. It starts, probes, restarts with backoff, gives up and stops it.
//!
//! This file goes from one life of a process to the next. The state machine is in `state.rs`; one life, and the waits
//! between two lives, are in the files below.
//!
//! - `asleep.rs`: a worker without a process, and what it waits for
//! - `context.rs`: the resources that all workers of a service share
//! - `life.rs`: one life of a process: its start and its end
//! - `owner.rs`: the data of the owner of a worker, and how it publishes a change of state
//! - `owner_peers.rs`: what is known of the `rpc-server`s between two starts
//! - `peers.rs`: the `rpc-server`s of the worker's model, from before its start until after its end
//! - `prepare.rs`: the preparation of a start
//! - `restart_budget.rs`: how many restarts are left, and the backoff before each
//! - `watch.rs`: probes one life of a process until it ends or has to end

mod asleep;
pub(super) mod context;
mod life;
mod owner;
mod owner_peers;
mod peers;
mod prepare;
mod restart_budget;
mod watch;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch as channel;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::worker::bounds::SHORTAGE_PAUSE;
use crate::worker::demand::{Demand, OwnerDemand};
use crate::worker::diagnosis::ending::not_started;
use crate::worker::endpoint::crash_suspects::CrashSuspects;
use crate::worker::handle::{LastExit, LocalFacts, WorkerHandle, WorkerStatus};
use crate::worker::health::kv_cache::KvCacheGauge;
use crate::worker::load_gauge::LoadGauge;
use crate::worker::pin::Pin;
use crate::worker::plan::{Plan, Program};
use crate::worker::process::blocking::BlockingTask;
use crate::worker::state::{WorkerEvent, WorkerState};
use crate::worker::worker_metrics::WorkerMetrics;
use context::WorkerContext;
use owner::{LifeEnd, Owner, Shortage, StartFailure};
use owner_peers::OwnerPeers;
use restart_budget::{Restart, RestartBudget};

/// Starts the owner of a worker on `tasks`. The owner ends, after its process, when `stop` is cancelled. The workers of
/// one model share `crash_suspects`, so that a request that crashes one of them is not retried on all others.
pub fn supervise(
    plan: Plan,
    shared: &Arc<WorkerContext>,
    crash_suspects: Arc<CrashSuspects>,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> WorkerHandle {
    let initial = WorkerStatus { files: plan.files.digest(), ..WorkerStatus::initial(!plan.preload) };
    let (sender, status) = channel::channel(initial);
    let demand = Arc::new(Demand::new(Arc::clone(&shared.change_signal), Pin::of_configuration(plan.pinned)));
    let metrics =
        WorkerMetrics::register(Arc::clone(&shared.metrics), plan.model.clone(), plan.number, status.borrow().state);
    let local = Arc::new(LocalFacts {
        logs: plan.logs.clone(),
        load: LoadGauge::default(),
        is_llama_server: matches!(plan.program, Program::LlamaServer { .. }),
        kv_cache: KvCacheGauge::default(),
    });
    let handle = WorkerHandle {
        status,
        demand: Arc::clone(&demand),
        suspects: Arc::clone(&crash_suspects),
        metrics: Some(Arc::clone(&metrics)),
        local: Some(Arc::clone(&local)),
    };
    let owner = Owner {
        restart_budget: RestartBudget::new(plan.engine.restart_limit, plan.engine.restart_window.0),
        demand: OwnerDemand::new(demand, plan.preload),
        is_restart: false,
        plan,
        shared: Arc::clone(shared),
        measured_memory: None,
        memory_key: None,
        file_size: None,
        metrics,
        local,
        status: sender,
        shortage: Shortage::default(),
        peers: OwnerPeers::default(),
        crash_suspects,
        crash_key: None,
        memory_release: None,
        tasks: tasks.clone(),
        stop: stop.clone(),
        file_check: BlockingTask::default(),
    };
    tasks.spawn(async move { owner.run(stop).await });
    handle
}

impl Owner {
    async fn run(mut self, stop: CancellationToken) {
        // The need depends on the budget: whether that is GPU memory, and whether it is limited.
        let _ = stop.run_until_cancelled(self.shared.memory.wait()).await;
        self.metrics.set_need(self.need());
        loop {
            if !self.demand.is_needed() {
                self.mark_asleep();
                tokio::select! {
                    () = self.demand.shared().wait_for_guard() => info!(model = self.plan.model, "a request wakes {}", self.plan.program.name()),
                    change = self.demand.shared().next_change() => {
                        self.demand.apply(change);
                        continue;
                    }
                    () = stop.cancelled() => return self.apply(WorkerEvent::StopAsked),
                }
            }
            // Boxed, so that a worker without a process does not take the memory of one that has a process.
            let backoff = match Box::pin(self.run_once(&stop)).await {
                Ok(LifeEnd::Stopped) => return,
                Ok(LifeEnd::Asleep) => {
                    self.demand.cancel_autostart();
                    continue;
                }
                Ok(LifeEnd::Exited(exit)) => self.record_exit(exit),
                Err(StartFailure::Unwanted) => continue,
                Err(StartFailure::CrowdedOut(by)) => match stop.run_until_cancelled(self.wait_for_admission(&by)).await
                {
                    Some(()) => continue,
                    None => return self.apply(WorkerEvent::StopAsked),
                },
                Err(StartFailure::PeersUnusable(losses)) => Some(self.record_unusable_peers(&losses)),
                Err(StartFailure::Failed(diagnosis)) => {
                    self.record_exit(LastExit::new(&self.plan, None, None, diagnosis))
                }
                Err(StartFailure::Shortage(error)) => match self.shortage.has_lasted(self.plan.engine.load_timeout.0) {
                    // A short shortage is not the worker's fault, so it does not spend the restart budget.
                    false => self.record_shortage(&error),
                    true => self.record_exit(LastExit::new(&self.plan, None, None, not_started(&error))),
                },
            };
            let waited = match backoff {
                Some(backoff) => stop.run_until_cancelled(self.wait_for_backoff(backoff)).await,
                None => stop.run_until_cancelled(self.wait_for_wake()).await,
            };
            if waited.is_none() {
                return self.apply(WorkerEvent::StopAsked);
            }
        }
    }

    /// Logs and publishes how the process ended. Returns the backoff before the next start, or `None` when the worker
    /// is given up.
    fn record_exit(&mut self, exit: LastExit) -> Option<Duration> {
        self.shortage = Shortage::default();
        let hint = exit.hint.clone().unwrap_or_default();
        let (code, signal, cause) = (exit.code, exit.signal, exit.cause.as_str());
        // A lasting cause (a missing file, a bad option) cannot be cured by a restart, unless the worker has run
        // before.
        let is_lasting = exit.cause.is_lasting() && !self.status.borrow().has_been_ready;
        let restart = Restart { at: Instant::now(), key: self.crash_key.take() };
        let backoff = if is_lasting { None } else { self.restart_budget.spend(restart, &self.shared.key_suspensions) };
        self.is_restart = true;
        // The failed load of a process that ran was counted at its end.
        let never_ran = self.state() == WorkerState::Starting;
        let name = self.plan.program.name();
        let failure = if never_ran { format!("{name} could not be started") } else { format!("{name} ended") };
        // Logged before it is published, because a reader of the status may end the service at once.
        let event = match backoff {
            Some(backoff) => {
                let pause_ms = backoff.as_millis() as u64;
                let model = &self.plan.model;
                warn!(model, code, signal, cause, hint, pause_ms, "{failure}, it will be restarted");
                WorkerEvent::Ended
            }
            None => {
                error!(model = self.plan.model, code, signal, cause, hint, "{failure} and is given up");
                WorkerEvent::BudgetSpent
            }
        };
        self.apply_with(event, |status| {
            status.last_exit = Some(exit);
            status.asleep = false;
            status.failed_loads += u64::from(never_ran);
        });
        backoff
    }

    /// Logs and publishes that a shortage prevented the start. Returns the pause before the next attempt.
    fn record_shortage(&mut self, error: &io::Error) -> Option<Duration> {
        if let Some(times) = self.shortage.warning.report_due() {
            warn!(model = self.plan.model, %error, times, "{} cannot be started now", self.plan.program.name());
        }
        self.apply(WorkerEvent::Ended);
        Some(SHORTAGE_PAUSE)
    }

    /// Starts one process, watches it and ends it.
    ///
    /// # Errors
    ///
    /// No process was started.
    async fn run_once(&mut self, stop: &CancellationToken) -> Result<LifeEnd, StartFailure> {
        if std::mem::take(&mut self.is_restart) {
            self.status.send_modify(|status| status.restarts += 1);
            self.metrics.count_restart();
        }
        self.apply(WorkerEvent::StartBegun);
        let Some(started) = stop.run_until_cancelled(self.start_process(stop)).await else {
            self.apply(WorkerEvent::StopAsked);
            self.apply(WorkerEvent::Stopped);
            return Ok(LifeEnd::Stopped);
        };
        let mut life = started?;
        self.shortage = Shortage::default();
        let end = self.watch(&mut life, stop).await;
        Ok(self.end_life(life, end).await)
    }
}
