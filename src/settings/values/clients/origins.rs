//! `CORS_ORIGINS`: the origins that browsers may call from, as browsers write them.
//!
//! The gateway compares origins byte by byte with the header `Origin`, so this type normalizes them to the form that
//! browsers send. An entry that no browser can send is an error: it would never match, and the mistake would go
//! unnoticed.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::settings::values::value::{Rejected, Value};

/// Origins that browsers may call from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// No CORS headers at all.
    Off,
    /// Every origin, without credentials.
    Any,
    /// Exactly these, each `null` or `scheme://host[:port]` in the form that browsers send.
    List(Vec<String>),
}

impl Value for Origins {
    fn parse(text: &str) -> Result<Self, Rejected> {
        if text.trim().is_empty() {
            return Ok(Self::Off);
        }
        let mut is_any = false;
        let mut list = Vec::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            if entry == "*" {
                is_any = true;
                continue;
            }
            let origin = serialized(entry).map_err(|hint| rejected().with_hint(hint))?;
            if !list.contains(&origin) {
                list.push(origin);
            }
        }
        match (is_any, list.is_empty()) {
            (true, _) => Ok(Self::Any),
            (false, false) => Ok(Self::List(list)),
            (false, true) => Err(rejected()),
        }
    }
}

fn rejected() -> Rejected {
    Rejected::new("origins such as https://app.example.org, separated by commas, or *")
}

/// Returns an origin as browsers send it ("serialization of an origin" of the HTML standard), or a hint about what is
/// wrong.
fn serialized(entry: &str) -> Result<String, &'static str> {
    if entry == "null" {
        return Ok(entry.to_owned());
    }
    let (scheme, rest) = entry.split_once("://").ok_or("an origin starts with a scheme, such as https://")?;
    let is_scheme_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(is_scheme_byte) {
        return Err("an origin starts with a scheme, such as https://");
    }
    let scheme = scheme.to_ascii_lowercase();
    if scheme == "file" {
        return Err("pages from files have the origin null");
    }
    // A copied URL often ends with a slash, and its origin is clear.
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '\\']) {
        return Err("an origin has a scheme, a host and an optional port, but no path");
    }
    if authority.contains('@') {
        return Err("an origin has no user name");
    }
    if authority.contains('*') {
        return Err("patterns are not supported: list each origin, or allow all with *");
    }
    let (host, port) = split_port(authority)?;
    let default_port = match scheme.as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    // Browsers normalize the hosts of http and https, and send those of other schemes, such as browser extensions, as
    // they are.
    let host = if default_port.is_some() { web_host(host)? } else { other_host(host)? };
    Ok(match port {
        // Browsers leave out the default port.
        Some(port) if Some(port) != default_port => format!("{scheme}://{host}:{port}"),
        _ => format!("{scheme}://{host}"),
    })
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    // The colons of an IPv6 address are inside its brackets.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => return Ok((authority, None)),
    };
    match port.parse::<u16>() {
        Ok(number) if number > 0 && port.bytes().all(|byte| byte.is_ascii_digit()) => Ok((host, Some(number))),
        _ => Err("a port is a number from 1 to 65535"),
    }
}

fn web_host(host: &str) -> Result<String, &'static str> {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| "brackets must contain an IPv6 address")?;
        return Ok(format!("[{}]", hexadecimal(address)));
    }
    if !host.is_ascii() {
        return Err("browsers send such a host in ASCII, starting with xn--");
    }
    let host = host.to_ascii_lowercase();
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if !host.split('.').all(is_label) {
        return Err("the host is a name such as app.example.org or an address");
    }
    // Browsers parse a host whose last label is a number as an IPv4 address (WHATWG URL standard, "ends in a number"),
    // and send all four decimal parts.
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_hexadecimal = last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if (is_hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit())) && host.parse::<Ipv4Addr>().is_err() {
        return Err("an IPv4 address has four decimal numbers");
    }
    Ok(host)
}

/// Returns an address as browsers write it: Rust ends IPv4-mapped addresses with dotted decimals, browsers do not.
fn hexadecimal(address: Ipv6Addr) -> String {
    match address.to_ipv4_mapped() {
        Some(_) => {
            let [.., high, low] = address.segments();
            format!("::ffff:{high:x}:{low:x}")
        }
        None => address.to_string(),
    }
}

