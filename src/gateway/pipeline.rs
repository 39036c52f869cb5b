//! READ THIS FIRST: what happens to a request, from top to bottom.
//!
//! Each stage returns what the next one demands, or a [`Refusal`] that ends the journey. Nothing jumps back.

use super::accounting::activity::Activity;
use super::accounting::record::{Accounting, Record};
use super::admission::auth::{Authenticator, Caller, RequestSource};
use super::admission::cors::Cors;
use super::admission::rate::{self, Meter};
use super::connection::discard::{InboundBody, UnreadBody};
use super::connection::head::HeadLimits;
use super::headers::{self, X_REQUEST_ID};
use super::malformed_request;
use super::models_api::ModelsApi;
use super::queue::model_queues::{ModelQueue, ModelQueues};
use super::queue::ticket::QueueEntry;
use super::request::body::{self, BodyLimits};
use super::request::envelope::{self, Envelope};
use super::request::proxied_request::{ProxiedRequest, requested_model};
use super::response::body::ResponseBody;
use super::response::heartbeat;
use super::route::{self, LocalRoute, ModelsRoute, Route, RouteAccess, RouteTarget};
use super::upstream::forward::{Forwarder, OutgoingRequest};
use super::upstream::retry::{self, Retry, RetryPolicy};
use crate::fleet::{Fleet, LeaseRequest};
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::models::ModelKind;
use crate::refusal::{Refusal, Shape};
use crate::settings::options::{Limits, Settings};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use std::borrow::Cow;
use std::future::Future;
use std::hash::RandomState;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How the routes that the gateway answers itself get their answers; `app.rs` says who gives them.
pub type LocalResponder = Box<
    dyn Fn(LocalRoute, &Parts) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, Refusal>> + Send>> + Send + Sync,
>;

/// Everything that a request meets on its way.
pub struct Gateway {
    authenticator: Authenticator,
    cors: Cors,
    head_limits: HeadLimits,
    body_limits: BodyLimits,
    model_queues: Arc<ModelQueues>,
    retry_policy: RetryPolicy,
    /// Drawn at the start, so that nobody can make two prompts look alike.
    prefix_seed: RandomState,
    /// `SSE_HEARTBEAT`
    heartbeat: Option<Duration>,
    fleet: Arc<Fleet>,
    forwarder: Forwarder,
    accounting: Arc<Accounting>,
    local_responder: LocalResponder,
    models_api: ModelsApi,
    activity: Arc<Activity>,
    /// Whether clients are refused because the service stops. Jobs that were taken before are not.
    is_closed_to_clients: AtomicBool,
    health_check_path: String,
    /// Whether this listener is the health port too.
    is_health_port: bool,
}

/// What a request becomes before it waits.
#[expect(clippy::large_enum_variant, reason = "there is one for each request, which is taken apart at once")]
enum Prepared {
    /// The gateway answers it from memory.
    Answered(Response<Bytes>),
    /// It has a place in the queue of a model.
    Queued(Queued),
}

/// A request with a place in the queue of a model.
struct Queued {
    asking: ProxiedRequest,
    caller: Caller,
    attempts: Retry,
    place: QueueEntry,
}

impl Gateway {
    /// Puts the stages together.
    pub fn new(
        settings: &Settings,
        gatekeeper: Authenticator,
        lanes: Arc<ModelQueues>,
        fleet: Arc<Fleet>,
        books: Arc<Accounting>,
        local: LocalResponder,
    ) -> Self {
        let Limits { max_request_body_size, client_body_timeout, .. } = &settings.limits;
        Self {
            authenticator: gatekeeper,
            head_limits: HeadLimits::new(&settings.limits),
            body_limits: BodyLimits::new(max_request_body_size.0, client_body_timeout.0),
            model_queues: lanes,
            retry_policy: RetryPolicy::new(settings),
            prefix_seed: RandomState::new(),
            cors: Cors::new(&settings.access.cors_origins),
            heartbeat: settings.queue.sse_heartbeat.duration(),
            fleet,
            forwarder: Forwarder::new(&settings.limits),
            accounting: books,
            local_responder: local,
            models_api: ModelsApi::new(),
            activity: Activity::new(),
            is_closed_to_clients: AtomicBool::new(false),
            health_check_path: settings.listen.health_check_path.clone(),
            is_health_port: settings.listen.port == settings.listen.port_health && settings.listen.port != 0,
        }
    }

