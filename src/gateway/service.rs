//! The gateway as a part of the service: what it is made of, its start, drain and end, and its health port.
//!
//! Owns what every request uses and what is no stage of a request. The stages themselves are in `pipeline.rs`.

use std::future::Future;
use std::hash::RandomState;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::accounting::activity::Activity;
use super::accounting::record::{Accounting, Record};
use super::admission::auth::{Authenticator, Caller, RequestSource};
use super::admission::budget::reservation::CallerBudgets;
use super::admission::cors::Cors;
use super::admission::rate::{self, Meter};
use super::cache::answer_cache::{AnswerCache, CacheMark, FlightLead};
use super::client_address::{ClientAddress, ClientAddresses};
use super::connection::discard::{InboundBody, UnreadBody};
use super::connection::head::HeadLimits;
use super::headers::{self, REQUEST_ID, X_REQUEST_ID};
use super::live_api::LiveApi;
use super::malformed_request;
use super::model_files::{self, FilesRequest, ModelFiles, RemovalOrder};
use super::models_api::ModelsApi;
use super::queue::model_queues::ModelQueues;
use super::request::body::{self, BodyLimits};
use super::request::envelope::{self, Envelope};
use super::response::body::ResponseBody;
use super::response::local_answer::LocalAnswer;
use super::route_path::CanonicalPath;
use super::routes::lookup;
use super::routes::route::{
    FilesRoute, LiveRoute, LocalRoute, ModelsRoute, OllamaModels, Route, RouteAccess, RouteTarget, UsageRoute,
};
use super::translation::shared::{self, TranslationLimits};
use super::upstream::forward::Forwarder;
use super::upstream::retry::RetryPolicy;
use super::usage_api::UsageApi;
use crate::dialect::ollama;
use crate::download::DownloadRegistry;
use crate::fleet::{Fleet, KeySuspensions};
use crate::refusal::{ANTHROPIC_VERSION, Refusal, Shape};
use crate::settings::options::{Limits, Settings};

/// Answers the routes that are not served by a worker, such as `/health`. Its second argument is the text that the path
/// has at the place of `{id}`. The application supplies it.
pub type LocalResponder = Box<
    dyn Fn(LocalRoute, &str, &Parts) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, Refusal>> + Send>>
        + Send
        + Sync,
>;

/// What the application does for requests.
pub struct AppServices {
    /// Answers the operator's routes.
    pub local_responder: LocalResponder,
    /// The downloads.
    pub downloads: Arc<DownloadRegistry>,
    /// Removes a model from the disk.
    pub remove_model: RemovalOrder,
}

/// [`ANTHROPIC_VERSION`], which need not be parsed for each request.
static VERSION_HEADER: HeaderName = HeaderName::from_static(ANTHROPIC_VERSION);

/// How many tokens are left of the caller's budgets.
const X_BUDGET_REMAINING_TOKENS: HeaderName = HeaderName::from_static("x-budget-remaining-tokens");

/// Everything that the stages of a request use.
pub struct Gateway {
    pub(super) client_addresses: ClientAddresses,
    pub(super) authenticator: Authenticator,
    pub(super) cors: Cors,
    pub(super) head_limits: HeadLimits,
    pub(super) body_limits: BodyLimits,
    pub(super) translation_limits: TranslationLimits,
    pub(super) model_queues: Arc<ModelQueues>,
    pub(super) retry_policy: RetryPolicy,
    /// Random for each process, so that no client can construct two prompts with the same hash.
    pub(super) prefix_seed: RandomState,
    /// `SSE_HEARTBEAT`: the time between two comments, if they are enabled.
    pub(super) heartbeat: Option<Duration>,
    fleet: Arc<Fleet>,
    key_suspensions: Arc<KeySuspensions>,
    pub(super) forwarder: Forwarder,
    pub(super) accounting: Arc<Accounting>,
    /// `None` with `CACHE=off`.
    pub(super) cache: Option<AnswerCache>,
    local_responder: LocalResponder,
    models_api: ModelsApi,
    model_files: ModelFiles,
    usage_api: UsageApi,
    live_api: LiveApi,
    /// `OLLAMA_API`
    serves_ollama: bool,
    /// `STRICT_PARAMETERS`
    pub(super) checks_parameters: bool,
    pub(super) activity: Arc<Activity>,
    /// Whether requests of clients are refused because the service stops. Jobs that were taken before are still served.
    is_closed_to_clients: AtomicBool,
    health_check_path: String,
    /// Whether the gateway port is the health port too.
    is_health_port: bool,
}