fn other_host(host: &str) -> Result<String, &'static str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_plain) {
        return Err("the host after :// is missing or has characters that are not allowed in a host");
    }
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse_single(text: &str) -> String {
        match Origins::parse(text) {
            Ok(Origins::List(list)) if list.len() == 1 => list[0].clone(),
            other => panic!("{text} is {other:?}"),
        }
    }

    #[test]
    fn an_empty_setting_is_off_and_a_star_is_any() {
        assert_eq!(Origins::parse(""), Ok(Origins::Off));
        assert_eq!(Origins::parse("  "), Ok(Origins::Off));
        assert_eq!(Origins::parse(" * "), Ok(Origins::Any));
        assert_eq!(Origins::parse("https://a.example, *"), Ok(Origins::Any));
        assert!(Origins::parse("*, a.example").is_err(), "a star does not hide a mistake");
    }

    #[test]
    fn a_list_may_end_with_a_comma_and_repeat_itself() {
        let list = Origins::List(vec!["https://a.example".into(), "http://localhost:3000".into()]);
        assert_eq!(Origins::parse("https://a.example/, http://localhost:3000,"), Ok(list.clone()));
        assert_eq!(Origins::parse("https://A.example:443,,http://localhost:3000, https://a.example"), Ok(list));
        assert!(Origins::parse(",").is_err() && Origins::parse(" , ,").is_err());
    }

    #[test]
    fn origins_are_normalized_to_the_form_that_browsers_send() {
        for (text, origin) in [
            ("HTTPS://App.Example.ORG", "https://app.example.org"),
            ("https://a.example:443", "https://a.example"),
            ("http://a.example:80/", "http://a.example"),
            ("http://a.example:443", "http://a.example:443"),
            ("http://a.example:08080", "http://a.example:8080"),
            ("http://192.168.0.10:3000", "http://192.168.0.10:3000"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("http://[2001:DB8:0:0::1]", "http://[2001:db8::1]"),
            ("http://[::FFFF:1.2.3.4]", "http://[::ffff:102:304]"),
            ("https://my_host-1.local", "https://my_host-1.local"),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
            ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
            ("Capacitor://localhost", "capacitor://localhost"),
            ("null", "null"),
        ] {
            assert_eq!(parse_single(text), origin);
            assert_eq!(parse_single(origin), origin, "the normalized form is stable");
        }
    }

    #[test]
    fn origins_that_no_browser_sends_are_refused_with_a_hint() {
        for text in [
            "a.example",
            "a.example:3000",
            "https://",
            "https:///",
            "https://:443",
            "https://a.example/app",
            "https://a.example//",
            "https://a.example?x",
            "https://a.example#x",
            "https://a.example\\x",
            "https://user@a.example",
            "https://user:secret@a.example",
            "https://*.example.org",
            "https://*",
            "https://a.example:",
            "https://a.example:0",
            "https://a.example:+1",
            "https://a.example:65536",
            "https://a..example",
            "https://a example",
            "https://b\u{fc}cher.example",
            "https://a.example\u{7f}",
            "http://127.1",
            "http://1.2.3.256",
            "http://0x7f.0.0.0x1",
            "http://[::1",
            "http://::1",
            "http://[::1]x",
            "http://[fe80::1%25eth0]",
            "http://[1.2.3.4]",
            "file://",
            "file:///home/me/page.html",
            "Null",
            "://a.example",
            "1http://a.example",
            "ht tp://a.example",
            "app://a b",
        ] {
            let rejected = Origins::parse(text).expect_err(text);
            assert!(rejected.hint.is_some(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn normalized_origins_parse_to_themselves(
            text in "([hH]ttps?|app)://(\\[[0-9a-fA-F:.]{2,12}\\]|[a-zA-Z0-9.*@-]{0,12})(:[0-9]{0,6})?/?",
        ) {
            if let Ok(Origins::List(list)) = Origins::parse(&text) {
                prop_assert_eq!(Origins::parse(&list.join(",")), Ok(Origins::List(list)));
            }
        }
    }
}
