//! HTTPS on the gateway port: handshakes, versions, certificates of clients, and clients that mistake the port. That
//! requests are read and refused as over plain HTTP is tested where that is: `limits`, `connections`, `stalled`.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use llamagate::dial::Trust;
use llamagate::tls::HANDSHAKE_TURN;
use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::ring, pki_types::ServerName, version};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

use super::accounts::access_log_line;
use super::support::{
    certificates::{IssuedPair, TestIssuer},
    client::{Client, RawClient},
    client_program::{run_client, script},
    gateway::{Builder, Gateway, USER, python},
    resources,
    wait::{ANSWERS, SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";
const PING: &[u8] = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n";

fn body() -> Value {
    json!({"messages": [{"role": "user", "content": "x"}]})
}

/// Returns the settings of a gateway with a certificate of this authority, whose files are in the folder.
fn issued(issuer: &TestIssuer, folder: &TempDir) -> Builder {
    let (certificate, key) = issuer.issue("server").write(folder.path());
    Gateway::builder().set("TLS_CERT", certificate.display()).set("TLS_KEY", key.display())
}

/// Asks for `/ping` with this configuration of TLS; returns the status.
fn ping_with(url: &str, config: &Arc<ClientConfig>) -> io::Result<u16> {
    let mut client = RawClient::over(url, Arc::clone(config))?;
    client.write(PING)?;
    Ok(client.read_response()?.status())
}

fn metric(gateway: &Gateway, line: &str) -> u64 {
    let text = gateway.health().header("Accept", "text/plain").get("/metrics").text();
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse::<f64>().ok());
    value.unwrap_or_default() as u64
}

fn handshakes(gateway: &Gateway, outcome: &str) -> u64 {
    metric(gateway, &format!("llamagate_tls_handshakes_total{{outcome=\"{outcome}\"}}"))
}

#[test]
fn requests_are_served_over_tls_1_2_and_1_3_and_the_certificate_is_for_this_machine() {
    let (issuer, folder) = (TestIssuer::new("ours"), tempfile::tempdir().unwrap());
    let gateway = issued(&issuer, &folder).start_ready();
    assert_eq!(ping_with(gateway.url(), &issuer.client_config(None)).unwrap(), 200);
    let mut roots = RootCertStore::empty();
    roots.add(issuer.root()).unwrap();
    for version in [&version::TLS12, &version::TLS13] {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[version]).unwrap().with_root_certificates(roots.clone());
        assert_eq!(ping_with(gateway.url(), &Arc::new(builder.with_no_client_auth())).unwrap(), 200);
    }
    let other = TestIssuer::new("theirs").client_config(None);
    assert!(ping_with(gateway.url(), &other).is_err());

    let mut stream = gateway.client().stream(CHAT, &json!({"messages": body()["messages"], "stream": true}));
    assert!(stream.events().last().is_some_and(|event| event.is_done()) && stream.is_complete());
    assert!(gateway.health_url().starts_with("http://"), "the health port has no TLS unless it is asked for");
    assert!(handshakes(&gateway, "done") >= 4 && handshakes(&gateway, "failed") >= 1);
}

#[tokio::test]
async fn http2_is_offered_and_preferred() {
    let (issuer, folder) = (TestIssuer::new("ours"), tempfile::tempdir().unwrap());
    let gateway = issued(&issuer, &folder).start_ready();
    let address = gateway.url().trim_start_matches("https://").to_owned();
    for (offered, agreed) in
        [(&[&b"http/1.1"[..], b"h2"][..], Some(&b"h2"[..])), (&[b"http/1.1"], Some(b"http/1.1")), (&[], None)]
    {
        let mut config = (*issuer.client_config(None)).clone();
        config.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
        let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
        if agreed != Some(b"h2") {
            continue;
        }
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async { _ = connection.await });
        let request = || {
            let request =
                Request::post(format!("https://{address}{CHAT}")).header("authorization", format!("Bearer {USER}"));
            request.body(Full::new(Bytes::from(body().to_string()))).unwrap()
        };
        let asked: Vec<_> = (0..5).map(|_| sender.send_request(request())).collect();
        for answer in asked {
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), 200);
            assert!(!answer.into_body().collect().await.unwrap().to_bytes().is_empty());
        }
    }
}

