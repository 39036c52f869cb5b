//! The address of a remote backend, brought into the one form that the rest of the program joins routes to.

use crate::settings::values::{BadHost, canonical_host};
use http::Uri;
use std::net::Ipv4Addr;

/// Characters of a path that are sent as `%XX` alone. A path that holds them as they are is refused, not rewritten.
const ENCODED: &str = "\"<>^`{}";

/// `http://` or `https://`, host, port and the path before `/v1`, without a slash at the end; or what is wrong. The error
/// quotes nothing, for an address may hold a password.
pub(in crate::settings) fn api_base(text: &str) -> Result<String, &'static str> {
    if text.bytes().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control()) {
        return Err("a URL has no spaces");
    }
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    let (scheme, default_port) = match () {
        () if lower.starts_with("http://") => ("http", 80),
        () if lower.starts_with("https://") => ("https", 443),
        () => return Err("it starts with http:// or https://"),
    };
    let after_scheme = &text[scheme.len() + "://".len()..];
    // Programs differ in where a host ends that is followed by a backslash.
    if text.contains('\\') {
        return Err("a URL has slashes, no backslashes");
    }
    let authority = after_scheme.split('/').next().unwrap_or_default();
    if authority.is_empty() {
        return Err("it names a host, and perhaps a port from 1");
    }
    if authority.contains('@') {
        return Err("put the key into api_key, not into the URL");
    }
    // Not left to the parser, which drops a fragment.
    if text.contains(['?', '#']) {
        return Err("leave out what follows ? or #");
    }
    if !authority.is_ascii() {
        return Err("write a host with such letters in ASCII, starting with xn--");
    }
    let after_authority = &after_scheme[authority.len()..];
    if !after_authority.is_ascii() || after_authority.contains(|c| ENCODED.contains(c)) {
        return Err("write such characters of a path as %XX");
    }
    let uri: Uri = text.parse().map_err(|_| "this is no URL")?;
    let authority = uri.authority().ok_or("this is no URL")?;
    if authority.host().is_empty() {
        return Err("it names a host, and perhaps a port from 1");
    }
    let host = host(authority.host())?;
    // `Uri` takes any text for a port.
    let port = match authority.as_str().strip_prefix(authority.host()) {
        None => return Err("this is no URL"),
        Some("" | ":") => None,
        Some(port) => Some(port_number(port).ok_or("this is no URL")?),
    };
    if port == Some(0) {
        return Err("it names a host, and perhaps a port from 1");
    }
    let path = uri.path().trim_end_matches('/');
    let path = path.strip_suffix("/v1").unwrap_or(path).trim_end_matches('/');
    if path.split('/').any(is_dots) {
        return Err("leave out . and .. in the path");
    }
    if path.split('/').any(|part| part == "v1") {
        return Err("leave out /v1 and what follows: the route of a request brings it");
    }
    Ok(match port.filter(|port| *port != default_port) {
        Some(port) => format!("{scheme}://{host}:{port}{path}"),
        None => format!("{scheme}://{host}{path}"),
    })
}

/// Returns the host in the one form that addresses have. A dot at the end of a name keeps resolvers from adding domains to
/// it, so it stays.
fn host(host: &str) -> Result<String, &'static str> {
    let (name, dot) = match host.strip_suffix('.') {
        Some(name) if name.parse::<Ipv4Addr>().is_ok() => (name, ""),
        Some(name) => (name, "."),
        None => (host, ""),
    };
    let name = canonical_host(name).map_err(|bad| match bad {
        BadHost::Ipv6 => "what stands in brackets is an IPv6 address",
        BadHost::NotAscii => "write a host with such letters in ASCII, starting with xn--",
        BadHost::Name => "the host is a name such as server1 or an address",
        BadHost::Ipv4 => "an IPv4 address has four decimal numbers",
    })?;
    Ok(format!("{name}{dot}"))
}