impl Gateway {
    /// Builds the gateway from the settings and the parts that the application has made.
    pub fn new(
        settings: &Settings,
        authenticator: Authenticator,
        model_queues: Arc<ModelQueues>,
        fleet: Arc<Fleet>,
        key_suspensions: Arc<KeySuspensions>,
        accounting: Arc<Accounting>,
        app: AppServices,
    ) -> Self {
        let Limits { max_request_body_size, client_body_timeout, max_rerank_documents, .. } = &settings.limits;
        let translation_limits = TranslationLimits { max_rerank_documents: max_rerank_documents.get() };
        Self {
            client_addresses: ClientAddresses::new(settings.access.trusted_proxies.clone()),
            authenticator,
            head_limits: HeadLimits::new(&settings.limits),
            body_limits: BodyLimits::new(max_request_body_size.0, client_body_timeout.0),
            translation_limits,
            live_api: LiveApi::new(
                Arc::clone(&fleet),
                Arc::clone(&model_queues),
                Arc::clone(&app.downloads),
                Arc::clone(&accounting),
            ),
            model_queues,
            retry_policy: RetryPolicy::new(settings),
            prefix_seed: RandomState::new(),
            cors: Cors::new(&settings.access.cors_origins),
            heartbeat: settings.queue.sse_heartbeat.duration(),
            fleet,
            key_suspensions,
            forwarder: Forwarder::new(&settings.limits),
            usage_api: UsageApi::new(accounting.ledger.clone()),
            cache: AnswerCache::new(&settings.cache, &accounting.metrics),
            accounting,
            local_responder: app.local_responder,
            model_files: ModelFiles::new(app.downloads, app.remove_model),
            models_api: ModelsApi::new(settings.routing.list_aliases, translation_limits),
            serves_ollama: settings.routing.ollama_api,
            checks_parameters: settings.limits.strict_parameters,
            activity: Activity::new(),
            is_closed_to_clients: AtomicBool::new(false),
            health_check_path: settings.listen.health_check_path.clone(),
            is_health_port: settings.listen.port == settings.listen.port_health && settings.listen.port != 0,
        }
    }

    /// Refuses every new request of a client from now on. Requests that already wait, and jobs of a platform, are
    /// served.
    pub fn close_to_clients(&self) {
        self.is_closed_to_clients.store(true, Ordering::Relaxed);
    }

    /// Returns whether requests from this source are still accepted.
    pub(super) fn is_open_to(&self, source: RequestSource) -> bool {
        matches!(source, RequestSource::Platform(_)) || !self.is_closed_to_clients.load(Ordering::Relaxed)
    }

    /// Refuses every request from now on, including those in the queues, and waits until those in flight have ended.
    pub async fn drain(&self) {
        self.model_queues.drain().await;
    }

    /// Ends all responses that are still in flight: a stream with an error as its last event, any other by closing it.
    pub fn abort_in_flight(&self) {
        self.forwarder.abort_in_flight();
    }

    /// Waits until no model has been used for `idle_time`. The first load does not count as idle time.
    pub async fn idle_for(&self, idle_time: Duration) {
        self.fleet.initial_load().await;
        self.activity.idle_for(idle_time).await;
    }

    /// Frees the slots and queue entries of clients that do not read their responses, until `stop` is cancelled. Then closes
    /// the idle connections to workers.
    pub async fn sweep(&self, stop: CancellationToken) {
        self.forwarder.sweeper.sweep(stop).await;
        self.forwarder.close_connections().await;
    }

    /// Returns how many more jobs would be served at once when `in_hand` jobs are already taken. Another instance may
    /// serve the jobs that would have to wait here.
    pub fn job_capacity(&self, in_hand: usize) -> usize {
        self.model_queues.job_capacity(in_hand)
    }

    /// Waits for the next change, counted from the call, of the requests that hold a slot or wait for one.
    pub fn changed(&self) -> impl Future<Output = ()> {
        self.model_queues.changed()
    }