#[test]
fn a_client_must_have_a_certificate_of_tls_client_ca_and_the_access_log_names_it() {
    let (servers, clients, folder) = (TestIssuer::new("s"), TestIssuer::new("c"), tempfile::tempdir().unwrap());
    let root = clients.write_root(folder.path());
    let gateway = issued(&servers, &folder).set("TLS_CLIENT_CA", root.display()).start_ready();
    let alice = clients.issue("alice");
    let ask = |certificate: Option<&IssuedPair>, id: &str| {
        let mut client = RawClient::over(gateway.url(), servers.client_config(certificate))?;
        let request = gateway.client().header("X-Request-Id", id).request("POST", CHAT, body().to_string().as_bytes());
        client.write(&request)?;
        client.read_response()
    };
    assert_eq!(ask(Some(&alice), "hers").unwrap().status(), 200);
    assert_eq!(access_log_line(&gateway, "hers")["cert"], "alice");
    assert!(ask(None, "none").is_err());
    assert!(ask(Some(&servers.issue("mallory")), "theirs").is_err());
    assert!(ask(Some(&clients.issue_until("alice", 2020)), "expired").is_err());
    // A certificate takes the place of no key.
    let mut client = RawClient::over(gateway.url(), servers.client_config(Some(&alice))).unwrap();
    client.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(client.read_response().unwrap().status(), 401);
    assert_eq!(gateway.health().get("/ping").status(), 200, "the health port asks for none");
}

#[test]
fn without_tls_client_ca_no_certificate_is_asked_for_or_logged() {
    let gateway = Gateway::builder().secure().start_ready();
    assert_eq!(gateway.client().header("X-Request-Id", "one").post_json(CHAT, &body()).status(), 200);
    assert!(!access_log_line(&gateway, "one").contains_key("cert"));
}

#[test]
fn plain_http_on_a_port_with_tls_is_told_to_speak_https() {
    let gateway = Gateway::builder().secure().start_ready();
    let plain = gateway.url().replace("https://", "http://");
    let requests: [&[u8]; 3] = [
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Request-Id: plain-1\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for request in requests {
        let mut client = RawClient::connect(&plain);
        client.write(request).unwrap();
        let answer = client.read_response().unwrap();
        assert_eq!((answer.status(), answer.header("connection")), (400, Some("close")));
        assert!(answer.text().contains("This port speaks HTTPS"), "{}", answer.text());
        assert!(client.read_to_close().is_empty());
    }
    assert_eq!(access_log_line(&gateway, "plain-1")["code"], "tls_required");
    assert_eq!(handshakes(&gateway, "plain_http"), 3);
    assert_eq!(gateway.anonymous().get("/ping").status(), 200);
}

#[test]
fn tls_on_a_plain_port_is_refused_at_once_and_hinted_at_in_the_log() {
    let gateway = Gateway::builder().start_ready();
    let secure = gateway.url().replace("http://", "https://");
    assert!(RawClient::connect(&secure).finish_handshake().is_err());
    eventually("the log tells why", SOON, || gateway.output().contains("a client speaks TLS to a port without it"));
    assert_eq!(gateway.anonymous().get("/ping").status(), 200);
}

#[test]
fn slow_handshakes_hold_up_no_request_and_end_in_time() {
    const SLOW: usize = 300;
    let gateway = Gateway::builder().secure().start_ready();
    let before = gateway.open_fds();
    let address = gateway.url().trim_start_matches("https://");
    let slow: Vec<TcpStream> = (0..SLOW)
        .map(|nth| {
            let mut client = TcpStream::connect(address).unwrap();
            // Nothing, or the begin of a handshake.
            client.write_all(&[22, 3, 1, 2, 0, 1][..nth % 2 * 6]).unwrap();
            client
        })
        .collect();
    // Some descriptors of the start may have been counted before.
    eventually("they are accepted", SOON, || gateway.open_fds() >= before + SLOW - 20);
    for _ in 0..50 {
        assert_eq!(gateway.client().post_json(CHAT, &body()).status(), 200);
    }
    let health = gateway.health().get("/health").json();
    assert_eq!(health["queue"]["active"], 0, "a handshake holds no slot");
    // After 10 s each.
    eventually("the handshakes are given up", ANSWERS, || handshakes(&gateway, "timed_out") == SLOW as u64);
    eventually("their sockets are closed", SOON, || gateway.open_fds() < before + 20);
    drop(slow);
}

#[test]
fn half_of_the_connections_at_most_are_in_a_handshake() {
    let gateway = Gateway::builder().secure().set("MAX_CONNECTIONS", 4).start_ready();
    let address = gateway.url().trim_start_matches("https://");
    let begun = Instant::now();
    let mut slow = [(); 2].map(|()| begin_handshake(address));
    // Each is answered, so it has its turn, and sends no more.
    slow.iter_mut().for_each(|client| assert_eq!(client.read(&mut [0]).unwrap(), 1));
    let mut third = begin_handshake(address);
    // Clients that came after it and need no turn have their answers, so it could have had its own.
    for _ in 0..8 {
        let mut plain = RawClient::connect(&gateway.url().replace("https://", "http://"));
        plain.write(PING).unwrap();
        assert_eq!(plain.read_response().unwrap().status(), 400);
    }
    third.set_nonblocking(true).unwrap();
    let answered = third.peek(&mut [0]).is_ok();
    assert!(!answered || begun.elapsed() >= HANDSHAKE_TURN, "the third one waits while the others have their turns");
    third.set_nonblocking(false).unwrap();
    let [first, _second] = slow;
    drop(first);
    third.set_read_timeout(Some(ANSWERS)).unwrap();
    assert_eq!(third.read(&mut [0]).unwrap(), 1);
}

/// Regression: half of the connections, each with one byte or with one message, kept all others from their handshakes until
/// those had timed out.
#[test]
fn clients_that_stay_silent_in_their_handshakes_do_not_shut_out_the_others() {
    let gateway = Gateway::builder().secure().set("MAX_CONNECTIONS", 6).start_ready();
    let address = gateway.url().trim_start_matches("https://");
    let _one_byte = [(); 2].map(|()| {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(&[22]).unwrap();
        client
    });
    let _one_message = [(); 3].map(|()| begin_handshake(address));
    let mut client = RawClient::connect(gateway.url());
    client.write(PING).unwrap();
    assert_eq!(client.read_response().unwrap().status(), 200);
    assert_eq!(handshakes(&gateway, "timed_out"), 0, "the silent ones are still there");
}

/// Connects, and sends the first message of a handshake.
fn begin_handshake(address: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    let config = Trust::of_any_certificate().unwrap().config().unwrap();
    let mut connection = ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
    while connection.wants_write() {
        connection.write_tls(&mut client).unwrap();
    }
    client
}

#[test]
fn the_health_port_speaks_tls_if_it_is_asked_to() {
    let gateway = Gateway::builder().secure().set("TLS_HEALTH", true).start_ready();
    assert!(gateway.health_url().starts_with("https://"));
    assert_eq!(gateway.health().get("/ping").status(), 200);
    let plain = gateway.health_url().replace("https://", "http://");
    let answer = Client::new(&plain).get("/ping");
    assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (400, Some("tls_required")));
}

