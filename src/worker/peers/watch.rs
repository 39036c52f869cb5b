//! Watches the `rpc-server`s that a loaded llama-server uses.
//!
//! A greeting waits behind the llama-server, in the queue of the kernel, and takes no time of the `rpc-server`. When that
//! ends, its kernel breaks the connection at once; when the machine is gone, keepalive breaks it. An answer means that the
//! `rpc-server` has time, so that no llama-server uses it. That is a loss if one has used it before, and if the next look finds
//! the same: a llama-server that ends by itself is noticed in between.

use std::pin::pin;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tracing::debug;

use super::KnownPeer;
use super::fault::{PeerFault, PeerLoss};
use super::greeting::{Dialect, Reply, connect, read_reply, read_reply_within};
use crate::pause_clock;
use crate::worker::bounds::{
    PEER_KEEPALIVE_IDLE, PEER_KEEPALIVE_INTERVAL, PEER_KEEPALIVE_TRIES, PEER_LOOK_INTERVAL, PEER_PATIENCE,
    PEER_UNUSED_LOOKS,
};

/// Watches the `rpc-server`s of one llama-server until this is dropped.
#[derive(Default)]
pub(crate) struct PeerWatch(JoinSet<PeerLoss>);

impl PeerWatch {
    /// Begins to watch. The llama-server must be connected to them, and must keep its connections.
    pub(crate) fn begin(peers: &[KnownPeer]) -> Self {
        let mut watches = JoinSet::new();
        for peer in peers.iter().cloned() {
            watches.spawn(watch(peer));
        }
        Self(watches)
    }

    /// Whether any are watched.
    pub(crate) fn is_begun(&self) -> bool {
        !self.0.is_empty()
    }

    /// Waits until one of them is lost. Never returns if none is watched. Safe to cancel.
    pub(crate) async fn lost(&mut self) -> PeerLoss {
        loop {
            match self.0.join_next().await {
                Some(Ok(loss)) => return loss,
                // Only a panic ends a watch without a loss.
                Some(Err(error)) => debug!(%error, "an rpc-server is no longer watched"),
                None => std::future::pending().await,
            }
        }
    }
}

/// Waits until this `rpc-server` is lost.
async fn watch(KnownPeer { address, dialect }: KnownPeer) -> PeerLoss {
    // The looks that found it unused, since it was seen in use.
    let mut unused_looks = None;
    loop {
        match connect(&address, dialect).await {
            Ok(stream) => {
                if let Some(fault) = until_lost(stream, &address, dialect, &mut unused_looks).await {
                    return PeerLoss { address, fault };
                }
                unused_looks = unused_looks.map(|looks| looks + 1);
                if unused_looks >= Some(PEER_UNUSED_LOOKS) {
                    return PeerLoss { address, fault: PeerFault::Dropped };
                }
            }
            // It ended between the load and now.
            Err(PeerFault::Refused) => return PeerLoss { address, fault: PeerFault::Refused },
            // Connections of others may fill the queue of one that serves well.
            Err(fault) => debug!(address, %fault, "an rpc-server is watched later"),
        }
        pause_clock::sleep(PEER_LOOK_INTERVAL).await;
    }
}

/// Waits until the `rpc-server` behind this connection is lost, and returns why; `None` if no llama-server uses it. Sets
/// `unused_looks` to 0 when one is seen to use it.
async fn until_lost(
    mut stream: TcpStream,
    address: &str,
    dialect: Dialect,
    unused_looks: &mut Option<u32>,
) -> Option<PeerFault> {
    loop {
        keep_alive(&stream);
        let reply = {
            let mut reading = pin!(read_reply(&mut stream));
            let early = pause_clock::timeout(PEER_PATIENCE, reading.as_mut()).await;
            match early {
                Ok(reply) => reply,
                Err(_) => {
                    *unused_looks = Some(0);
                    reading.await
                }
            }
        };
        match reply {
            Reply::Answered(_) => return None,
            Reply::Strange => return Some(PeerFault::Stranger),
            Reply::Closed => {}
        }
        // Something between the two machines may have broken the connection, and that of the llama-server may last.
        stream = match connect(address, dialect).await {
            Ok(stream) => stream,
            Err(fault) => return Some(fault),
        };
        match read_reply_within(&mut stream, PEER_PATIENCE).await {
            // It is busy with the llama-server.
            None => {}
            Some(Reply::Answered(_)) => return Some(PeerFault::Restarted),
            Some(Reply::Closed) => return Some(PeerFault::Closes),
            Some(Reply::Strange) => return Some(PeerFault::Stranger),
        }
    }
}

