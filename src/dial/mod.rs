//! Connections to workers, over TCP, and over TLS where a remote backend has an `https` address.
//!
//! Owns the trusted certificate authorities, the connect timeout of clients' requests, and the sentence that explains a
//! failed connection. Does not own what is sent over a connection, nor what its failure means for a worker. The
//! program's own requests go through `http_client`.
//!
//! - `explain.rs`: the sentence that says why a connection failed
//! - `open_connections.rs`: how many connections to one worker are open, and how many may be
//! - `pinned.rs`: a service of this machine, recognised by its certificate
//! - `target.rs`: a worker's address, and the key and the model name that it expects
//! - `testing.rs`: HTTP servers and certificate authorities for tests
//! - `trust.rs`: the certificate authorities that are trusted, and the TLS configuration

mod explain;
mod open_connections;
mod pinned;
mod target;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod trust;

pub use explain::{NotHttp, explain};
pub use open_connections::{OpenConnection, OpenConnections};
pub use target::{BadLocal, BadRemote, DialTarget, TargetId};
pub use trust::Trust;

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::pause_clock;

/// A connection to a worker.
pub type Link = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Opens connections to `http` and `https` addresses, for HTTP/1.1. A connector for hyper's client.
#[derive(Clone)]
pub struct Dialer {
    tcp: HttpConnector,
    /// Longest time until a connection can be used, name resolution and TLS handshake included.
    connect_timeout: Duration,
    trust: Trust,
}

impl Dialer {
    /// Creates a dialer that trusts the certificate authorities of this machine ([`Trust::Machine`]).
    pub fn new(connect_timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        // Requests are small writes, which Nagle's algorithm would delay.
        tcp.set_nodelay(true);
        // Otherwise it rejects `https` addresses, which it connects for the TLS connector.
        tcp.enforce_http(false);
        // hyper-util divides this timeout among the addresses of a name, so that a dead one does not use up all of it.
        tcp.set_connect_timeout(Some(connect_timeout));
        Self { tcp, connect_timeout, trust: Trust::Machine }
    }
}

impl Dialer {
    /// Opens a connection to a worker.
    ///
    /// # Errors
    ///
    /// What [`explain`] turns into a sentence: the name has no address, no connection was taken in time, TLS failed.
    pub async fn connect(&self, target: &DialTarget) -> Result<Link, BoxError> {
        let Some(address) = target.local_address else {
            return self.connect_to(target.uri(None)?).await;
        };
        let opened = pause_clock::timeout(self.connect_timeout, TcpStream::connect(address)).await;
        let stream = opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        Ok(MaybeHttpsStream::Http(TokioIo::new(stream)))
    }

    /// Opens a connection to the host and port of an address, with TLS if it begins with `https`. What is spoken over it is
    /// the caller's choice.
    ///
    /// # Errors
    ///
    /// As [`Dialer::connect`].
    pub async fn connect_to(&self, address: Uri) -> Result<Link, BoxError> {
        let mut dialer = self.clone();
        poll_fn(|context| dialer.poll_ready(context)).await?;
        dialer.call(address).await
    }
}

/// Why a connection could not be opened; [`explain`] knows the causes.
pub type BoxError = Box<dyn Error + Send + Sync>;
type ConnectFuture = Pin<Box<dyn Future<Output = Result<Link, BoxError>> + Send>>;

impl Service<Uri> for Dialer {
    type Response = Link;
    type Error = BoxError;
    type Future = ConnectFuture;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> ConnectFuture {
        let connect_timeout = self.connect_timeout;
        let connecting: ConnectFuture = if to.scheme() == Some(&Scheme::HTTPS) {
            match self.trust.config() {
                Ok(tls) => HttpsConnector::from((self.tcp.clone(), tls)).call(to),
                Err(error) => return Box::pin(async move { Err(error.into()) }),
            }
        } else {
            let connecting = self.tcp.call(to);
            Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) })
        };
        Box::pin(async move {
            // The timeout of `tcp` covers neither name resolution nor the TLS handshake; this one covers everything.
            match pause_clock::timeout(connect_timeout, connecting).await {
                Ok(link) => link,
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}