    /// Refuses every request of a client from now on. Those that wait already, and jobs of a platform, are served.
    pub fn close_to_clients(&self) {
        self.is_closed_to_clients.store(true, Ordering::Relaxed);
    }

    /// Refuses every request from now on, those in the queue too, and waits until those in flight have ended.
    pub async fn drain(&self) {
        self.model_queues.drain().await;
    }

    /// Ends what is still in flight: a stream with an error as its last event, anything else by a cut.
    pub fn abort_in_flight(&self) {
        self.forwarder.abort_in_flight();
    }

    /// Waits until nobody has used a model for so long. The first load is not counted.
    pub async fn idle_for(&self, least: Duration) {
        self.fleet.initial_load().await;
        self.activity.idle_for(least).await;
    }

    /// Takes slots and places back from clients that do not read their answers, until `stop` is cancelled.
    pub async fn sweep(&self, stop: CancellationToken) {
        self.forwarder.sweeper.sweep(stop).await;
    }

    /// Answers one request on the gateway port, from a client at this address.
    pub async fn serve(self: &Arc<Self>, request: Request<Incoming>, client: IpAddr) -> Response<ResponseBody> {
        self.respond(request.map(Either::Left), RequestSource::Client(client), None).await
    }

    /// Answers one request that was taken from the queue of the platform with this name. Books name it in place of a
    /// key. `arriving` is dropped once the request counts in [`Gateway::room`], or will not.
    pub async fn serve_job(
        self: &Arc<Self>,
        request: Request<Bytes>,
        platform: &'static str,
        arriving: impl Send + 'static,
    ) -> Response<ResponseBody> {
        let request = request.map(|body| Either::Right(Full::new(body)));
        self.respond(request, RequestSource::Platform(platform), Some(Box::new(arriving))).await
    }

    /// How many more jobs would be served at once, beside so many in hand. Others may serve those that would wait here.
    pub fn job_capacity(&self, in_hand: usize) -> usize {
        self.model_queues.job_capacity(in_hand)
    }

    /// Waits until another request holds a slot or waits for one, or one no longer does, from the call on.
    pub fn changed(&self) -> impl Future<Output = ()> {
        self.model_queues.changed()
    }

    async fn respond(
        self: &Arc<Self>,
        request: Request<InboundBody>,
        source: RequestSource,
        arriving: Option<Box<dyn Send>>,
    ) -> Response<ResponseBody> {
        let request_id = headers::request_id(request.headers());
        let path = request.uri().path();
        let record =
            Record::open(Arc::clone(&self.accounting), request_id.clone(), request.method().clone(), path.to_owned());
        let shape = Shape::of(path);
        let origin = self.cors.origin(request.headers());
        let (parts, body) = request.into_parts();
        let unread = UnreadBody::of(&parts);
        let mut left = ResponseContext { meter: None, body: Some(body), arrival_guard: arriving };
        let mut response = match self.journey(parts, &request_id, source, record, &mut left).await {
            Ok(response) => response,
            Err((refusal, mut record)) => {
                record.status = Some(refusal.status());
                record.code = Some(refusal.code());
                retry::refusal_response(&refusal, shape, &mut record).map(|body| ResponseBody::local(body, record))
            }
        };
        drop(left.arrival_guard);
        let headers = response.headers_mut();
        headers.insert(X_REQUEST_ID, request_id);
        self.cors.insert_headers(origin.as_ref(), headers);
        if let Some(meter) = left.meter {
            meter.insert_headers(headers);
        }
        if let Some(body) = left.body {
            unread.discard_or_close(body, headers).await;
        }
        response
    }

