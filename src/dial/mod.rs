//! Connections to workers: where they are reached, by TCP, and by TLS where a remote backend asks for it.
//!
//! Owns which authorities are trusted, how long a connection for a client's request may take to be made, and the
//! sentence that says why there is none. What goes over a connection, and what its failure means for a worker, is the
//! business of others. What this program asks for itself goes through `http_client`.
//!
//! - `explain.rs`: the sentence that says why a connection failed
//! - `target.rs`: the address of a worker, and the key and the model name that it wants
//! - `trust.rs`: the certificate authorities that are trusted, and the TLS configuration

mod explain;
mod target;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod trust;

pub use explain::explain;
pub use target::{BadRemote, DialTarget};
pub use trust::Trust;

use crate::pause_clock;
use http::Uri;
use http::uri::Scheme;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tower_service::Service;

/// A connection to a worker.
pub type Link = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Makes connections, to `http` and to `https`, that speak HTTP/1.1.
#[derive(Clone)]
pub struct Dialer {
    tcp: HttpConnector,
    /// Longest time until a connection can be used: its name resolved, TLS agreed on.
    patience: Duration,
    trust: Trust,
}

impl Dialer {
    /// Trusts the authorities that this machine trusts ([`Trust::Machine`]).
    pub fn new(patience: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        // Several addresses behind a name share it, so that a dead one does not use it up.
        tcp.set_connect_timeout(Some(patience));
        Self { tcp, patience, trust: Trust::Machine }
    }
}

type BoxError = Box<dyn Error + Send + Sync>;
type Linking = Pin<Box<dyn Future<Output = Result<Link, BoxError>> + Send>>;

impl Service<Uri> for Dialer {
    type Response = Link;
    type Error = BoxError;
    type Future = Linking;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Linking {
        let patience = self.patience;
        let linking: Linking = if to.scheme() == Some(&Scheme::HTTPS) {
            match self.trust.config() {
                Ok(tls) => HttpsConnector::from((self.tcp.clone(), tls)).call(to),
                Err(error) => return Box::pin(async move { Err(error.into()) }),
            }
        } else {
            let linking = self.tcp.call(to);
            Box::pin(async move { Ok(MaybeHttpsStream::Http(linking.await?)) })
        };
        Box::pin(async move {
            match pause_clock::timeout(patience, linking).await {
                Ok(link) => link,
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}
