//! HTTP servers on the loopback interface for tests, with TLS if wanted, and certificate authorities to sign for them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::Dialer;
use super::trust::{Trust, client_config};

/// Longest wait for anything that must happen in a test.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// An HTTP server that gives the same response to every request. Stops when it is dropped.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

struct Shared {
    response: Mutex<(StatusCode, &'static str)>,
    requests: Mutex<Vec<Parts>>,
}

/// A certificate authority.
pub(crate) struct TestAuthority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl TestServer {
    /// Starts a server that responds with this status and body.
    pub(crate) async fn open(status: StatusCode, body: &'static str) -> Self {
        Self::start(None, status, body).await
    }

    /// Starts a server behind TLS that responds with 200 and an empty body.
    pub(crate) async fn open_tls(config: ServerConfig) -> Self {
        Self::start(Some(TlsAcceptor::from(Arc::new(config))), StatusCode::OK, "").await
    }

    async fn start(tls: Option<TlsAcceptor>, status: StatusCode, body: &'static str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { response: Mutex::new((status, body)), requests: Mutex::default() });
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, tls, Arc::clone(&shared)));
        Self { address, shared, _serving: serving }
    }

    /// Sets the response to all later requests.
    pub(crate) fn set_response(&self, status: StatusCode, body: &'static str) {
        *self.shared.response.lock().unwrap() = (status, body);
    }

    /// Returns the heads of all requests so far.
    pub(crate) fn requests(&self) -> Vec<Parts> {
        self.shared.requests.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                shared.requests.lock().unwrap().push(request.into_parts().0);
                let (status, body) = *shared.response.lock().unwrap();
                let mut response = Response::new(body.to_owned());
                *response.status_mut() = status;
                async move { Ok::<_, Infallible>(response) }
            });
            // Some tests break the connection on purpose, so an error here is not a failure.
            let _ = match tls {
                None => http1::Builder::new().serve_connection(TokioIo::new(stream), service).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => http1::Builder::new().serve_connection(TokioIo::new(stream), service).await,
                    Err(_) => return,
                },
            };
        });
    }
}

impl TestAuthority {
    /// Creates an authority of this name, with a new key.
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// Returns a dialer that trusts only this authority.
    pub(crate) fn dialer(&self, connect_timeout: Duration) -> Dialer {
        Dialer { trust: self.trust(), ..Dialer::new(connect_timeout) }
    }

    /// Returns trust in this authority and no other.
    pub(crate) fn trust(&self) -> Trust {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        Trust::Only(client_config(roots).unwrap())
    }

    /// Returns the authority's own certificate.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// Returns the TLS configuration of a server with a certificate for this name.
    pub(crate) fn certify(&self, name: &str) -> ServerConfig {
        self.sign(CertificateParams::new(vec![name.to_owned()]).unwrap())
    }

    /// Returns the TLS configuration of a server whose certificate for this name has expired.
    pub(crate) fn certify_expired(&self, name: &str) -> ServerConfig {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(2001, 1, 1);
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap()
    }
}