    /// Answers a head on the gateway port that never became a request: the bytes of a whole response.
    pub fn refuse_head(&self, raw_head: &[u8], refusal: &Refusal) -> Bytes {
        malformed_request::refusal_bytes(raw_head, refusal, &self.cors, Some(&self.accounting))
    }

    /// The same on a health port of its own.
    pub fn refuse_health_head(&self, raw_head: &[u8], refusal: &Refusal) -> Bytes {
        malformed_request::refusal_bytes(raw_head, refusal, &self.cors, None)
    }

    /// The journey itself. A refusal brings the record back, so that it is closed with the answer; what is
    /// `left` is for the answer in any case.
    async fn journey(
        self: &Arc<Self>,
        parts: Parts,
        request_id: &HeaderValue,
        source: RequestSource,
        mut record: Record,
        left: &mut ResponseContext,
    ) -> Result<Response<ResponseBody>, (Refusal, Record)> {
        match self.prepare(parts, request_id, source, &mut record, left).await {
            Ok(Prepared::Answered(answer)) => {
                record.status = Some(answer.status());
                Ok(answer.map(|body| ResponseBody::local(body, record)))
            }
            Ok(Prepared::Queued(queued)) => self.serve_queued(queued, record).await,
            Err(refusal) => Err((refusal, record)),
        }
    }

