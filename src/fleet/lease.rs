//! The right to send one request to one worker, and what becomes of it.

use super::breaker::{Breaker, Pass};
use super::member::{Member, Slot};
use super::tally::Serving;
use crate::awake::Instant;
use crate::worker::{Endpoint, InFlight};
use http::StatusCode;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::WaitForCancellationFutureOwned;

/// The right to send one request to one worker.
pub struct Lease {
    in_flight: InFlight,
    member: Arc<Member>,
    begun: Instant,
    /// Until it is known what has come of the request.
    pass: Option<Pass>,
    has_failed: bool,
    _slot: Option<Slot>,
    _serving: Serving,
}

impl Lease {
    pub(super) fn new(in_flight: InFlight, member: &Arc<Member>, slot: Option<Slot>, pass: Option<Pass>) -> Self {
        let (member, begun) = (Arc::clone(member), Instant::now());
        let serving = member.tally.enter();
        Self { in_flight, member, begun, pass, has_failed: false, _slot: slot, _serving: serving }
    }

    /// Who serves it.
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// Waits until the worker has ended or is being ended, whatever its connections do.
    pub fn gone(&self) -> WaitForCancellationFutureOwned {
        self.in_flight.gone()
    }

    /// Says that the head of the answer has come, and for how long the worker asks to be left alone if it cannot serve now.
    pub fn is_answered(&mut self, status: StatusCode, rest: Option<Duration>) {
        self.member.tally.answered_after(self.begun.elapsed());
        if !self.member.is_remote() {
            return;
        }
        match status {
            // The key that it was given is no good, which is said apart.
            StatusCode::UNAUTHORIZED => {}
            // Too much for it now: others are asked first for a while.
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let error = format!("answered {}", status.as_u16());
                match rest {
                    Some(rest) => self.fails_so(&error, |breaker, pass, now| breaker.rests(pass, rest, now)),
                    None => self.fails(&error),
                }
            }
            _ if status.is_server_error() => self.fails(&format!("answered {}", status.as_u16())),
            _ => {
                if let Some(pass) = self.pass.take_if(|pass| self.member.is_trial(pass)) {
                    // Others need not wait for the end of a long answer.
                    self.member.settle(pass, |breaker, pass, _| breaker.succeeded(pass));
                }
            }
        }
    }

    /// Says that the worker broke the connection.
    pub fn doubt(&mut self) {
        self.fails("broke the connection");
        self.in_flight.doubt();
    }

    /// Says why a request to the worker failed; it is doubted, unless the reason lies with us.
    pub fn failed(&mut self, error: &(dyn Error + 'static), text: &str) {
        self.fails(text);
        self.in_flight.failed(error);
    }

    /// Says that the worker has not answered in time.
    pub fn is_late(&mut self) {
        self.fails("did not answer in time");
    }

    /// Says that the worker does not take the key that it was configured with.
    pub fn wants_another_key(&mut self) {
        self.fails("does not take its api_key");
        self.in_flight.answered();
    }

    /// Says that the worker has answered to the end, well or with an error of its own.
    pub fn answered(&mut self) {
        self.in_flight.answered();
        self.ends_well();
    }

    /// Says that the worker answered well, to the end.
    pub fn succeeded(&mut self) {
        self.in_flight.succeeded();
        self.ends_well();
    }

    /// Says that the worker could not compute an answer, which is no fault of the request.
    pub fn could_not_be_computed(&mut self) {
        self.fails("could not compute an answer");
        // Whoever runs another's worker restarts it.
        match self.member.is_remote() {
            true => self.in_flight.answered(),
            false => self.in_flight.could_not_be_computed(),
        }
    }

    /// Where to send the request.
    pub fn endpoint(&self) -> &Endpoint {
        self.in_flight.endpoint()
    }

    fn ends_well(&mut self) {
        if !self.has_failed {
            self.member.tally.served();
            self.settle(|breaker, pass, _| breaker.succeeded(pass));
        }
    }

    fn fails(&mut self, error: &str) {
        self.fails_so(error, Breaker::failed);
    }

    fn fails_so(&mut self, error: &str, came: impl FnOnce(&mut Breaker, Pass, Instant)) {
        // Once, whatever else comes of it.
        if !std::mem::replace(&mut self.has_failed, true) {
            self.member.tally.failed(error);
            self.settle(came);
        }
    }

    fn settle(&mut self, came: impl FnOnce(&mut Breaker, Pass, Instant)) {
        if let Some(pass) = self.pass.take() {
            self.member.settle(pass, came);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.settle(Breaker::given_up);
    }
}

#[cfg(test)]
impl Lease {
    /// Its answer breaks off, of which its owner hears nothing.
    pub(super) fn breaks_off(&mut self) {
        self.fails("broke the connection");
    }
}
