//! One attempt to have a request answered by a worker: what it holds, and what the head of the response says about the
//! worker.

use http::{StatusCode, response};
use jiff::Timestamp;

use super::backend_warnings::BackendWarnings;
use super::retry::{Retry, RetryRule};
use super::worker_error::WorkerError;
use crate::boxed::boxed;
use crate::dial::explain;
use crate::fleet::{Lease, WorkerKind};
use crate::gateway::accounting::record::Record;
use crate::gateway::accounting::slot_use::HeldSlot;
use crate::gateway::admission::auth::Caller;
use crate::gateway::bounds::{MAX_BACKEND_RETRY_AFTER, RETRY_AFTER_UNKNOWN};
use crate::gateway::exchange::ExchangeError;
use crate::gateway::queue::ticket::Ticket;
use crate::gateway::response::error_cause::ErrorCause;
use crate::pause_clock::ActiveInstant;
use crate::refusal::Refusal;
use crate::retry_after::retry_after;

/// An attempt that failed before any byte of a response was sent to the client.
pub(crate) struct FailedAttempt {
    pub(crate) refusal: Refusal,
    /// Whether the request may be tried again.
    pub(crate) retry: RetryRule,
    pub(crate) tokens: JourneyTokens,
}

/// What the next attempt needs.
pub(super) type JourneyTokens = (Caller, Ticket, Record);

/// What an attempt holds until its outcome is known.
pub(crate) struct Attempt {
    pub(super) caller: Caller,
    pub(super) lease: Lease,
    /// Declared after the lease, because fields drop in order: the next request to get this slot must find the worker's
    /// slot free too.
    pub(super) ticket: Ticket,
    pub(super) record: Record,
    /// When `REQUEST_TIMEOUT` ends.
    pub(super) deadline: ActiveInstant,
}

/// Why no head of a response has come.
pub(super) enum Unanswered {
    /// The drain is over.
    Stopped,
    /// The worker has ended, and what it sent before did not arrive soon.
    WorkerGone,
    Failed(ExchangeError),
}

/// Why an attempt failed, and whether another may follow.
pub(super) type Failure = (Refusal, RetryRule);

impl Attempt {
    /// Begins an attempt at the leased worker. Boxed, because it moves through every stage of the answer.
    pub(crate) fn begin(
        caller: Caller,
        ticket: Ticket,
        lease: Lease,
        mut record: Record,
        retry: &mut Retry,
    ) -> Box<Self> {
        let deadline = retry.begin_attempt(lease.member(), lease.begun());
        if let Some(since) = ticket.slot_since() {
            let member = lease.member();
            let price_per_hour = retry.model_queue().model.policy().price_per_hour;
            let is_local = member.kind == WorkerKind::Local;
            record.begin_slot(HeldSlot { since, of: member.slot_count(), price_per_hour, is_local });
        }
        record.begin_attempt(&lease);
        boxed(|| Self { caller, lease, ticket, record, deadline })
    }

    /// Ends the attempt, and returns what the next one needs.
    pub(super) fn fail(self: Box<Self>, (refusal, retry): Failure) -> Box<FailedAttempt> {
        let Self { caller, lease, ticket, mut record, .. } = *self;
        record.end_slot();
        record.fail_attempt(refusal.code());
        // Before the ticket: the next request to get the gateway's slot must find the worker's slot free too.
        drop(lease);
        Box::new(FailedAttempt { refusal, retry, tokens: (caller, ticket, record) })
    }

    /// Records in the lease why there is no response. Returns what the client gets if there is no other attempt.
    pub(super) fn record_unanswered(&mut self, unanswered: Unanswered) -> Failure {
        let Self { ticket, lease, .. } = self;
        let (refusal, rule) = match unanswered {
            Unanswered::Stopped => return (Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN), RetryRule::IfIdempotent),
            Unanswered::Failed(ExchangeError::TimedOut) => {
                lease.mark_timed_out();
                return (Refusal::BackendTimeout, RetryRule::IfIdempotent);
            }
            Unanswered::WorkerGone => (Refusal::BackendError, RetryRule::IfIdempotent),
            Unanswered::Failed(error) => {
                // Before the ticket is dropped: the next request must not get a llama-server that is just dying.
                let why = explain(&error, lease.endpoint().target.authority.host());
                lease.record_failure(&error, &why);
                let refusal = match error {
                    ExchangeError::Connect(_) => Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN),
                    ExchangeError::Broken(_) | ExchangeError::TimedOut => Refusal::BackendError,
                };
                (refusal, RetryRule::of(!error.is_unsent()))
            }
        };
        (ticket.stop_refusal().unwrap_or(refusal), rule)
    }

    /// Records in the lease what the head of the response says about the worker, and decides whether the client gets it.
    ///
    /// # Errors
    /// What the client gets in its place if there is no other attempt.
    pub(super) fn judge(
        &mut self,
        head: &response::Parts,
        error: &WorkerError,
        retry: &Retry,
        warnings: &BackendWarnings,
    ) -> Result<(), Failure> {
        let Self { lease, caller, .. } = self;
        if error.rejects_usage {
            warnings.warn_rejected_usage(lease.endpoint().target.authority.as_str());
        }
        // Neither is a failure of the worker, whatever its status says: other clients are not to lose it.
        let refusal = match (&error.cause, &error.missing_route) {
            (Some((ErrorCause::Request, words)), _) => Some(Refusal::RequestFault(words.clone())),
            (_, Some(words)) => Some(Refusal::RouteNotAtBackend(words.clone())),
            _ => None,
        };
        if let Some(refusal) = refusal {
            lease.record_faultless_response();
            lease.record_answer_end();
            return Err((refusal, RetryRule::Never));
        }
        let is_faultless = error.may_lack_route || matches!(error.cause, Some((ErrorCause::Output, _)));
        match is_faultless {
            true => lease.record_faultless_response(),
            false => {
                let is_error = head.status.is_client_error() || head.status.is_server_error();
                let rest = || retry_after(&head.headers, Timestamp::now(), MAX_BACKEND_RETRY_AFTER);
                lease.record_response(head.status, if is_error { rest() } else { None });
            }
        }
        if error.rejects_key {
            // The configured key is wrong, not the client's. The response is not passed on because it may quote the
            // key.
            lease.record_rejected_key();
            warnings.warn_rejected_key(lease.endpoint().target.authority.as_str());
            return Err((Refusal::BackendRefusesKey, RetryRule::Always));
        }
        // With 429 or 503 the backend says that it has not begun the request (RFC 6585, section 4; RFC 9110, section
        // 15.6.4).
        let has_refused = matches!(head.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let has_failed = has_refused || head.status.is_server_error() && !is_faultless;
        let rule = RetryRule::of(!has_refused);
        if lease.endpoint().target.is_remote && has_failed && retry.can_retry(rule, caller) {
            return Err((Refusal::BackendError, rule));
        }
        Ok(())
    }
}
