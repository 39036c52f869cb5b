//! The one task that owns a worker: start, probe, restart with backoff, give up, stop.
//!
//! Which state follows which is `state.rs`'s; this file goes from one life of a process to the next and reports each
//! change. What belongs to one life, and what is waited for between two, is in the files below.
//!
//! - `asleep.rs`: a worker without a process, and what it waits for
//! - `life.rs`: one life of a process: its start and its end
//! - `owner.rs`: what the owner of a worker holds, and how it reports a change of state
//! - `prepare.rs`: what is done before a process is started
//! - `restart_budget.rs`: how many restarts are left, and the backoff before each
//! - `context.rs`: what all workers of a service share
//! - `watch.rs`: one life, watched until it ends or has to end

mod asleep;
pub(super) mod context;
mod life;
mod owner;
mod prepare;
mod restart_budget;
mod watch;

use crate::worker::bounds::SHORTAGE_PAUSE;
use crate::worker::demand::{Demand, OwnerDemand};
use crate::worker::diagnosis::ending::not_started;
use crate::worker::endpoint::crash_suspects::CrashSuspects;
use crate::worker::handle::{LastExit, WorkerHandle, WorkerStatus};
use crate::worker::plan::Plan;
use crate::worker::process::blocking::BlockingTask;
use crate::worker::state::{WorkerEvent, WorkerState};
use crate::worker::worker_metrics::WorkerMetrics;
use context::WorkerContext;
use owner::{LifeEnd, Owner, Shortage, StartFailure};
use restart_budget::RestartBudget;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch as channel;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

/// Starts the owner of a worker on `tasks`; it ends, with its process, after `stop` is cancelled or when it gives up. The
/// workers of one model share `deaths`, so that a request which kills one of them is not tried on all.
pub fn supervise(
    plan: Plan,
    shared: &Arc<WorkerContext>,
    deaths: Arc<CrashSuspects>,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> WorkerHandle {
    let (publish, status) = channel::channel(WorkerStatus::first(!plan.preload));
    let demand = Arc::new(Demand::new(Arc::clone(&shared.bell)));
    let board =
        WorkerMetrics::register(Arc::clone(&shared.metrics), plan.model.clone(), plan.number, status.borrow().state);
    let handle = WorkerHandle {
        status,
        demand: Arc::clone(&demand),
        suspects: Arc::clone(&deaths),
        metrics: Some(Arc::clone(&board)),
    };
    let owner = Owner {
        budget: RestartBudget::new(plan.engine.restart_limit, plan.engine.restart_window.0),
        demand: OwnerDemand::new(demand, plan.preload),
        is_restart: false,
        plan,
        shared: Arc::clone(shared),
        learned: None,
        board,
        publish,
        short: Shortage::default(),
        deaths,
        release: None,
        tasks: tasks.clone(),
        stop: stop.clone(),
        file_check: BlockingTask::default(),
    };
    tasks.spawn(async move { owner.run(stop).await });
    handle
}

impl Owner {
    async fn run(mut self, stop: CancellationToken) {
        // What fits, and what a worker needs, is not known before.
        let _ = stop.run_until_cancelled(self.shared.memory.wait()).await;
        self.board.set_need(self.need());
        loop {
            if !self.demand.is_needed() {
                self.put_to_sleep();
                tokio::select! {
                    () = self.demand.shared().any() => info!(model = self.plan.model, "a request wakes {}", self.plan.program.name()),
                    change = self.demand.shared().next_change() => {
                        self.demand.apply(change);
                        continue;
                    }
                    () = stop.cancelled() => return self.apply(WorkerEvent::StopAsked),
                }
            }
            let pause = match self.run_once(&stop).await {
                Ok(LifeEnd::Asked) => return,
                Ok(LifeEnd::Asleep) => {
                    self.demand.cancel_autostart();
                    continue;
                }
                Ok(LifeEnd::Died(exit)) => self.after_death(exit),
                Err(StartFailure::Unwanted) => continue,
                Err(StartFailure::CrowdedOut(by)) => match stop.run_until_cancelled(self.wait_for_admission(&by)).await
                {
                    Some(()) => continue,
                    None => return self.apply(WorkerEvent::StopAsked),
                },
                Err(StartFailure::Hopeless(found)) => self.after_death(LastExit::of(&self.plan, None, None, found)),
                Err(StartFailure::Short(error)) => match self.short.has_lasted(self.plan.engine.load_timeout.0) {
                    // No fault of llama-server's, and no reason to give it up: the shortage will pass.
                    false => self.after_shortage(&error),
                    true => self.after_death(LastExit::of(&self.plan, None, None, not_started(&error))),
                },
            };
            let may_go_on = match pause {
                Some(pause) => stop.run_until_cancelled(self.pause(pause)).await,
                None => stop.run_until_cancelled(self.wait_for_revival()).await,
            };
            if may_go_on.is_none() {
                return self.apply(WorkerEvent::StopAsked);
            }
        }
    }

    /// Remembers how it ended. The pause before the next start, or nothing when there will be none.
    fn after_death(&mut self, exit: LastExit) -> Option<Duration> {
        self.short = Shortage::default();
        let hint = exit.hint.clone().unwrap_or_default();
        let (code, signal, cause) = (exit.code, exit.signal, exit.cause.as_str());
        let is_lasting = exit.cause.is_lasting() && !self.publish.borrow().has_been_ready;
        let pause = if is_lasting { None } else { self.budget.spend(Instant::now()) };
        self.is_restart = true;
        // One that has run has been counted when it ended.
        let never_ran = self.state() == WorkerState::Starting;
        let name = self.plan.program.name();
        let what = if never_ran { format!("{name} could not be started") } else { format!("{name} ended") };
        // Logged before anybody hears of it, for whoever hears of it may end the service.
        let event = match pause {
            Some(pause) => {
                let pause_ms = pause.as_millis() as u64;
                let model = &self.plan.model;
                warn!(model, code, signal, cause, hint, pause_ms, "{what}, it will be restarted");
                WorkerEvent::Ended
            }
            None => {
                error!(model = self.plan.model, code, signal, cause, hint, "{what} and is given up");
                WorkerEvent::BudgetSpent
            }
        };
        self.apply_with(event, |status| {
            status.last_exit = Some(exit);
            status.asleep = false;
            status.failed_loads += u64::from(never_ran);
        });
        pause
    }

    /// Reports a shortage. The pause before the next try.
    fn after_shortage(&mut self, error: &io::Error) -> Option<Duration> {
        if let Some(times) = self.short.trouble.report_due() {
            warn!(model = self.plan.model, %error, times, "{} cannot be started now", self.plan.program.name());
        }
        self.apply(WorkerEvent::Ended);
        Some(SHORTAGE_PAUSE)
    }

    /// From one start to the end of that process.
    async fn run_once(&mut self, stop: &CancellationToken) -> Result<LifeEnd, StartFailure> {
        if std::mem::take(&mut self.is_restart) {
            self.publish.send_modify(|status| status.restarts += 1);
            self.board.count_restart();
        }
        self.apply(WorkerEvent::StartBegun);
        let Some(begun) = stop.run_until_cancelled(self.begin(stop)).await else {
            self.apply(WorkerEvent::StopAsked);
            self.apply(WorkerEvent::Stopped);
            return Ok(LifeEnd::Asked);
        };
        let mut life = begun?;
        self.short = Shortage::default();
        let ending = self.watch(&mut life, stop).await;
        Ok(self.end(life, ending).await)
    }
}
