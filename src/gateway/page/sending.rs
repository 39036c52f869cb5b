//! The response with a file for browsers: which form of it, 304 where the browser has it, and the headers that keep a page
//! from loading or running anything that is not built in.

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::assets::Asset;

/// What a page may load and run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PagePolicy {
    /// Only files of this gateway, no inline script and no inline style. Images of a chat are `data:` addresses.
    Strict,
    /// The same, but for inline styles, which the viewers of the API's description set. Never inline scripts.
    InlineStyles,
}

impl PagePolicy {
    const fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Strict => {
                "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; \
                 frame-ancestors 'none'"
            }
            Self::InlineStyles => {
                "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; \
                 base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            }
        })
    }
}

/// Returns the response with a file, or 304 if the client has this form of it.
pub(super) fn respond(asset: &Asset, request: &HeaderMap, policy: PagePolicy) -> Response<Bytes> {
    let packed = asset.packed().filter(|_| accepts_gzip(request));
    let etag = packed.map_or(asset.plain_etag(), |form| &form.etag);
    let is_known = has_etag(request, etag);
    let bytes = || packed.map_or_else(|| asset.plain_bytes(), |form| &form.bytes).clone();
    let mut response = Response::new(if is_known { Bytes::new() } else { bytes() });
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(ETAG, etag.clone());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(kept_for(asset)));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.insert(CONTENT_SECURITY_POLICY, policy.header());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if !is_known {
        headers.insert(CONTENT_TYPE, asset.content_type.clone());
        if packed.is_some() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
    }
    response
}

/// Returns how long a browser may keep a file unasked. Names stay the same from version to version, so it asks each time
/// whether it has the newest, but for the icon, which it would ask for at each change of the address.
fn kept_for(asset: &Asset) -> &'static str {
    if asset.content_type.as_bytes().starts_with(b"image/") { "max-age=3600" } else { "no-cache" }
}

/// Returns whether the client takes gzip (RFC 9110, section 12.5.3).
fn accepts_gzip(request: &HeaderMap) -> bool {
    let values = request.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut codings = values.flat_map(|value| value.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip") || name == "*");
        let is_refused = parts.any(|part| part.trim_start_matches("q=").parse() == Ok(0.0));
        is_gzip && !is_refused
    })
}

/// Returns whether the client names this ETag as one that it has. A proxy may have made it a weak one.
fn has_etag(request: &HeaderMap, etag: &HeaderValue) -> bool {
    let values = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut named = values.flat_map(|value| value.split(',')).map(str::trim);
    named.any(|name| name == "*" || name.strip_prefix("W/").unwrap_or(name).as_bytes() == etag.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::assets::Form;
    use super::*;

    fn asset() -> Asset {
        let form = |bytes: &'static str, etag| Form { bytes: bytes.into(), etag: HeaderValue::from_static(etag) };
        let packed = Some(form("packed", "\"a-gz\""));
        Asset::of_forms("text/css", form("plain", "\"a\""), packed)
    }

    fn send(headers: &[(&'static str, &'static str)]) -> (u16, Bytes, HeaderMap) {
        let pairs =
            headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
        let response = respond(&asset(), &pairs.collect(), PagePolicy::Strict);
        let (parts, body) = response.into_parts();
        (parts.status.as_u16(), body, parts.headers)
    }

    #[test]
    fn a_file_is_packed_for_those_who_take_that() {
        for (accepted, expected) in [
            ("gzip, deflate, br, zstd", "packed"),
            ("GZIP;q=0.5", "packed"),
            ("*", "packed"),
            ("identity", "plain"),
            ("gzip;q=0", "plain"),
            ("gzip; q=0.0, br", "plain"),
            ("", "plain"),
        ] {
            let (status, body, headers) = send(&[("accept-encoding", accepted)]);
            assert_eq!((status, &body[..]), (200, expected.as_bytes()), "{accepted}");
            assert_eq!(headers.contains_key(CONTENT_ENCODING), expected == "packed", "{accepted}");
            assert_eq!(headers[VARY], "Accept-Encoding");
        }
    }

    #[test]
    fn a_file_that_the_browser_has_is_not_sent_again() {
        for (known, encoding, status) in [
            ("\"a\"", "", 304),
            ("\"x\", W/\"a\"", "", 304),
            ("*", "", 304),
            ("\"a-gz\"", "gzip", 304),
            ("\"a\"", "gzip", 200),
            ("\"b\"", "", 200),
            ("a", "", 200),
        ] {
            let (found, body, headers) = send(&[("if-none-match", known), ("accept-encoding", encoding)]);
            assert_eq!((found, body.is_empty()), (status, status == 304), "{known} {encoding}");
            assert!(headers.contains_key(ETAG) && headers.contains_key(CONTENT_SECURITY_POLICY), "{known}");
        }
    }
}
