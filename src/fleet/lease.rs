//! The right to send one request to one worker, and what becomes of it.

use super::member::{Member, Slot};
use crate::worker::{Endpoint, InFlight};
use std::error::Error;
use std::sync::Arc;
use tokio_util::sync::WaitForCancellationFutureOwned;

/// The right to send one request to one worker.
pub struct Lease {
    in_flight: InFlight,
    member: Arc<Member>,
    _slot: Option<Slot>,
}

impl Lease {
    pub(super) fn new(in_flight: InFlight, member: Arc<Member>, slot: Option<Slot>) -> Self {
        Self { in_flight, member, _slot: slot }
    }

    /// Who serves it.
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// Waits until the worker has ended or is being ended, whatever its connections do.
    pub fn gone(&self) -> WaitForCancellationFutureOwned {
        self.in_flight.gone()
    }

    /// Says that the worker broke the connection.
    pub fn doubt(&mut self) {
        self.in_flight.doubt();
    }

    /// Says why a request to the worker failed; it is doubted, unless the reason lies with us.
    pub fn failed(&mut self, error: &(dyn Error + 'static)) {
        self.in_flight.failed(error);
    }

    /// Says that the worker has answered to the end, well or with an error of its own.
    pub fn answered(&mut self) {
        self.in_flight.answered();
    }

    /// Says that the worker answered well, to the end.
    pub fn succeeded(&mut self) {
        self.in_flight.succeeded();
    }

    /// Says that the worker could not compute an answer, which is no fault of the request.
    pub fn could_not_be_computed(&mut self) {
        self.in_flight.could_not_be_computed();
    }

    /// Where to send the request.
    pub fn endpoint(&self) -> &Endpoint {
        self.in_flight.endpoint()
    }
}
