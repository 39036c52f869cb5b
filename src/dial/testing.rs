//! Backends of others, for tests: HTTP on the loopback interface, behind TLS if wanted, with an authority made up for it.

use super::Dialer;
use super::trust::{Trust, trusting};
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
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Longest wait for anything that is to happen in a test.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Such a backend; it ends when it is dropped.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

struct Shared {
    answer: Mutex<(StatusCode, &'static str)>,
    seen: Mutex<Vec<Parts>>,
}

/// Somebody who signs certificates.
pub(crate) struct TestAuthority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl TestServer {
    /// Answers everything so.
    pub(crate) async fn open(status: StatusCode, body: &'static str) -> Self {
        Self::behind(None, status, body).await
    }

    /// The same behind TLS, with 200.
    pub(crate) async fn open_tls(terms: ServerConfig) -> Self {
        Self::behind(Some(TlsAcceptor::from(Arc::new(terms))), StatusCode::OK, "").await
    }

    async fn behind(tls: Option<TlsAcceptor>, status: StatusCode, body: &'static str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { answer: Mutex::new((status, body)), seen: Mutex::default() });
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, tls, Arc::clone(&shared)));
        Self { address, shared, _serving: serving }
    }

    /// Answers so from now on.
    pub(crate) fn answers(&self, status: StatusCode, body: &'static str) {
        *self.shared.answer.lock().unwrap() = (status, body);
    }

    /// The heads of all requests so far.
    pub(crate) fn seen(&self) -> Vec<Parts> {
        self.shared.seen.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                shared.seen.lock().unwrap().push(request.into_parts().0);
                let (status, body) = *shared.answer.lock().unwrap();
                let mut answer = Response::new(body.to_owned());
                *answer.status_mut() = status;
                async move { Ok::<_, Infallible>(answer) }
            });
            // How a connection ends is its client's business.
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
    /// A new one of this name, that nobody knows.
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// Connections that trust it alone.
    pub(crate) fn dialer(&self, patience: Duration) -> Dialer {
        Dialer { trust: self.trust(), ..Dialer::new(patience) }
    }

    /// Trust in it alone.
    pub(crate) fn trust(&self) -> Trust {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        Trust::Only(trusting(roots).unwrap())
    }

    /// The certificate, as it is found on a machine.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// The terms of a server that has a certificate for this name.
    pub(crate) fn certify(&self, name: &str) -> ServerConfig {
        self.sign(CertificateParams::new(vec![name.to_owned()]).unwrap())
    }

    /// The same with one that has expired.
    pub(crate) fn certify_once(&self, name: &str) -> ServerConfig {
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
