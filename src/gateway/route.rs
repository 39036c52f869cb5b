//! The route table: which routes exist, who may use them, and which API dialect they speak.
//!
//! A request for any other path gets a 404 and never reaches llama-server. `route_path.rs` turns the spellings of a path
//! into the form that is compared here, and `route_reference.rs` writes the table as a page.

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
    /// `GET /`: what answers here.
    Root,
    /// `GET /api/hello`: whether anything answers here.
    Hello,
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
    /// `POST /models/load`, which names the model in its body
    LoadNamed,
    /// `POST /models/unload`, which names the model in its body
    UnloadNamed,
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
pub(super) enum RoutePort {
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
    pub(super) port: RoutePort,
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
    /// What a request does, for the page of routes.
    pub(super) about: &'static str,
}

/// A path of llama-server that is no route on purpose.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClosedPath {
    pub(super) methods: &'static str,
    /// The path, in which `{id}` stands for any text.
    pub(super) path: &'static str,
    /// Why it is no route.
    pub(super) why: &'static str,
}

const fn worker(
    path: &'static str,
    is_post: bool,
    kind: Option<ModelKind>,
    stream_end: StreamEnd,
    about: &'static str,
) -> Route {
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
        about,
    }
}

/// A route that takes text or sound and returns numbers or text.
const fn post(path: &'static str, kind: ModelKind, about: &'static str) -> Route {
    worker(path, true, Some(kind), StreamEnd::Unmarked, about)
}

/// A route that returns the same numbers for the same input.
const fn score(path: &'static str, kind: ModelKind, about: &'static str) -> Route {
    Route { is_idempotent: true, ..post(path, kind, about) }
}

/// A route that llama-server answers without a slot, even while all slots are busy.
const fn helper(path: &'static str, kind: Option<ModelKind>, about: &'static str) -> Route {
    Route { needs_slot: false, is_idempotent: true, ..worker(path, true, kind, StreamEnd::Unmarked, about) }
}

/// A route of llama-server that other servers have by another path.
const fn twin(canonical: &'static str, route: Route) -> Route {
    Route { canonical, ..route }
}

/// A route that counts the tokens of a chat.
const fn count(path: &'static str, about: &'static str) -> Route {
    helper(path, Some(ModelKind::Chat), about)
}

const fn stream(path: &'static str, stream_end: StreamEnd, about: &'static str) -> Route {
    Route { may_stream: true, ..worker(path, true, Some(ModelKind::Chat), stream_end, about) }
}

const fn get(path: &'static str, about: &'static str) -> Route {
    worker(path, false, None, StreamEnd::Unmarked, about)
}

const fn models(path: &'static str, models_route: ModelsRoute, about: &'static str) -> Route {
    Route { target: RouteTarget::Models(models_route), ..get(path, about) }
}

const fn models_command(path: &'static str, models_route: ModelsRoute, about: &'static str) -> Route {
    Route { is_post: true, access: ADMIN, is_idempotent: false, ..models(path, models_route, about) }
}

const fn local(
    port: RoutePort,
    path: &'static str,
    local: LocalRoute,
    access: RouteAccess,
    about: &'static str,
) -> Route {
    Route { port, access, target: RouteTarget::Gateway(local), ..get(path, about) }
}

const fn open(port: RoutePort, path: &'static str, local_route: LocalRoute, about: &'static str) -> Route {
    local(port, path, local_route, RouteAccess::Open, about)
}

const fn closed(methods: &'static str, path: &'static str, why: &'static str) -> ClosedPath {
    ClosedPath { methods, path, why }
}

const ADMIN: RouteAccess = RouteAccess::Key(Scope::Admin);
const PING: &str = "/ping";

