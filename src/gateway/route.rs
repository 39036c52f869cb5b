//! The route table: which routes exist, who may use them, and which API dialect they speak.
//!
//! A request for any other path gets a 404 and never reaches llama-server.

use http::Method;

use crate::keys::Scope;
use crate::models::ModelKind;
use crate::refusal::{Refusal, Shape};

/// A route that the gateway answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalRoute {
    /// `GET /ping` on the gateway port: whether the process is alive.
    Ping,
    /// `GET /ping` on the health port: whether a request would be served.
    Probe,
    /// `GET /health`
    Health,
    /// `GET /metrics`
    Metrics,
    /// `GET /livez`
    Livez,
    /// `GET /readyz`
    Readyz,
    /// `POST /reload`
    Reload,
    /// `GET /lb/stats`
    LbStats,
    /// `POST /keys/{id}/resume`
    ResumeKey,
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteAccess {
    /// Every client.
    Open,
    /// Clients with a key of this scope.
    Key(Scope),
    /// Every client, or with `METRICS_AUTH_ENABLED` clients with a key for metrics.
    Metrics,
}

/// What answers a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteTarget {
    /// The gateway, through its `LocalResponder`.
    Gateway(LocalRoute),
    /// The models API.
    Models(ModelsRoute),
    /// A worker of a model of this kind, or of any.
    Worker(Option<ModelKind>),
}

/// A route of the models API. The gateway answers all of them itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModelsRoute {
    /// `GET /v1/models`
    All,
    /// `GET /v1/models/{id}`
    One,
    /// `GET /v1/models/chat` and the like
    Of(ModelKind),
    /// `POST /v1/models/{id}/load`
    Load,
    /// `POST /v1/models/{id}/unload`
    Unload,
}

/// How an API dialect marks the end of a stream of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// `data: [DONE]`: OpenAI's completions.
    Done,
    /// `event: message_stop`: Anthropic's messages.
    MessageStop,
    /// `event: response.completed` and the other final events of OpenAI's responses.
    ResponseDone,
    /// No mark: the stream ends with its body.
    Unmarked,
}

/// The port on which a route is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RoutePort {
    Gateway,
    Health,
    Both,
}

/// One row of the route table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    /// The path, in which `{id}` stands for any text.
    pub(super) path: &'static str,
    /// The path of the route that means the same at any server with OpenAI's API.
    canonical: &'static str,
    port: RoutePort,
    /// Whether the method is POST. Any other request is read-only, and neither wakes a model nor keeps it awake.
    pub(super) is_post: bool,
    pub(super) access: RouteAccess,
    pub(super) target: RouteTarget,
    pub(super) shape: Shape,
    pub(super) stream_end: StreamEnd,
    /// Whether a request occupies one of llama-server's slots, and so waits in a queue for one.
    pub(super) needs_slot: bool,
    /// Whether the response may be a stream.
    pub(super) may_stream: bool,
    /// Whether a request may be sent again although a worker may already have processed it.
    pub(super) is_idempotent: bool,
}

const fn worker(path: &'static str, is_post: bool, kind: Option<ModelKind>, stream_end: StreamEnd) -> Route {
    let access = RouteAccess::Key(Scope::Inference);
    let (port, target, shape) = (RoutePort::Gateway, RouteTarget::Worker(kind), Shape::OpenAi);
    Route {
        path,
        canonical: path,
        port,
        is_post,
        access,
        target,
        shape,
        stream_end,
        needs_slot: is_post,
        may_stream: false,
        is_idempotent: !is_post,
    }
}

/// A route that takes text or sound and returns numbers or text.
const fn post(path: &'static str, kind: ModelKind) -> Route {
    worker(path, true, Some(kind), StreamEnd::Unmarked)
}

/// A route that returns the same numbers for the same input.
const fn score(path: &'static str, kind: ModelKind) -> Route {
    Route { is_idempotent: true, ..post(path, kind) }
}

/// A route that llama-server answers without a slot, even while all slots are busy.
const fn helper(path: &'static str) -> Route {
    Route { needs_slot: false, is_idempotent: true, ..worker(path, true, None, StreamEnd::Unmarked) }
}

/// A route of llama-server that other servers have by another path.
const fn twin(canonical: &'static str, route: Route) -> Route {
    Route { canonical, ..route }
}

const fn stream(path: &'static str, stream_end: StreamEnd) -> Route {
    Route { may_stream: true, ..worker(path, true, Some(ModelKind::Chat), stream_end) }
}

const fn get(path: &'static str) -> Route {
    worker(path, false, None, StreamEnd::Unmarked)
}