/// Returns the file of the certificate that a gateway has made.
fn own_certificate(gateway: &Gateway) -> PathBuf {
    gateway.data_dir().join("tls/self-signed.pem")
}

#[test]
fn curl_trusts_the_certificate_that_the_service_has_made() {
    let gateway = Gateway::builder().secure().start_ready();
    let file = own_certificate(&gateway);
    let line = format!("curl --cacert {} {}/v1/models", file.display(), gateway.url());
    assert!(gateway.output().contains(&line), "{}", gateway.output());
    for (url, version, arguments) in [
        (gateway.url().to_owned(), "2", &[][..]),
        (gateway.url().replace("127.0.0.1", "localhost"), "1.1", &["--http1.1"]),
    ] {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--write-out", "%{http_version}"])
            .args(arguments);
        let output =
            curl.arg("--cacert").arg(&file).args(["--output", "/dev/null", &format!("{url}/ping")]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), version, "{output:?}");
    }
    let output = Command::new("curl").args(["--silent", "--noproxy", "*", gateway.url()]).output().unwrap();
    assert_eq!(output.status.code(), Some(60), "no other authority vouches for it");
}

#[test]
fn openais_python_client_trusts_the_certificate_that_the_service_has_made() {
    let gateway = Gateway::builder().secure().start_ready();
    let mut client = Command::new(python());
    client.arg(script("https_client.py")).args([&format!("{}/v1", gateway.url()), USER]);
    run_client(client.env("SSL_CERT_FILE", own_certificate(&gateway)));
    assert!(fs::read_to_string(own_certificate(&gateway)).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
}

#[test]
fn idle_connections_over_tls_take_little_memory() {
    const CONNECTIONS: usize = 200;
    let gateway = Gateway::builder().secure().start_ready();
    let config = Trust::of_any_certificate().and_then(|trust| trust.config()).unwrap();
    let open = || {
        let mut client = RawClient::over(gateway.url(), Arc::clone(&config)).unwrap();
        client.write(PING).unwrap();
        assert_eq!(client.read_response().unwrap().status(), 200);
        client
    };
    let _first = open();
    let before = resources::resident_kib(gateway.pid());
    let idle: Vec<_> = (0..CONNECTIONS).map(|_| open()).collect();
    let grown = resources::resident_kib(gateway.pid()).saturating_sub(before);
    assert!(grown < CONNECTIONS as u64 * 48 + 8 * 1024, "{grown} KiB more for {CONNECTIONS} idle connections");
    drop(idle);
}
