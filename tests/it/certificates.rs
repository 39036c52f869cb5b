//! `SSL_CERT_FILE` names the certificate authorities trusted for remote backends. It is read once, at the start of the
//! process, so each case runs in a process of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::support::wait::{ANSWERS, patient};
use llamagate::dial::{Dialer, Trust, explain};
use llamagate::http_client::{ClientOptions, HttpClient};

/// The variable with the URL to request; it is set only in the child processes of the test.
const URL: &str = "LLAMAGATE_TEST_URL";

/// Creates a certificate authority. Returns the file of its certificate, and the TLS configuration of a server whose
/// certificate it has issued.
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
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    (file, config)
}

/// Serves one request on each connection.
async fn serve(listener: TcpListener, config: ServerConfig) {
    let tls = TlsAcceptor::from(Arc::new(config));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = tls.accept(stream).await else { continue };
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let _ = stream.flush().await;
    }
}

/// The part of the test that runs in a child process: sends the request as the gateway does for its clients and as the
/// program does for itself, and panics with the reason if it fails.
async fn send_request(url: String) {
    let client = Client::builder(TokioExecutor::new()).build(Dialer::new(patient(ANSWERS)));
    let request = Request::get(&url).body(Empty::<Bytes>::new()).unwrap();
    let passed_on = client.request(request).await.map(drop).map_err(|error| explain(&error, "HOST"));

    let options =
        ClientOptions { connect_timeout: patient(ANSWERS), keep_idle: None, follow_redirects: false, use_proxy: false };
    let client = HttpClient::new(&Trust::Machine, &options).unwrap();
    let request = Request::get(&url).body(Bytes::new()).unwrap();
    let own = client.send(request, patient(ANSWERS)).await.map(drop).map_err(|error| error.explain("HOST"));
    assert_eq!(passed_on, own);
    if let Err(sentence) = own {
        panic!("{sentence}");
    }
}

#[tokio::test]
async fn ssl_cert_file_names_the_authorities_trusted_for_remote_backends() {
    if let Ok(url) = std::env::var(URL) {
        return send_request(url).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let (ours, config) = authority("ours", folder.path());
    let (theirs, _) = authority("theirs", folder.path());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, config));

    for (file, expected) in [(ours, "1 passed"), (theirs, "the certificate of HOST is not trusted")] {
        let name = "certificates::ssl_cert_file_names_the_authorities_trusted_for_remote_backends";
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", name]).env(URL, &url).env("SSL_CERT_FILE", file).env_remove("SSL_CERT_DIR");
        let output = tokio::time::timeout(patient(ANSWERS), child.kill_on_drop(true).output()).await;
        let output = String::from_utf8(output.expect("the child ends in time").unwrap().stdout).unwrap();
        assert!(output.contains(expected), "{output}");
    }
}
