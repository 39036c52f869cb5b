//! CORS (Fetch standard): which web pages may read the gateway's responses.
//!
//! Owns the preflight response and the CORS headers of other responses. Only browsers enforce CORS; access control is up
//! to API keys. All values that do not depend on the request are created once, and a disabled CORS costs nothing.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::gateway::bounds::{PREFLIGHT_HEADER_NAMES, PREFLIGHT_MAX_AGE};
use crate::gateway::connection::head::is_token_char;
use crate::settings::values::Origins;

/// Every method of the route table.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PATCH, DELETE, OPTIONS");

/// The request headers that are allowed when a preflight does not ask for particular ones.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, X-API-Key, X-Request-Id, Accept, Anthropic-Version, Anthropic-Beta, \
     OpenAI-Organization, OpenAI-Project",
);

/// The response headers that a page may read besides the CORS-safelisted ones.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "X-Request-Id, Retry-After, retry-after-ms, x-should-retry, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, \
     x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, \
     x-llamagate-model, x-llamagate-worker, x-llamagate-attempts, x-llamagate-cache, Age",
);

const ANY_ORIGIN: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
const VARY_REQUEST_HEADERS: HeaderValue = HeaderValue::from_static("Access-Control-Request-Headers");

/// The allowed origins, in a form ready to compare and send.
#[derive(Debug)]
pub(crate) struct Cors {
    mode: OriginPolicy,
    max_age: HeaderValue,
}

/// The origins that may read responses.
#[derive(Debug)]
enum OriginPolicy {
    Off,
    /// `*`
    Any,
    /// Sorted, for a binary search.
    List(Vec<HeaderValue>),
}

impl Cors {
    /// Creates the policy from the parsed setting.
    pub(crate) fn new(origins: &Origins) -> Self {
        let mode = match origins {
            Origins::Off => OriginPolicy::Off,
            Origins::Any => OriginPolicy::Any,
            Origins::List(list) => {
                // Drops nothing: the parser of the setting accepts only valid header values.
                let mut values: Vec<HeaderValue> = list.iter().flat_map(HeaderValue::try_from).collect();
                values.sort_unstable();
                OriginPolicy::List(values)
            }
        };
        Self { mode, max_age: HeaderValue::from(PREFLIGHT_MAX_AGE.as_secs()) }
    }

    /// Whether any origin is allowed. Only then does the gateway answer `OPTIONS`.
    pub(crate) fn is_enabled(&self) -> bool {
        !matches!(self.mode, OriginPolicy::Off)
    }

    /// Returns the request's `Origin`, to be kept for [`Cors::insert_headers`]: the request is consumed before its response
    /// exists.
    pub(crate) fn origin(&self, request: &HeaderMap) -> Option<HeaderValue> {
        if self.is_enabled() { single_value(request, &ORIGIN).cloned() } else { None }
    }

    /// Returns the response to `OPTIONS`: 204, for an allowed origin with the allowed methods and headers.
    ///
    /// Ignores `Access-Control-Request-Private-Network`, which denies it.
    pub(crate) fn preflight(&self, request: &HeaderMap) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        if self.allow_origin(single_value(request, &ORIGIN), headers) {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
            match single_value(request, &ACCESS_CONTROL_REQUEST_HEADERS).filter(|names| is_header_name_list(names)) {
                Some(names) => {
                    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
                    headers.append(VARY, VARY_REQUEST_HEADERS);
                }
                None => {
                    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
                }
            }
        }
        response
    }

    /// Inserts the CORS headers if `origin` is allowed. `origin` is the only `Origin` header of the request. Idempotent.
    pub(crate) fn insert_headers(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if self.allow_origin(origin, headers) {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }

    /// Inserts `Access-Control-Allow-Origin` if the origin is allowed. Returns whether it is.
    fn allow_origin(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) -> bool {
        match &self.mode {
            OriginPolicy::Off => false,
            OriginPolicy::Any => {
                // No credentials: browsers reject them together with `*`, and echoing the origin instead would let every
                // page use its visitors' credentials. A key in a header works without them.
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY_ORIGIN);
                true
            }
            OriginPolicy::List(list) => {
                // Also for origins that are not allowed: otherwise a cache could serve their response to an allowed
                // origin, or the reverse.
                vary_by_origin(headers);
                let Some(Ok(index)) = origin.map(|origin| list.binary_search(origin)) else { return false };
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, list[index].clone());
                // Any page can get the origin `null` with a sandboxed frame.
                if list[index] != "null" {
                    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
                }
                true
            }
        }
    }
}

/// Returns the value of a header that must be unique; `None` if it is missing or repeated.
fn single_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Adds `Origin` to `Vary`, unless it is there. A separate line is enough: lines of the same name form one list (RFC 9110,
/// section 5.3).
fn vary_by_origin(headers: &mut HeaderMap) {
    let has_origin = headers.get_all(VARY).iter().any(|value| {
        let mut names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
    });
    if !has_origin {
        headers.append(VARY, VARY_ORIGIN);
    }
}

/// Whether the value is a list of valid header names, short enough to echo in a response.
fn is_header_name_list(value: &HeaderValue) -> bool {
    let mut names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    value.len() <= PREFLIGHT_HEADER_NAMES
        && names.all(|name| !name.is_empty() && name.iter().all(|&byte| is_token_char(byte)))
}

#[cfg(test)]
#[path = "cors_tests.rs"]
mod tests;
