//! The request as a worker gets it: its path there, its key, and none of the client's.

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};

use crate::dial::DialTarget;
use crate::gateway::credentials;
use crate::gateway::exchange::{RequestHead, WorkerRequest};
use crate::gateway::headers::{self, X_REQUEST_ID};
use crate::gateway::request::body::RequestBody;
use crate::traces::{TRACEPARENT, TRACESTATE, TraceIds};

/// The headers that the gateway itself adds.
pub(super) struct OwnHeaders<'a> {
    pub(super) request_id: &'a HeaderValue,
    /// In place of the client's, if spans are made.
    pub(super) trace: Option<TraceIds>,
}

/// Writes a client's request as this worker gets it. `other_path` stands in place of the path at the gateway.
///
/// # Errors
/// The worker's path and that of the request do not make a valid path together.
pub(super) fn worker_request(
    client: &Parts,
    other_path: Option<&'static str>,
    own_headers: OwnHeaders<'_>,
    body: RequestBody,
    target: &DialTarget,
) -> Result<WorkerRequest, http::Error> {
    let (path, client_headers) = credentials::without_copies(&client.headers, path_of(client, other_path)?);
    let mut head = RequestHead::new(&client.method, target.path(path)?.as_str());
    // What the worker's entry sets replaces everything but the request id.
    let is_set = |name: &HeaderName| !target.headers.is_empty() && target.headers.contains_key(name);
    // The gateway reads and changes responses. A server may pack them unless it is told not to (RFC 9110, section
    // 12.5.3).
    let accepted = HeaderValue::from_static("identity");
    let own = [(HOST, Some(&target.host)), (ACCEPT_ENCODING, Some(&accepted))];
    for (name, value) in own.into_iter().chain([(AUTHORIZATION, target.authorization.as_ref())]) {
        if let Some(value) = value.filter(|_| !is_set(&name)) {
            head.add(&name, value);
        }
    }
    let OwnHeaders { request_id, trace } = own_headers;
    let is_replaced = |name: &HeaderName| {
        trace.as_ref().is_some_and(|ids| *name == TRACEPARENT || *name == TRACESTATE && !ids.is_continued)
    };
    let of_client = headers::for_worker(&client_headers, target.is_remote);
    for (name, value) in of_client.filter(|(name, _)| !is_set(name) && !is_replaced(name)) {
        head.add(name, value);
    }
    if let Some(ids) = trace.as_ref().filter(|_| !is_set(&TRACEPARENT)) {
        head.add(&TRACEPARENT, &ids.parent);
    }
    for (name, value) in target.headers.iter().filter(|(name, _)| **name != X_REQUEST_ID) {
        head.add(name, value);
    }
    head.add(&X_REQUEST_ID, request_id);
    Ok(head.with_body(body))
}

fn path_of(client: &Parts, other_path: Option<&'static str>) -> Result<PathAndQuery, http::Error> {
    let path = client.uri.path_and_query();
    Ok(match (other_path, path.and_then(PathAndQuery::query)) {
        (Some(other_path), None) => PathAndQuery::from_static(other_path),
        (Some(other_path), Some(query)) => PathAndQuery::try_from(format!("{other_path}?{query}"))?,
        (None, _) => path.map_or_else(|| PathAndQuery::from_static("/"), PathAndQuery::clone),
    })
}

#[cfg(test)]
mod tests {
    use http::{Method, Request, Version};

    use super::*;
    use crate::gateway::routes::lookup;
    use crate::settings::catalogue::RemoteSettings;
    use crate::settings::values::Secret;

    fn head_to(api_base: &str, authorization: Option<&str>, is_remote: bool) -> String {
        let headers = [("x-kept", "2"), ("x-request-id", "of-the-entry")];
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), Secret(value.to_owned()))).collect();
        let api_key = authorization.map(|key| Secret(key.to_owned()));
        let settings = RemoteSettings { api_key, headers, ..RemoteSettings::at(api_base.to_owned()) };
        let target = DialTarget { is_remote, ..DialTarget::remote(&settings).unwrap() };
        let request = Request::post("/v1/chat/completions?a=b").version(Version::HTTP_2);
        let request = request
            .header(AUTHORIZATION, "Bearer client")
            .header("x-api-key", "client")
            .header("x-request-id", "theirs")
            .header("host", "theirs")
            .header("accept-encoding", "gzip")
            .header("content-length", "7")
            .header("x-other", "3")
            .header("x-kept", "1");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let route = lookup::find(&Method::POST, "/v1/chat/completions").unwrap();
        let (path, id) = (is_remote.then_some(route.path), HeaderValue::from_static("id-1"));
        let own = OwnHeaders { request_id: &id, trace: None };
        worker_request(&parts, path, own, RequestBody::from_pieces(&["{}"]), &target).unwrap().head_text()
    }

    #[test]
    fn a_request_is_sent_to_the_workers_path_with_its_key_and_never_the_clients() {
        for is_remote in [false, true] {
            let expected = "POST /api/v4/chat/completions?a=b HTTP/1.1\nhost: host:1\naccept-encoding: identity\n\
                authorization: Bearer worker\nx-other: 3\nx-kept: 2\nx-request-id: id-1\ncontent-length: 2\n\n";
            assert_eq!(head_to("https://host:1/api/v4", Some("worker"), is_remote), expected);

            let head = head_to("https://host/v1", None, is_remote);
            assert!(head.starts_with("POST /v1/chat/completions?a=b HTTP/1.1\nhost: host\n"), "{head}");
            assert!(!head.contains("client") && !head.contains("theirs") && !head.contains("authorization"), "{head}");
        }
    }
}
