//! The credentials that a request carries: the headers that hold API keys, and whatever else in a request's head repeats
//! one of them.
//!
//! The same goes for the access log, whose paths come from clients.
//!
//! A worker must not see the client's credentials under any name. Clients and proxies copy a key from one header to
//! another, so removing the key headers is not enough: a header value, a query parameter or a cookie that holds a
//! presented secret is removed too. Bodies are not searched.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use memchr::memmem;
use percent_encoding::percent_decode;

use super::bounds::OFFERED_KEYS;
use super::mostly_one::MostlyOne;
use crate::keys::secret::SECRET_LENGTH;

/// The headers in which clients send an API key: Anthropic's, Azure's and Google's clients have one of their own.
/// `Authorization` comes last, because a platform's edge may use it for a key of its own.
pub(super) static KEY_HEADERS: [HeaderName; 4] = [
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
    header::AUTHORIZATION,
];

/// Returns whether a header is one of [`KEY_HEADERS`]. Every header of a request is looked at, and this costs less than a
/// lookup of each name.
pub(super) fn is_key_header(name: &HeaderName) -> bool {
    matches!(name.as_str(), "x-api-key" | "api-key" | "x-goog-api-key" | "authorization")
}

/// Words before a secret that are no secrets themselves: the schemes of `Authorization` that clients use for keys.
const SCHEMES: [&[u8]; 5] = [b"bearer", b"basic", b"token", b"key", b"apikey"];

/// The shortest secret that is looked for within longer texts. A shorter one, which is no key of ours, would be found in
/// harmless texts, so it must be the whole value.
const SEARCHED: usize = *SECRET_LENGTH.start();

/// Decodes `Basic` credentials, with and without their padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What the logs show in place of a secret.
const MASK: &str = "***";

/// A text that is no key, in place of a header value that is no text.
const UNREADABLE: &str = "?";

/// Returns the different keys that a request offers, at most [`OFFERED_KEYS`]: `K` or `Bearer K` in each of
/// [`KEY_HEADERS`], which a proxy may have joined to a list (RFC 9110, section 5.3). An empty header offers none.
pub(super) fn offered_keys(headers: &HeaderMap) -> MostlyOne<&str> {
    let rank = |name: &HeaderName| KEY_HEADERS.iter().position(|known| known == name);
    let mut values = headers.iter().filter(|(name, _)| is_key_header(name));
    let mut offered = MostlyOne::new();
    match (values.next(), values.next()) {
        // Nearly every request has one, which needs no order.
        (Some((_, only)), None) => add_keys(only, &mut offered),
        (first, second) => {
            let mut all: Vec<_> = first.into_iter().chain(second).chain(values).collect();
            all.sort_by_key(|(name, _)| rank(name));
            all.iter().for_each(|(_, value)| add_keys(value, &mut offered));
        }
    }
    offered
}

/// Adds the keys in the value of a key header to those of other headers.
fn add_keys<'a>(value: &'a HeaderValue, offered: &mut MostlyOne<&'a str>) {
    // Not `to_str`, which looks at each byte for what no header value holds.
    let text = std::str::from_utf8(value.as_bytes()).ok().filter(|text| text.is_ascii()).unwrap_or(UNREADABLE);
    for key in text.split(',').map(without_bearer) {
        if !key.is_empty() && !offered.contains(&key) && offered.len() < OFFERED_KEYS {
            offered.push(key);
        }
    }
}

/// Returns the key after the scheme `Bearer`, which is case-insensitive (RFC 9110, section 11.1) and may be left out.
fn without_bearer(text: &str) -> &str {
    let text = text.trim();
    match text.split_at_checked("bearer".len()) {
        Some((scheme, "")) if scheme.eq_ignore_ascii_case("bearer") => "",
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") && key.starts_with([' ', '\t']) => key.trim(),
        _ => text,
    }
}

/// Returns the request target and the headers of a request without the secrets of the key headers elsewhere. The key
/// headers themselves stay. The headers are copied only if they hold such a copy.
pub(super) fn without_copies(headers: &HeaderMap, target: PathAndQuery) -> (PathAndQuery, Cow<'_, HeaderMap>) {
    let secrets = PresentedSecrets::of(headers);
    let target = secrets.strip_query(target);
    let mut others = headers.iter().filter(|(name, _)| !is_key_header(name));
    if !others.any(|(_, value)| secrets.are_in(value.as_bytes())) {
        return (target, Cow::Borrowed(headers));
    }
    let mut cleaned = headers.clone();
    secrets.strip_headers(&mut cleaned);
    (target, Cow::Owned(cleaned))
}

/// The secrets in the key headers of one request, whether they are keys of ours or not.
pub(super) struct PresentedSecrets<'a>(MostlyOne<Cow<'a, [u8]>>);