/// Every route. A path without `/v1` is for clients whose base address lacks it, as at llama-server.
pub(super) const ROUTES: &[Route] = &[
    stream("/v1/chat/completions", StreamEnd::Done, "a chat, in OpenAI's API"),
    twin("/v1/chat/completions", stream("/chat/completions", StreamEnd::Done, "as `/v1/chat/completions`")),
    stream("/v1/completions", StreamEnd::Done, "a completion, in OpenAI's API"),
    stream("/v1/responses", StreamEnd::ResponseDone, "a response, in OpenAI's API"),
    twin("/v1/responses", stream("/responses", StreamEnd::ResponseDone, "as `/v1/responses`")),
    Route {
        shape: Shape::Anthropic,
        ..stream("/v1/messages", StreamEnd::MessageStop, "a message, in Anthropic's API")
    },
    Route { shape: Shape::Anthropic, ..count("/v1/messages/count_tokens", "the tokens of a message") },
    count("/v1/chat/completions/input_tokens", "the tokens of a chat"),
    twin(
        "/v1/chat/completions/input_tokens",
        count("/chat/completions/input_tokens", "as `/v1/chat/completions/input_tokens`"),
    ),
    count("/v1/responses/input_tokens", "the tokens of a response's input"),
    twin("/v1/responses/input_tokens", count("/responses/input_tokens", "as `/v1/responses/input_tokens`")),
    score("/v1/embeddings", ModelKind::Embedding, "embeddings, in OpenAI's API"),
    twin("/v1/embeddings", score("/embeddings", ModelKind::Embedding, "embeddings, in llama-server's own form")),
    score("/embedding", ModelKind::Embedding, "as `/embeddings`"),
    score("/v1/rerank", ModelKind::Rerank, "the relevance of documents to a query"),
    twin("/v1/rerank", score("/v1/reranking", ModelKind::Rerank, "as `/v1/rerank`")),
    twin("/v1/rerank", score("/rerank", ModelKind::Rerank, "as `/v1/rerank`")),
    twin("/v1/rerank", score("/reranking", ModelKind::Rerank, "as `/v1/rerank`")),
    post("/v1/audio/transcriptions", ModelKind::Chat, "the text of a recording, which comes as a form"),
    twin("/v1/audio/transcriptions", post("/audio/transcriptions", ModelKind::Chat, "as `/v1/audio/transcriptions`")),
    post("/v1/systemone", ModelKind::Chat, "a decision of a model that is made for it"),
    stream("/completion", StreamEnd::Unmarked, "a completion, in llama-server's own form"),
    twin("/v1/completions", stream("/completions", StreamEnd::Unmarked, "as `/completion`")),
    stream("/infill", StreamEnd::Unmarked, "the code between a prefix and a suffix"),
    helper("/tokenize", None, "the tokens of a text"),
    helper("/detokenize", None, "the text of tokens"),
    helper("/apply-template", None, "the prompt that the chat template makes of messages"),
    models("/v1/models", ModelsRoute::All, "the models that the key may use"),
    models("/models", ModelsRoute::All, "as `/v1/models`"),
    models("/v1/models/chat", ModelsRoute::Of(ModelKind::Chat), "the chat models, as a plain list"),
    models("/v1/models/embeddings", ModelsRoute::Of(ModelKind::Embedding), "the embedding models, as a plain list"),
    models("/v1/models/rerank", ModelsRoute::Of(ModelKind::Rerank), "the rerankers, as a plain list"),
    models_command("/v1/models/{id}/load", ModelsRoute::Load, "loads a model"),
    models_command("/v1/models/{id}/unload", ModelsRoute::Unload, "unloads a model"),
    models_command("/models/load", ModelsRoute::LoadNamed, "loads the model that `model` names in the body"),
    models_command("/models/unload", ModelsRoute::UnloadNamed, "unloads the model that `model` names in the body"),
    models("/v1/models/{id}", ModelsRoute::One, "one model; its id may have slashes"),
    models("/models/{id}", ModelsRoute::One, "as `/v1/models/{id}`"),
    get("/props", "llama-server's properties; `?model=ID` names the model"),
    get("/lora-adapters", "the LoRA adapters of a model; `?model=ID` names it"),
    Route { access: ADMIN, ..get("/slots", "llama-server's slots; `?model=ID` names the model") },
    open(RoutePort::Gateway, PING, LocalRoute::Ping, "whether the process is alive"),
    open(
        RoutePort::Health,
        PING,
        LocalRoute::Probe,
        "200 if a request would be served, 204 while models load, else 503",
    ),
    open(RoutePort::Health, "/livez", LocalRoute::Livez, "whether the process is alive"),
    open(RoutePort::Health, "/readyz", LocalRoute::Readyz, "200 if a request is served at once, else 503"),
    open(RoutePort::Both, "/health", LocalRoute::Health, "the state of all models"),
    open(RoutePort::Both, "/v1/health", LocalRoute::Health, "as `/health`"),
    open(RoutePort::Both, "/", LocalRoute::Root, "the name and the version of this program"),
    open(RoutePort::Gateway, "/api/hello", LocalRoute::Hello, "whether anything answers, for Claude Code"),
    local(RoutePort::Both, "/metrics", LocalRoute::Metrics, RouteAccess::Metrics, "metrics, as JSON or for Prometheus"),
    Route {
        is_post: true,
        ..local(RoutePort::Gateway, "/reload", LocalRoute::Reload, ADMIN, "reads keys and configuration again")
    },
    Route {
        is_post: true,
        ..local(RoutePort::Gateway, "/keys/{id}/resume", LocalRoute::ResumeKey, ADMIN, "lifts the suspension of a key")
    },
    local(RoutePort::Gateway, "/lb/stats", LocalRoute::LbStats, ADMIN, "the workers and the queue of each model"),
];

