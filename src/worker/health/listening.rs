//! Where the processes of a group listen: tells a process that loads from one that waits for requests elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::worker::procfs::{self, ProcStat};

/// Returns where a group of processes listens, if it is not `expected`: the address with the expected port if there is
/// one. `None` if it listens there, or nowhere.
pub(crate) fn elsewhere(group: i32, expected: SocketAddr) -> Option<SocketAddr> {
    let is_member = |pid: &i32| ProcStat::of(*pid).is_ok_and(|stat| stat.group == group && !stat.has_ended());
    let members: Vec<i32> = procfs::pids().ok()?.into_iter().filter(is_member).collect();
    choose(&procfs::listening(&members), expected)
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
    use std::net::TcpListener;

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

    #[test]
    fn the_listeners_of_this_process_are_found() {
        let listeners = ["127.0.0.1:0", "127.0.0.3:0", "[::1]:0"].map(|address| TcpListener::bind(address).unwrap());
        let found = procfs::listening(&[std::process::id() as i32]);
        for listener in listeners {
            let address = listener.local_addr().unwrap();
            assert!(found.contains(&address), "{address} in {found:?}");
        }
        assert_eq!(procfs::listening(&[-1]), []);
    }

    #[test]
    fn a_connection_counts_once_the_process_has_taken_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let has_connection = || procfs::has_connection(&[std::process::id() as i32], address.port());
        let client = std::net::TcpStream::connect(address).unwrap();
        assert!(!has_connection(), "it waits in the kernel's queue");
        let taken = listener.accept().unwrap();
        assert!(has_connection());
        drop((client, taken));
        assert!(!has_connection());
    }
}