    /// Returns the bytes of a whole response that refuses a malformed request head of this peer on the gateway port.
    pub fn refuse_head(&self, raw_head: &[u8], refusal: &Refusal, peer: IpAddr) -> Bytes {
        let client = self.client_addresses.of_raw(raw_head, peer).address;
        malformed_request::refusal_bytes(raw_head, refusal, &self.cors, Some((&self.accounting, client)))
    }

    /// Returns the bytes of a whole response that refuses a malformed request head on a separate health port. Requests
    /// on that port are not recorded.
    pub fn refuse_health_head(&self, raw_head: &[u8], refusal: &Refusal) -> Bytes {
        malformed_request::refusal_bytes(raw_head, refusal, &self.cors, None)
    }

    /// Finds the route of a request on the gateway port, and replaces the request's path with its canonical form.
    /// Returns also the model that the path names, if it is one of Azure's API.
    ///
    /// # Errors
    /// [`Refusal::RouteNotFound`] if there is none with this method and path, [`Refusal::UpgradeRequired`] for a
    /// WebSocket handshake on a path of the API.
    pub(super) fn find_route(&self, parts: &mut Parts) -> Result<(&'static Route, Option<String>), Refusal> {
        let is_check = self.is_health_port && parts.uri.path() == self.health_check_path;
        let is_ping = is_check && parts.method != Method::POST;
        let CanonicalPath { path, deployment } = CanonicalPath::of(parts.uri.path());
        if headers::is_websocket_handshake(parts) && lookup::is_api_path(&path) {
            return Err(Refusal::UpgradeRequired);
        }
        let method = &parts.method;
        let on_gateway = || lookup::find(method, &path);
        let route = match self.is_health_port {
            true if is_ping => lookup::find_on_health_port(method, &self.health_check_path, &self.health_check_path),
            true if is_check => on_gateway(),
            true => lookup::find_on_health_port(method, &path, &self.health_check_path).or_else(|_| on_gateway()),
            false => on_gateway(),
        }?;
        if route.shape == Shape::Ollama && !self.serves_ollama {
            return Err(Refusal::RouteNotFound);
        }
        if path != parts.uri.path() {
            let target = match parts.uri.query() {
                Some(query) => format!("{path}?{query}"),
                None => path.into_owned(),
            };
            parts.uri = target.parse().map_err(|_| Refusal::RouteNotFound)?;
        }
        Ok((route, deployment))
    }

    /// Refuses a caller whose key is suspended because workers crashed while only its requests were in flight.
    ///
    /// # Errors
    /// [`Refusal::KeySuspended`] with the time that is left.
    pub(super) fn check_suspension(&self, caller: &Caller) -> Result<(), Refusal> {
        let left = caller.shared_key_id().and_then(|key| self.key_suspensions.suspended_for(key));
        left.map_or(Ok(()), |left| Err(Refusal::KeySuspended(left)))
    }

    /// Answers a route that is not served by a worker.
    ///
    /// # Errors
    /// The refusal of the responder that the application supplied.
    pub(super) async fn respond_locally(
        &self,
        local: LocalRoute,
        route: &Route,
        parts: &Parts,
    ) -> Result<Response<Bytes>, Refusal> {
        (self.local_responder)(local, &id_in_path(route, parts), parts).await
    }

    /// Answers a route about usage, which counts as one request of the caller's key.
    ///
    /// # Errors
    /// A refusal if the rate limit of the key is reached, a parameter is wrong, or usage cannot be read.
    pub(super) async fn respond_about_usage(
        &self,
        usage_route: UsageRoute,
        parts: &Parts,
        caller: &Caller,
    ) -> Result<Response<Bytes>, Refusal> {
        rate::check(caller.meter())?;
        rate::charge(caller.meter())?;
        self.usage_api.respond(usage_route, parts, caller).await
    }

    /// Answers a route with which people look at the service, which counts as one request of the caller's key.
    ///
    /// # Errors
    /// A refusal if the rate limit of the key is reached, or as [`LiveApi::respond`].
    pub(super) async fn respond_about_now(
        &self,
        live_route: LiveRoute,
        route: &Route,
        parts: &Parts,
        caller: &Caller,
    ) -> Result<LocalAnswer, Refusal> {
        rate::check(caller.meter())?;
        rate::charge(caller.meter())?;
        self.live_api.respond(live_route, &id_in_path(route, parts), parts, caller).await
    }

