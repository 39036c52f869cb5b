//! TLS handshakes: how long one may take, how many run at once, and what is said to a client that speaks no TLS.
//!
//! Certificates belong to `tls`. A handshake is a part of its connection's task, so that a slow one holds up neither the next
//! connection nor a request.

use std::io;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::Acceptor;

use super::client_stream::ClientStream;
use crate::gateway::bounds::UNSENT_TLS;
use crate::pause_clock;
use crate::telemetry::metrics::{Metrics, OutcomeLabels};
use crate::tls::{CertificateStore, HANDSHAKE_TIMEOUT, HANDSHAKE_TURN, client_name};

/// Whether these bytes begin a TLS handshake (RFC 8446, section 5.1), which nothing in HTTP begins with.
pub(in crate::gateway) fn begins_handshake(bytes: &[u8]) -> bool {
    const HANDSHAKE_RECORD: u8 = 22;
    bytes.first() == Some(&HANDSHAKE_RECORD)
}

/// The certificate that a client has shown, as a request carries it.
#[derive(Debug, Clone)]
pub(crate) struct ClientCertificate(pub(crate) Arc<str>);

/// The TLS of a listener. Clones share it.
#[derive(Clone)]
pub struct SecurePort(Arc<SecurePortParts>);

struct SecurePortParts {
    certificates: Arc<CertificateStore>,
    /// Half of the connections at most are in a handshake at once, each for [`HANDSHAKE_TURN`]. Those that have not sent their
    /// whole first message do not count, because they may never send it.
    turns: Semaphore,
    counts: HandshakeCounts,
}

/// `llamagate_tls_handshakes_total`, by outcome.
struct HandshakeCounts {
    done: Counter,
    challenge: Counter,
    failed: Counter,
    timed_out: Counter,
    plain_http: Counter,
}

/// What a client has opened.
pub(super) enum OpenedConnection {
    Ready(ClientStream, Option<ClientCertificate>),
    /// It speaks HTTP without TLS. Nothing has been read yet.
    PlainHttp(TcpStream),
    /// A CA has looked whether a name leads here, and the connection is closed. It carries no request.
    Challenge,
    /// It was closed without a byte, as probes of a port do.
    Unused,
}

impl SecurePort {
    /// Creates the TLS of a listener that takes this many connections at once.
    pub fn new(certificates: Arc<CertificateStore>, max_connections: usize, metrics: &Metrics) -> Self {
        let count = |outcome| metrics.tls_handshakes.get_or_create(&OutcomeLabels { outcome }).clone();
        let counts = HandshakeCounts {
            done: count("done"),
            challenge: count("challenge"),
            failed: count("failed"),
            timed_out: count("timed_out"),
            plain_http: count("plain_http"),
        };
        Self(Arc::new(SecurePortParts { certificates, turns: Semaphore::new(max_connections.div_ceil(2)), counts }))
    }

    /// Makes the handshake of a connection.
    ///
    /// # Errors
    /// The client leaves, or does not complete it in time, or the two cannot agree.
    pub(super) async fn open(&self, stream: TcpStream) -> io::Result<OpenedConnection> {
        let SecurePortParts { counts, .. } = &*self.0;
        match pause_clock::timeout(HANDSHAKE_TIMEOUT, self.0.open(stream)).await {
            Ok(opened) => {
                match &opened {
                    Ok(OpenedConnection::Ready(..)) => _ = counts.done.inc(),
                    Ok(OpenedConnection::Challenge) => _ = counts.challenge.inc(),
                    Ok(OpenedConnection::PlainHttp(_)) => _ = counts.plain_http.inc(),
                    Ok(OpenedConnection::Unused) => {}
                    Err(_) => _ = counts.failed.inc(),
                }
                opened
            }
            Err(_) => {
                counts.timed_out.inc();
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }
}

impl SecurePortParts {
    async fn open(&self, stream: TcpStream) -> io::Result<OpenedConnection> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Ok(OpenedConnection::Unused);
        }
        // A handshake begins with the number 22 (RFC 8446, section 5.1), a request with a letter of its method.
        if first[0].is_ascii_alphabetic() {
            return Ok(OpenedConnection::PlainHttp(stream));
        }
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let turn = self.turns.acquire().await.map_err(io::Error::other)?;
        let of_challenge = self.certificates.challenge_config(&begun.client_hello());
        let is_challenge = of_challenge.is_some();
        let mut handshake = begun.into_stream(of_challenge.unwrap_or_else(|| self.certificates.config()));
        let mut stream = match pause_clock::timeout(HANDSHAKE_TURN, &mut handshake).await {
            Ok(outcome) => outcome?,
            Err(_) => {
                // It goes on, but clients that stay silent do not shut out the others.
                drop(turn);
                handshake.await?
            }
        };
        if is_challenge {
            // It may have left already: it has seen what it came for.
            let _ = stream.shutdown().await;
            return Ok(OpenedConnection::Challenge);
        }
        stream.get_mut().1.set_buffer_limit(Some(UNSENT_TLS));
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = shown.map(|certificate| ClientCertificate(client_name(certificate).into()));
        Ok(OpenedConnection::Ready(ClientStream::Secure(Box::new(stream)), certificate))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::task::Poll;

    use tokio::io::AsyncWrite;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::dial::Trust;
    use crate::tls::CertificateSource;

    /// Regression: TLS took four times as much from a response after its client had stopped reading, and each piece that it
    /// took began the time of the stall again.
    #[tokio::test]
    async fn tls_keeps_little_for_a_client_that_does_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new("test"));
        let source = CertificateSource::self_signed_in(folder.path());
        let certificates = Arc::new(CertificateStore::open(source, Arc::clone(&metrics)).unwrap());
        let port = SecurePort::new(certificates, 1, &metrics);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let connector = TlsConnector::from(Trust::of_any_certificate().unwrap().config().unwrap());
        let accepted = listener.accept().await.unwrap().0;
        let (client, opened) =
            tokio::join!(connector.connect("localhost".try_into().unwrap(), stream), port.open(accepted));
        let (_client, Ok(OpenedConnection::Ready(mut stream, _))) = (client.unwrap(), opened) else {
            panic!("no handshake")
        };
        let unsent = poll_fn(|context| {
            let mut unsent = 0;
            while let Poll::Ready(count) = Pin::new(&mut stream).poll_write(context, &[b'x'; 1024]) {
                unsent += count.unwrap();
                if Pin::new(&mut stream).poll_flush(context).is_ready() {
                    unsent = 0;
                }
            }
            Poll::Ready(unsent)
        });
        let unsent = unsent.await;
        assert!(unsent <= UNSENT_TLS + 1024, "{unsent} bytes");
    }
}