const fn models(path: &'static str, models_route: ModelsRoute) -> Route {
    Route { target: RouteTarget::Models(models_route), ..get(path) }
}

const fn models_command(path: &'static str, models_route: ModelsRoute) -> Route {
    Route { is_post: true, access: ADMIN, is_idempotent: false, ..models(path, models_route) }
}

const fn anthropic(path: &'static str) -> Route {
    Route { shape: Shape::Anthropic, ..stream(path, StreamEnd::MessageStop) }
}

const fn local(port: RoutePort, path: &'static str, local: LocalRoute, access: RouteAccess) -> Route {
    Route { port, access, target: RouteTarget::Gateway(local), ..get(path) }
}

const ADMIN: RouteAccess = RouteAccess::Key(Scope::Admin);
const PING: &str = "/ping";

const ROUTES: &[Route] = &[
    stream("/v1/chat/completions", StreamEnd::Done),
    twin("/v1/chat/completions", stream("/chat/completions", StreamEnd::Done)),
    stream("/v1/completions", StreamEnd::Done),
    stream("/v1/responses", StreamEnd::ResponseDone),
    twin("/v1/responses", stream("/responses", StreamEnd::ResponseDone)),
    anthropic("/v1/messages"),
    Route { needs_slot: false, may_stream: false, is_idempotent: true, ..anthropic("/v1/messages/count_tokens") },
    score("/v1/embeddings", ModelKind::Embedding),
    twin("/v1/embeddings", score("/embeddings", ModelKind::Embedding)),
    score("/embedding", ModelKind::Embedding),
    score("/v1/rerank", ModelKind::Rerank),
    twin("/v1/rerank", score("/v1/reranking", ModelKind::Rerank)),
    twin("/v1/rerank", score("/rerank", ModelKind::Rerank)),
    twin("/v1/rerank", score("/reranking", ModelKind::Rerank)),
    post("/v1/audio/transcriptions", ModelKind::Chat),
    stream("/completion", StreamEnd::Unmarked),
    twin("/v1/completions", stream("/completions", StreamEnd::Unmarked)),
    stream("/infill", StreamEnd::Unmarked),
    helper("/tokenize"),
    helper("/detokenize"),
    helper("/apply-template"),
    models("/v1/models", ModelsRoute::All),
    models("/models", ModelsRoute::All),
    models("/v1/models/chat", ModelsRoute::Of(ModelKind::Chat)),
    models("/v1/models/embeddings", ModelsRoute::Of(ModelKind::Embedding)),
    models("/v1/models/rerank", ModelsRoute::Of(ModelKind::Rerank)),
    models_command("/v1/models/{id}/load", ModelsRoute::Load),
    models_command("/v1/models/{id}/unload", ModelsRoute::Unload),
    models("/v1/models/{id}", ModelsRoute::One),
    get("/props"),
    Route { access: ADMIN, ..get("/slots") },
    local(RoutePort::Gateway, PING, LocalRoute::Ping, RouteAccess::Open),
    local(RoutePort::Health, PING, LocalRoute::Probe, RouteAccess::Open),
    local(RoutePort::Health, "/livez", LocalRoute::Livez, RouteAccess::Open),
    local(RoutePort::Health, "/readyz", LocalRoute::Readyz, RouteAccess::Open),
    local(RoutePort::Both, "/health", LocalRoute::Health, RouteAccess::Open),
    local(RoutePort::Both, "/metrics", LocalRoute::Metrics, RouteAccess::Metrics),
    Route { is_post: true, ..local(RoutePort::Gateway, "/reload", LocalRoute::Reload, ADMIN) },
    Route { is_post: true, ..local(RoutePort::Gateway, "/keys/{id}/resume", LocalRoute::ResumeKey, ADMIN) },
    local(RoutePort::Gateway, "/lb/stats", LocalRoute::LbStats, ADMIN),
];

/// The part of a route's path that stands for any text.
const ID_PLACEHOLDER: &str = "{id}";

impl Route {
    /// Returns the route by which a remote backend is asked.
    pub(super) fn at_remote(&'static self) -> &'static Self {
        let is_canonical = |route: &&Self| route.path == self.canonical && route.is_post == self.is_post;
        ROUTES.iter().find(is_canonical).unwrap_or(self)
    }

    /// Returns the percent-encoded text in this path at the place of `{id}`, or an empty text if the route has no
    /// `{id}`. Returns `None` if the path does not match the route.
    pub(super) fn id_in<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.path.split_once(ID_PLACEHOLDER) {
            None => (self.path == path).then_some(""),
            Some((before, after)) => {
                let id = path.strip_prefix(before)?.strip_suffix(after)?;
                (!id.is_empty()).then_some(id)
            }
        }
    }
}

