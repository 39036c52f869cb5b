//! The route table: what there is, who may use it, and in which language it speaks.
//!
//! A path that is not here is answered with 404 and never reaches llama-server.

use crate::keys::Scope;
use crate::models::ModelKind;
use crate::refusal::{Refusal, Shape};
use http::Method;

/// What the gateway answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalRoute {
    /// `GET /ping` on the gateway port: whether the process lives.
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
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteAccess {
    /// Anybody.
    Open,
    /// Whoever has a key with this scope.
    Key(Scope),
    /// Anybody, unless `METRICS_AUTH_ENABLED`.
    Metrics,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteTarget {
    /// Whoever the gateway was told to ask.
    Gateway(LocalRoute),
    /// The list of models.
    Models(ModelsRoute),
    /// A worker of a model of this kind, or of any.
    Worker(Option<ModelKind>),
}

/// What a route on models does. The gateway answers all of them itself.
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

/// How a dialect marks the end of a stream of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// `data: [DONE]`: OpenAI's completions.
    Done,
    /// `event: message_stop`: Anthropic's messages.
    MessageStop,
    /// `event: response.completed` and the other final events of OpenAI's responses.
    ResponseDone,
    /// No mark: the end of the body is the end.
    Unmarked,
}

/// On which port there is an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RoutePort {
    Gateway,
    Health,
    Both,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    /// In which `{id}` stands for any text.
    pub(super) path: &'static str,
    port: RoutePort,
    /// Whether its method is POST. What is only read neither wakes a model nor keeps it awake.
    pub(super) is_post: bool,
    pub(super) access: RouteAccess,
    pub(super) target: RouteTarget,
    pub(super) shape: Shape,
    pub(super) stream_end: StreamEnd,
    /// Whether it occupies one of llama-server's slots, and so waits in line for one.
    pub(super) needs_slot: bool,
    /// Whether its answer may be a stream.
    pub(super) may_stream: bool,
    /// Whether it may be sent again though a worker may have processed it: asking twice changes nothing.
    pub(super) is_idempotent: bool,
}

const fn worker(path: &'static str, posts: bool, kind: Option<ModelKind>, ending: StreamEnd) -> Route {
    let access = RouteAccess::Key(Scope::Inference);
    let (port, target, shape) = (RoutePort::Gateway, RouteTarget::Worker(kind), Shape::OpenAi);
    Route {
        path,
        port,
        is_post: posts,
        access,
        target,
        shape,
        stream_end: ending,
        needs_slot: posts,
        may_stream: false,
        is_idempotent: !posts,
    }
}

/// Text or sound in, numbers or text out.
const fn post(path: &'static str, kind: ModelKind) -> Route {
    worker(path, true, Some(kind), StreamEnd::Unmarked)
}

/// Of the same input always the same numbers.
const fn score(path: &'static str, kind: ModelKind) -> Route {
    Route { is_idempotent: true, ..post(path, kind) }
}

/// What llama-server answers without a slot, be all of them busy.
const fn helper(path: &'static str) -> Route {
    Route { needs_slot: false, is_idempotent: true, ..worker(path, true, None, StreamEnd::Unmarked) }
}

const fn stream(path: &'static str, ending: StreamEnd) -> Route {
    Route { may_stream: true, ..worker(path, true, Some(ModelKind::Chat), ending) }
}

const fn get(path: &'static str) -> Route {
    worker(path, false, None, StreamEnd::Unmarked)
}

const fn models(path: &'static str, question: ModelsRoute) -> Route {
    Route { target: RouteTarget::Models(question), ..get(path) }
}