    /// Ends the streams of those who look at the service, because it stops.
    pub async fn end_live(&self) {
        self.live_api.end().await;
    }

    /// Answers a route of the models API, which counts as one request of the caller's key. Lists show models that have
    /// come into the models folder since the last scan.
    ///
    /// # Errors
    /// A refusal if the rate limit of the key is reached, if the caller may not use the model, or if the body that
    /// should name it does not.
    pub(super) async fn respond_about_models(
        &self,
        models_route: ModelsRoute,
        route: &Route,
        parts: &Parts,
        body: &mut Option<InboundBody>,
        caller: &Caller,
        record: &mut Record,
    ) -> Result<Response<Bytes>, Refusal> {
        rate::check(caller.meter())?;
        rate::charge(caller.meter())?;
        let name = match models_route {
            ModelsRoute::LoadNamed | ModelsRoute::UnloadNamed => {
                let codings = body::content_codings(&parts.headers)?;
                let body = body::read_body(body.take(), route, &codings, &self.body_limits).await?;
                Envelope::read(route.path, &parts.headers, &body).await?.required_model()?
            }
            ModelsRoute::Ollama(OllamaModels::Show) => {
                let codings = body::content_codings(&parts.headers)?;
                let body = body::read_body(body.take(), route, &codings, &self.body_limits).await?;
                let name = ollama::read_shown(&body.to_bytes()).map_err(shared::refusal_of)?;
                self.model_queues.current().without_default_tag(&name).to_owned()
            }
            _ => id_in_path(route, parts),
        };
        record.set_act_target(&name);
        let may_be_new = match models_route {
            ModelsRoute::All | ModelsRoute::Of(_) | ModelsRoute::Ollama(OllamaModels::Tags) => true,
            // It needs no key, so it orders no scan.
            ModelsRoute::TeiInfo => false,
            // Nothing that has just come is loaded.
            ModelsRoute::Ollama(OllamaModels::Version | OllamaModels::Loaded | OllamaModels::Change) => {
                let table = self.model_queues.current();
                return self.models_api.respond(models_route, &name, "", caller, &table);
            }
            // A file of this name comes before a pattern.
            _ => self.model_queues.current().find(&name).is_none(),
        };
        if may_be_new {
            self.model_queues.scan_for(None).await;
        }
        let query = parts.uri.query().unwrap_or_default();
        self.models_api.respond(models_route, &name, query, caller, &self.model_queues.current())
    }

    /// Answers a route about model files, which counts as one request of the caller's key.
    ///
    /// # Errors
    /// A refusal if the rate limit of the key is reached, the service stops, or the request cannot be carried out.
    pub(super) async fn respond_about_files(
        &self,
        route_of_files: FilesRoute,
        route: &Route,
        parts: &Parts,
        body: &mut Option<InboundBody>,
        caller: &Caller,
        record: &mut Record,
    ) -> Result<LocalAnswer, Refusal> {
        rate::check(caller.meter())?;
        rate::charge(caller.meter())?;
        if matches!(route_of_files, FilesRoute::Remove | FilesRoute::OllamaDelete) {
            // Which of them are in use is not known before.
            self.model_queues.models_known().await?;
        }
        let read = match route_of_files.has_body() {
            true => {
                let codings = body::content_codings(&parts.headers)?;
                body::read_body(body.take(), route, &codings, &self.body_limits).await?.to_bytes()
            }
            false => Bytes::new(),
        };
        let id = id_in_path(route, parts);
        let models = self.model_queues.snapshot();
        record.set_act_target(model_files::named_in(&read).as_deref().unwrap_or(&id));
        let (id, headers) = (id.as_str(), &parts.headers);
        let request = FilesRequest { route: route_of_files, id, headers, body: &read, caller, models: &models };
        self.model_files.respond(request).await
    }

    /// Answers one request on a separate health port.
    pub async fn serve_health(&self, request: Request<Incoming>, peer: IpAddr) -> Response<ResponseBody> {
        let (parts, body) = request.into_parts();
        let client = self.client_addresses.of(&parts.headers, peer);
        let request_id = headers::request_id(&parts.headers, Timestamp::now());
        let response = self.respond_on_health_port(&parts, client).await;
        let response = response.unwrap_or_else(|refusal| refusal.response(Shape::OpenAi));
        let mut response = response.map(ResponseBody::unrecorded);
        response.headers_mut().insert(X_REQUEST_ID, request_id);
        UnreadBody::of(&parts).discard_or_close(Either::Left(body), response.headers_mut()).await;
        self.cors.insert_headers(self.cors.origin(&parts.headers).as_ref(), response.headers_mut());
        response
    }