fn find_row(port: RoutePort, method: &Method, path: &str) -> Option<&'static Route> {
    let matches_request = |route: &&Route| {
        let method_fits =
            if route.is_post { method == Method::POST } else { method == Method::GET || method == Method::HEAD };
        method_fits && route.id_in(path).is_some() && (route.port == port || route.port == RoutePort::Both)
    };
    ROUTES.iter().find(matches_request)
}

/// Finds the route of a request on the gateway port, by its method and its path without the query.
///
/// # Errors
/// [`Refusal::RouteNotFound`] if there is none.
pub(super) fn find(method: &Method, path: &str) -> Result<&'static Route, Refusal> {
    find_row(RoutePort::Gateway, method, path).ok_or(Refusal::RouteNotFound)
}

/// Finds the route of a request on the health port. `extra_ping` is one more path that is answered like `/ping`
/// (`HEALTH_CHECK_PATH`), even if it is the path of another route of this port.
///
/// # Errors
/// [`Refusal::RouteNotFound`] if there is none.
pub(super) fn find_on_health_port(method: &Method, path: &str, extra_ping: &str) -> Result<&'static Route, Refusal> {
    let path = if path == extra_ping { PING } else { path };
    find_row(RoutePort::Health, method, path).ok_or(Refusal::RouteNotFound)
}

