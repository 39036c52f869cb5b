//! The request as a worker gets it: its path there, its key, and none of the client's.

use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Version};

use crate::dial::DialTarget;
use crate::gateway::headers::{self, X_REQUEST_ID};

/// Turns a client's request into one for this worker. `other_path` stands in place of the path at the gateway.
///
/// # Errors
/// The worker's path and that of the request do not make a valid path together.
pub(super) fn worker_request<B>(
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
    parts.uri = target.path(path)?.into();
    parts.headers.insert(HOST, target.host.clone());
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
    use http::Method;

    use super::*;
    use crate::gateway::routes::lookup;
    use crate::settings::catalogue::RemoteSettings;
    use crate::settings::values::Secret;

    fn request_to(api_base: &str, authorization: Option<&str>, is_remote: bool) -> Request<()> {
        let headers = std::iter::once(("x-kept".to_owned(), Secret("2".to_owned()))).collect();
        let api_key = authorization.map(|key| Secret(key.to_owned()));
        let settings = RemoteSettings { api_key, headers, ..RemoteSettings::at(api_base.to_owned()) };
        let target = DialTarget { is_remote, ..DialTarget::remote(&settings).unwrap() };
        let request = Request::post("/v1/chat/completions?a=b").version(Version::HTTP_2);
        let request = request
            .header(AUTHORIZATION, "Bearer client")
            .header("x-api-key", "client")
            .header("x-request-id", "theirs")
            .header("host", "theirs")
            .header("x-kept", "1");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let route = lookup::find(&Method::POST, "/v1/chat/completions").unwrap();
        worker_request(parts, is_remote.then_some(route.path), &HeaderValue::from_static("id-1"), (), &target).unwrap()
    }

    #[test]
    fn a_request_is_sent_to_the_workers_path_with_its_key_and_never_the_clients() {
        for is_remote in [false, true] {
            let request = request_to("https://host:1/api/v4", Some("worker"), is_remote);
            assert_eq!(request.uri(), "/api/v4/chat/completions?a=b");
            assert_eq!((request.version(), request.headers().len()), (Version::HTTP_11, 5));
            assert_eq!(request.headers()[AUTHORIZATION], "Bearer worker");
            assert_eq!(request.headers()[X_REQUEST_ID], "id-1");
            assert_eq!(request.headers()[HOST], "host:1");
            assert_eq!(request.headers()["x-kept"], "2", "a header of the entry replaces the client's");
            assert_eq!(request.headers()["accept-encoding"], "identity");

            let request = request_to("https://host/v1", None, is_remote);
            assert_eq!(request.uri(), "/v1/chat/completions?a=b");
            assert_eq!(request.headers()[HOST], "host");
            assert!(request.headers().get(AUTHORIZATION).is_none());
            let shown = format!("{request:?}");
            assert!(!shown.contains("client") && !shown.contains("theirs"), "{shown}");
        }
    }
}