    async fn respond_on_health_port(&self, parts: &Parts, client: ClientAddress) -> Result<Response<Bytes>, Refusal> {
        let is_ping = parts.uri.path() == self.health_check_path;
        let CanonicalPath { path, .. } = CanonicalPath::of(parts.uri.path());
        let path = if is_ping { self.health_check_path.as_str() } else { &path };
        let route = lookup::find_on_health_port(&parts.method, path, &self.health_check_path)?;
        if route.access == RouteAccess::Metrics {
            self.authenticator.authorize_metrics(&parts.headers, client)?;
        }
        match route.target {
            RouteTarget::Gateway(local) => self.respond_locally(local, route, parts).await,
            RouteTarget::Worker(_)
            | RouteTarget::Models(_)
            | RouteTarget::Files(_)
            | RouteTarget::Usage(_)
            | RouteTarget::Live(_) => Err(Refusal::RouteNotFound),
        }
    }
}

/// Returns the text that the path has at the place of `{id}`, decoded.
pub(super) fn id_in_path(route: &Route, parts: &Parts) -> String {
    let id = envelope::percent_decode(route.id_in(parts.uri.path()).unwrap_or_default());
    String::from_utf8_lossy(&id).into_owned()
}

/// What completes the response to a request, whichever stage produces it.
pub(super) struct ResponseContext {
    pub(super) request_id: HeaderValue,
    pub(super) shape: Shape,
    origin: Option<HeaderValue>,
    unread: UnreadBody,
    /// The request's body, until a stage reads it.
    pub(super) body: Option<InboundBody>,
    /// The caller's meter, once the caller is known.
    pub(super) meter: Option<Meter>,
    /// The caller's budgets, if they limit tokens.
    pub(super) budgets: Option<CallerBudgets>,
    /// Held for a job until its request is counted in a queue.
    pub(super) arrival_guard: Option<Box<dyn Send>>,
    /// The lead of the flight whose answer other requests may share, until its work begins.
    pub(super) lead: Option<FlightLead>,
    /// What the cache had for the request.
    pub(super) cache_mark: Option<CacheMark>,
}

impl ResponseContext {
    /// Remembers from a request what its response will need.
    pub(super) fn new(
        parts: &Parts,
        body: InboundBody,
        cors: &Cors,
        arrived: Timestamp,
        arrival_guard: Option<Box<dyn Send>>,
    ) -> Self {
        Self {
            request_id: headers::request_id(&parts.headers, arrived),
            shape: Shape::of(parts.uri.path(), parts.headers.contains_key(&VERSION_HEADER)),
            origin: cors.origin(&parts.headers),
            unread: UnreadBody::of(parts),
            body: Some(body),
            meter: None,
            budgets: None,
            arrival_guard,
            lead: None,
            cache_mark: None,
        }
    }

    /// Adds the headers that every response has, and deals with a request body that no stage has read.
    pub(super) async fn complete(self, mut response: Response<ResponseBody>, cors: &Cors) -> Response<ResponseBody> {
        drop((self.arrival_guard, self.lead));
        let headers = response.headers_mut();
        if self.shape == Shape::Anthropic {
            headers.insert(REQUEST_ID, self.request_id.clone());
        }
        headers.insert(X_REQUEST_ID, self.request_id);
        headers::prepare_stream(headers);
        cors.insert_headers(self.origin.as_ref(), headers);
        if let Some(mark) = self.cache_mark {
            mark.insert_headers(headers);
        }
        if let Some(meter) = self.meter {
            meter.insert_headers(headers);
        }
        if let Some(left) = self.budgets.and_then(|budgets| budgets.tokens_left(Timestamp::now())) {
            headers.insert(X_BUDGET_REMAINING_TOKENS, headers::number_value(left));
        }
        if let Some(body) = self.body {
            Box::pin(self.unread.discard_or_close(body, headers)).await;
        }
        response
    }
}