/// Returns the paths of all routes except the health checks. `HEALTH_CHECK_PATH` must not be one of them, because it
/// would hide that route where one listener serves both ports.
pub fn reserved_paths() -> Vec<&'static str> {
    let is_health = |target: &RouteTarget| match target {
        RouteTarget::Gateway(
            LocalRoute::Ping | LocalRoute::Probe | LocalRoute::Health | LocalRoute::Livez | LocalRoute::Readyz,
        ) => true,
        RouteTarget::Gateway(
            LocalRoute::Metrics | LocalRoute::Reload | LocalRoute::LbStats | LocalRoute::ResumeKey,
        )
        | RouteTarget::Models(_)
        | RouteTarget::Worker(_) => false,
    };
    ROUTES.iter().filter(|route| !is_health(&route.target)).map(|route| route.path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Platform;
    use crate::settings::{Environment, Inputs, resolve};
    use std::path::Path;

    #[test]
    fn any_text_in_a_path_can_be_an_id() {
        let id = |method, path: &'static str| find(&method, path).map(|route| (route.path, route.id_in(path).unwrap()));
        assert_eq!(id(Method::GET, "/v1/models/a/b:c"), Ok(("/v1/models/{id}", "a/b:c")));
        assert_eq!(id(Method::GET, "/v1/models/chat"), Ok(("/v1/models/chat", "")));
        assert_eq!(id(Method::POST, "/v1/models/a/b/load"), Ok(("/v1/models/{id}/load", "a/b")));
        assert_eq!(id(Method::POST, "/v1/models/a/unload"), Ok(("/v1/models/{id}/unload", "a")));
        for path in ["/v1/models/", "/v1/models//load"] {
            assert_eq!(find(&Method::POST, path).err(), Some(Refusal::RouteNotFound), "{path}");
        }
    }

    #[test]
    fn a_remote_backend_is_asked_by_the_path_that_every_server_knows() {
        for (path, canonical) in [
            ("/chat/completions", "/v1/chat/completions"),
            ("/completions", "/v1/completions"),
            ("/embeddings", "/v1/embeddings"),
            ("/responses", "/v1/responses"),
            ("/rerank", "/v1/rerank"),
            ("/reranking", "/v1/rerank"),
            ("/v1/reranking", "/v1/rerank"),
            ("/v1/chat/completions", "/v1/chat/completions"),
            ("/completion", "/completion"),
            ("/tokenize", "/tokenize"),
        ] {
            let route = find(&Method::POST, path).unwrap();
            assert_eq!(route.at_remote().path, canonical);
            assert_eq!((route.at_remote().target, route.at_remote().shape), (route.target, route.shape), "{path}");
        }
        assert_eq!(find(&Method::POST, "/completions").unwrap().at_remote().stream_end, StreamEnd::Done);
    }

    #[test]
    fn a_path_that_could_change_or_control_llama_server_is_not_a_route() {
        for (method, path) in [
            ("POST", "/props"),
            ("POST", "/slots/0"),
            ("POST", "/slots"),
            ("POST", "/lora-adapters"),
            ("GET", "/tools"),
            ("POST", "/tools"),
            ("GET", "/cors-proxy"),
            ("GET", "/v1/stream"),
            ("POST", "/v1/streams/lookup"),
            ("POST", "/models/load"),
            ("GET", "/"),
            ("GET", "/v1/chat/completions"),
            ("DELETE", "/v1/models"),
            ("POST", "/v1/chat/completions/"),
            ("POST", "//v1/chat/completions"),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(find(&method, path).unwrap_err(), Refusal::RouteNotFound, "{method} {path}");
        }
    }

    #[test]
    fn each_path_and_method_has_one_row_per_port() {
        for (n, one) in ROUTES.iter().enumerate() {
            for other in &ROUTES[n + 1..] {
                let ports_differ =
                    one.port != other.port && one.port != RoutePort::Both && other.port != RoutePort::Both;
                assert!(one.path != other.path || one.is_post != other.is_post || ports_differ, "{}", one.path);
            }
        }
    }

    #[test]
    fn each_port_has_its_own_ping_and_the_health_port_nothing_of_llama_server() {
        let on_gateway = |path| find(&Method::GET, path).map(|route| route.target);
        let on_health = |path| find_on_health_port(&Method::GET, path, "/extra").map(|route| route.target);
        assert_eq!(on_gateway("/ping"), Ok(RouteTarget::Gateway(LocalRoute::Ping)));
        for path in ["/ping", "/extra"] {
            assert_eq!(on_health(path), Ok(RouteTarget::Gateway(LocalRoute::Probe)));
        }
        for (path, local) in [("/livez", LocalRoute::Livez), ("/readyz", LocalRoute::Readyz)] {
            assert_eq!(on_health(path), Ok(RouteTarget::Gateway(local)));
            assert_eq!(on_gateway(path), Err(Refusal::RouteNotFound));
        }
        for (path, local) in [("/health", LocalRoute::Health), ("/metrics", LocalRoute::Metrics)] {
            assert_eq!(
                (on_health(path), on_gateway(path)),
                (Ok(RouteTarget::Gateway(local)), Ok(RouteTarget::Gateway(local)))
            );
        }
        assert_eq!((on_health("/props"), on_gateway("/extra")), (on_health("/nowhere"), on_gateway("/nowhere")));
        assert_eq!(find_on_health_port(&Method::POST, "/reload", "/extra").err(), Some(Refusal::RouteNotFound));
        assert_eq!(find_on_health_port(&Method::POST, "/extra", "/extra").err(), Some(Refusal::RouteNotFound));
    }

    /// Regression: with `HEALTH_CHECK_PATH=/health` the health check returned 503 while a model was loading, and
    /// platforms took the worker for broken.
    #[test]
    fn the_path_of_the_health_check_may_be_that_of_another_health_answer() {
        for path in ["/ping", "/health", "/livez", "/readyz"] {
            let found = |method| find_on_health_port(&method, path, path).map(|route| route.target);
            assert_eq!(found(Method::GET), Ok(RouteTarget::Gateway(LocalRoute::Probe)), "{path}");
            assert_eq!(found(Method::HEAD), Ok(RouteTarget::Gateway(LocalRoute::Probe)), "{path}");
        }
        let health = find_on_health_port(&Method::GET, "/health", "/readyz").map(|route| route.target);
        assert_eq!(health, Ok(RouteTarget::Gateway(LocalRoute::Health)), "all other routes stay as they are");
    }

    #[test]
    fn the_path_of_the_health_check_is_a_mistake_where_it_is_that_of_any_other_route() {
        let problems = |path: &str| {
            let environment = Environment::from([("HEALTH_CHECK_PATH", path)]);
            let inputs = Inputs { environment, reserved_paths: reserved_paths(), ..Inputs::default() };
            let resolved = resolve(&inputs, &Platform::plain(Path::new("/nowhere")));
            resolved.err().into_iter().flatten().map(|problem| problem.to_string()).collect::<Vec<_>>()
        };
        for route in ROUTES {
            let found = problems(&route.path.replace(ID_PLACEHOLDER, "m"));
            match route.target {
                RouteTarget::Gateway(
                    LocalRoute::Ping | LocalRoute::Probe | LocalRoute::Health | LocalRoute::Livez | LocalRoute::Readyz,
                ) => {
                    assert_eq!(found, [""; 0], "{}", route.path);
                }
                _ => assert_eq!(found.len(), 1, "{}", route.path),
            }
        }
        assert_eq!(problems("/healthz"), [""; 0]);
    }
}
