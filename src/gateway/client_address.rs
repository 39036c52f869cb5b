//! Which client a request comes from, where proxies are in front (`TRUSTED_PROXIES`).
//!
//! A proxy adds the address of its own client at the end of `X-Forwarded-For`, or of `Forwarded` (RFC 7239). What stands
//! before it came with the request, and anybody may have written it. So the lists are read from their end, as far as the
//! addresses are those of trusted proxies. From any other peer the headers are ignored.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};

use super::connection::head;
use crate::settings::values::Networks;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the client of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientAddress {
    /// The address that a trusted proxy names, or else that of the connection.
    pub(crate) address: IpAddr,
    pub(crate) proof: AddressProof,
}

/// How the address of a client is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressProof {
    /// It is the address of the connection, and no trusted proxy names another.
    Connection,
    /// A trusted proxy names it.
    Proxy,
    /// A trusted proxy has sent the request, but what it says about the client is unreadable or contradictory.
    Unclear,
}

/// Finds the client of each request.
pub(super) struct ClientAddresses {
    /// `TRUSTED_PROXIES`
    trusted: Networks,
}

/// What a list of forwarding headers says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Nothing,
    Client(IpAddr),
    Unreadable,
}

impl ClientAddresses {
    pub(super) fn new(trusted: Networks) -> Self {
        Self { trusted }
    }

    /// Returns the client of a request that arrived on a connection of this peer.
    pub(super) fn of(&self, headers: &HeaderMap, peer: IpAddr) -> ClientAddress {
        self.of_values(peer, |name| headers.get_all(name).iter().map(|value| value.as_bytes()).collect())
    }

    /// Returns the client of a request whose head may be incomplete or malformed.
    pub(super) fn of_raw(&self, raw_head: &[u8], peer: IpAddr) -> ClientAddress {
        self.of_values(peer, |name| head::header_values(raw_head, name.as_str()).collect())
    }

    fn of_values<'a>(&self, peer: IpAddr, values: impl Fn(&HeaderName) -> Vec<&'a [u8]>) -> ClientAddress {
        let peer = peer.to_canonical();
        if !self.trusted.contains(peer) {
            return ClientAddress { address: peer, proof: AddressProof::Connection };
        }
        let in_list = values(&X_FORWARDED_FOR);
        let in_list = self.named(in_list.iter().rev().flat_map(|value| value.rsplit(|byte| *byte == b',').map(node)));
        let elements = values(&FORWARDED);
        let elements = elements.iter().flat_map(|value| forwarded_elements(value)).collect::<Vec<_>>();
        let in_elements = self.named(elements.into_iter().rev().map(forwarded_for));
        // A proxy writes one of the headers and may pass on the other as the client sent it.
        let (address, proof) = match (in_list, in_elements) {
            (Named::Nothing, Named::Nothing) => (peer, AddressProof::Connection),
            (Named::Client(client), Named::Nothing) | (Named::Nothing, Named::Client(client)) => {
                (client, AddressProof::Proxy)
            }
            (Named::Client(one), Named::Client(other)) if one == other => (one, AddressProof::Proxy),
            _ => (peer, AddressProof::Unclear),
        };
        ClientAddress { address, proof }
    }

    /// Returns the last address that is not a trusted proxy's, or the first one if all are.
    fn named(&self, from_end: impl Iterator<Item = Option<IpAddr>>) -> Named {
        let mut found = Named::Nothing;
        for address in from_end {
            let Some(address) = address else { return Named::Unreadable };
            found = Named::Client(address);
            if !self.trusted.contains(address) {
                break;
            }
        }
        found
    }
}

/// Parses an address with an optional port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`,
/// `[2001:db8::1]:80`.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let address = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().or_else(in_brackets).map(|address| address.to_canonical())
}

/// Splits a `Forwarded` header at the commas outside of quotes.
fn forwarded_elements(value: &[u8]) -> Vec<&[u8]> {
    split_unquoted(value, b',').collect()
}

/// Returns the address in the `for` of an element of `Forwarded`.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut found = split_unquoted(element, b';').filter_map(|pair| {
        let equals = memchr::memchr(b'=', pair)?;
        pair[..equals].trim_ascii().eq_ignore_ascii_case(b"for").then(|| pair[equals + 1..].trim_ascii())
    });
    let (Some(value), None) = (found.next(), found.next()) else { return None };
    let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    node(unquoted.unwrap_or(value))
}

