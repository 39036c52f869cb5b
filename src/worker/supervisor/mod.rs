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
//! - `shared.rs`: what all workers of a service share
//! - `watch.rs`: one life, watched until it ends or has to end

mod asleep;
mod life;
mod owner;
mod prepare;
mod restart_budget;
pub(super) mod shared;
mod watch;

use crate::worker::bounds::SHORTAGE_PAUSE;
use crate::worker::demand::{Demand, OwnerDemand};
use crate::worker::diagnosis::ending::not_started;
use crate::worker::endpoint::crash_suspects::Deaths;
use crate::worker::handle::{Handle, LastExit, Status};
use crate::worker::plan::Plan;
use crate::worker::process::blocking::Aside;
use crate::worker::state::{Event, State};
use crate::worker::worker_metrics::Board;
use owner::{End, Owner, Shortness, Unstarted};
use restart_budget::Budget;
use shared::Shared;
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
    shared: &Arc<Shared>,
    deaths: Arc<Deaths>,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> Handle {
    let (publish, status) = channel::channel(Status::first(!plan.preload));
    let demand = Arc::new(Demand::new(Arc::clone(&shared.bell)));
    let board = Board::put_up(Arc::clone(&shared.metrics), plan.model.clone(), plan.number, status.borrow().state);
    let handle =
        Handle { status, demand: Arc::clone(&demand), deaths: Arc::clone(&deaths), board: Some(Arc::clone(&board)) };
    let owner = Owner {
        budget: Budget::new(plan.engine.restart_limit, plan.engine.restart_window.0),
        demand: OwnerDemand::new(demand, plan.preload),
        is_restart: false,
        plan,
        shared: Arc::clone(shared),
        learned: None,
        board,
        publish,
        short: Shortness::default(),
        deaths,
        release: None,
        tasks: tasks.clone(),
        stop: stop.clone(),
        file_check: Aside::default(),
    };
    tasks.spawn(async move { owner.run(stop).await });
    handle
}

impl Owner {
    async fn run(mut self, stop: CancellationToken) {
        // What fits, and what a worker needs, is not known before.
        let _ = stop.run_until_cancelled(self.shared.memory.wait()).await;
        self.board.needs(self.need());
        loop {
            if !self.demand.is_needed() {
                self.put_to_sleep();
                tokio::select! {
                    () = self.demand.shared().any() => info!(model = self.plan.model, "a request wakes {}", self.plan.program.name()),
                    change = self.demand.shared().next_change() => {
                        self.demand.apply(change);
                        continue;
                    }
                    () = stop.cancelled() => return self.happen(Event::StopAsked),
                }
            }
            let pause = match self.one_life(&stop).await {
                Ok(End::Asked) => return,
                Ok(End::Asleep) => {
                    self.demand.cancel_autostart();
                    continue;
                }
                Ok(End::Died(exit)) => self.after_death(exit),
                Err(Unstarted::Unwanted) => continue,
                Err(Unstarted::CrowdedOut(by)) => match stop.run_until_cancelled(self.stay_out(&by)).await {
                    Some(()) => continue,
                    None => return self.happen(Event::StopAsked),
                },
                Err(Unstarted::Hopeless(found)) => self.after_death(LastExit::of(&self.plan, None, None, found)),
                Err(Unstarted::Short(error)) => match self.short.lasts(self.plan.engine.load_timeout.0) {
                    // No fault of llama-server's, and no reason to give it up: the shortage will pass.
                    false => self.for_now(&error),
                    true => self.after_death(LastExit::of(&self.plan, None, None, not_started(&error))),
                },
            };
            let may_go_on = match pause {
                Some(pause) => stop.run_until_cancelled(self.pause(pause)).await,
                None => stop.run_until_cancelled(self.wait_for_revival()).await,
            };
            if may_go_on.is_none() {
                return self.happen(Event::StopAsked);
            }
        }
    }

    /// Remembers how it ended. The pause before the next start, or nothing when there will be none.
    fn after_death(&mut self, exit: LastExit) -> Option<Duration> {
        self.short = Shortness::default();
        let hint = exit.hint.clone().unwrap_or_default();
        let (code, signal, cause) = (exit.code, exit.signal, exit.cause.as_str());
        let is_lasting = exit.cause.is_lasting() && !self.publish.borrow().has_been_ready;
        let pause = if is_lasting { None } else { self.budget.spend(Instant::now()) };
        self.is_restart = true;
        // One that has run has been counted when it ended.
        let never_ran = self.state() == State::Starting;
        let name = self.plan.program.name();
        let what = if never_ran { format!("{name} could not be started") } else { format!("{name} ended") };
        // Logged before anybody hears of it, for whoever hears of it may end the service.
        let event = match pause {
            Some(pause) => {
                let pause_ms = pause.as_millis() as u64;
                let model = &self.plan.model;
                warn!(model, code, signal, cause, hint, pause_ms, "{what}, it will be restarted");
                Event::Ended
            }
            None => {
                error!(model = self.plan.model, code, signal, cause, hint, "{what} and is given up");
                Event::BudgetSpent
            }
        };
        self.happen_and(event, |status| {
            status.last_exit = Some(exit);
            status.asleep = false;
            status.failed_loads += u64::from(never_ran);
        });
        pause
    }

    /// Reports a shortage. The pause before the next try.
    fn for_now(&mut self, error: &io::Error) -> Option<Duration> {
        if let Some(times) = self.short.trouble.report_due() {
            warn!(model = self.plan.model, %error, times, "{} cannot be started now", self.plan.program.name());
        }
        self.happen(Event::Ended);
        Some(SHORTAGE_PAUSE)
    }

    /// From one start to the end of that process.
    async fn one_life(&mut self, stop: &CancellationToken) -> Result<End, Unstarted> {
        if std::mem::take(&mut self.is_restart) {
            self.publish.send_modify(|status| status.restarts += 1);
            self.board.restarted();
        }
        self.happen(Event::StartBegun);
        let Some(begun) = stop.run_until_cancelled(self.begin(stop)).await else {
            self.happen(Event::StopAsked);
            self.happen(Event::Stopped);
            return Ok(End::Asked);
        };
        let mut life = begun?;
        self.short = Shortness::default();
        let ending = self.watch(&mut life, stop).await;
        Ok(self.end(life, ending).await)
    }
}