/// Has the kernel find out when the other machine is gone. Without that, only its end is noticed.
fn keep_alive(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(PEER_KEEPALIVE_IDLE).with_interval(PEER_KEEPALIVE_INTERVAL);
    if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&keepalive.with_retries(PEER_KEEPALIVE_TRIES)) {
        debug!(%error, "a connection has no keepalive");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    async fn peer() -> (TcpListener, KnownPeer) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, KnownPeer { address, dialect: Dialect::WithTransports })
    }

    /// Closes each connection, as a tunnel does whose far end is away. The greeting is read, so that there is no reset.
    async fn close_each(listener: TcpListener) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 64]).await;
        }
    }

    #[tokio::test]
    async fn one_that_ends_is_lost_and_named() {
        let ((lasting, first), (ending, second)) = (peer().await, peer().await);
        let mut watch = PeerWatch::begin(&[first, second.clone()]);
        let waiting = ending.accept().await.unwrap();
        drop(ending);
        drop(waiting);
        assert!(watch.is_begun() && !PeerWatch::default().is_begun());
        assert_eq!(watch.lost().await, PeerLoss { address: second.address, fault: PeerFault::Refused });
        drop(lasting);
    }

    #[tokio::test]
    async fn one_that_runs_again_has_lost_its_part_of_the_model() {
        let (listener, known) = peer().await;
        let mut watch = PeerWatch::begin(std::slice::from_ref(&known));
        drop(listener.accept().await.unwrap());
        let answer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"\x03\0\0\0\0\0\0\0\x08\0\0").await.unwrap();
            stream
        };
        let (loss, _stream) = tokio::join!(watch.lost(), answer);
        assert_eq!(loss, PeerLoss { address: known.address, fault: PeerFault::Restarted });
    }

    /// llama-server noticed it only at its next request.
    #[tokio::test(start_paused = true)]
    async fn one_that_dropped_its_llama_server_was_looked_at_for_ever() {
        let (listener, known) = peer().await;
        let mut watch = PeerWatch::begin(std::slice::from_ref(&known));
        let answers = async {
            let mut held = Vec::new();
            for busy in [2 * PEER_PATIENCE, Duration::ZERO] {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::time::sleep(busy).await;
                stream.write_all(b"\x03\0\0\0\0\0\0\0\x08\0\0").await.unwrap();
                held.push(stream);
            }
            held
        };
        let (loss, _held) = tokio::join!(watch.lost(), answers);
        assert_eq!(loss, PeerLoss { address: known.address, fault: PeerFault::Dropped });
    }

    /// It was once said to run again.
    #[tokio::test]
    async fn one_that_ends_behind_a_tunnel_is_not_said_to_run_again() {
        let (tunnel, known) = peer().await;
        let mut watch = PeerWatch::begin(std::slice::from_ref(&known));
        let mut closing = JoinSet::new();
        closing.spawn(close_each(tunnel));
        assert_eq!(watch.lost().await, PeerLoss { address: known.address, fault: PeerFault::Closes });
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_something_in_between_broke_is_opened_again() {
        let (listener, known) = peer().await;
        let mut watch = PeerWatch::begin(std::slice::from_ref(&known));
        let breaking = async {
            let mut held = listener.accept().await.unwrap();
            for _ in 0..3 {
                drop(held);
                // It goes on serving the llama-server: the next greeting waits.
                held = listener.accept().await.unwrap();
                tokio::time::sleep(2 * PEER_PATIENCE).await;
            }
        };
        tokio::select! {
            loss = watch.lost() => panic!("{loss}"),
            () = breaking => {}
        }
    }
}
