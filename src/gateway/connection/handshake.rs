//! TLS handshakes: how long one may take, how many run at once, and what is said to a client that speaks no TLS.
//!
//! Certificates belong to `tls`. A handshake is a part of its connection's task, so that a slow one holds up neither the next
//! connection nor a request.

use std::io;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::client_stream::ClientStream;
use crate::pause_clock;
use crate::telemetry::metrics::{Metrics, OutcomeLabels};
use crate::tls::{CertificateStore, HANDSHAKE_TIMEOUT, client_name};

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
    /// Half of the connections at most are in a handshake. Those that have sent nothing yet do not count, because nothing is
    /// kept for them.
    turns: Semaphore,
    counts: HandshakeCounts,
}

/// `llamagate_tls_handshakes_total`, by outcome.
struct HandshakeCounts {
    done: Counter,
    failed: Counter,
    timed_out: Counter,
    plain_http: Counter,
}

/// What a client has opened.
pub(super) enum OpenedConnection {
    Ready(ClientStream, Option<ClientCertificate>),
    /// It speaks HTTP without TLS. Nothing has been read yet.
    PlainHttp(TcpStream),
    /// It was closed without a byte, as probes of a port do.
    Unused,
}

impl SecurePort {
    /// Creates the TLS of a listener that takes this many connections at once.
    pub fn new(certificates: Arc<CertificateStore>, max_connections: usize, metrics: &Metrics) -> Self {
        let count = |outcome| metrics.tls_handshakes.get_or_create(&OutcomeLabels { outcome }).clone();
        let counts = HandshakeCounts {
            done: count("done"),
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
        let _turn = self.turns.acquire().await.map_err(io::Error::other)?;
        let stream = TlsAcceptor::from(self.certificates.config()).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = shown.map(|certificate| ClientCertificate(client_name(certificate).into()));
        Ok(OpenedConnection::Ready(ClientStream::Secure(Box::new(stream)), certificate))
    }
}
