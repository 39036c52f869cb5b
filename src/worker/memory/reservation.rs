//! The memory of one worker, from its grant until it has been released.

use std::sync::Arc;

use tokio::sync::watch;

use super::ledger::{ReadyWorker, SharedLedger};
use crate::pause_clock::ActiveInstant;
use crate::worker::endpoint::Endpoint;

/// Memory reserved for a worker; dropping it releases the memory.
pub(crate) struct Reservation {
    pub(super) id: u64,
    pub(super) shared: Arc<SharedLedger>,
    pub(super) evicted: watch::Receiver<bool>,
}

impl Reservation {
    /// Records that the load is over and that `endpoint` serves requests. From now on the worker may be evicted.
    pub(crate) fn mark_ready(&self, endpoint: &Arc<Endpoint>) {
        let worker = ReadyWorker { endpoint: Arc::clone(endpoint), since: ActiveInstant::now() };
        self.shared.ledger().mark_ready(self.id, worker);
        self.shared.change_signal.notify();
    }

    /// Records that the worker uses this many bytes. More than the budget counts as all of it.
    pub(crate) fn set_need(&self, bytes: u64) {
        let mut ledger = self.shared.ledger();
        ledger.set_need(self.id, self.shared.budget.map_or(bytes, |budget| bytes.min(budget)));
        self.shared.recall_unneeded(&mut ledger);
        self.shared.publish_metrics(&ledger);
        drop(ledger);
        self.shared.change_signal.notify();
    }

    /// Records that the worker has begun to end, for any reason.
    pub(crate) fn mark_leaving(&self) {
        let mut ledger = self.shared.ledger();
        ledger.mark_leaving(self.id);
        // Its memory may be enough for a load that others are evicted for.
        self.shared.recall_unneeded(&mut ledger);
        drop(ledger);
        self.shared.change_signal.notify();
    }

    /// Waits until the worker is evicted or recalled. Returns whether it is evicted. By then its endpoint accepts no new
    /// requests; after a recall its owner opens it again.
    pub(crate) async fn eviction_change(&mut self) -> bool {
        if self.evicted.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        *self.evicted.borrow_and_update()
    }

    /// Records that the evicted worker stops now. Returns false if it is not to stop after all, because its memory is not
    /// needed any more; it has been recalled then.
    pub(crate) fn confirm_leaving(&self) -> bool {
        let mut ledger = self.shared.ledger();
        self.shared.recall_unneeded(&mut ledger);
        ledger.confirm_leaving(self.id)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut ledger = self.shared.ledger();
        ledger.release(self.id);
        self.shared.recall_unneeded(&mut ledger);
        self.shared.publish_metrics(&ledger);
        // Unlock before waking: every load that wakes takes the lock first.
        drop(ledger);
        self.shared.change_signal.notify();
    }
}