/// Reads the colon and digits behind a host.
fn port_number(text: &str) -> Option<u16> {
    let digits = text.strip_prefix(':')?;
    // A number may have a sign for `parse`, a port may not.
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Whether a part of a path means this or the upper folder. Servers disagree about who resolves such parts.
fn is_dots(part: &str) -> bool {
    let part = part.to_ascii_lowercase().replace("%2e", ".");
    part == "." || part == ".."
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_lose_what_routes_bring() {
        for (text, base) in [
            ("http://server1:8000", "http://server1:8000"),
            ("http://server1:8000/", "http://server1:8000"),
            ("http://server1:8000/v1", "http://server1:8000"),
            ("http://server1:8000/v1/", "http://server1:8000"),
            ("HTTPS://API.Example.ORG:443/openai/v1", "https://api.example.org/openai"),
            ("http://[::1]:9/x//", "http://[::1]:9/x"),
            ("http://a:80", "http://a"),
            ("http://a:443", "http://a:443"),
            ("http://a:08080", "http://a:8080"),
            ("http://a:", "http://a"),
            ("http://a./x", "http://a./x"),
            ("http://127.0.0.1.", "http://127.0.0.1"),
            ("http://my_host-1", "http://my_host-1"),
            ("http://[0:0::FFFF:1.2.3.4]", "http://[::ffff:102:304]"),
            ("http://xn--bcher-kva.example", "http://xn--bcher-kva.example"),
            ("http://a/gr%C3%B6%C3%9Fe%2f/V1", "http://a/gr%C3%B6%C3%9Fe%2f/V1"),
        ] {
            assert_eq!(api_base(text).as_deref(), Ok(base), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "server1:8000",
            "ftp://a",
            "http://",
            "http:///x",
            "http://u@a",
            "http://u:p@a",
            "http://@a",
            "http://a?x",
            "http://a#x",
            "http://a b",
            "http://a:0",
            "http://a:99999",
            "http://a/v1/chat/completions",
            "http:a",
            "unix:/x",
        ] {
            assert!(api_base(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_refused_is_named() {
        for (text, reason) in [
            ("http://a b", "no spaces"),
            ("server1:8000", "starts with http"),
            ("http://", "names a host"),
            ("http:///x", "names a host"),
            ("http://a:0", "port from 1"),
            ("http://u:p@a", "api_key"),
            ("http://@a", "api_key"),
            ("http://a?", "? or #"),
            ("http://a/x#y", "? or #"),
            ("http://a/v1/chat/completions", "/v1"),
            ("http://a:99999", "no URL"),
            ("http://a:+1", "no URL"),
            ("http://a:x", "no URL"),
            ("http://:80", "names a host"),
            ("http://b\u{fc}cher.example", "xn--"),
            ("http://a/gr\u{f6}\u{df}e", "%XX"),
            ("http://a/{x}", "%XX"),
            ("http://a\\x", "backslashes"),
            ("http://\\a", "backslashes"),
            ("http://a/x/../y", ". and .."),
            ("http://a/x/%2E/y", ". and .."),
            ("http://127.1", "four decimal numbers"),
            ("http://0x7f000001", "four decimal numbers"),
            ("http://1.2.3.256", "four decimal numbers"),
            ("http://a..b", "a name such as"),
            ("http://a*b", "a name such as"),
            ("http://[1.2.3.4]", "IPv6"),
        ] {
            let error = api_base(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
        for text in ["http://[::1", "http://::1", "http://a%2eb", "http://[fe80::1%25eth0]", "http://[::1]x"] {
            assert!(api_base(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_base_stays_as_it_is(text in "https?://[a-zA-Z0-9.\\[\\]:@-]{0,12}(/v1|/x|/|//|\\?|%2f){0,4}") {
            if let Ok(base) = api_base(&text) {
                prop_assert_eq!(api_base(&base), Ok(base.clone()));
                prop_assert!(!base.ends_with('/'));
            }
        }
    }
}
