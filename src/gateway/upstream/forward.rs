//! Sends one request to one worker and returns its response. Never sends a request twice; `retry.rs` decides about
//! that.

use std::error::Error;
use std::iter::successors;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_LENGTH};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::retry::{Retry, RetryRule};
use super::worker_error::{Asked, WorkerError};
use crate::cores::{self, PerCore};
use crate::dial::{DialTarget, Dialer, explain};
use crate::fleet::{Lease, WorkerKind};
use crate::gateway::accounting::record::Record;
use crate::gateway::admission::auth::Caller;
use crate::gateway::bounds::{DEAD_WORKER_RESPONSE_WAIT, MAX_BACKEND_RETRY_AFTER, RETRY_AFTER_UNKNOWN, UPSTREAM_IDLE};
use crate::gateway::content_kind::ContentKind;
use crate::gateway::headers::{self, X_REQUEST_ID};
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
use crate::pause_clock;
use crate::refusal::Refusal;
use crate::retry_after::retry_after;
use crate::settings::bounds::{CLIENT_WRITE_STALL, UPSTREAM_IDLE_CONNECTIONS};
use crate::settings::options::Limits;
use crate::telemetry::throttled_warning::ThrottledWarning;

/// The pools of connections to workers, and the timeouts of their responses.
pub(crate) struct Forwarder {
    /// One for each core, so that no core drives the connections of another.
    client: PerCore<Client<Dialer, RequestBody>>,
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

impl Forwarder {
    /// Creates the connection pools and the sweeper. Idle connections are closed before llama-server's own keep-alive
    /// limit.
    pub(crate) fn new(limits: &Limits) -> Self {
        let dialer = Dialer::new(limits.backend_connect_timeout.0);
        // llama-server keeps a thread for each connection, and knows how many are idle at most.
        let most_idle = cores::share_of(UPSTREAM_IDLE_CONNECTIONS);
        let new_client = move || {
            Client::builder(TokioExecutor::new())
                .pool_idle_timeout(UPSTREAM_IDLE)
                .pool_max_idle_per_host(most_idle)
                .pool_timer(TokioTimer::new())
                // A request of which no byte was written, because the worker closed the idle connection just then, gets
                // another connection. Everything else is for `Retry` to decide.
                .retry_canceled_requests(true)
                .build(dialer.clone())
        };
        let abort = CancellationToken::new();
        Self {
            client: PerCore::new(new_client),
            stream_idle_timeout: limits.stream_idle_timeout.0,
            rejected_key_warning: Mutex::default(),
            rejected_usage_warning: Mutex::default(),
            sweeper: StallSweeper::new(CLIENT_WRITE_STALL, abort.clone()),
            abort,
        }
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

    /// Ends all requests and responses that are still in flight.
    pub(crate) fn abort_in_flight(&self) {
        self.abort.cancel();
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
        mut lease: Lease,
        record: Record,
        retry: &mut Retry,
    ) -> Result<Response<ResponseBody>, Box<FailedAttempt>> {
        let OutgoingRequest {
            route,
            path_at_remote,
            parts,
            request_id,
            client_model_name: name,
            hides_usage,
            facts,
            lines,
            is_call,
        } = outgoing;
        let deadline = retry.begin_attempt(lease.member());
        let (route, path) = match (lease.endpoint().target.is_remote, lease.member().kind) {
            // Only llama-server has every twin of a route.
            (true, _) => (route.at_remote(), path_at_remote.or(Some(route.at_remote().path))),
            (false, WorkerKind::Local) => match route.at_llama_server() {
                Some(other) => (other, Some(other.path)),
                None => (route, None),
            },
            (false, _) => (route, None),
        };
        let fail = |refusal, retry, lease: Lease, tokens: JourneyTokens| {
            // Before the ticket: the next request to get the gateway's slot must find the worker's slot free too.
            drop(lease);
            Box::new(FailedAttempt { refusal, retry, tokens })
        };
        let is_head = parts.method == Method::HEAD;
        let mut request = match upstream_request(parts, path, request_id, body, &lease.endpoint().target) {
            Ok(request) => request,
            Err(error) => {
                let refusal = Refusal::bad_request(error.to_string());
                return Err(fail(refusal, RetryRule::Never, lease, (caller, ticket, record)));
            }
        };
        let connection = capture_connection(&mut request);
        let mut response = pin!(pause_clock::timeout_at(deadline, self.client.get().request(request)));
        let response = tokio::select! {
            response = &mut response => response,
            () = self.abort.cancelled() => {
                let refusal = Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN);
                return Err(fail(refusal, RetryRule::IfIdempotent, lease, (caller, ticket, record)));
            }
            // The end of the process may be noticed before the last bytes that it sent are read.
            () = lease.gone() => match pause_clock::timeout(DEAD_WORKER_RESPONSE_WAIT, response).await {
                Ok(response) => response,
                Err(_) => {
                    let refusal = ticket.stop_refusal().unwrap_or(Refusal::BackendError);
                    return Err(fail(refusal, RetryRule::IfIdempotent, lease, (caller, ticket, record)));
                }
            },
        };
        let response = match response {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                // Before the ticket is dropped: the next request must not get a llama-server that is just dying.
                let why = explain(&error, lease.endpoint().target.authority.host());
                lease.record_failure(&error, &why);
                let is_connect = error.is_connect();
                let rule = RetryRule::of(!is_connect && !was_never_sent(&error));
                let worker_refusal =
                    if is_connect { Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN) } else { Refusal::BackendError };
                let refusal = ticket.stop_refusal().unwrap_or(worker_refusal);
                return Err(fail(refusal, rule, lease, (caller, ticket, record)));
            }
            Err(_) => {
                lease.mark_timed_out();
                let refusal = Refusal::BackendTimeout;
                return Err(fail(refusal, RetryRule::IfIdempotent, lease, (caller, ticket, record)));
            }
        };
        let is_remote = lease.endpoint().target.is_remote;
        let (mut head, upstream) = response.into_parts();
        // First of all, because everything that follows reads the body.
        let codings = headers::take_content_codings(head.status, &mut head.headers);
        let mut upstream = UpstreamBody::new(upstream, codings.as_ref());
        let asked = Asked {
            route,
            target: &lease.endpoint().target,
            kind: lease.member().kind,
            asks_for_usage: hides_usage,
            is_head,
            has_route: path_at_remote.is_some() && lease.member().api.has_json_errors(),
            deadline,
        };
        let error = WorkerError::read(&mut head, &mut upstream, &asked).await;
        if error.rejects_usage {
            self.warn_rejected_usage(lease.endpoint().target.authority.as_str());
        }
        // Neither is a failure of the worker, whatever its status says: other clients are not to lose it.
        let refusal = match (&error.cause, error.missing_route) {
            (Some((ErrorCause::Request, words)), _) => Some(Refusal::RequestFault(words.clone())),
            (_, Some(words)) => Some(Refusal::RouteNotAtBackend(words)),
            _ => None,
        };
        if let Some(refusal) = refusal {
            lease.record_faultless_response();
            lease.record_answer_end();
            return Err(fail(refusal, RetryRule::Never, lease, (caller, ticket, record)));
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
            return Err(fail(Refusal::BackendRefusesKey, RetryRule::Always, lease, (caller, ticket, record)));
        }
        // With 429 or 503 the backend says that it has not begun the request (RFC 6585, section 4; RFC 9110, section
        // 15.6.4).
        let has_refused = matches!(head.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let has_failed = has_refused || head.status.is_server_error() && !is_faultless;
        let rule = RetryRule::of(!has_refused);
        if is_remote && has_failed && retry.can_retry(rule, &caller) {
            return Err(fail(Refusal::BackendError, rule, lease, (caller, ticket, record)));
        }
        headers::prepare_for_client(&mut head.headers, is_remote);
        head.version = Version::default();
        let kind = ContentKind::of(&head.headers);
        // llama-server announces keep-alive but closes the connection after each stream. Poisoning keeps the connection
        // out of the pool, so no other request is sent on it.
        if kind == ContentKind::Stream
            && let Some(connection) = &*connection.connection_metadata()
        {
            connection.poison();
        }
        let idle_timeout = (kind == ContentKind::Stream).then_some(self.stream_idle_timeout);
        let timeouts = ResponseTimeouts { deadline, idle_timeout, sweeper: &self.sweeper };
        let renamer = name.and_then(|name| ModelRenamer::prepare(&mut head.headers, name));
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
        let mut record = record;
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
        Ok(Response::from_parts(head, ResponseBody::Proxied(ProxiedBody::new(response))))
    }
}