fn split_unquoted(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    text.split(move |&byte| {
        is_quoted ^= byte == b'"';
        byte == separator && !is_quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::values::Value;

    const PROXY: &str = "10.0.0.1";

    fn client(peer: &str, headers: &[(&'static str, &str)]) -> (String, AddressProof) {
        let mut map = HeaderMap::new();
        let mut raw = "GET / HTTP/1.1\r\n".to_owned();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
            raw += &format!("{name}: {value}\r\n");
        }
        let addresses = ClientAddresses::new(Networks::parse("10.0.0.0/8, ::1").unwrap());
        let peer = peer.parse().unwrap();
        let client = addresses.of(&map, peer);
        assert_eq!(addresses.of_raw(raw.as_bytes(), peer), client, "{raw}");
        (client.address.to_string(), client.proof)
    }

    #[test]
    fn a_trusted_proxy_names_the_client() {
        for (name, value, expected) in [
            ("x-forwarded-for", "192.0.2.1", "192.0.2.1"),
            ("x-forwarded-for", " 192.0.2.1:4711 ", "192.0.2.1"),
            ("x-forwarded-for", "2001:db8::1", "2001:db8::1"),
            ("x-forwarded-for", "[2001:db8::1]:4711", "2001:db8::1"),
            ("x-forwarded-for", "[2001:db8::1]", "2001:db8::1"),
            ("x-forwarded-for", "::ffff:192.0.2.1", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.1, 10.9.9.9,10.0.0.2", "192.0.2.1"),
            ("x-forwarded-for", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("forwarded", "for=192.0.2.1;proto=http;by=203.0.113.43", "192.0.2.1"),
            ("forwarded", "For=\"192.0.2.1:80\"", "192.0.2.1"),
            ("forwarded", "proto=https ; FOR=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("forwarded", "for=192.0.2.9;host=\"a,b;for=1.1.1.1\", for=10.0.0.2", "192.0.2.9"),
        ] {
            for peer in [PROXY, "::ffff:10.0.0.1", "::1"] {
                assert_eq!(client(peer, &[(name, value)]), (expected.into(), AddressProof::Proxy), "{name}: {value}");
            }
        }
        let lines = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "10.0.0.2")];
        assert_eq!(client(PROXY, &lines).0, "192.0.2.1");
        let both = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1")];
        assert_eq!(client(PROXY, &both), ("192.0.2.1".into(), AddressProof::Proxy));
    }

    #[test]
    fn a_client_cannot_name_itself() {
        for value in ["1.1.1.1, 192.0.2.1", "10.0.0.9, 192.0.2.1", "garbage, 192.0.2.1", "1.1.1.1,,192.0.2.1, 10.0.0.2"]
        {
            assert_eq!(client(PROXY, &[("x-forwarded-for", value)]).0, "192.0.2.1", "{value}");
        }
        let lines = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "192.0.2.1")];
        assert_eq!(client(PROXY, &lines).0, "192.0.2.1");
        let headers = [("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1")];
        assert_eq!(client("192.0.2.7", &headers), ("192.0.2.7".into(), AddressProof::Connection), "it is no proxy");
        assert_eq!(client(PROXY, &[]), (PROXY.into(), AddressProof::Connection));
    }

    #[test]
    fn a_malformed_header_leaves_the_address_of_the_connection() {
        for (name, value) in [
            ("x-forwarded-for", "unknown"),
            ("x-forwarded-for", "192.0.2.1, 10.0.0.2, "),
            ("x-forwarded-for", "192.0.2.1.5"),
            ("x-forwarded-for", "192.0.2.1, _hidden"),
            ("x-forwarded-for", ""),
            ("forwarded", "for=unknown"),
            ("forwarded", "proto=https"),
            ("forwarded", "for=192.0.2.1;for=192.0.2.2"),
            ("forwarded", "for=\"192.0.2.1"),
        ] {
            assert_eq!(client(PROXY, &[(name, value)]), (PROXY.into(), AddressProof::Unclear), "{name}: {value}");
        }
        let contradiction = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=1.1.1.1")];
        assert_eq!(client(PROXY, &contradiction), (PROXY.into(), AddressProof::Unclear));
    }
}