const fn models_command(path: &'static str, question: ModelsRoute) -> Route {
    Route { is_post: true, access: ADMIN, is_idempotent: false, ..models(path, question) }
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
    stream("/chat/completions", StreamEnd::Done),
    stream("/v1/completions", StreamEnd::Done),
    stream("/v1/responses", StreamEnd::ResponseDone),
    stream("/responses", StreamEnd::ResponseDone),
    anthropic("/v1/messages"),
    Route { needs_slot: false, may_stream: false, is_idempotent: true, ..anthropic("/v1/messages/count_tokens") },
    score("/v1/embeddings", ModelKind::Embedding),
    score("/embeddings", ModelKind::Embedding),
    score("/embedding", ModelKind::Embedding),
    score("/v1/rerank", ModelKind::Rerank),
    score("/v1/reranking", ModelKind::Rerank),
    score("/rerank", ModelKind::Rerank),
    score("/reranking", ModelKind::Rerank),
    post("/v1/audio/transcriptions", ModelKind::Chat),
    stream("/completion", StreamEnd::Unmarked),
    stream("/completions", StreamEnd::Unmarked),
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
    local(RoutePort::Gateway, "/lb/stats", LocalRoute::LbStats, ADMIN),
];

/// The sign for any text in a path.
const ID_PLACEHOLDER: &str = "{id}";

impl Route {
    /// The text that stands in this path for `{id}`, percent-encoded; empty where the route has none. None if the path
    /// is not of this route.
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
    let fits = |route: &&Route| {
        let method_fits =
            if route.is_post { method == Method::POST } else { method == Method::GET || method == Method::HEAD };
        method_fits && route.id_in(path).is_some() && (route.port == port || route.port == RoutePort::Both)
    };
    ROUTES.iter().find(fits)
}

/// Finds the route of a request on the gateway port, by its path without the query and by its method.
pub(super) fn find(method: &Method, path: &str) -> Result<&'static Route, Refusal> {
    find_row(RoutePort::Gateway, method, path).ok_or(Refusal::RouteNotFound)
}

/// The same on the health port, where one more path answers like `/ping`, be it that of another answer of this port.
pub(super) fn find_on_health_port(method: &Method, path: &str, extra_ping: &str) -> Result<&'static Route, Refusal> {
    let path = if path == extra_ping { PING } else { path };
    find_row(RoutePort::Health, method, path).ok_or(Refusal::RouteNotFound)
}

/// Returns the paths of all routes but those that answer health checks. `HEALTH_CHECK_PATH` must be none of them: its
/// answer would be lost where one listener serves both ports.
pub fn reserved_paths() -> Vec<&'static str> {
    let is_health = |target: &RouteTarget| match target {
        RouteTarget::Gateway(
            LocalRoute::Ping | LocalRoute::Probe | LocalRoute::Health | LocalRoute::Livez | LocalRoute::Readyz,
        ) => true,
        RouteTarget::Gateway(LocalRoute::Metrics | LocalRoute::Reload | LocalRoute::LbStats)
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
    fn an_id_in_a_path_is_whatever_stands_there() {
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
    fn each_path_and_method_has_one_row_a_port() {
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

    /// Regression: `HEALTH_CHECK_PATH=/health` said 503 while a model was loaded, which platforms take for a worker that
    /// is broken.
    #[test]
    fn the_path_of_the_health_check_may_be_that_of_another_health_answer() {
        for path in ["/ping", "/health", "/livez", "/readyz"] {
            let found = |method| find_on_health_port(&method, path, path).map(|route| route.target);
            assert_eq!(found(Method::GET), Ok(RouteTarget::Gateway(LocalRoute::Probe)), "{path}");
            assert_eq!(found(Method::HEAD), Ok(RouteTarget::Gateway(LocalRoute::Probe)), "{path}");
        }
        let health = find_on_health_port(&Method::GET, "/health", "/readyz").map(|route| route.target);
        assert_eq!(health, Ok(RouteTarget::Gateway(LocalRoute::Health)), "all others stay what they are");
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
            let told = problems(&route.path.replace(ID_PLACEHOLDER, "m"));
            match route.target {
                RouteTarget::Gateway(
                    LocalRoute::Ping | LocalRoute::Probe | LocalRoute::Health | LocalRoute::Livez | LocalRoute::Readyz,
                ) => {
                    assert_eq!(told, [""; 0], "{}", route.path);
                }
                _ => assert_eq!(told.len(), 1, "{}", route.path),
            }
        }
        assert_eq!(problems("/healthz"), [""; 0]);
    }
}
