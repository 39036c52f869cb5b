//! Between two lives of a llama-server: a worker without a process, and what it waits for before the next is started.
//!
//! Each wait ends by an order too. How a life ended, and how long to wait for that, is decided above.

use super::owner::Owner;
use crate::worker::demand::DemandChange;
use crate::worker::diagnosis::ending::crowded_out;
use crate::worker::handle::LastExit;
use crate::worker::memory::ledger::CrowdedOut;
use crate::worker::state::{WorkerEvent, WorkerState};
use std::time::Duration;
use tracing::info;

impl Owner {
    /// Has everybody know that it cannot be loaded beside pinned models, which is no death, and waits until somebody more
    /// wants it. One that is to be there anyway also waits for its room.
    pub(super) async fn wait_for_admission(&mut self, by: &CrowdedOut) {
        self.demand.release();
        let exit = LastExit::of(&self.plan, None, None, crowded_out(&by.0));
        self.apply_with(WorkerEvent::StopAsked, |status| {
            status.asleep = true;
            status.last_exit = Some(exit);
            status.failed_loads += 1;
        });
        self.apply(WorkerEvent::Stopped);
        let lodger = self.memory_request();
        let change = tokio::select! {
            change = self.demand.shared().next_change() => Some(change),
            () = self.demand.shared().more() => None,
            () = async { self.shared.memory.wait().await.residents.wait_until_admissible(&lodger).await }, if self.demand.is_autostart() => None,
        };
        if let Some(change) = change {
            self.demand.apply(change);
        }
    }

    /// Waits for so long, or until it is to be there.
    pub(super) async fn pause(&mut self, pause: Duration) {
        let over = tokio::time::sleep(pause);
        tokio::pin!(over);
        loop {
            let change = tokio::select! {
                () = &mut over => return,
                change = self.demand.shared().next_change() => change,
            };
            self.demand.apply(change);
            if change == DemandChange::Wake {
                return;
            }
        }
    }

    /// It has been given up: only an order changes that.
    pub(super) async fn wait_for_revival(&mut self) {
        self.demand.release();
        while self.demand.shared().next_change().await != DemandChange::Wake {}
        info!(model = self.plan.model, "{} was given up and is started anew", self.plan.program.name());
        self.budget.reset();
        self.demand.apply(DemandChange::Wake);
    }

    /// Nobody wants it, so that it is not started now.
    pub(super) fn put_to_sleep(&mut self) {
        self.is_restart = false;
        if self.state() == WorkerState::Stopped && self.publish.borrow().asleep {
            return;
        }
        self.apply_with(WorkerEvent::StopAsked, |status| status.asleep = true);
        // A start that was begun is left at once: there is no process.
        self.apply(WorkerEvent::Stopped);
    }
}
