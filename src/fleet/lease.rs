//! A lease: the permission to send one request to one worker, and the record of its result.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::breaker::{Breaker, Pass};
use super::member::{Member, MemberSlot};
use super::worker_counters::ServingGuard;
use crate::pause_clock::ActiveInstant;
use crate::worker::{Endpoint, InFlight};

/// The permission to send one request to one worker. Dropping it frees the slot.
pub struct Lease {
    in_flight: InFlight,
    member: Arc<Member>,
    begun: ActiveInstant,
    /// The breaker's pass, until the result of the request is known.
    pass: Option<Pass>,
    has_failed: bool,
    is_served: bool,
    _slot: Option<MemberSlot>,
    _serving: ServingGuard,
}

impl Lease {
    pub(super) fn new(in_flight: InFlight, member: &Arc<Member>, slot: Option<MemberSlot>, pass: Option<Pass>) -> Self {
        let (member, begun) = (Arc::clone(member), ActiveInstant::now());
        let serving = member.counters.begin();
        Self { in_flight, member, begun, pass, has_failed: false, is_served: false, _slot: slot, _serving: serving }
    }

    /// Returns the worker.
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// Returns when the request got the worker.
    pub fn begun(&self) -> ActiveInstant {
        self.begun
    }

    /// Waits until the worker has ended or is being stopped, whatever the state of its connections.
    pub fn gone(&self) -> WaitForCancellationFutureOwned {
        self.in_flight.gone()
    }

    /// Records the head of the response. `rest` is the pause that the worker asked for if it cannot serve now.
    pub fn record_response(&mut self, status: StatusCode, rest: Option<Duration>) {
        self.member.counters.record_first_byte(self.begun.elapsed());
        if !self.member.is_remote() {
            return;
        }
        match status {
            // The configured key is wrong; [`Lease::record_rejected_key`] records that.
            StatusCode::UNAUTHORIZED => {}
            // The backend is overloaded: other workers are preferred for a while.
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let error = format!("answered {}", status.as_u16());
                match rest {
                    Some(rest) => self.fail_with(&error, |breaker, pass, now| breaker.rest_for(pass, rest, now)),
                    None => self.fail(&error),
                }
            }
            _ if status.is_server_error() => self.fail(&format!("answered {}", status.as_u16())),
            _ => self.close_breaker(),
        }
    }

    /// Records the head of a response whose error, whatever its status, is not the worker's fault.
    pub fn record_faultless_response(&mut self) {
        self.member.counters.record_first_byte(self.begun.elapsed());
        self.close_breaker();
    }

    /// Closes a breaker that is half open. The head of the response is enough: other requests need not wait for the end
    /// of a long response.
    fn close_breaker(&mut self) {
        if let Some(pass) = self.pass.take_if(|pass| self.member.is_trial(pass)) {
            self.member.return_pass(pass, |breaker, pass, _| breaker.record_success(pass));
        }
    }

    /// Records that the worker broke the connection.
    pub fn record_broken_connection(&mut self) {
        self.fail("broke the connection");
        self.in_flight.record_broken_connection();
    }

    /// Records that the worker sent a packed body that cannot be unpacked.
    pub fn record_malformed_body(&mut self) {
        self.fail("sent a packed body that cannot be unpacked");
        self.in_flight.record_answer_end();
    }

    /// Records why a request to the worker failed. The worker is probed, unless the cause is on this machine.
    pub fn record_failure(&mut self, error: &(dyn Error + 'static), text: &str) {
        self.fail(text);
        self.in_flight.record_failure(error);
    }

    /// Records that the worker did not answer in time.
    pub fn mark_timed_out(&mut self) {
        self.fail("did not answer in time");
    }

    /// Records that the worker rejected its configured key.
    pub fn record_rejected_key(&mut self) {
        self.fail("does not take its api_key");
        self.in_flight.record_answer_end();
    }

    /// Records that the request is not sent after all, for which the worker is not at fault.
    pub fn record_not_sent(&mut self) {
        self.in_flight.record_answer_end();
    }

    /// Records that the response has ended, successfully or with an error of the worker's own.
    pub fn record_answer_end(&mut self) {
        self.in_flight.record_answer_end();
        self.record_served_once();
    }

    /// Records that the worker answered successfully and completely.
    pub fn record_success(&mut self) {
        self.in_flight.record_success();
        self.record_served_once();
    }

    /// Records that the worker could not compute an answer, which is not the request's fault.
    pub fn record_compute_failure(&mut self) {
        self.fail("could not compute an answer");
        // A remote worker is restarted by its operator, not by us.
        match self.member.is_remote() {
            true => self.in_flight.record_answer_end(),
            false => self.in_flight.record_compute_failure(),
        }
    }

    /// Returns where to send the request.
    pub fn endpoint(&self) -> &Endpoint {
        self.in_flight.endpoint()
    }

    fn record_served_once(&mut self) {
        // The end of a response is often recorded twice: when its last byte arrives, and when it is dropped.
        if !self.has_failed && !std::mem::replace(&mut self.is_served, true) {
            self.member.counters.record_served();
            self.return_pass(|breaker, pass, _| breaker.record_success(pass));
        }
    }

    fn fail(&mut self, error: &str) {
        self.fail_with(error, Breaker::record_failure);
    }

    fn fail_with(&mut self, error: &str, record: impl FnOnce(&mut Breaker, Pass, ActiveInstant)) {
        // Only the first failure of a request counts.
        if !std::mem::replace(&mut self.has_failed, true) {
            self.member.counters.record_failure(error);
            self.return_pass(record);
        }
    }

    fn return_pass(&mut self, record: impl FnOnce(&mut Breaker, Pass, ActiveInstant)) {
        if let Some(pass) = self.pass.take() {
            self.member.return_pass(pass, record);
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
    /// Simulates a response that breaks off, without telling the worker's owner.
    pub(super) fn break_off(&mut self) {
        self.fail("broke the connection");
    }
}