    /// The stages before the wait. They fill in the record and leave it with the caller, which closes it.
    async fn prepare(
        &self,
        parts: Parts,
        request_id: &HeaderValue,
        source: RequestSource,
        record: &mut Record,
        left: &mut ResponseContext,
    ) -> Result<Prepared, Refusal> {
        // accept -> limits: nothing is read that is too large by its own account.
        body::check_head(&parts, &self.head_limits)?;
        body::check_content_length(&parts.headers, &self.body_limits)?;
        if parts.method == Method::OPTIONS && self.cors.is_enabled() {
            return Ok(Prepared::Answered(self.cors.preflight(&parts.headers)));
        }
        let route = self.find_route(&parts)?;
        record.route = Some(route.path);
        record.counted = !matches!(route.target, RouteTarget::Gateway(_));
        // who is calling -> may they: before a byte of the body is read.
        let mut caller = self.authenticator.authenticate(&parts.headers, route, source)?;
        record.set_key(caller.key_id());
        record.meter = caller.meter().cloned();
        left.meter = record.meter.clone();
        caller.check_scope(route)?;
        if !matches!(route.target, RouteTarget::Gateway(_)) {
            self.model_queues.models_known().await?;
        }
        let needs = match route.target {
            RouteTarget::Worker(needs) => needs,
            RouteTarget::Gateway(local) => return Ok(Prepared::Answered((self.local_responder)(local, &parts).await?)),
            RouteTarget::Models(question) => {
                return Ok(Prepared::Answered(self.answer_about_models(question, route, &parts, &caller)?));
            }
        };
        self.check_before_body(route, needs, source, &mut caller, record)?;
        let body = body::read_body(left.body.take(), route, &self.body_limits).await?;
        record.bytes_in = body.length();
        // which model -> wait in line.
        let envelope = Envelope::read(route.path, &parts.headers, &body).await?;
        let asked = requested_model(&envelope, &parts)?.map(Cow::into_owned);
        let asking = ProxiedRequest {
            route,
            required_kind: needs,
            parts,
            request_id: request_id.clone(),
            requested_model: asked,
            envelope,
            body,
        };
        let (attempts, place) = Retry::enqueue(self.retry_policy, &self.model_queues, &asking, &caller, record)?;
        left.arrival_guard = None;
        record.activity_guard = route.is_post.then(|| self.activity.begin());
        // MOCK_BACKEND: keys and limits have been tried, and there is nobody behind them.
        if !attempts.model_queue().model.has_worker() {
            return Err(Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN));
        }
        Ok(Prepared::Queued(Queued { asking, caller, attempts, place }))
    }

    /// Answers a route on models themselves, which costs the caller's key one request.
    fn answer_about_models(
        &self,
        question: ModelsRoute,
        route: &Route,
        parts: &Parts,
        caller: &Caller,
    ) -> Result<Response<Bytes>, Refusal> {
        rate::check(caller.meter())?;
        rate::charge(caller.meter())?;
        let name = envelope::percent_decode(route.id_in(parts.uri.path()).unwrap_or_default());
        self.models_api.respond(question, &String::from_utf8_lossy(&name), caller, &self.model_queues.current())
    }

    /// Refuses what can be refused before the body is read: then it costs neither side anything.
    fn check_before_body(
        &self,
        route: &'static Route,
        needs: Option<ModelKind>,
        source: RequestSource,
        caller: &mut Caller,
        record: &mut Record,
    ) -> Result<(), Refusal> {
        if !self.is_open_to(source) {
            return Err(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN));
        }
        if let Some(lane) = self.model_queues.snapshot().only() {
            return self.check_single_model(lane, route, needs, caller, record);
        }
        rate::check(caller.meter())?;
        caller.hold_permit(rate::enter(caller.meter(), || RETRY_AFTER_UNKNOWN)?);
        Ok(())
    }

    /// The checks before the body where there is a single model. Every request means that one, whatever its body says,
    /// so whether it can be served is known already.
    fn check_single_model(
        &self,
        lane: &Arc<ModelQueue>,
        route: &'static Route,
        needs: Option<ModelKind>,
        caller: &mut Caller,
        record: &mut Record,
    ) -> Result<(), Refusal> {
        record.set_model(lane.model.id());
        caller.check_model(&lane.model.info())?;
        rate::check(caller.meter())?;
        caller.hold_permit(rate::enter(caller.meter(), || lane.queue.retry_after())?);
        // Only asks: the attempts that count begin in `line_up`, for a reload may bring more models before that.
        Retry::new(self.retry_policy, route, needs, Arc::clone(&self.model_queues), Arc::clone(lane))
            .select_servable_model(caller)
    }

    /// Serves a request from its place in the queue on. A client that asked for a stream, and has to wait for it, is sent
    /// heartbeats until then (`SSE_HEARTBEAT`).
    async fn serve_queued(
        self: &Arc<Self>,
        queued: Queued,
        record: Record,
    ) -> Result<Response<ResponseBody>, (Refusal, Record)> {
        let Queued { asking, caller, attempts, place } = queued;
        let (route, model) = (asking.route, &attempts.model_queue().model);
        let waits = || place.is_waiting() || asking.fingerprint().is_some_and(|one| model.is_suspected(one));
        let asks_for_stream = route.may_stream && asking.envelope.stream() == Some(true);
        let heartbeat = self.heartbeat.filter(|_| asks_for_stream && waits());
        let rest = Arc::clone(self).queue_and_forward(asking, caller, attempts, place, record);
        match heartbeat {
            None => rest.await,
            Some(interval) => {
                heartbeat::respond_with_heartbeats(Box::pin(rest), interval, route.shape, &self.forwarder.sweeper).await
            }
        }
    }

    /// The second half of the journey: the client may be kept company while it waits.
    async fn queue_and_forward(
        self: Arc<Self>,
        mut asking: ProxiedRequest,
        mut caller: Caller,
        mut attempts: Retry,
        mut place: QueueEntry,
        mut record: Record,
    ) -> Result<Response<ResponseBody>, (Refusal, Record)> {
        loop {
            // which worker
            let lane = Arc::clone(attempts.model_queue());
            let affinity = asking.affinity(&lane.model, &self.prefix_seed, caller.key_id());
            let wish =
                LeaseRequest { class: asking.request_class(), affinity: &affinity, avoid: attempts.failed_workers() };
            let waits = lane.queue.ticket_and_lease(place, caller.queue_key(), &lane.model, &wish);
            let (ticket, lease) = match attempts.within_deadline(waits).await {
                Ok(tokens) => tokens,
                Err(refusal) => match attempts.next_after_refusal(&refusal, &caller) {
                    Some(next) => {
                        record.set_model(attempts.model_queue().model.id());
                        place = next;
                        continue;
                    }
                    None => return Err((refusal, record)),
                },
            };
            record.queued = Some(ticket.waited);
            // -> forward.
            let (name, body) = asking.adapt_to_worker(&lane.model, &lease, attempts.is_last_attempt());
            let parts = asking.head_to_send(attempts.is_last_attempt());
            let sent = OutgoingRequest {
                route: asking.route,
                parts,
                request_id: &asking.request_id,
                client_model_name: name.as_deref(),
            };
            let tried = self.forwarder.forward(sent, body, caller, ticket, lease, record, &mut attempts).await;
            let failed = match tried {
                // The answer streams back, and the record closes with it: `response/body.rs`.
                Ok(answer) => return Ok(answer),
                Err(failed) => *failed,
            };
            let ticket;
            (caller, ticket, record) = failed.tokens;
            attempts.record_failure(&mut record);
            match attempts.next_after_failure(failed.may_have_begun, ticket, &caller).await {
                Some(next) => {
                    record.set_model(attempts.model_queue().model.id());
                    place = next;
                }
                None => return Err((failed.refusal, record)),
            }
        }
    }

    fn is_open_to(&self, source: RequestSource) -> bool {
        matches!(source, RequestSource::Platform(_)) || !self.is_closed_to_clients.load(Ordering::Relaxed)
    }

    fn find_route(&self, parts: &Parts) -> Result<&'static Route, Refusal> {
        let (method, path) = (&parts.method, parts.uri.path());
        let on_gateway = || route::find(method, path);
        if !self.is_health_port {
            return on_gateway();
        }
        route::find_on_health_port(method, path, &self.health_check_path).or_else(|_| on_gateway())
    }

    /// Answers one request on a health port of its own.
    pub async fn serve_health(&self, request: Request<Incoming>, client: IpAddr) -> Response<ResponseBody> {
        let (parts, body) = request.into_parts();
        let request_id = headers::request_id(&parts.headers);
        let answer = self.respond_on_health_port(&parts, client).await;
        let answer = answer.unwrap_or_else(|refusal| refusal.response(Shape::OpenAi));
        let mut response = answer.map(ResponseBody::unrecorded);
        response.headers_mut().insert(X_REQUEST_ID, request_id);
        UnreadBody::of(&parts).discard_or_close(Either::Left(body), response.headers_mut()).await;
        self.cors.insert_headers(self.cors.origin(&parts.headers).as_ref(), response.headers_mut());
        response
    }

    async fn respond_on_health_port(&self, parts: &Parts, client: IpAddr) -> Result<Response<Bytes>, Refusal> {
        let route = route::find_on_health_port(&parts.method, parts.uri.path(), &self.health_check_path)?;
        if route.access == RouteAccess::Metrics {
            self.authenticator.authorize_metrics(&parts.headers, client)?;
        }
        match route.target {
            RouteTarget::Gateway(local) => (self.local_responder)(local, parts).await,
            RouteTarget::Worker(_) | RouteTarget::Models(_) => Err(Refusal::RouteNotFound),
        }
    }
}

/// What the journey leaves for the answer.
struct ResponseContext {
    /// Of a caller who is known.
    meter: Option<Meter>,
    /// Unless it was read.
    body: Option<InboundBody>,
    /// Of a job that is in no line yet.
    arrival_guard: Option<Box<dyn Send>>,
}
