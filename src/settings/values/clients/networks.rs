//! `TRUSTED_PROXIES`: a list of addresses and networks.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::settings::values::value::{Rejected, Value};

/// Addresses and networks; none by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Returns whether this address is in one of the networks. `::ffff:a.b.c.d` counts as `a.b.c.d`.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl Value for Networks {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(network).collect::<Option<_>>().map(Self).ok_or_else(|| {
            Rejected::new("addresses or networks such as 10.0.0.0/8, separated by commas")
                .with_hint("write the addresses of the proxies; names are not looked up")
        })
    }
}

/// Parses an address or a network.
fn network(entry: &str) -> Option<IpNet> {
    match entry.parse::<IpAddr>() {
        Ok(address) => Some(address.to_canonical().into()),
        Err(_) => entry.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_holds_addresses_and_networks() {
        let networks = Networks::parse(" 192.0.2.1, 10.1.2.3/8 ,2001:db8::/32,::1,, ::ffff:192.0.2.9").unwrap();
        for inside in ["192.0.2.1", "10.255.0.1", "::ffff:10.0.0.1", "2001:db8:1::5", "::1", "192.0.2.9"] {
            assert!(networks.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["192.0.2.2", "11.0.0.1", "2001:db9::1", "::2", "127.0.0.1"] {
            assert!(!networks.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(!Networks::parse("").unwrap().contains("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn anything_else_is_an_error() {
        for bad in ["*", "localhost", "10.0.0.0/33", "10.0.0", "10.0.0.1:80", "[::1]", "10.0.0.1 10.0.0.2", "true"] {
            assert!(Networks::parse(bad).is_err(), "{bad}");
        }
    }
}
