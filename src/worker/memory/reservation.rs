//! The memory of one worker, from its grant until it has been released.

use std::sync::Arc;

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::ledger::{GrantStage, SharedLedger};
use crate::pause_clock::ActiveInstant;
use crate::worker::endpoint::Endpoint;

/// Memory reserved for a worker; dropping it releases the memory.
pub(crate) struct Reservation {
    pub(super) id: u64,
    pub(super) shared: Arc<SharedLedger>,
    pub(super) evicted: CancellationToken,
}

impl Reservation {
    /// Records that the load is over and that `endpoint` serves requests. From now on the worker may be evicted.
    pub(crate) fn mark_ready(&self, endpoint: &Arc<Endpoint>) {
        self.set_stage(GrantStage::Ready { endpoint: Arc::clone(endpoint), since: ActiveInstant::now() });
    }

    /// Records that the worker has begun to end, for any reason.
    pub(crate) fn mark_leaving(&self) {
        self.set_stage(GrantStage::Leaving);
    }

    /// Waits until the worker is evicted. By then its endpoint accepts no new requests.
    pub(crate) fn evicted(&self) -> WaitForCancellationFuture<'_> {
        self.evicted.cancelled()
    }

    fn set_stage(&self, stage: GrantStage) {
        self.shared.ledger().set_stage(self.id, stage);
        self.shared.change_signal.notify();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut ledger = self.shared.ledger();
        ledger.release(self.id);
        self.shared.publish_metrics(&ledger);
        // Unlock before waking: every load that wakes takes the lock first.
        drop(ledger);
        self.shared.change_signal.notify();
    }
}
