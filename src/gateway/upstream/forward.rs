//! Sends one request to one worker and returns its response. Never sends a request twice; `retry.rs` decides about
//! that.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, response};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::retry::{Retry, RetryRule};
use super::worker_error::{Asked, WorkerError};
use super::worker_request::worker_request;
use crate::dial::explain;
use crate::fleet::{Lease, WorkerKind};
use crate::gateway::accounting::record::Record;
use crate::gateway::admission::auth::Caller;
use crate::gateway::bounds::{DEAD_WORKER_RESPONSE_WAIT, MAX_BACKEND_RETRY_AFTER, RETRY_AFTER_UNKNOWN};
use crate::gateway::content_kind::ContentKind;
use crate::gateway::exchange::{ExchangeError, WorkerBody, WorkerConnections};
use crate::gateway::headers;
use crate::gateway::queue::ticket::Ticket;
use crate::gateway::request::answer_facts::AnswerFacts;
use crate::gateway::request::body::RequestBody;
use crate::gateway::response::body::{ProxiedBody, ResponseBody};
use crate::gateway::response::error_cause::ErrorCause;
use crate::gateway::response::in_progress::{ResponseTimeouts, UpstreamAnswer};
use crate::gateway::response::line_stream::LineForm;
use crate::gateway::response::mend::WholeMend;
use crate::gateway::response::rename::{ModelRenamer, RenamedBody};
use crate::gateway::response::served_by::ServedBy;
use crate::gateway::response::stall_sweeper::StallSweeper;
use crate::gateway::response::upstream_body::UpstreamBody;
use crate::gateway::routes::route::Route;
use crate::pause_clock::{self, ActiveInstant};
use crate::refusal::Refusal;
use crate::retry_after::retry_after;
use crate::settings::bounds::CLIENT_WRITE_STALL;
use crate::settings::options::Limits;
use crate::telemetry::throttled_warning::ThrottledWarning;

/// The connections to workers, and the timeouts of their responses.
pub(crate) struct Forwarder {
    connections: WorkerConnections,
    /// `STREAM_IDLE_TIMEOUT`
    stream_idle_timeout: Duration,
    rejected_key_warning: Mutex<ThrottledWarning>,
    rejected_usage_warning: Mutex<ThrottledWarning>,
    /// Cancelled when the drain is over; requests still in flight then end with `shutting_down`.
    abort: CancellationToken,
    /// Ends responses that their clients do not read.
    pub(crate) sweeper: Arc<StallSweeper>,
}

/// The request as it is sent to a worker.
pub(crate) struct OutgoingRequest<'a> {
    pub(crate) route: &'static Route,
    /// The path at a remote backend, if it is another than that of the route.
    pub(crate) path_at_remote: Option<&'static str>,
    pub(crate) parts: Parts,
    pub(crate) request_id: &'a HeaderValue,
    /// The client's name of the model, if the worker may use another.
    pub(crate) client_model_name: Option<&'a str>,
    /// Whether the worker was asked for token counts that the client has not asked for.
    pub(crate) hides_usage: bool,
    /// What the request says about its answer.
    pub(crate) facts: AnswerFacts,
    /// How a stream is written as lines, for a client of Ollama's API.
    pub(crate) lines: Option<LineForm>,
    /// Whether the response must say what served it ([`ServedBy`]).
    pub(crate) is_call: bool,
}

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
struct Attempt {
    caller: Caller,
    ticket: Ticket,
    lease: Lease,
    record: Record,
    /// When `REQUEST_TIMEOUT` ends.
    deadline: ActiveInstant,
}

/// Why an attempt failed, and whether another may follow.
type Failure = (Refusal, RetryRule);

/// Why no head of a response has come.
enum Unanswered {
    /// The drain is over.
    Stopped,
    TimedOut,
    /// The worker has ended, and what it sent before did not arrive soon.
    WorkerGone,
    Failed(ExchangeError),
}

/// What shapes the answer of an attempt.
struct AnswerPlan<'a> {
    /// The route as the worker has it.
    route: &'static Route,
    client_model_name: Option<&'a str>,
    hides_usage: bool,
    facts: AnswerFacts,
    lines: Option<LineForm>,
    is_call: bool,
}

impl Attempt {
    /// Ends the attempt, and returns what the next one needs.
    fn fail(self, (refusal, retry): Failure) -> Box<FailedAttempt> {
        // Before the ticket: the next request to get the gateway's slot must find the worker's slot free too.
        drop(self.lease);
        Box::new(FailedAttempt { refusal, retry, tokens: (self.caller, self.ticket, self.record) })
    }
}

