//! A worker without a process, and what it waits for before the next start: memory, the end of the backoff, or an
//! order.
//!
//! An order ends each of these waits. `mod.rs` decides which of them follows the end of a life.

use std::time::Duration;

use tracing::info;

use super::owner::Owner;
use crate::worker::demand::DemandChange;
use crate::worker::diagnosis::ending::crowded_out;
use crate::worker::handle::LastExit;
use crate::worker::memory::ledger::CrowdedOut;
use crate::worker::state::{WorkerEvent, WorkerState};

impl Owner {
    /// Publishes that the worker does not fit in memory beside pinned models, which is no crash, and waits for new
    /// demand or an order. A worker that starts without demand also waits until there is enough memory.
    pub(super) async fn wait_for_admission(&mut self, by: &CrowdedOut) {
        self.demand.release();
        let exit = LastExit::new(&self.plan, None, None, crowded_out(&by.0));
        self.apply_with(WorkerEvent::StopAsked, |status| {
            status.asleep = true;
            status.last_exit = Some(exit);
            status.failed_loads += 1;
        });
        self.apply(WorkerEvent::Stopped);
        let request = self.memory_request();
        // Demand that was there before was refused already; only a new guard is worth another attempt.
        let change = tokio::select! {
            change = self.demand.shared().next_change() => Some(change),
            () = self.demand.shared().wait_for_new_guard() => None,
            () = async {
                self.shared.memory.wait().await.scheduler.wait_until_admissible(&request).await
            }, if self.demand.is_autostart() => None,
        };
        if let Some(change) = change {
            self.demand.apply(change);
        }
    }

    /// Waits until the backoff is over, or until an order to wake the worker.
    pub(super) async fn wait_for_backoff(&mut self, backoff: Duration) {
        let end = tokio::time::sleep(backoff);
        tokio::pin!(end);
        loop {
            let change = tokio::select! {
                () = &mut end => return,
                change = self.demand.shared().next_change() => change,
            };
            self.demand.apply(change);
            if change == DemandChange::Wake {
                return;
            }
        }
    }

    /// Waits until an order wakes a failed worker, and resets its restart budget. Demand of requests does not wake it.
    pub(super) async fn wait_for_wake(&mut self) {
        self.demand.release();
        while self.demand.shared().next_change().await != DemandChange::Wake {}
        info!(model = self.plan.model, "{} had failed and is started again by an order", self.plan.program.name());
        self.restart_budget.reset();
        self.demand.apply(DemandChange::Wake);
    }

    /// Marks a worker without demand as asleep.
    pub(super) fn mark_asleep(&mut self) {
        self.is_restart = false;
        if self.state() == WorkerState::Stopped && self.status.borrow().asleep {
            return;
        }
        self.apply_with(WorkerEvent::StopAsked, |status| status.asleep = true);
        // From `Starting` the first event only leads to `Draining`. There is no process to wait for.
        self.apply(WorkerEvent::Stopped);
    }
}
