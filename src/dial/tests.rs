//! Tests of connections against real listeners, with and without TLS.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpSocket;

use super::testing::{DEADLINE, TestAuthority, TestServer};
use super::trust::build_roots;
use super::*;

/// Sends a GET request. Returns the status of the response, or the sentence that explains why there is none.
async fn get(dialer: Dialer, url: String) -> Result<StatusCode, String> {
    let client = Client::builder(TokioExecutor::new()).build(dialer);
    let request = Request::get(url).body(Empty::<Bytes>::new()).unwrap();
    let response = tokio::time::timeout(DEADLINE, client.request(request)).await.expect("a result in time");
    response.map(|response| response.status()).map_err(|error: ClientError| explain(&error, "HOST"))
}

#[tokio::test]
async fn a_trusted_certificate_is_accepted_and_any_other_is_refused_with_a_sentence() {
    let (ours, theirs) = (TestAuthority::new("ours"), TestAuthority::new("theirs"));
    for (config, expected) in [
        (ours.certify("127.0.0.1"), Ok(())),
        (theirs.certify("127.0.0.1"), Err("the certificate of HOST is not trusted")),
        (ours.certify("elsewhere.example"), Err("the certificate of HOST is one for another name")),
        (ours.certify_expired("127.0.0.1"), Err("the certificate of HOST has expired")),
    ] {
        let server = TestServer::open_tls(config).await;
        let result = get(ours.dialer(DEADLINE), format!("https://{}/", server.address)).await;
        match expected {
            Ok(()) => assert_eq!(result, Ok(StatusCode::OK)),
            Err(start) => {
                let sentence = result.unwrap_err();
                assert!(sentence.starts_with(start), "{sentence}");
                assert!(server.requests().is_empty(), "no request is sent");
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_scheme_is_explained() {
    let plain = TestServer::open(StatusCode::OK, "").await;
    let authority = TestAuthority::new("ours");
    let sentence = get(authority.dialer(DEADLINE), format!("https://{}/", plain.address)).await.unwrap_err();
    assert_eq!(sentence, "HOST does not speak TLS; is it http?");

    let secure = TestServer::open_tls(authority.certify("127.0.0.1")).await;
    let sentence = get(authority.dialer(DEADLINE), format!("http://{}/", secure.address)).await.unwrap_err();
    assert_eq!(sentence, "HOST does not answer in HTTP; is it https?");
}

#[tokio::test]
async fn a_port_without_a_listener_and_a_name_without_an_address_are_told_apart() {
    let bound = TcpSocket::new_v4().unwrap();
    bound.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let url = format!("http://{}/", bound.local_addr().unwrap());
    assert_eq!(get(Dialer::new(DEADLINE), url).await.unwrap_err(), "HOST refuses connections");

    let sentence = get(Dialer::new(DEADLINE), "http://unknown.invalid/".to_owned()).await.unwrap_err();
    assert_eq!(sentence, "the name of HOST cannot be resolved");
}

#[tokio::test(start_paused = true)]
async fn the_connect_timeout_bounds_the_tls_handshake_too() {
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (connect_timeout, start) = (DEADLINE / 10, tokio::time::Instant::now());
    let dialer = TestAuthority::new("ours").dialer(connect_timeout);
    let result = get(dialer, format!("https://{}/", silent.local_addr().unwrap())).await;
    assert_eq!(result.unwrap_err(), "HOST did not take a connection in time");
    assert_eq!(start.elapsed().as_secs(), connect_timeout.as_secs());
}

#[test]
fn mozillas_authorities_are_trusted_only_if_this_machine_has_none() {
    let ours = TestAuthority::new("ours").certificate();
    assert_eq!(build_roots(vec![ours.clone()], 0).len(), 1);
    assert_eq!(build_roots(vec![ours], 1).len(), 1);
    assert_eq!(build_roots(Vec::new(), 0).len(), webpki_roots::TLS_SERVER_ROOTS.len());
    // Certificates that exist but cannot be read were chosen on purpose: nothing replaces them.
    assert!(build_roots(Vec::new(), 1).is_empty());
    assert!(build_roots(vec![CertificateDer::from(vec![0; 8])], 0).is_empty());
}

#[test]
fn certificates_are_read_for_https_only() {
    for (addresses, is_needed) in [
        (&["http://a", "http://b"][..], false),
        (&["http://a", "https://b"], true),
        (&["HTTPS://a"], true),
        (&["http://https:1"], false),
        (&["https", ""], false),
        (&[], false),
    ] {
        let trust = Trust::Machine.for_addresses(addresses.iter().copied());
        assert_eq!(matches!(trust, Trust::Machine), is_needed, "{addresses:?}");
    }
}
