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
use http::{Method, Request, Response};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use tokio_util::sync::CancellationToken;

use super::accounting::activity::Activity;
use super::accounting::record::Accounting;
use super::admission::auth::{Authenticator, Caller, RequestSource};
use super::admission::cors::Cors;
use super::cache::answer_cache::AnswerCache;
use super::client_address::{ClientAddress, ClientAddresses};
use super::connection::discard::{InboundBody, UnreadBody};
use super::connection::head::HeadLimits;
use super::headers::{self, X_REQUEST_ID};
use super::hub_api::{HubApi, ServedFileLookup};
use super::keys_api::KeysApi;
use super::live_api::LiveApi;
use super::malformed_request::{self, HandshakeHint};
use super::model_files::{ModelFiles, RemovalOrder};
use super::models_api::ModelsApi;
use super::page::Pages;
use super::queue::model_queues::ModelQueues;
use super::request::body::BodyLimits;
use super::response::body::ResponseBody;
use super::route_path::CanonicalPath;
use super::routes::lookup;
use super::routes::route::{LocalRoute, Route, RouteAccess, RouteTarget};
use super::routes::table::UI;
use super::translation::shared::TranslationLimits;
use super::upstream::forward::Forwarder;
use super::upstream::retry::RetryPolicy;
use super::usage_api::UsageApi;
use crate::download::DownloadRegistry;
use crate::fleet::{Fleet, KeySuspensions};
use crate::refusal::{Refusal, Shape};
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
    /// Finds the file of a served model.
    pub served_file: ServedFileLookup,
}

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
    pub(super) local_responder: LocalResponder,
    pub(super) models_api: ModelsApi,
    pub(super) model_files: ModelFiles,
    pub(super) hub_api: HubApi,
    pub(super) usage_api: UsageApi,
    pub(super) live_api: LiveApi,
    pub(super) keys_api: KeysApi,
    pub(super) pages: Pages,
    /// `OLLAMA_API`
    serves_ollama: bool,
    /// Whether `LIMITS_STORE` is set.
    pub(super) shares_limits: bool,
    /// `STRICT_PARAMETERS`
    pub(super) checks_parameters: bool,
    pub(super) activity: Arc<Activity>,
    /// Whether requests of clients are refused because the service stops. Jobs that were taken before are still served.
    is_closed_to_clients: AtomicBool,
    health_check_path: String,
    /// Whether the gateway port is the health port too.
    is_health_port: bool,
    handshake_hint: HandshakeHint,
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
        let keys_api = KeysApi::new(authenticator.keys_of_clients().cloned(), Arc::clone(&key_suspensions));
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
            keys_api,
            usage_api: UsageApi::new(accounting.ledger.clone()),
            pages: Pages::new(&settings.ui),
            cache: AnswerCache::new(&settings.cache, settings.cache_file(), &accounting.metrics),
            local_responder: app.local_responder,
            hub_api: HubApi::new(Arc::clone(&app.downloads), Arc::clone(&accounting.metrics), app.served_file),
            model_files: ModelFiles::new(app.downloads, app.remove_model),
            accounting,
            models_api: ModelsApi::new(settings.routing.list_aliases, translation_limits),
            serves_ollama: settings.routing.ollama_api,
            shares_limits: settings.access.limits_store.is_some(),
            checks_parameters: settings.limits.strict_parameters,
            activity: Activity::new(),
            is_closed_to_clients: AtomicBool::new(false),
            health_check_path: settings.listen.health_check_path.clone(),
            is_health_port: settings.has_shared_port(),
            handshake_hint: HandshakeHint::default(),
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

    /// Writes the answers that are to outlive the service, and waits for that, up to a bound. Blocks.
    pub fn close_cache(&self) {
        if let Some(cache) = &self.cache {
            cache.close();
        }
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
        self.handshake_hint.note(raw_head);
        let client = self.client_addresses.of_raw(raw_head, peer).address;
        malformed_request::refusal_bytes(raw_head, refusal, &self.cors, Some((&self.accounting, client)))
    }

    /// Returns the bytes of a whole response that refuses a malformed request head on a separate health port. Requests
    /// on that port are not recorded.
    pub fn refuse_health_head(&self, raw_head: &[u8], refusal: &Refusal) -> Bytes {
        self.handshake_hint.note(raw_head);
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
            _ if !is_check && self.pages.leads_from_root(parts, &path) => lookup::find(method, UI),
            true if is_ping => lookup::find_on_health_port(method, &self.health_check_path, &self.health_check_path),
            true if is_check => on_gateway(),
            true => lookup::find_on_health_port(method, &path, &self.health_check_path).or_else(|_| on_gateway()),
            false => on_gateway(),
        }?;
        if route.shape == Shape::Ollama && !self.serves_ollama {
            return Err(Refusal::RouteNotFound);
        }
        if let RouteTarget::Page(page) = route.target {
            // A page tells the path of a folder from that of a file.
            return if self.pages.has(page) { Ok((route, None)) } else { Err(Refusal::RouteNotFound) };
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

    /// Ends the streams of those who look at the service, because it stops.
    pub async fn end_live(&self) {
        self.live_api.end().await;
    }

    /// Answers one request on a separate health port.
    pub async fn serve_health(&self, request: Request<InboundBody>, peer: IpAddr) -> Response<ResponseBody> {
        let (parts, body) = request.into_parts();
        let client = self.client_addresses.of(&parts.headers, peer);
        let request_id = headers::request_id(&parts.headers, Timestamp::now());
        let response = self.respond_on_health_port(&parts, client).await;
        let response = response.unwrap_or_else(|refusal| refusal.response(Shape::OpenAi));
        let mut response = response.map(ResponseBody::unrecorded);
        response.headers_mut().insert(X_REQUEST_ID, request_id);
        UnreadBody::of(&parts).discard_or_close(body, response.headers_mut()).await;
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
            _ => Err(Refusal::RouteNotFound),
        }
    }
}

/// Returns the text that the path has at the place of `{id}`, decoded.
pub(super) fn id_in_path(route: &Route, parts: &Parts) -> String {
    let id = route.id_in(parts.uri.path()).unwrap_or_default();
    percent_decode_str(id).decode_utf8_lossy().into_owned()
}
