//! A host of an `http://` or `https://` address, in the one form that is compared and connected to.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Why a text is no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::settings) enum BadHost {
    /// Brackets around something else than an IPv6 address.
    Ipv6,
    /// Letters outside ASCII.
    NotAscii,
    /// Neither a name nor an address.
    Name,
    /// A name that ends in a number and is no IPv4 address with four decimal numbers.
    Ipv4,
}

/// Returns the host in lower case, an IPv6 address in brackets and as the URL standard writes it.
///
/// # Errors
/// What is wrong with the host. Nothing is converted that a resolver reads in more than one way: an internationalised name
/// has to be written in ASCII (`xn--...`), an IPv4 address with four decimal numbers.
pub(in crate::settings) fn canonical_host(host: &str) -> Result<String, BadHost> {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| BadHost::Ipv6)?;
        return Ok(format!("[{}]", hexadecimal(address)));
    }
    if !host.is_ascii() {
        return Err(BadHost::NotAscii);
    }
    let host = host.to_ascii_lowercase();
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if !host.split('.').all(is_label) {
        return Err(BadHost::Name);
    }
    // By the URL standard a host that ends in a number is an IPv4 address.
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_hexadecimal = last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if (is_hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit())) && host.parse::<Ipv4Addr>().is_err() {
        return Err(BadHost::Ipv4);
    }
    Ok(host)
}

/// Writes an IPv6 address without the dotted form that ends some addresses in Rust.
fn hexadecimal(address: Ipv6Addr) -> String {
    match address.to_ipv4_mapped() {
        Some(_) => {
            let [.., high, low] = address.segments();
            format!("::ffff:{high:x}:{low:x}")
        }
        None => address.to_string(),
    }
}
