//! The memory that one worker has, from its grant until it has been given back.

use super::ledger::{GrantStage, SharedLedger};
use crate::pause_clock::ActiveInstant;
use crate::worker::endpoint::Endpoint;
use std::sync::Arc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// A worker's room, until it is dropped.
pub(crate) struct Reservation {
    pub(super) id: u64,
    pub(super) shared: Arc<SharedLedger>,
    pub(super) evicted: CancellationToken,
}

impl Reservation {
    /// The load is over, and requests go there. From now on it may have to go for another.
    pub(crate) fn mark_ready(&self, endpoint: &Arc<Endpoint>) {
        self.set_stage(GrantStage::Ready { endpoint: Arc::clone(endpoint), since: ActiveInstant::now() });
    }

    /// It has begun to end, for whatever reason.
    pub(crate) fn mark_leaving(&self) {
        self.set_stage(GrantStage::Leaving);
    }

    /// Waits until it has to go. By then nothing new is sent to it.
    pub(crate) fn evicted(&self) -> WaitForCancellationFuture<'_> {
        self.evicted.cancelled()
    }

    fn set_stage(&self, place: GrantStage) {
        self.shared.ledger().set_stage(self.id, place);
        self.shared.bell.notify();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut book = self.shared.ledger();
        book.release(self.id);
        self.shared.publish_metrics(&book);
        drop(book);
        self.shared.bell.notify();
    }
}
