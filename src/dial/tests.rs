use super::testing::{DEADLINE, TestAuthority, TestServer};
use super::trust::roots_of;
use super::*;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::client::legacy::{Client, Error as Failure};
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use tokio::net::TcpSocket;

/// Asks for this, and says in a sentence why there was no answer.
async fn ask(dialer: Dialer, url: String) -> Result<StatusCode, String> {
    let client = Client::builder(TokioExecutor::new()).build(dialer);
    let request = Request::get(url).body(Empty::<Bytes>::new()).unwrap();
    let answer = tokio::time::timeout(DEADLINE, client.request(request)).await.expect("an end in time");
    answer.map(|answer| answer.status()).map_err(|error: Failure| explain(&error, "HOST"))
}

#[tokio::test]
async fn a_certificate_of_an_authority_that_is_trusted_will_do_and_others_are_refused_with_a_sentence() {
    let (ours, theirs) = (TestAuthority::new("ours"), TestAuthority::new("theirs"));
    for (terms, expected) in [
        (ours.certify("127.0.0.1"), Ok(())),
        (theirs.certify("127.0.0.1"), Err("the certificate of HOST is not trusted")),
        (ours.certify("elsewhere.example"), Err("the certificate of HOST is one for another name")),
        (ours.certify_once("127.0.0.1"), Err("the certificate of HOST has expired")),
    ] {
        let stand = TestServer::open_tls(terms).await;
        let answer = ask(ours.dialer(DEADLINE), format!("https://{}/", stand.address)).await;
        match expected {
            Ok(()) => assert_eq!(answer, Ok(StatusCode::OK)),
            Err(start) => {
                let sentence = answer.unwrap_err();
                assert!(sentence.starts_with(start), "{sentence}");
                assert!(stand.seen().is_empty(), "nothing is sent there");
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_scheme_is_called_so() {
    let plain = TestServer::open(StatusCode::OK, "").await;
    let authority = TestAuthority::new("ours");
    let sentence = ask(authority.dialer(DEADLINE), format!("https://{}/", plain.address)).await.unwrap_err();
    assert_eq!(sentence, "HOST does not speak TLS; is it http?");

    let secure = TestServer::open_tls(authority.certify("127.0.0.1")).await;
    let sentence = ask(authority.dialer(DEADLINE), format!("http://{}/", secure.address)).await.unwrap_err();
    assert_eq!(sentence, "HOST does not answer in HTTP; is it https?");
}

#[tokio::test]
async fn a_port_without_a_listener_and_a_name_without_an_address_are_told_apart() {
    let bound = TcpSocket::new_v4().unwrap();
    bound.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let url = format!("http://{}/", bound.local_addr().unwrap());
    assert_eq!(ask(Dialer::new(DEADLINE), url).await.unwrap_err(), "HOST refuses connections");

    let sentence = ask(Dialer::new(DEADLINE), "http://nobody.invalid/".to_owned()).await.unwrap_err();
    assert_eq!(sentence, "the name of HOST cannot be resolved");
}

#[tokio::test(start_paused = true)]
async fn the_time_to_connect_bounds_the_handshake_of_tls_too() {
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (patience, start) = (DEADLINE / 10, tokio::time::Instant::now());
    let dialer = TestAuthority::new("ours").dialer(patience);
    let answer = ask(dialer, format!("https://{}/", silent.local_addr().unwrap())).await;
    assert_eq!(answer.unwrap_err(), "HOST did not take a connection in time");
    assert_eq!(start.elapsed().as_secs(), patience.as_secs());
}

#[test]
fn the_authorities_of_this_machine_count_and_mozillas_only_where_there_is_none() {
    let ours = TestAuthority::new("ours").certificate();
    assert_eq!(roots_of(vec![ours.clone()], 0).len(), 1);
    assert_eq!(roots_of(vec![ours], 1).len(), 1);
    assert_eq!(roots_of(Vec::new(), 0).len(), webpki_roots::TLS_SERVER_ROOTS.len());
    // Somebody has named some, and meant those.
    assert!(roots_of(Vec::new(), 1).is_empty());
    assert!(roots_of(vec![CertificateDer::from(vec![0; 8])], 0).is_empty());
}
