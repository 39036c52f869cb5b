//! Probes of an rpc-server on this machine, which serves one connection at a time: it answers a greeting only while none
//! is open.

use std::net::SocketAddrV4;

use super::probe::Probe;
use crate::os::here;
use crate::pause_clock::ActiveInstant;
use crate::worker::bounds::{PROBE_TIMEOUT, RPC_GREETING_INTERVAL};
use crate::worker::peers::fault::PeerFault;
use crate::worker::peers::greeting::greet;

/// Probes one life of an rpc-server.
#[derive(Default)]
pub(crate) struct RpcServerProbe {
    /// When it last answered a greeting.
    answered: Option<ActiveInstant>,
}

impl RpcServerProbe {
    /// Probes the rpc-server of this process group. With a client, that it listens is enough. Without one it is greeted, but
    /// not each time, because it logs each connection.
    pub(crate) async fn probe(&mut self, group: i32, address: SocketAddrV4) -> Probe {
        let members = members(group);
        let listening = here::listening(&members);
        // Where the system shows nothing, only the greeting tells.
        if !listening.is_empty() && !listening.iter().any(|found| found.port() == address.port()) {
            return Probe::Refused;
        }
        let is_due = self.answered.is_none_or(|answered| answered.elapsed() >= RPC_GREETING_INTERVAL);
        let has_client = here::find_connection(&members, address.port());
        // Where the system does not tell of clients, one may hold it for hours: it is greeted until its first answer.
        let may_have_client = has_client.unwrap_or(self.answered.is_some());
        if !is_due && !listening.is_empty() || may_have_client {
            return Probe::Ready;
        }
        match tokio::time::timeout(PROBE_TIMEOUT, greet(&address.to_string())).await {
            Ok(Ok(_)) => {
                self.answered = Some(ActiveInstant::now());
                Probe::Ready
            }
            Ok(Err(PeerFault::Refused)) => Probe::Refused,
            // It has taken the connection, and may serve a client before it answers.
            Ok(Err(_)) | Err(_) if has_client.is_none() => Probe::Ready,
            // A client may have come in between; the next probe sees it.
            Ok(Err(_)) | Err(_) => Probe::Silent,
        }
    }
}

/// Returns the processes of a group that have not ended.
fn members(group: i32) -> Vec<i32> {
    let stats = here::stats().unwrap_or_default().into_iter();
    stats.filter(|(_, stat)| stat.group == group && !stat.has_ended).map(|(pid, _)| pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener, TcpStream};

    /// An rpc-server was once killed because it did not answer while it computed for a llama-server that was gone.
    #[tokio::test(start_paused = true)]
    async fn one_that_has_a_client_is_ready_though_it_answers_no_greeting() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("it listens on IPv4") };
        let group = nix::unistd::getpgrp().as_raw();
        let client = TcpStream::connect(address).unwrap();
        let (taken, _) = listener.accept().unwrap();
        let mut probe = RpcServerProbe { answered: None };
        assert_eq!(probe.probe(group, address).await, Probe::Ready);
        drop(client);
        assert_eq!(probe.probe(group, address).await, Probe::Ready, "it still works for a client that was killed");
        drop(taken);
        let knows_clients = here::find_connection(&[], address.port()).is_some();
        let expected = if knows_clients { Probe::Silent } else { Probe::Ready };
        assert_eq!(probe.probe(group, address).await, expected, "without a client it is greeted");
    }
}
