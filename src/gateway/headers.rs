//! Which headers are passed on between client and worker, and request ids.

use std::borrow::Cow;
use std::cell::RefCell;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Version};
use jiff::Timestamp;
use memchr::memchr;

use super::connection::head;
use super::content_kind::ContentKind;
use super::credentials::{KEY_HEADERS, PresentedSecrets, is_key_header};
use super::routes::lookup;
use crate::content_coding::ContentCodings;
use crate::short_value::short_value;

/// Returns whether a header belongs to one connection only (RFC 9110, section 7.6.1), including older ones that RFC 9110 no
/// longer lists.
pub(super) fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Returns whether a request header is not passed on to llama-server: it is about the connection to the gateway, or a
/// conversation id, with which llama-server would keep a request running after its client has left.
fn is_kept_from_worker(name: &HeaderName) -> bool {
    matches!(name.as_str(), "x-conversation-id" | "content-length" | "expect" | "origin")
}

/// Returns whether each request to a worker has a header of its own with this name.
fn is_replaced(name: &HeaderName) -> bool {
    matches!(name.as_str(), "host" | "accept-encoding" | "x-request-id")
}

/// Returns whether a request header is meant for this host only. It means nothing to a remote backend, or would disclose too
/// much to it, as the names of people do.
fn is_kept_from_remote(name: &HeaderName) -> bool {
    matches!(name.as_str(), "cookie" | "forwarded" | "x-llm-user") || name.as_str().starts_with("x-openwebui-")
}

/// Returns whether a remote backend speaks for its own host with this response header, not for this one.
fn is_of_remote_host(name: &HeaderName) -> bool {
    matches!(name.as_str(), "set-cookie" | "strict-transport-security" | "alt-svc")
}

/// Response headers that describe the packed bytes, and are wrong once these are unpacked (RFC 9530, sections 2 and 3, and
/// older names).
static OF_PACKED_BYTES: [HeaderName; 7] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::ACCEPT_RANGES,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
];

/// The header that carries the request id.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The header in which Anthropic's clients look for it.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// The header with which nginx, and proxies like it, are told not to buffer a response.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Longest request id that is accepted from a client, in characters.
const MAX_REQUEST_ID: usize = 128;

/// Returns the headers that `Connection` names, apart from its own options.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().map(HeaderValue::as_bytes);
    let names = values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    names.filter(|name| !is_own_option(name)).filter_map(|name| HeaderName::from_bytes(name).ok()).collect()
}

/// Returns whether an option of `Connection` is one of its own, and no header's name.
pub(super) fn is_own_option(option: &[u8]) -> bool {
    option.eq_ignore_ascii_case(b"close") || option.eq_ignore_ascii_case(b"keep-alive")
}

/// Returns whether a worker's response header, whose name may have capital letters, is not passed on: it belongs to one
/// connection only, names the worker's software, or contradicts the gateway's CORS headers.
pub(super) fn is_kept_from_client(name: &str) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    // By length first: most names have none of these.
    match name.len() {
        2 => is("te"),
        6 => is("server"),
        7 => is("trailer") || is("upgrade"),
        10 => is("connection") || is("keep-alive"),
        16 if is("proxy-connection") => true,
        17 if is("transfer-encoding") => true,
        18 if is("proxy-authenticate") => true,
        19 if is("proxy-authorization") => true,
        _ => name.get(..CORS_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(CORS_PREFIX)),
    }
}

/// How the names of CORS headers begin.
const CORS_PREFIX: &str = "access-control-";

/// Returns the headers of a client's request that a worker may see; a remote worker sees fewer than a local one. The
/// client's credentials are not among them, whatever they are called, nor are the headers that `worker_request.rs` sets.
pub(super) fn for_worker(headers: &HeaderMap, is_remote: bool) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    let has_options = headers.keys().any(|name| *name == header::CONNECTION);
    let named = if has_options { named_by_connection(headers) } else { Vec::new() };
    headers.iter().filter(move |(name, _)| {
        let is_unwanted = is_hop_by_hop(name)
            || is_key_header(name)
            || is_kept_from_worker(name)
            || is_remote && is_kept_from_remote(name)
            || is_replaced(name);
        !is_unwanted && !named.contains(name)
    })
}

