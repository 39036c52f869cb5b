//! Finds the route of a request, and answers questions about all routes.
//!
//! `route_path.rs` turns the spellings of a path into the form that is compared here.

use std::sync::LazyLock;

use http::Method;

use super::route::{ID_PLACEHOLDER, LocalRoute, Route, RoutePort, RouteTarget};
use super::table::{FIM, INFILL, PING, ROUTES};
use crate::refusal::Refusal;

impl Route {
    /// Returns the route by which a llama-server is asked, if it has another path for this one.
    pub(in crate::gateway) fn at_llama_server(&self) -> Option<&'static Self> {
        (self.path == FIM).then(|| ROUTES.iter().find(|route| route.path == INFILL))?
    }

    /// Returns the route by which a remote backend is asked.
    pub(in crate::gateway) fn at_remote(&'static self) -> &'static Self {
        let is_canonical = |route: &&Self| route.path == self.canonical && route.method == self.method;
        ROUTES.iter().find(is_canonical).unwrap_or(self)
    }
}

/// What stands before and after the id of a model, in each path that has one. Every request asks for each part of its path,
/// and few routes have an id.
static AROUND_IDS: LazyLock<Vec<(&'static str, &'static str)>> = LazyLock::new(|| {
    let around = |route: &Route| {
        let (prefix, ending) = route.path.split_once(ID_PLACEHOLDER)?;
        Some((prefix.strip_suffix('/')?, ending))
    };
    ROUTES.iter().filter_map(around).collect()
});

/// Returns what may follow the id of a model in the paths that begin with `before`; `None` if none of them has an id
/// there.
pub(in crate::gateway) fn endings_after_id(before: &str) -> Option<impl Iterator<Item = &'static str>> {
    let of_this_one = move |(prefix, ending): &(&'static str, &'static str)| (*prefix == before).then_some(*ending);
    let mut endings = AROUND_IDS.iter().filter_map(of_this_one);
    let first = endings.next()?;
    Some(std::iter::once(first).chain(endings))
}

/// Returns the paths that begin with a version, and whose requests go to a worker.
pub(in crate::gateway) fn inference_paths() -> impl Iterator<Item = &'static str> {
    let is_inference = |route: &&Route| route.is_post() && matches!(route.target, RouteTarget::Worker(_));
    ROUTES.iter().filter(is_inference).map(|route| route.path).filter(|path| path.starts_with("/v1/"))
}

/// Returns the path of the table that this one is, if it has no id.
pub(in crate::gateway) fn plain_path(path: &str) -> Option<&'static str> {
    ROUTES.iter().find(|route| route.path == path && route.id_at.is_none()).map(|route| route.path)
}

/// Returns whether this path of the gateway port belongs to the API, whatever the method.
pub(in crate::gateway) fn is_api_path(path: &str) -> bool {
    ROUTES.iter().any(|route| !matches!(route.target, RouteTarget::Gateway(_)) && route.id_in(path).is_some())
}

fn find_row(port: RoutePort, method: &Method, path: &str) -> Option<&'static Route> {
    let matches_request = |route: &&Route| {
        route.method.fits(method)
            && route.id_in(path).is_some()
            && (route.port == port || route.port == RoutePort::Both)
    };
    ROUTES.iter().find(matches_request)
}

/// Finds the route of a request on the gateway port, by its method and its canonical path without the query.
///
/// # Errors
/// [`Refusal::RouteNotFound`] if there is none.
pub(in crate::gateway) fn find(method: &Method, path: &str) -> Result<&'static Route, Refusal> {
    find_row(RoutePort::Gateway, method, path).ok_or(Refusal::RouteNotFound)
}

/// Finds the route of a request on the health port, by its canonical path. `extra_ping` is one more path that is answered like `/ping`
/// (`HEALTH_CHECK_PATH`), even if it is the path of another route of this port.
///
/// # Errors
/// [`Refusal::RouteNotFound`] if there is none.
pub(in crate::gateway) fn find_on_health_port(
    method: &Method,
    path: &str,
    extra_ping: &str,
) -> Result<&'static Route, Refusal> {
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
        | RouteTarget::Files(_)
        | RouteTarget::Usage(_)
        | RouteTarget::Hub(_)
        | RouteTarget::Live(_)
        | RouteTarget::Keys(_)
        | RouteTarget::Page(_)
        | RouteTarget::Worker(_) => false,
    };
    // A path that is both is asked as a health check by GET alone.
    let is_reserved = |path| !ROUTES.iter().any(|route| route.path == path && is_health(&route.target));
    ROUTES.iter().map(|route| route.path).filter(|path| is_reserved(*path)).collect()
}

#[cfg(test)]
pub(in crate::gateway) mod tests {
    use super::super::route::{ModelsRoute, StreamEnd};
    use super::super::table::CLOSED;
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
            ("DELETE", "/models/m"),
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
                assert!(one.path != other.path || one.method != other.method || ports_differ, "{}", one.path);
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
                RouteTarget::Worker(_) if route.path == "/" => assert_eq!(found, [""; 0], "a POST of it is no check"),
                _ => assert_eq!(found.len(), 1, "{}", route.path),
            }
        }
        assert_eq!(problems("/healthz"), [""; 0]);
    }
}
