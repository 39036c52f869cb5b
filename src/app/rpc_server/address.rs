//! Where an rpc-server may listen: an address that was given explicitly, because a program that reaches it can run code.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

/// The address of an rpc-server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RpcAddress(SocketAddrV4);

/// Why an address is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRpcAddress {
    /// It is none of IPv4 with a port.
    #[error("expected IPV4:PORT, such as 10.0.0.2:50052, found {0:?}: rpc-server takes neither names nor IPv6")]
    Unreadable(String),
    /// The port is 0.
    #[error("port 0: rpc-server needs a port that the other machines know, such as 50052")]
    NoPort,
    /// It stands for all addresses of the machine.
    #[error(
        "0.0.0.0 stands for every network of this machine, and each program that reaches the port can run code here: name one \
         address, or add --every-address"
    )]
    EveryAddress,
}

impl RpcAddress {
    /// Reads `IPV4:PORT`. With `takes_every`, 0.0.0.0 is taken too.
    ///
    /// # Errors
    ///
    /// [`BadRpcAddress`] says what is wrong with it.
    pub fn parse(text: &str, takes_every: bool) -> Result<Self, BadRpcAddress> {
        let address: SocketAddrV4 = text.parse().map_err(|_| BadRpcAddress::Unreadable(text.to_owned()))?;
        if address.port() == 0 {
            return Err(BadRpcAddress::NoPort);
        }
        if address.ip().is_unspecified() && !takes_every {
            return Err(BadRpcAddress::EveryAddress);
        }
        Ok(Self(address))
    }

    /// Returns the address.
    pub(super) fn socket(self) -> SocketAddrV4 {
        self.0
    }

    /// Returns what people must know if other machines reach the address.
    pub(super) fn warning(self) -> Option<String> {
        let ip = *self.0.ip();
        if ip.is_loopback() {
            return None;
        }
        let reach = if ip.is_unspecified() || is_private(ip) { "machine" } else { "machine of the internet" };
        Some(format!(
            "llama.cpp's protocol has neither keys nor encryption: each {reach} that reaches {} can run code here as this user; \
             let a firewall or a tunnel allow only the machine that serves the model",
            self.0
        ))
    }

    /// Checks that nothing else listens there.
    ///
    /// # Errors
    ///
    /// Something does, or the address is none of this machine.
    pub(super) fn check_free(self) -> io::Result<()> {
        let Err(error) = TcpListener::bind(self.0) else { return Ok(()) };
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "; another program has the port, perhaps a second rpc-server: end it (`ss -ltnp` shows it), or choose another port"
            }
            io::ErrorKind::AddrNotAvailable => "; it is no address of this machine (`ip addr` shows them)",
            io::ErrorKind::PermissionDenied => "; this user may not use the port: choose one from 1024",
            _ => "; check --bind",
        };
        Err(io::Error::new(error.kind(), format!("rpc-server cannot listen on {}: {error}{hint}", self.0)))
    }
}

impl fmt::Display for RpcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether the address is of a private network, of a link, or of a carrier's network, as overlay networks use.
fn is_private(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    ip.is_private() || ip.is_link_local() || first == 100 && (64..128).contains(&second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_only_if_it_is_given_explicitly() {
        let parse = |text, takes_every| RpcAddress::parse(text, takes_every).map(|address| address.to_string());
        assert_eq!(parse("10.0.0.2:50052", false), Ok("10.0.0.2:50052".to_owned()));
        assert_eq!(parse("0.0.0.0:50052", true), Ok("0.0.0.0:50052".to_owned()));
        assert_eq!(parse("0.0.0.0:50052", false), Err(BadRpcAddress::EveryAddress));
        assert_eq!(parse("127.0.0.1:0", false), Err(BadRpcAddress::NoPort));
        for text in ["50052", "10.0.0.2", "gpu1:50052", "[::]:50052", "[::1]:50052", "10.0.0.2:70000", ""] {
            assert_eq!(parse(text, true), Err(BadRpcAddress::Unreadable(text.to_owned())));
        }
    }

    #[test]
    fn other_machines_are_warned_of_and_those_of_the_internet_by_name() {
        let warning = |text| RpcAddress::parse(text, true).unwrap().warning();
        assert_eq!(warning("127.0.0.1:1"), None);
        assert_eq!(warning("127.8.8.8:1"), None);
        for text in ["10.0.0.2:1", "192.168.1.2:1", "172.16.0.2:1", "100.64.0.1:1", "169.254.1.1:1", "0.0.0.0:1"] {
            let warning = warning(text).unwrap();
            assert!(warning.contains("each machine that reaches"), "{text}: {warning}");
        }
        for text in ["8.8.8.8:1", "100.128.0.1:1", "172.32.0.1:1"] {
            assert!(warning(text).unwrap().contains("machine of the internet"), "{text}");
        }
    }
}
