//! Which web pages may read the gateway's answers: CORS, as the Fetch standard defines it.
//!
//! Owns the preflight and the headers that an answer gets for its origin. It keeps nobody out who is not a browser:
//! keys do that. Everything that does not depend on the request is made once, and nothing is done while CORS is off.

use crate::gateway::bounds::{PREFLIGHT_HEADER_NAMES, PREFLIGHT_MAX_AGE};
use crate::gateway::connection::head::is_token_char;
use crate::settings::values::Origins;
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

/// Every method that a route has.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");

/// Headers that a page may send when it does not say which it wants to.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, X-API-Key, X-Request-Id, Accept, Anthropic-Version, Anthropic-Beta, \
     OpenAI-Organization, OpenAI-Project",
);

/// Headers of an answer that a page may read beside the few that it always may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "X-Request-Id, Retry-After, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, \
     x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, \
     x-llamagate-model, x-llamagate-worker, x-llamagate-attempts",
);

const ANY_ORIGIN: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
const VARY_REQUEST_HEADERS: HeaderValue = HeaderValue::from_static("Access-Control-Request-Headers");

/// The origins that may call, ready to be compared and answered.
#[derive(Debug)]
pub(crate) struct Cors {
    mode: OriginPolicy,
    max_age: HeaderValue,
}

#[derive(Debug)]
enum OriginPolicy {
    Off,
    Any,
    /// Sorted.
    List(Vec<HeaderValue>),
}

impl Cors {
    /// With the origins of the setting.
    pub(crate) fn new(origins: &Origins) -> Self {
        let mode = match origins {
            Origins::Off => OriginPolicy::Off,
            Origins::Any => OriginPolicy::Any,
            Origins::List(list) => {
                // The setting holds nothing that is not a header value.
                let mut values: Vec<HeaderValue> = list.iter().flat_map(HeaderValue::try_from).collect();
                values.sort_unstable();
                OriginPolicy::List(values)
            }
        };
        Self { mode, max_age: HeaderValue::from(PREFLIGHT_MAX_AGE.as_secs()) }
    }

    /// Whether any page may call, so that `OPTIONS` is answered.
    pub(crate) fn is_enabled(&self) -> bool {
        !matches!(self.mode, OriginPolicy::Off)
    }

    /// What [`Cors::decorate`] needs of a request, which by then is gone.
    pub(crate) fn origin(&self, request: &HeaderMap) -> Option<HeaderValue> {
        if self.is_enabled() { single_value(request, &ORIGIN).cloned() } else { None }
    }

    /// The answer to `OPTIONS`: 204, and for an origin that may call, what it may do.
    ///
    /// `Access-Control-Request-Private-Network` is answered with silence, which means no.
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

    /// Adds to an answer what lets the page read it that sent the request, if its origin may call. `origin` is the
    /// request's only `Origin` header. Doing it twice does no more than doing it once.
    pub(crate) fn insert_headers(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if self.allow_origin(origin, headers) {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }

    /// Names the origin in the answer if it may call, and says whether it may.
    fn allow_origin(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) -> bool {
        match &self.mode {
            OriginPolicy::Off => false,
            OriginPolicy::Any => {
                // Without credentials: browsers refuse them beside `*`, and an origin repeated in its place would let
                // every page use those of its visitors. A key in a header needs none.
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY_ORIGIN);
                true
            }
            OriginPolicy::List(list) => {
                // Also on answers to others, lest a cache give those to a page that may read them, or the reverse.
                vary_by_origin(headers);
                let Some(Ok(place)) = origin.map(|origin| list.binary_search(origin)) else { return false };
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, list[place].clone());
                // Any page can make itself the origin `null`, in a sandboxed frame.
                if list[place] != "null" {
                    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
                }
                true
            }
        }
    }
}

/// The value of a header that must not come twice. Twice is as good as never.
fn single_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Adds `Origin` to what `Vary` says already, as a line of its own: lines of one name are one list.
fn vary_by_origin(headers: &mut HeaderMap) {
    let is_said = headers.get_all(VARY).iter().any(|value| {
        let mut names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
    });
    if !is_said {
        headers.append(VARY, VARY_ORIGIN);
    }
}

/// Whether this is a list of header names that can be repeated in an answer.
fn is_header_name_list(value: &HeaderValue) -> bool {
    let mut names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    value.len() <= PREFLIGHT_HEADER_NAMES
        && names.all(|name| !name.is_empty() && name.iter().all(|&byte| is_token_char(byte)))
}

#[cfg(test)]
#[path = "cors_tests.rs"]
mod tests;
