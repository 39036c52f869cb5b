//! The right to send one request to one worker, and what becomes of it.

use super::breaker::{Breaker, Pass};
use super::member::{Member, Slot};
use super::worker_counters::ServingGuard;
use crate::pause_clock::ActiveInstant;
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
    begun: ActiveInstant,
    /// Until it is known what has come of the request.
    pass: Option<Pass>,
    has_failed: bool,
    _slot: Option<Slot>,
    _serving: ServingGuard,
}

impl Lease {
    pub(super) fn new(in_flight: InFlight, member: &Arc<Member>, slot: Option<Slot>, pass: Option<Pass>) -> Self {
        let (member, begun) = (Arc::clone(member), ActiveInstant::now());
        let serving = member.tally.begin();
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
    pub fn record_response(&mut self, status: StatusCode, rest: Option<Duration>) {
        self.member.tally.record_first_byte(self.begun.elapsed());
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
                    Some(rest) => self.fail_with(&error, |breaker, pass, now| breaker.rest_for(pass, rest, now)),
                    None => self.fail(&error),
                }
            }
            _ if status.is_server_error() => self.fail(&format!("answered {}", status.as_u16())),
            _ => {
                if let Some(pass) = self.pass.take_if(|pass| self.member.is_trial(pass)) {
                    // Others need not wait for the end of a long answer.
                    self.member.return_pass(pass, |breaker, pass, _| breaker.record_success(pass));
                }
            }
        }
    }

    /// Says that the worker broke the connection.
    pub fn record_broken_connection(&mut self) {
        self.fail("broke the connection");
        self.in_flight.record_broken_connection();
    }

    /// Says why a request to the worker failed; it is doubted, unless the reason lies with us.
    pub fn record_failure(&mut self, error: &(dyn Error + 'static), text: &str) {
        self.fail(text);
        self.in_flight.record_failure(error);
    }

    /// Says that the worker has not answered in time.
    pub fn mark_timed_out(&mut self) {
        self.fail("did not answer in time");
    }

    /// Says that the worker does not take the key that it was configured with.
    pub fn record_rejected_key(&mut self) {
        self.fail("does not take its api_key");
        self.in_flight.record_answer_end();
    }

    /// Says that the worker has answered to the end, well or with an error of its own.
    pub fn record_answer_end(&mut self) {
        self.in_flight.record_answer_end();
        self.close_served();
    }

    /// Says that the worker answered well, to the end.
    pub fn record_success(&mut self) {
        self.in_flight.record_success();
        self.close_served();
    }

    /// Says that the worker could not compute an answer, which is no fault of the request.
    pub fn record_compute_failure(&mut self) {
        self.fail("could not compute an answer");
        // Whoever runs another's worker restarts it.
        match self.member.is_remote() {
            true => self.in_flight.record_answer_end(),
            false => self.in_flight.record_compute_failure(),
        }
    }

    /// Where to send the request.
    pub fn endpoint(&self) -> &Endpoint {
        self.in_flight.endpoint()
    }

    fn close_served(&mut self) {
        if !self.has_failed {
            self.member.tally.record_served();
            self.return_pass(|breaker, pass, _| breaker.record_success(pass));
        }
    }

    fn fail(&mut self, error: &str) {
        self.fail_with(error, Breaker::record_failure);
    }

    fn fail_with(&mut self, error: &str, came: impl FnOnce(&mut Breaker, Pass, ActiveInstant)) {
        // Once, whatever else comes of it.
        if !std::mem::replace(&mut self.has_failed, true) {
            self.member.tally.record_failure(error);
            self.return_pass(came);
        }
    }

    fn return_pass(&mut self, came: impl FnOnce(&mut Breaker, Pass, ActiveInstant)) {
        if let Some(pass) = self.pass.take() {
            self.member.return_pass(pass, came);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.return_pass(Breaker::give_up);
    }
}

#[cfg(test)]
impl Lease {
    /// Its answer breaks off, of which its owner hears nothing.
    pub(super) fn break_off(&mut self) {
        self.fail("broke the connection");
    }
}
