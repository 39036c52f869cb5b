//! The greeting that every connection to an `rpc-server` begins with, and its answer (`RPC_CMD_HELLO` in llama.cpp's
//! `ggml/src/ggml-rpc/ggml-rpc.cpp`).
//!
//! A request is one byte with the number of the command, the length of its data as 64 bits, and the data. A response is the
//! length and the data; numbers have the lowest byte first.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};

use super::fault::PeerFault;
use crate::pause_clock;
use crate::worker::bounds::{PEER_ANSWER_SIZE, PEER_CONNECT_PATIENCE, PEER_PATIENCE};

/// The number of the command, which is the same in all versions.
const HELLO: u8 = 14;

/// Bytes of the version at the start of the answer.
const VERSION_SIZE: usize = 3;

/// The form of the greeting that an `rpc-server` answers. One that expects the other form closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// With the means of transport besides TCP that the sender has, here none: since 2026.
    WithTransports,
    /// Without data.
    Bare,
}

impl Dialect {
    /// The forms in the order in which they are tried.
    const ALL: [Self; 2] = [Self::WithTransports, Self::Bare];

    /// Returns the bytes of the greeting.
    pub(super) fn greeting(self) -> Vec<u8> {
        let data: &[u8] = match self {
            Self::WithTransports => &[0; 24],
            Self::Bare => &[],
        };
        [&[HELLO][..], &(data.len() as u64).to_le_bytes(), data].concat()
    }
}

/// What came after a greeting.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The version of the protocol.
    Answered([u8; VERSION_SIZE]),
    /// The connection was closed or broke.
    Closed,
    /// Something else came.
    Strange,
}

/// Greets the `rpc-server` at this address, and closes the connection. Returns the form that it has answered.
///
/// # Errors
///
/// It cannot be reached in [`PEER_CONNECT_PATIENCE`], does not answer in [`PEER_PATIENCE`], or is something else.
pub(in crate::worker) async fn greet(address: &str) -> Result<Dialect, PeerFault> {
    for dialect in Dialect::ALL {
        let mut stream = connect(address, dialect).await?;
        match read_reply_within(&mut stream, PEER_PATIENCE).await {
            Some(Reply::Answered(_)) => return Ok(dialect),
            // It may know the other form.
            Some(Reply::Closed) => {}
            Some(Reply::Strange) => return Err(PeerFault::Stranger),
            None => return Err(PeerFault::Silent),
        }
    }
    Err(PeerFault::Closes)
}

/// Opens a connection to the first IPv4 address, as llama.cpp does, and sends the greeting.
///
/// # Errors
///
/// There is no such address, or the connection is not open in [`PEER_CONNECT_PATIENCE`].
pub(super) async fn connect(address: &str, dialect: Dialect) -> Result<TcpStream, PeerFault> {
    let opening = async {
        let Some(first) = lookup_host(address).await?.find(SocketAddr::is_ipv4) else { return Ok(None) };
        let mut stream = TcpStream::connect(first).await?;
        stream.set_nodelay(true)?;
        // Into the kernel's buffer: the server need not have accepted the connection.
        stream.write_all(&dialect.greeting()).await?;
        Ok::<_, io::Error>(Some(stream))
    };
    match pause_clock::timeout(PEER_CONNECT_PATIENCE, opening).await {
        Ok(Ok(Some(stream))) => Ok(stream),
        Ok(Ok(None)) => Err(PeerFault::Unreachable("it has no IPv4 address, and llama.cpp knows no other".to_owned())),
        Ok(Err(error)) => Err(PeerFault::unreachable(&error)),
        Err(_) => Err(PeerFault::timed_out()),
    }
}

/// Reads the reply; `None` if none comes within this time.
pub(super) async fn read_reply_within(stream: &mut TcpStream, patience: Duration) -> Option<Reply> {
    pause_clock::timeout(patience, read_reply(stream)).await.ok()
}

/// Reads the reply, however long that takes.
pub(super) async fn read_reply(stream: &mut TcpStream) -> Reply {
    match try_read_reply(stream).await {
        Ok(reply) => reply,
        Err(_) => Reply::Closed,
    }
}

async fn try_read_reply(stream: &mut TcpStream) -> io::Result<Reply> {
    let mut length = [0; 8];
    stream.read_exact(&mut length).await?;
    let length = u64::from_le_bytes(length);
    if !(VERSION_SIZE as u64..=PEER_ANSWER_SIZE).contains(&length) {
        return Ok(Reply::Strange);
    }
    let mut version = [0; VERSION_SIZE];
    stream.read_exact(&mut version).await?;
    Ok(Reply::Answered(version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    /// Serves one connection after the other, as an `rpc-server` does: reads a greeting with data of this length, and answers
    /// it with these bytes; closes the connection at any other.
    async fn serve(listener: TcpListener, expected: u64, answer: &'static [u8]) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut command, mut length) = ([0; 1], [0; 8]);
            if stream.read_exact(&mut command).await.is_err() || stream.read_exact(&mut length).await.is_err() {
                continue;
            }
            let length = u64::from_le_bytes(length);
            if command != [HELLO] || length != expected {
                continue;
            }
            let mut data = vec![0; usize::try_from(length).unwrap()];
            stream.read_exact(&mut data).await.unwrap();
            stream.write_all(answer).await.unwrap();
            let _ = stream.read(&mut command).await;
        }
    }

    /// Closes each connection, as a tunnel does whose far end is away. The greeting is read, so that there is no reset.
    async fn close_each(listener: TcpListener) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 64]).await;
        }
    }

    async fn greeted(expected: u64, answer: &'static [u8]) -> Result<Dialect, PeerFault> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut server = JoinSet::new();
        server.spawn(serve(listener, expected, answer));
        greet(&address).await
    }

    #[tokio::test]
    async fn both_forms_of_the_greeting_are_answered_and_anything_else_is_a_stranger() {
        let current = b"\x1c\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let older = b"\x03\0\0\0\0\0\0\0\x03\x05\x01";
        assert_eq!(greeted(24, current).await, Ok(Dialect::WithTransports));
        assert_eq!(greeted(0, older).await, Ok(Dialect::Bare));
        assert_eq!(greeted(24, b"HTTP/1.1 400 Bad Request\r\n\r\n").await, Err(PeerFault::Stranger));
        assert_eq!(greeted(24, b"\x02\0\0\0\0\0\0\0\x03\x05").await, Err(PeerFault::Stranger));
        assert_eq!(greeted(7, b"").await, Err(PeerFault::Closes), "it knows neither form");
    }

    /// Such a tunnel was once told as an rpc-server of another version.
    #[tokio::test]
    async fn a_tunnel_whose_far_end_is_away_closes_every_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut tunnel = JoinSet::new();
        tunnel.spawn(close_each(listener));
        let fault = greet(&address).await.unwrap_err();
        assert!(fault.to_string().contains("nothing listens behind a tunnel"), "{fault}");
    }

    #[tokio::test]
    async fn a_server_that_cannot_be_reached_is_told_with_the_words_of_the_system() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        assert_eq!(greet(&address).await, Err(PeerFault::Refused));
        assert!(matches!(greet("no-such-host.invalid:1").await, Err(PeerFault::Unreachable(_))));
    }

    /// One that only the gateway could reach was once greeted, and each start of llama-server failed.
    #[tokio::test]
    async fn a_server_that_llama_cpp_cannot_reach_is_not_greeted() {
        let fault = greet("[::1]:50052").await.unwrap_err();
        assert!(fault.to_string().contains("no IPv4 address"), "{fault}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_connections_and_is_busy_is_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(greet(&address).await, Err(PeerFault::Silent));
    }
}