/// Removes the response headers with which a remote backend speaks for its own host. The others that a client must not see
/// are left out where the response is read.
pub(super) fn prepare_for_client(headers: &mut HeaderMap, is_remote: bool) {
    if is_remote {
        let unwanted: Vec<HeaderName> = headers.keys().filter(|name| is_of_remote_host(name)).cloned().collect();
        unwanted.iter().for_each(|name| _ = headers.remove(name));
    }
}

/// Returns how a worker's response is packed, and changes its headers to those of the unpacked response. Returns `None`,
/// and changes nothing, if it is not packed, in a way that is not unpacked, or a part of something packed (206).
pub(super) fn take_content_codings(status: StatusCode, headers: &mut HeaderMap) -> Option<ContentCodings> {
    if !headers.contains_key(header::CONTENT_ENCODING) || status == StatusCode::PARTIAL_CONTENT {
        return None;
    }
    let codings = ContentCodings::of(headers).ok()?;
    if codings.is_identity() {
        headers.remove(header::CONTENT_ENCODING);
        return None;
    }
    for name in &OF_PACKED_BYTES {
        headers.remove(name);
    }
    // Other bytes with the same meaning may share a weak tag only (RFC 9110, section 8.8.1).
    if let Some(tag) = headers.get(header::ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"))
        && let Ok(tag) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        headers.insert(header::ETAG, tag);
    }
    Some(codings)
}

/// Changes the headers of a response whose body is replaced by another of the same type and this length, in bytes.
pub(super) fn describe_replaced_body(headers: &mut HeaderMap, length: usize) {
    for name in OF_PACKED_BYTES.iter().chain([&header::TRANSFER_ENCODING, &header::ETAG]) {
        headers.remove(name);
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
}

/// Changes the headers of a response whose body is replaced by JSON of this length, in bytes.
pub(super) fn describe_json(headers: &mut HeaderMap, length: usize) {
    describe_replaced_body(headers, length);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
}

/// The type of a stream of JSON values, one in each line.
pub(super) const JSON_LINES: &str = "application/x-ndjson";

/// Changes the headers of a stream of events that becomes lines of JSON.
pub(super) fn describe_lines(headers: &mut HeaderMap) {
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::ETAG);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON_LINES));
    forbid_buffering(headers);
}

/// Tells proxies in front of the gateway to pass on the events of a stream as they come, and to keep none. Does nothing
/// for a response that is not a stream.
pub(super) fn prepare_stream(headers: &mut HeaderMap) {
    if ContentKind::of_type(headers) == ContentKind::Stream {
        forbid_buffering(headers);
    }
}

fn forbid_buffering(headers: &mut HeaderMap) {
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Returns whether a request is the opening handshake of a WebSocket (RFC 6455, section 4.1). HTTP/2 has no such request.
pub(super) fn is_websocket_handshake(parts: &Parts) -> bool {
    let has_token = |name: &str, token: &str| {
        let values = parts.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(token))
    };
    parts.method == Method::GET
        && parts.version != Version::HTTP_2
        && has_token(head::HIDDEN_UPGRADE, "websocket")
        && has_token("connection", "upgrade")
}

/// Whether a request has this header, whose name is of no standard and which few have. Names are compared: to look up such a
/// name would hash all its bytes.
pub(super) fn has_rare_header(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.keys().any(|found| found == name)
}

/// Returns the client's request id if it is 1-128 characters of `[A-Za-z0-9._-]` and holds none of the client's
/// credentials, and a new one otherwise, for a request that arrived at this time. The id is logged and passed on.
pub(super) fn request_id(headers: &HeaderMap, arrived: Timestamp) -> HeaderValue {
    if !has_rare_header(headers, &X_REQUEST_ID) {
        return new_request_id(arrived);
    }
    let id = headers.get(X_REQUEST_ID).filter(|id| is_valid_request_id(id));
    let id = id.filter(|id| !PresentedSecrets::of(headers).are_in(id.as_bytes()));
    id.cloned().unwrap_or_else(|| new_request_id(arrived))
}

/// Returns the request id of a head that may be incomplete or malformed; see [`request_id`].
pub(super) fn request_id_of_raw(raw_head: &[u8]) -> HeaderValue {
    let id = head::header_value(raw_head, X_REQUEST_ID.as_str());
    let id = id.and_then(|text| HeaderValue::from_str(text).ok()).filter(is_valid_request_id);
    id.filter(|id| !secrets_of_raw(raw_head).are_in(id.as_bytes())).unwrap_or_else(|| new_request_id(Timestamp::now()))
}

