//! The memory that one worker has, from its grant until it has been given back.

use super::ledger::{Place, SharedLedger};
use crate::awake::ActiveInstant;
use crate::worker::endpoint::Endpoint;
use std::sync::Arc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// A worker's room, until it is dropped.
pub(crate) struct Room {
    pub(super) id: u64,
    pub(super) shared: Arc<SharedLedger>,
    pub(super) dismissed: CancellationToken,
}

impl Room {
    /// The load is over, and requests go there. From now on it may have to go for another.
    pub(crate) fn is_ready(&self, endpoint: &Arc<Endpoint>) {
        self.is_at(Place::Ready { endpoint: Arc::clone(endpoint), since: ActiveInstant::now() });
    }

    /// It has begun to end, for whatever reason.
    pub(crate) fn leaves(&self) {
        self.is_at(Place::Leaving);
    }

    /// Waits until it has to go. By then nothing new is sent to it.
    pub(crate) fn dismissed(&self) -> WaitForCancellationFuture<'_> {
        self.dismissed.cancelled()
    }

    fn is_at(&self, place: Place) {
        self.shared.book().stands(self.id, place);
        self.shared.bell.ring();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut book = self.shared.book();
        book.vacate(self.id);
        self.shared.show(&book);
        drop(book);
        self.shared.bell.ring();
    }
}
