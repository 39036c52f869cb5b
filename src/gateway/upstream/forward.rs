//! Sends one request to one worker and returns its response. Never sends a request twice; `retry.rs` decides about
//! that.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Method, Response};
use tokio_util::sync::CancellationToken;

use super::answer::{AnswerPlan, pass_on};
use super::attempt::{Attempt, FailedAttempt, Unanswered};
use super::backend_warnings::BackendWarnings;
use super::retry::{Retry, RetryRule};
use super::worker_error::{Asked, WorkerError};
use super::worker_request::{OwnHeaders, worker_request};
use crate::fleet::{Lease, WorkerKind};
use crate::gateway::bounds::DEAD_WORKER_RESPONSE_WAIT;
use crate::gateway::exchange::{ExchangeError, WorkerBody, WorkerConnections};
use crate::gateway::headers;
use crate::gateway::request::answer_facts::AnswerFacts;
use crate::gateway::request::body::RequestBody;
use crate::gateway::response::body::ResponseBody;
use crate::gateway::response::line_stream::LineForm;
use crate::gateway::response::stall_sweeper::StallSweeper;
use crate::gateway::response::upstream_body::UpstreamBody;
use crate::gateway::routes::route::Route;
use crate::pause_clock;
use crate::refusal::Refusal;
use crate::settings::bounds::CLIENT_WRITE_STALL;
use crate::settings::options::Limits;

/// The connections to workers, and the timeouts of their responses.
pub(crate) struct Forwarder {
    connections: WorkerConnections,
    /// `STREAM_IDLE_TIMEOUT`
    stream_idle_timeout: Duration,
    warnings: BackendWarnings,
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
    pub(crate) parts: &'a Parts,
    pub(crate) request_id: &'a HeaderValue,
    /// The client's name of the model, if the worker may use another.
    pub(crate) client_model_name: Option<&'a str>,
    /// Whether the worker was asked for token counts that the client has not asked for.
    pub(crate) hides_usage: bool,
    /// What the request says about its answer.
    pub(crate) facts: AnswerFacts,
    /// How a stream is written as lines, for a client of Ollama's API.
    pub(crate) lines: Option<LineForm>,
    /// Whether the response must say what served it ([`ServedBy`](crate::gateway::response::served_by::ServedBy)).
    pub(crate) is_call: bool,
}

impl Forwarder {
    /// Creates the forwarder, which has no connection yet, and the sweeper.
    pub(crate) fn new(limits: &Limits) -> Self {
        let abort = CancellationToken::new();
        Self {
            connections: WorkerConnections::new(limits.backend_connect_timeout.0),
            stream_idle_timeout: limits.stream_idle_timeout.0,
            warnings: BackendWarnings::default(),
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

    /// Sends the request, and returns the wait for the head of the worker's response.
    ///
    /// # Errors
    /// A [`FailedAttempt`], which carries everything that another attempt needs.
    pub(crate) fn forward<'a>(
        &'a self,
        outgoing: OutgoingRequest<'a>,
        body: RequestBody,
        mut attempt: Box<Attempt>,
        retry: &'a Retry,
    ) -> impl Future<Output = Result<Response<ResponseBody>, Box<FailedAttempt>>> + Send + 'a {
        let OutgoingRequest { parts, request_id, path_at_remote, client_model_name, hides_usage, .. } = outgoing;
        let OutgoingRequest { route, facts, lines, is_call, .. } = outgoing;
        let (route, path) = at_worker(route, path_at_remote, &attempt.lease);
        let is_head = parts.method == Method::HEAD;
        let (endpoint, deadline) = (attempt.lease.endpoint(), attempt.deadline);
        let own = OwnHeaders { request_id, trace: attempt.record.trace_ids() };
        // Before the wait begins, whose state then does not hold the request.
        let exchange = worker_request(parts, path, own, body, &endpoint.target)
            .map(|request| self.connections.exchange(&endpoint.target, endpoint.gone(), deadline, request));
        async move {
            let exchange = match exchange {
                Ok(exchange) => exchange,
                Err(error) => return Err(attempt.fail((Refusal::bad_request(error.to_string()), RetryRule::Never))),
            };
            let response = match self.response_head(pin!(exchange), &attempt).await {
                Ok(response) => response,
                Err(unanswered) => {
                    let failure = attempt.record_unanswered(unanswered);
                    return Err(attempt.fail(failure));
                }
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
                deadline: attempt.deadline,
            };
            let error = WorkerError::read(&mut head, &mut upstream, &asked).await;
            if let Err(failure) = attempt.judge(&head, &error, retry, &self.warnings) {
                return Err(attempt.fail(failure));
            }
            let (stream_idle_timeout, sweeper) = (self.stream_idle_timeout, &self.sweeper);
            let plan = AnswerPlan {
                route,
                client_model_name,
                hides_usage,
                facts,
                lines,
                is_call,
                stream_idle_timeout,
                sweeper,
            };
            Ok(pass_on(head, upstream, plan, attempt, retry))
        }
    }

    /// Waits for the head of the response.
    async fn response_head(
        &self,
        mut response: Pin<&mut impl Future<Output = Result<Response<WorkerBody>, ExchangeError>>>,
        attempt: &Attempt,
    ) -> Result<Response<WorkerBody>, Unanswered> {
        let gone = attempt.lease.endpoint().gone();
        let response = tokio::select! {
            biased;
            response = response.as_mut() => response,
            () = self.abort.cancelled() => return Err(Unanswered::Stopped),
            // The end of the process may be noticed before the last bytes that it sent are read.
            () = gone.cancelled() => match Box::pin(pause_clock::timeout(DEAD_WORKER_RESPONSE_WAIT, response)).await {
                Ok(response) => response,
                Err(_) => return Err(Unanswered::WorkerGone),
            },
        };
        response.map_err(Unanswered::Failed)
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