/// Returns whether the connection ended before any byte of the request was written.
fn was_never_sent(error: &(dyn Error + 'static)) -> bool {
    let of_hyper = |error: &(dyn Error + 'static)| error.downcast_ref().is_some_and(hyper::Error::is_canceled);
    successors(Some(error), |&error| error.source()).any(of_hyper)
}

fn upstream_request<B>(
    mut parts: Parts,
    other_path: Option<&'static str>,
    request_id: &HeaderValue,
    body: B,
    target: &DialTarget,
) -> Result<Request<B>, http::Error> {
    let mut path = std::mem::take(&mut parts.uri).into_parts().path_and_query;
    if let Some(other_path) = other_path {
        let query = path.as_ref().and_then(PathAndQuery::query);
        path = Some(match query {
            None => PathAndQuery::from_static(other_path),
            Some(query) => PathAndQuery::try_from(format!("{other_path}?{query}"))?,
        });
    }
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let path = headers::prepare_for_worker(&mut parts.headers, path, target.is_remote);
    parts.uri = target.uri(Some(path))?;
    if let Some(authorization) = &target.authorization {
        parts.headers.insert(AUTHORIZATION, authorization.clone());
    }
    for (name, value) in &target.headers {
        parts.headers.insert(name, value.clone());
    }
    parts.headers.insert(X_REQUEST_ID, request_id.clone());
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    Ok(Request::from_parts(parts, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::routes::lookup;
    use http::uri::{Authority, Scheme};
    use http::{HeaderMap, HeaderName};

    fn request_to(api_path: &str, authorization: Option<&'static str>, is_remote: bool) -> Request<()> {
        let target = DialTarget {
            scheme: Scheme::HTTPS,
            authority: Authority::from_static("host:1"),
            api_path: api_path.to_owned(),
            root_path: String::new(),
            authorization: authorization.map(HeaderValue::from_static),
            headers: HeaderMap::from_iter([(HeaderName::from_static("x-kept"), HeaderValue::from_static("2"))]),
            fields: Vec::new(),
            model: None,
            is_remote,
        };
        let request = Request::post("/v1/chat/completions?a=b").version(Version::HTTP_2);
        let request = request
            .header(AUTHORIZATION, "Bearer client")
            .header("x-api-key", "client")
            .header("x-request-id", "theirs")
            .header("x-kept", "1");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let route = lookup::find(&Method::POST, "/v1/chat/completions").unwrap();
        upstream_request(parts, is_remote.then_some(route.path), &HeaderValue::from_static("id-1"), (), &target)
            .unwrap()
    }

    #[tokio::test]
    async fn a_request_that_was_never_sent_is_told_from_one_that_was() {
        use http_body_util::Empty;
        use hyper_util::rt::TokioIo;
        use tokio::io::AsyncReadExt;
        for is_read in [false, true] {
            let (ours, mut theirs) = tokio::io::duplex(1024);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.unwrap();
            let response = sender.send_request(Request::new(Empty::<bytes::Bytes>::new()));
            let error = match is_read {
                false => {
                    drop(connection);
                    response.await.unwrap_err()
                }
                true => {
                    let close = async {
                        assert!(theirs.read_u8().await.is_ok());
                        drop(theirs);
                    };
                    tokio::join!(response, connection, close).0.unwrap_err()
                }
            };
            assert_eq!(was_never_sent(&error), !is_read, "{error:?}");
        }
    }

    #[test]
    fn a_request_is_sent_to_the_workers_address_with_its_key_and_never_the_clients() {
        for is_remote in [false, true] {
            let request = request_to("/api/v4", Some("Bearer worker"), is_remote);
            assert_eq!(request.uri(), "https://host:1/api/v4/chat/completions?a=b");
            assert_eq!((request.version(), request.headers().len()), (Version::HTTP_11, 4));
            assert_eq!(request.headers()[AUTHORIZATION], "Bearer worker");
            assert_eq!(request.headers()[X_REQUEST_ID], "id-1");
            assert_eq!(request.headers()["x-kept"], "2", "a header of the entry replaces the client's");
            assert_eq!(request.headers()["accept-encoding"], "identity");

            let request = request_to("/v1", None, is_remote);
            assert_eq!(request.uri(), "https://host:1/v1/chat/completions?a=b");
            assert!(request.headers().get(AUTHORIZATION).is_none());
            assert!(!format!("{request:?}").contains("client"));
        }
    }
}