impl Forwarder {
    /// Creates the forwarder, which has no connection yet, and the sweeper.
    pub(crate) fn new(limits: &Limits) -> Self {
        let abort = CancellationToken::new();
        Self {
            connections: WorkerConnections::new(limits.backend_connect_timeout.0),
            stream_idle_timeout: limits.stream_idle_timeout.0,
            rejected_key_warning: Mutex::default(),
            rejected_usage_warning: Mutex::default(),
            sweeper: StallSweeper::new(CLIENT_WRITE_STALL, abort.clone()),
            abort,
        }
    }

    /// Ends all requests and responses that are still in flight.
    pub(crate) fn abort_in_flight(&self) {
        self.abort.cancel();
    }

    /// Closes the idle connections to workers.
    pub(crate) async fn close_connections(&self) {
        self.connections.close().await;
    }

    /// Sends the request and returns the worker's response as soon as its head has arrived.
    ///
    /// # Errors
    /// A [`FailedAttempt`], which carries everything that another attempt needs.
    #[expect(clippy::too_many_arguments, reason = "each argument is a stage's token; together they prove the journey")]
    pub(crate) async fn forward(
        &self,
        outgoing: OutgoingRequest<'_>,
        body: RequestBody,
        caller: Caller,
        ticket: Ticket,
        lease: Lease,
        record: Record,
        retry: &mut Retry,
    ) -> Result<Response<ResponseBody>, Box<FailedAttempt>> {
        let deadline = retry.begin_attempt(lease.member());
        let mut attempt = Attempt { caller, ticket, lease, record, deadline };
        let OutgoingRequest { parts, request_id, path_at_remote, client_model_name, hides_usage, .. } = outgoing;
        let OutgoingRequest { route, facts, lines, is_call, .. } = outgoing;
        let (route, path) = at_worker(route, path_at_remote, &attempt.lease);
        let is_head = parts.method == Method::HEAD;
        let target = &attempt.lease.endpoint().target;
        let request = match worker_request(parts, path, request_id, body, target) {
            Ok(request) => request,
            Err(error) => return Err(attempt.fail((Refusal::bad_request(error.to_string()), RetryRule::Never))),
        };
        let response = match self.send(request, &mut attempt).await {
            Ok(response) => response,
            Err(failure) => return Err(attempt.fail(failure)),
        };
        let (mut head, upstream) = response.into_parts();
        // First of all, because everything that follows reads the body.
        let codings = headers::take_content_codings(head.status, &mut head.headers);
        let mut upstream = UpstreamBody::new(upstream, codings.as_ref());
        let asked = Asked {
            route,
            target: &attempt.lease.endpoint().target,
            kind: attempt.lease.member().kind,
            asks_for_usage: hides_usage,
            is_head,
            has_route: path_at_remote.is_some() && attempt.lease.member().api.has_json_errors(),
            deadline,
        };
        let error = WorkerError::read(&mut head, &mut upstream, &asked).await;
        match self.judge(&head, &error, &mut attempt, retry) {
            Ok(()) => {}
            Err(failure) => return Err(attempt.fail(failure)),
        }
        let plan = AnswerPlan { route, client_model_name, hides_usage, facts, lines, is_call };
        Ok(self.pass_on(head, upstream, plan, attempt, retry))
    }

