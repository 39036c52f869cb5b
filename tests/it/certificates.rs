//! Whose certificates a remote backend may show: as `SSL_CERT_FILE` says, which this program reads once, at its start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use llamagate::dial::{Dialer, explain};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::support::wait::{ANSWERS, patient};

/// In the environment of the process that asks: what it asks for.
const URL: &str = "LLAMAGATE_TEST_URL";

/// An authority of this name: its certificate in a file, and the terms of a server that has one of it.
fn authority(name: &str, folder: &Path) -> (PathBuf, ServerConfig) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap();
    let text = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(root.der()));
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();

    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let terms = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    (file, terms)
}

/// Answers the first request on each connection.
async fn serve(listener: TcpListener, terms: ServerConfig) {
    let tls = TlsAcceptor::from(Arc::new(terms));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = tls.accept(stream).await else { continue };
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let _ = stream.flush().await;
    }
}

/// What this same test does in a process of its own, with an environment of its own.
async fn ask(url: String) {
    let client = Client::builder(TokioExecutor::new()).build(Dialer::new(patient(ANSWERS)));
    let request = Request::get(url).body(Empty::<Bytes>::new()).unwrap();
    if let Err(error) = client.request(request).await {
        panic!("{}", explain(&error, "HOST"));
    }
}

#[tokio::test]
async fn ssl_cert_file_names_whom_a_remote_backend_may_be_certified_by() {
    if let Ok(url) = std::env::var(URL) {
        return ask(url).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let (ours, terms) = authority("ours", folder.path());
    let (theirs, _) = authority("theirs", folder.path());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let mut serving = JoinSet::new();
    serving.spawn(serve(listener, terms));

    for (file, says) in [(ours, "1 passed"), (theirs, "the certificate of HOST is not trusted")] {
        let name = "certificates::ssl_cert_file_names_whom_a_remote_backend_may_be_certified_by";
        let mut asking = tokio::process::Command::new(std::env::current_exe().unwrap());
        asking.args(["--exact", name]).env(URL, &url).env("SSL_CERT_FILE", file).env_remove("SSL_CERT_DIR");
        let output = tokio::time::timeout(patient(ANSWERS), asking.kill_on_drop(true).output()).await;
        let output = String::from_utf8(output.expect("an end in time").unwrap().stdout).unwrap();
        assert!(output.contains(says), "{output}");
    }
}
