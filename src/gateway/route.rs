//! The route table: what there is, who may use it, and in which language it speaks.
//!
//! A path that is not here is answered with 404 and never reaches llama-server.

use super::sse::Ending;
use crate::keys::Scope;
use crate::refusal::{Refusal, Shape};
use http::Method;

/// What the gateway answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
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
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Anybody.
    Open,
    /// Whoever has a key with this scope.
    Key(Scope),
    /// Anybody, unless `METRICS_AUTH_ENABLED`.
    Metrics,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Gateway(Local),
    Worker,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) posts: bool,
    pub(super) access: Access,
    pub(super) target: Target,
    pub(super) shape: Shape,
    pub(super) ending: Ending,
    /// Whether it occupies one of llama-server's slots, and so waits in line for one.
    pub(super) needs_slot: bool,
    /// Whether its answer may be a stream.
    pub(super) streams: bool,
}

const fn worker(path: &'static str, posts: bool, ending: Ending) -> Route {
    let access = Access::Key(Scope::Inference);
    Route {
        path,
        posts,
        access,
        target: Target::Worker,
        shape: Shape::OpenAi,
        ending,
        needs_slot: posts,
        streams: false,
    }
}

const fn post(path: &'static str) -> Route {
    worker(path, true, Ending::Unmarked)
}

/// What llama-server answers without a slot, be all of them busy.
const fn helper(path: &'static str) -> Route {
    Route { needs_slot: false, ..post(path) }
}

const fn stream(path: &'static str, ending: Ending) -> Route {
    Route { streams: true, ..worker(path, true, ending) }
}

const fn get(path: &'static str) -> Route {
    worker(path, false, Ending::Unmarked)
}

const fn anthropic(path: &'static str) -> Route {
    Route { shape: Shape::Anthropic, ..stream(path, Ending::MessageStop) }
}

const fn local(path: &'static str, local: Local, access: Access) -> Route {
    Route { access, target: Target::Gateway(local), ..get(path) }
}

const ADMIN: Access = Access::Key(Scope::Admin);

const ROUTES: &[Route] = &[
    stream("/v1/chat/completions", Ending::Done),
    stream("/chat/completions", Ending::Done),
    stream("/v1/completions", Ending::Done),
    stream("/v1/responses", Ending::ResponseDone),
    stream("/responses", Ending::ResponseDone),
    anthropic("/v1/messages"),
    Route { needs_slot: false, streams: false, ..anthropic("/v1/messages/count_tokens") },
    post("/v1/embeddings"),
    post("/embeddings"),
    post("/embedding"),
    post("/v1/rerank"),
    post("/v1/reranking"),
    post("/rerank"),
    post("/reranking"),
    post("/v1/audio/transcriptions"),
    stream("/completion", Ending::Unmarked),
    stream("/completions", Ending::Unmarked),
    stream("/infill", Ending::Unmarked),
    helper("/tokenize"),
    helper("/detokenize"),
    helper("/apply-template"),
    get("/v1/models"),
    get("/models"),
    get("/props"),
    Route { access: ADMIN, ..get("/slots") },
    local("/ping", Local::Ping, Access::Open),
    local("/health", Local::Health, Access::Open),
    local("/metrics", Local::Metrics, Access::Metrics),
    Route { posts: true, ..local("/reload", Local::Reload, ADMIN) },
];

/// Finds the route of a request, by its path without the query and by its method.
pub(super) fn find(method: &Method, path: &str) -> Result<&'static Route, Refusal> {
    let fits = |route: &&Route| {
        if route.posts { method == Method::POST } else { method == Method::GET || method == Method::HEAD }
    };
    ROUTES.iter().filter(|route| route.path == path).find(fits).ok_or(Refusal::RouteNotFound)
}

/// What the health port answers, on its own or on the gateway's listener.
pub(super) fn find_on_health_port(method: &Method, path: &str, extra_ping: &str) -> Option<Local> {
    if method != Method::GET && method != Method::HEAD {
        return None;
    }
    match path {
        "/ping" => Some(Local::Ping),
        "/livez" => Some(Local::Livez),
        "/readyz" => Some(Local::Readyz),
        "/health" => Some(Local::Health),
        "/metrics" => Some(Local::Metrics),
        path if path == extra_ping => Some(Local::Ping),
        _ => None,
    }
}

/// The row of a route that one listener answers for both ports.
pub(super) fn of_health_port(local: Local) -> &'static Route {
    static PROBE: Route = self::local("/ping", Local::Probe, Access::Open);
    static LIVEZ: Route = self::local("/livez", Local::Livez, Access::Open);
    static READYZ: Route = self::local("/readyz", Local::Readyz, Access::Open);
    static HEALTH: Route = self::local("/health", Local::Health, Access::Open);
    static METRICS: Route = self::local("/metrics", Local::Metrics, Access::Metrics);
    match local {
        Local::Livez => &LIVEZ,
        Local::Readyz => &READYZ,
        Local::Health => &HEALTH,
        Local::Metrics => &METRICS,
        Local::Ping | Local::Probe | Local::Reload => &PROBE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_change_or_control_llama_server_is_not_a_route() {
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
    fn each_path_and_method_has_one_row() {
        for route in ROUTES {
            assert_eq!(ROUTES.iter().filter(|other| other.path == route.path && other.posts == route.posts).count(), 1);
        }
    }
}