fn secrets_of_raw(raw_head: &[u8]) -> PresentedSecrets<'_> {
    PresentedSecrets::in_values(KEY_HEADERS.iter().flat_map(|name| head::header_values(raw_head, name.as_str())))
}

/// Returns the path of a request for the access log, without the client's credentials.
pub(super) fn logged_path(headers: &HeaderMap, path: &str) -> Cow<'static, str> {
    // Nearly every path is one of the table, which holds no secret.
    match lookup::plain_path(path) {
        Some(path) => Cow::Borrowed(path),
        None => Cow::Owned(PresentedSecrets::of(headers).mask_path(without_encoded_query(path))),
    }
}

/// Returns a path up to the first encoded question mark: the id of a model may be the address of a file, whose query may be
/// a signature.
fn without_encoded_query(path: &str) -> &str {
    if memchr(b'%', path.as_bytes()).is_none() {
        return path;
    }
    let end = path.find("%3F").into_iter().chain(path.find("%3f")).min();
    path.get(..end.unwrap_or(path.len())).unwrap_or(path)
}

/// Returns the path of a head that may be incomplete or malformed; see [`logged_path`].
pub(super) fn logged_path_of_raw(raw_head: &[u8], path: &str) -> String {
    secrets_of_raw(raw_head).mask_path(without_encoded_query(path))
}

