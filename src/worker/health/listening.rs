//! Where the processes of a group listen: tells a process that loads from one that waits for requests elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::os::here;
use crate::os::identity::members_of;

/// Returns where a group of processes listens, if it is not `expected`: the address with the expected port if there is
/// one. `None` if it listens there, or nowhere.
pub(crate) fn elsewhere(group: i32, expected: SocketAddr) -> Option<SocketAddr> {
    choose(&here::listening(&members_of(group).ok()?), expected)
}

fn choose(found: &[SocketAddr], expected: SocketAddr) -> Option<SocketAddr> {
    // A socket on all addresses of IPv6 takes connections over IPv4 too, unless it was told otherwise.
    let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let serves = |address: &SocketAddr| {
        let ip = address.ip().to_canonical();
        address.port() == expected.port() && (ip == expected.ip() || all.contains(&ip))
    };
    if found.iter().any(serves) {
        return None;
    }
    found.iter().find(|address| address.port() == expected.port()).or(found.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_that_serves_nobody_here_is_elsewhere() {
        let expected = "127.0.0.1:8080".parse().unwrap();
        for (found, elsewhere) in [
            (&["[::1]:8080"][..], Some("[::1]:8080")),
            (&["127.0.0.1:9000", "[::1]:8080"], Some("[::1]:8080")),
            (&["127.0.0.2:8080"], Some("127.0.0.2:8080")),
            (&["127.0.0.1:9000"], Some("127.0.0.1:9000")),
            (&["127.0.0.1:8080", "[::1]:8080"], None),
            (&["0.0.0.0:8080"], None),
            (&["[::]:8080"], None),
            (&["[::ffff:127.0.0.1]:8080"], None),
            (&[], None),
        ] {
            let found: Vec<SocketAddr> = found.iter().map(|address| address.parse().unwrap()).collect();
            assert_eq!(choose(&found, expected), elsewhere.map(|address| address.parse().unwrap()), "{found:?}");
        }
    }
}