/// Paths of llama-server that are no routes on purpose. Clients that ask for them get the same 404 as for any other path.
pub(super) const CLOSED: &[ClosedPath] = &[
    closed("POST", "/props", "it changes llama-server's settings for everybody"),
    closed("POST", "/slots/{id}", "it saves, restores and erases what other clients have in a slot"),
    closed("POST", "/lora-adapters", "it changes the answers to everybody; `lora` in a request does it for one"),
    closed("GET, POST", "/tools", "it runs programs and reads files"),
    closed("GET, POST", "/cors-proxy", "it fetches any address from inside the network"),
    closed("GET, DELETE", "/v1/stream", "streams that can be resumed would go on after their clients have left"),
    closed("POST", "/v1/streams/lookup", "as `/v1/stream`"),
    closed("POST", "/v1/chat/completions/control", "it changes the requests of other clients"),
    closed("GET", "/models/sse", "states of models are in `/health` and `/v1/models`"),
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

/// Returns what may follow the id of a model in the paths that begin with `before`; `None` if none of them has an id
/// there.
pub(super) fn endings_after_id(before: &str) -> Option<impl Iterator<Item = &'static str>> {
    let mut endings = ROUTES.iter().filter_map(move |route| {
        let (prefix, ending) = route.path.split_once(ID_PLACEHOLDER)?;
        (prefix.strip_suffix('/') == Some(before)).then_some(ending)
    });
    let first = endings.next()?;
    Some(std::iter::once(first).chain(endings))
}

/// Returns the paths that begin with a version, and whose requests go to a worker.
pub(super) fn inference_paths() -> impl Iterator<Item = &'static str> {
    let is_inference = |route: &&Route| route.is_post && matches!(route.target, RouteTarget::Worker(_));
    ROUTES.iter().filter(is_inference).map(|route| route.path).filter(|path| path.starts_with("/v1/"))
}

/// Returns whether this path of the gateway port belongs to the API, whatever the method.
pub(super) fn is_api_path(path: &str) -> bool {
    ROUTES.iter().any(|route| !matches!(route.target, RouteTarget::Gateway(_)) && route.id_in(path).is_some())
}

fn find_row(port: RoutePort, method: &Method, path: &str) -> Option<&'static Route> {
    let matches_request = |route: &&Route| {
        let method_fits =
            if route.is_post { method == Method::POST } else { method == Method::GET || method == Method::HEAD };
        method_fits && route.id_in(path).is_some() && (route.port == port || route.port == RoutePort::Both)
    };
    ROUTES.iter().find(matches_request)
}

/// Finds the route of a request on the gateway port, by its method and its canonical path without the query.
///
/// # Errors
/// [`Refusal::RouteNotFound`] if there is none.
pub(super) fn find(method: &Method, path: &str) -> Result<&'static Route, Refusal> {
    find_row(RoutePort::Gateway, method, path).ok_or(Refusal::RouteNotFound)
}

/// Finds the route of a request on the health port, by its canonical path. `extra_ping` is one more path that is answered like `/ping`
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
            LocalRoute::Ping
            | LocalRoute::Probe
            | LocalRoute::Health
            | LocalRoute::Livez
            | LocalRoute::Readyz
            | LocalRoute::Root
            | LocalRoute::Hello,
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
pub(super) mod tests {
    use super::*;
    use crate::platform::Platform;
    use crate::settings::{Environment, Inputs, resolve};
    use std::path::Path;

    /// Returns every path of the table, and the paths that are closed.
    pub(in crate::gateway) fn paths() -> Vec<String> {
        let closed = CLOSED.iter().map(|closed| closed.path);
        let others = ["/v1/stream/0", "/slots/0", "/nowhere", "/v1"];
        let paths = ROUTES.iter().map(|route| route.path).chain(closed).chain(others);
        paths.map(|path| path.replace(ID_PLACEHOLDER, "m")).collect()
    }

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
            ("POST", "/slots"),
            ("POST", "/tools"),
            ("POST", "/v1/stream"),
            ("GET", "/slots/0"),
            ("GET", "/v1/chat/completions"),
            ("DELETE", "/v1/models"),
            ("DELETE", "/v1/models/m"),
            ("POST", "/v1/models"),
            ("GET", "/reload"),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(find(&method, path).unwrap_err(), Refusal::RouteNotFound, "{method} {path}");
        }
        for closed in CLOSED.iter().filter(|closed| closed.path != "/models/sse") {
            for method in closed.methods.split(", ") {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                let path = closed.path.replace(ID_PLACEHOLDER, "0");
                assert_eq!(find(&method, &path).unwrap_err(), Refusal::RouteNotFound, "{method} {path}");
            }
        }
        let target = find(&Method::GET, "/models/sse").map(|route| route.target);
        assert_eq!(target, Ok(RouteTarget::Models(ModelsRoute::One)), "it could be the id of a model");
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
                    LocalRoute::Ping
                    | LocalRoute::Probe
                    | LocalRoute::Health
                    | LocalRoute::Livez
                    | LocalRoute::Readyz
                    | LocalRoute::Root
                    | LocalRoute::Hello,
                ) if !route.path.starts_with("/v1/") => {
                    assert_eq!(found, [""; 0], "{}", route.path);
                }
                _ => assert_eq!(found.len(), 1, "{}", route.path),
            }
        }
        assert_eq!(problems("/healthz"), [""; 0]);
    }
}