fn is_valid_request_id(id: &HeaderValue) -> bool {
    (1..=MAX_REQUEST_ID).contains(&id.len())
        && id.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

/// Returns a new UUID of version 7, which sorts by time.
fn new_request_id(arrived: Timestamp) -> HeaderValue {
    let millis = arrived.as_millisecond();
    let id = uuid::Builder::from_unix_timestamp_millis(u64::try_from(millis).unwrap_or(0), &random_bytes());
    let mut text = uuid::Uuid::encode_buffer();
    let text = id.into_uuid().as_hyphenated().encode_lower(&mut text);
    short_value(text.as_bytes()).unwrap_or(HeaderValue::from_static("unknown"))
}

/// The random bytes of one id.
type Random = [u8; 10];

/// The number of ids for which each thread fetches random bytes at once, because the system call costs more than
/// everything else about an id.
const IDS_AT_ONCE: usize = 64;

fn random_bytes() -> Random {
    thread_local! {
        static STOCK: RefCell<Vec<Random>> = const { RefCell::new(Vec::new()) };
    }
    STOCK.with_borrow_mut(|stock| {
        if stock.is_empty() {
            let mut bytes = [[0; size_of::<Random>()]; IDS_AT_ONCE];
            // If this fails, ids of the same millisecond are equal, which breaks nothing.
            let _ = getrandom::fill(bytes.as_flattened_mut());
            stock.extend_from_slice(&bytes);
        }
        stock.pop().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::super::credentials;
    use super::*;
    use http::uri::PathAndQuery;
    use std::collections::BTreeSet;

    #[test]
    fn the_headers_of_a_packed_response_become_those_of_the_unpacked_one() {
        let coding = "content-encoding";
        for (status, given, is_packed, expected) in [
            (200, vec![("x", "1"), ("etag", "\"1\"")], false, vec![("x", "1"), ("etag", "\"1\"")]),
            (200, vec![(coding, "gzip"), ("content-length", "9"), ("vary", "a")], true, vec![("vary", "a")]),
            (500, vec![(coding, "identity"), (coding, "zstd"), ("digest", "x")], true, vec![]),
            (304, vec![(coding, "X-GZIP"), ("etag", "\"1\"")], true, vec![("etag", "W/\"1\"")]),
            (200, vec![(coding, "deflate"), ("etag", "W/\"1\"")], true, vec![("etag", "W/\"1\"")]),
            (200, vec![(coding, "identity"), ("content-length", "9")], false, vec![("content-length", "9")]),
            (200, vec![(coding, ""), ("etag", "\"1\"")], false, vec![("etag", "\"1\"")]),
            (200, vec![(coding, "br"), ("digest", "x")], false, vec![(coding, "br"), ("digest", "x")]),
            (200, vec![(coding, "gzip, br")], false, vec![(coding, "gzip, br")]),
            (
                206,
                vec![(coding, "gzip"), ("content-length", "9")],
                false,
                vec![(coding, "gzip"), ("content-length", "9")],
            ),
        ] {
            let map = |list: &[(&'static str, &'static str)]| {
                let mut headers = HeaderMap::new();
                for (name, value) in list {
                    headers.append(*name, HeaderValue::from_static(value));
                }
                headers
            };
            let mut headers = map(&given);
            let codings = take_content_codings(StatusCode::from_u16(status).unwrap(), &mut headers);
            assert_eq!((codings.is_some(), headers), (is_packed, map(&expected)), "{given:?}");
        }
    }

    #[test]
    fn headers_named_by_connection_are_removed_like_hop_by_hop_headers() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("x-kept", "1"),
            ("keep-alive", "timeout=5"),
        ] {
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_static(value));
        }
        let kept = for_worker(&headers, false).map(|(name, _)| name.as_str());
        assert_eq!(kept.collect::<Vec<_>>(), ["x-kept"]);
    }

    #[test]
    fn whatever_belongs_to_one_connection_is_kept_from_clients() {
        for name in ["Te", "x-kept", "SERVER", "access-control-x", "Access-Control-", "access-contro", "date"] {
            assert_eq!(is_kept_from_client(name), !["x-kept", "access-contro", "date"].contains(&name), "{name}");
        }
        let names = "connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer upgrade";
        for name in names.split(' ').chain(["transfer-encoding"]) {
            assert!(is_hop_by_hop(&HeaderName::from_static(name)) && is_kept_from_client(name), "{name}");
        }
    }

    #[test]
    fn a_clients_keys_reach_no_worker_and_its_cookies_no_remote_one() {
        let names =
            ["authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "forwarded", "origin", "x-kept"];
        let left = |is_remote| {
            let mut headers = HeaderMap::new();
            for name in names {
                headers.append(name, HeaderValue::try_from(format!("of {name}")).unwrap());
            }
            for_worker(&headers, is_remote).map(|(name, _)| name.to_string()).collect::<BTreeSet<_>>()
        };
        assert_eq!(left(false), ["cookie", "forwarded", "x-kept"].map(str::to_owned).into());
        assert_eq!(left(true), ["x-kept"].map(str::to_owned).into());
    }

    /// Regression: `Connection: X-API-Key` removed the key before its copies were looked for.
    #[test]
    fn copies_of_a_key_are_removed_though_connection_names_its_header() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("connection", "x-api-key"), ("x-api-key", "k-0123456789abcdef")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers.append("x-copy", HeaderValue::from_static("k-0123456789abcdef"));
        let target = PathAndQuery::from_static("/props?key=k-0123456789abcdef");
        let (target, cleaned) = credentials::without_copies(&headers, target);
        assert_eq!((target.as_str(), for_worker(&cleaned, true).count()), ("/props", 0));
    }

    #[test]
    fn headers_with_which_a_remote_backend_speaks_for_its_host_are_removed() {
        let mut headers = HeaderMap::new();
        for name in ["set-cookie", "strict-transport-security", "alt-svc", "x-kept"] {
            headers.append(name, HeaderValue::from_static("1"));
        }
        prepare_for_client(&mut headers, true);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
    }

    #[test]
    fn a_request_id_is_the_clients_only_if_it_is_harmless() {
        let id_of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(X_REQUEST_ID, HeaderValue::try_from(value).unwrap());
            request_id(&headers, Timestamp::UNIX_EPOCH).to_str().unwrap().to_owned()
        };
        assert_eq!(id_of("abc.DEF_1-2"), "abc.DEF_1-2");
        for bad in ["", "a b", "a=b", &"x".repeat(129)] {
            let id = id_of(bad);
            assert_eq!(id.len(), 36, "{bad:?} became {id}");
        }
    }

    #[test]
    fn a_request_id_that_holds_the_clients_key_is_replaced() {
        let raw = "GET / HTTP/1.1\r\nX-Request-Id: k-0123456789abcdef\r\nApi-Key: k-0123456789abcdef\r\n";
        assert_eq!(request_id_of_raw(raw.as_bytes()).len(), 36);
        assert_eq!(request_id_of_raw(raw.replace("Api-Key", "X-Other").as_bytes()), "k-0123456789abcdef");
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_static("k-0123456789abcdef"));
        assert_eq!(request_id(&headers, Timestamp::UNIX_EPOCH), "k-0123456789abcdef");
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer k-0123456789abcdef"));
        assert_eq!(request_id(&headers, Timestamp::UNIX_EPOCH).len(), 36);
    }
}