    /// Sends the request and waits for the head of the response. Records in the lease why there is none.
    async fn send(
        &self,
        request: Request<RequestBody>,
        attempt: &mut Attempt,
    ) -> Result<Response<WorkerBody>, Failure> {
        let Attempt { ticket, lease, deadline, .. } = attempt;
        let unanswered = match self.response_head(request, lease, *deadline).await {
            Ok(response) => return Ok(response),
            Err(unanswered) => unanswered,
        };
        let (refusal, rule) = match unanswered {
            Unanswered::Stopped => return Err((Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN), RetryRule::IfIdempotent)),
            Unanswered::TimedOut => {
                lease.mark_timed_out();
                return Err((Refusal::BackendTimeout, RetryRule::IfIdempotent));
            }
            Unanswered::WorkerGone => (Refusal::BackendError, RetryRule::IfIdempotent),
            Unanswered::Failed(error) => {
                // Before the ticket is dropped: the next request must not get a llama-server that is just dying.
                let why = explain(&error, lease.endpoint().target.authority.host());
                lease.record_failure(&error, &why);
                let rule = RetryRule::of(!error.is_unsent());
                match error {
                    ExchangeError::Connect(_) => (Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN), rule),
                    ExchangeError::Broken(_) => (Refusal::BackendError, rule),
                }
            }
        };
        Err((ticket.stop_refusal().unwrap_or(refusal), rule))
    }

    /// Waits for the head of the response.
    async fn response_head(
        &self,
        request: Request<RequestBody>,
        lease: &Lease,
        deadline: ActiveInstant,
    ) -> Result<Response<WorkerBody>, Unanswered> {
        let endpoint = lease.endpoint();
        let response = self.connections.exchange(&endpoint.target, endpoint.gone(), request);
        let mut response = pin!(pause_clock::timeout_at(deadline, response));
        let response = tokio::select! {
            biased;
            response = &mut response => response,
            () = self.abort.cancelled() => return Err(Unanswered::Stopped),
            // The end of the process may be noticed before the last bytes that it sent are read.
            () = endpoint.gone().cancelled() => match pause_clock::timeout(DEAD_WORKER_RESPONSE_WAIT, response).await {
                Ok(response) => response,
                Err(_) => return Err(Unanswered::WorkerGone),
            },
        };
        response.map_err(|_| Unanswered::TimedOut)?.map_err(Unanswered::Failed)
    }

    /// Records in the lease what the head of the response says about the worker, and decides whether the client gets it.
    ///
    /// # Errors
    /// What the client gets in its place if there is no other attempt.
    fn judge(
        &self,
        head: &response::Parts,
        error: &WorkerError,
        attempt: &mut Attempt,
        retry: &Retry,
    ) -> Result<(), Failure> {
        let Attempt { lease, caller, .. } = attempt;
        if error.rejects_usage {
            self.warn_rejected_usage(lease.endpoint().target.authority.as_str());
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
            false => lease
                .record_response(head.status, retry_after(&head.headers, Timestamp::now(), MAX_BACKEND_RETRY_AFTER)),
        }
        if error.rejects_key {
            // The configured key is wrong, not the client's. The response is not passed on because it may quote the
            // key.
            lease.record_rejected_key();
            self.warn_rejected_key(lease.endpoint().target.authority.as_str());
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

    /// Makes the client's response of the worker's: its headers, and the body that goes on with everything that the
    /// attempt holds.
    fn pass_on(
        &self,
        mut head: response::Parts,
        upstream: UpstreamBody,
        plan: AnswerPlan<'_>,
        attempt: Attempt,
        retry: &Retry,
    ) -> Response<ResponseBody> {
        let AnswerPlan { route, client_model_name, hides_usage, facts, lines, is_call } = plan;
        let Attempt { caller, ticket, lease, mut record, deadline } = attempt;
        headers::prepare_for_client(&mut head.headers, lease.endpoint().target.is_remote);
        head.version = Version::default();
        let kind = ContentKind::of(&head.headers);
        let idle_timeout = (kind == ContentKind::Stream).then_some(self.stream_idle_timeout);
        let timeouts = ResponseTimeouts { deadline, idle_timeout, sweeper: &self.sweeper };
        let renamer = client_model_name.and_then(|name| ModelRenamer::prepare(&mut head.headers, name));
        let body = RenamedBody::new(upstream, renamer);
        let is_local = lease.member().kind == WorkerKind::Local;
        let may_mend = is_local && kind == ContentKind::Json && head.status.is_success();
        let whole_mend = may_mend.then(|| WholeMend::of(route, &facts)).flatten();
        if whole_mend.is_some() {
            head.headers.remove(CONTENT_LENGTH);
        }
        let lines = lines.filter(|_| kind == ContentKind::Stream && head.status.is_success());
        if lines.is_some() {
            headers::describe_lines(&mut head.headers);
        }
        record.set_response(head.status, route, kind, lease.member().kind);
        record.worker = Some(Arc::clone(lease.member()));
        retry.insert_headers(&mut head.headers);
        if is_call {
            let model = Arc::clone(&retry.model_queue().model);
            head.extensions.insert(ServedBy { model, member: Arc::clone(lease.member()) });
        }
        let response = UpstreamAnswer {
            status: head.status,
            body,
            route,
            hides_usage,
            facts,
            whole_mend,
            lines,
            timeouts,
            caller,
            record,
            ticket,
            lease,
        };
        Response::from_parts(head, ResponseBody::Proxied(ProxiedBody::new(response)))
    }

    fn warn_rejected_usage(&self, host: &str) {
        if let Some(times) = self.rejected_usage_warning.lock().unwrap_or_else(PoisonError::into_inner).report_due() {
            let hint = "strip_params: [stream_options] of the model leaves it out";
            warn!(host, times, hint, "a backend does not take stream_options, which asks for token counts");
        }
    }

    fn warn_rejected_key(&self, host: &str) {
        if let Some(times) = self.rejected_key_warning.lock().unwrap_or_else(PoisonError::into_inner).report_due() {
            warn!(host, times, "a remote backend does not take its api_key");
        }
    }
}

/// Returns the route as the leased worker has it, and its path there if it is another than that of the request.
fn at_worker(
    route: &'static Route,
    path_at_remote: Option<&'static str>,
    lease: &Lease,
) -> (&'static Route, Option<&'static str>) {
    if lease.endpoint().target.is_remote {
        let route = route.at_remote();
        return (route, path_at_remote.or(Some(route.path)));
    }
    // Only llama-server has every twin of a route.
    match route.at_llama_server().filter(|_| lease.member().kind == WorkerKind::Local) {
        Some(twin) => (twin, Some(twin.path)),
        None => (route, None),
    }
}