impl<'a> PresentedSecrets<'a> {
    /// Collects the secrets of a request. Its key headers must still be there.
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let key_headers = headers.iter().filter(|(name, _)| is_key_header(name));
        Self::in_values(key_headers.map(|(_, value)| value.as_bytes()))
    }

    /// Collects the secrets in these values of key headers.
    pub(super) fn in_values(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut secrets = Self(MostlyOne::new());
        for value in values {
            secrets.add(value.trim_ascii());
        }
        secrets
    }

    /// Adds what may be a secret in the value of a key header: the text after the scheme, its parts, and for `Basic` the
    /// user and the password.
    fn add(&mut self, value: &'a [u8]) {
        let text = after_scheme(value);
        self.add_secret(text.into());
        // Nearly every key is one part.
        if text.iter().any(|byte| SEPARATORS[usize::from(*byte)]) {
            for part in parts(text) {
                if part.len() < text.len() && !SCHEMES.iter().any(|scheme| part.eq_ignore_ascii_case(scheme)) {
                    self.add_secret(part.into());
                }
            }
        }
        if let Some(decoded) = decode_basic(value) {
            let colon = memchr::memchr(b':', &decoded).unwrap_or(decoded.len());
            self.add_secret(decoded[..colon].to_vec().into());
            self.add_secret(decoded.get(colon + 1..).unwrap_or_default().to_vec().into());
        }
    }

    fn add_secret(&mut self, secret: Cow<'a, [u8]>) {
        if !secret.is_empty() && !self.0.contains(&secret) {
            self.0.push(secret);
        }
    }

    /// Whether a header value, a query parameter or a cookie holds one of the secrets: as it is, percent-encoded, or in
    /// the base64 of `Basic`.
    pub(super) fn are_in(&self, text: &[u8]) -> bool {
        // Most texts are shorter than a key, and are done after this comparison of lengths.
        if self.are_longer_than(text) {
            return false;
        }
        let is_in = |text: &[u8]| self.0.iter().any(|secret| is_secret_in(secret, text));
        is_in(text)
            || memchr::memchr(b'%', text).is_some() && is_in(&percent_decode(text).collect::<Vec<u8>>())
            || decode_basic(text).is_some_and(|decoded| is_in(&decoded))
    }

    /// Whether each secret is longer than this text, so that none can be in it. Decoding makes no text longer.
    fn are_longer_than(&self, text: &[u8]) -> bool {
        self.0.iter().all(|secret| text.len() < secret.len())
    }

    /// Removes the header values that hold a secret. Other values of the same header stay; in `Cookie`, so do other
    /// cookies.
    fn strip_headers(&self, headers: &mut HeaderMap) {
        let mut found: Vec<HeaderName> = Vec::new();
        for (name, value) in headers.iter().filter(|(name, _)| !is_key_header(name)) {
            if self.are_in(value.as_bytes()) && found.last() != Some(name) {
                found.push(name.clone());
            }
        }
        for name in found {
            let values: Vec<HeaderValue> = headers.get_all(&name).iter().cloned().collect();
            headers.remove(&name);
            for value in values {
                if !self.are_in(value.as_bytes()) {
                    headers.append(&name, value);
                } else if name == header::COOKIE
                    && let Some(others) = self.other_cookies(value.as_bytes())
                {
                    headers.append(&name, others);
                }
            }
        }
    }

    /// Returns a request target without the query parameters that hold a secret.
    pub(super) fn strip_query(&self, target: PathAndQuery) -> PathAndQuery {
        let Some(query) = target.query() else { return target };
        // A form encodes a space as a plus sign.
        let holds = |parameter: &&str| {
            self.are_in(parameter.as_bytes())
                || parameter.contains('+') && self.are_in(parameter.replace('+', " ").as_bytes())
        };
        if !query.split('&').any(|parameter| holds(&parameter)) {
            return target;
        }
        let kept: Vec<&str> = query.split('&').filter(|parameter| !holds(parameter)).collect();
        let path = target.path();
        let stripped = if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
        // Parts of a valid target make a valid target.
        PathAndQuery::try_from(stripped).unwrap_or_else(|_| PathAndQuery::from_static("/"))
    }

    /// Returns a path for the logs: each segment that holds a secret is masked.
    pub(super) fn mask_path(&self, path: &str) -> String {
        // Most paths are shorter than a key.
        if self.are_longer_than(path.as_bytes()) {
            return path.to_owned();
        }
        let mask = |segment| if self.are_in(str::as_bytes(segment)) { MASK } else { segment };
        let masked = path.split('/').map(mask).collect::<Vec<_>>().join("/");
        // A secret may have slashes itself.
        if self.are_in(masked.as_bytes()) { format!("/{MASK}") } else { masked }
    }

    /// Returns the value of a `Cookie` header without the cookies that hold a secret, or `None` if none is left.
    fn other_cookies(&self, cookies: &[u8]) -> Option<HeaderValue> {
        let pairs = cookies.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let kept: Vec<&[u8]> = pairs.filter(|pair| !pair.is_empty() && !self.are_in(pair)).collect();
        if kept.is_empty() { None } else { HeaderValue::from_bytes(&kept.join(&b"; "[..])).ok() }
    }
}

/// Whether this text holds a secret: anywhere, or for a short secret as one of its parts.
fn is_secret_in(secret: &[u8], text: &[u8]) -> bool {
    match secret.len() {
        length if length > text.len() => false,
        SEARCHED.. => memmem::find(text, secret).is_some(),
        _ => parts(text).any(|part| part == secret),
    }
}

/// Whether each byte separates parts: white space, commas, semicolons, colons, equals signs and quotes. A table, because
/// every byte of a key is looked up for each request.
const SEPARATORS: [bool; 256] = {
    let (mut table, mut at) = ([false; 256], 0);
    while at < table.len() {
        table[at] = (at as u8).is_ascii_whitespace() || matches!(at as u8, b',' | b';' | b':' | b'=' | b'"');
        at += 1;
    }
    table
};

/// Returns the parts of a text between [`SEPARATORS`].
fn parts(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| SEPARATORS[usize::from(*byte)])
}

/// Returns the text after the first word, or the whole text if it is one word.
fn after_scheme(value: &[u8]) -> &[u8] {
    let end = value.iter().position(u8::is_ascii_whitespace);
    end.map_or(value, |end| value[end..].trim_ascii())
}

/// Decodes `Basic` credentials (RFC 7617): `user:password`.
fn decode_basic(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, credentials) = value.split_at_checked(b"basic ".len())?;
    if scheme.eq_ignore_ascii_case(b"basic ") { BASE64.decode(credentials.trim_ascii()).ok() } else { None }
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
