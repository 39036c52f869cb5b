//! Connections to workers: where they are reached, by TCP, and by TLS where a remote backend asks for it.
//!
//! Owns which authorities are trusted, how long a connection may take to be made, and the sentence that says why there
//! is none. What goes over a connection, and what its failure means for a worker, is the business of others.
//!
//! - `explain.rs`: the sentence that says why a connection failed
//! - `target.rs`: the address of a worker, and the key and the model name that it wants

mod explain;
mod target;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use explain::explain;
pub use target::{BadRemote, Target};

use crate::awake;
use http::Uri;
use http::uri::Scheme;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tower_service::Service;
use tracing::warn;

/// A connection to a worker.
pub type Link = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Makes connections, to `http` and to `https`, that speak HTTP/1.1.
#[derive(Clone)]
pub struct Dialer {
    tcp: HttpConnector,
    /// Longest time until a connection can be used: its name resolved, TLS agreed on.
    patience: Duration,
    /// The terms of TLS; none means those of this machine.
    tls: Option<Arc<ClientConfig>>,
}

impl Dialer {
    /// With authorities as this machine trusts them: those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, else the
    /// system's, else Mozilla's.
    pub fn new(patience: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        // Several addresses behind a name share it, so that a dead one does not use it up.
        tcp.set_connect_timeout(Some(patience));
        Self { tcp, patience, tls: None }
    }

    /// Reads the certificates of the authorities that are trusted, unless that has been done. Connections do so too, but
    /// it touches the disk, so it is better done before there are requests.
    pub fn prepare(&self) -> Result<(), rustls::Error> {
        self.tls().map(drop)
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        static MACHINE: LazyLock<Result<Arc<ClientConfig>, rustls::Error>> =
            LazyLock::new(|| trusting(roots_of_this_machine()));
        match &self.tls {
            Some(tls) => Ok(Arc::clone(tls)),
            None => MACHINE.clone(),
        }
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
            match self.tls() {
                Ok(tls) => HttpsConnector::from((self.tcp.clone(), tls)).call(to),
                Err(error) => return Box::pin(async move { Err(error.into()) }),
            }
        } else {
            let linking = self.tcp.call(to);
            Box::pin(async move { Ok(MaybeHttpsStream::Http(linking.await?)) })
        };
        Box::pin(async move {
            match awake::timeout(patience, linking).await {
                Ok(link) => link,
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}

fn trusting(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

fn roots_of_this_machine() -> RootCertStore {
    // It is this function that reads the two variables: they are OpenSSL's, and no settings of ours.
    let found = rustls_native_certs::load_native_certs();
    // The errors themselves name paths.
    roots_of(found.certs, found.errors.len())
}

/// What can be made of the certificates that were found, beside some that could not be read.
fn roots_of(found: Vec<rustls::pki_types::CertificateDer<'static>>, unread: usize) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let (_, unusable) = roots.add_parsable_certificates(found);
    let unread = unread + unusable;
    if unread > 0 {
        warn!(unread, trusted = roots.len(), "some certificates of authorities cannot be read, they are not trusted");
    } else if roots.is_empty() {
        // A container often has none. Where there are some that cannot be read, nobody else is trusted in their place.
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}
