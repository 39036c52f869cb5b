//! Connections that use up resources: slow, silent and half-closed ones, and more than are allowed.

use serde_json::json;

use super::accounts::access_log_line;
use super::support::{
    client::RawClient,
    gateway::{Gateway, LIMITED, USER},
    resources,
    wait::{SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";
const PING: &[u8] = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n";

fn ready(settings: &[(&str, &str)]) -> Gateway {
    Gateway::builder().script(json!({"hold_requests": [CHAT]})).set_all(settings).start_ready()
}

/// Starts a gateway with plain HTTP, and then one with TLS.
fn over_both(settings: &[(&str, &str)]) -> impl Iterator<Item = Gateway> + use<> {
    Gateway::builder().script(json!({"hold_requests": [CHAT]})).set_all(settings).start_over_both()
}

fn chat(gateway: &Gateway) -> Vec<u8> {
    gateway.client().request("POST", CHAT, br#"{"messages": [{"role": "user", "content": "x"}]}"#)
}

fn is_idle(gateway: &Gateway) -> bool {
    gateway.health().get("/health").json()["queue"]["active"] == 0
}

#[test]
fn an_incomplete_head_gets_408_after_client_header_timeout() {
    for gateway in over_both(&[("CLIENT_HEADER_TIMEOUT", "2s")]) {
        for first in [&b""[..], PING] {
            let mut client = RawClient::connect(gateway.url());
            client.write(first).unwrap();
            if !first.is_empty() {
                assert_eq!(client.read_response().unwrap().status(), 200);
            }
            client.write(b"GET /ping HTTP/1.1\r\nX-Request-Id: slow\r\nX: ").unwrap();
            let answer = client.read_response().unwrap();
            assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (408, Some("request_timeout")));
            assert_eq!((answer.header("connection"), answer.header("x-request-id")), (Some("close"), Some("slow")));
            assert!(client.read_to_close().is_empty());
        }
    }
}

#[test]
fn a_head_that_arrives_byte_by_byte_gets_408_too() {
    for gateway in over_both(&[("CLIENT_HEADER_TIMEOUT", "300ms")]) {
        let mut client = RawClient::connect(gateway.url());
        eventually("the response arrives while the client still sends", SOON, || {
            let _ = client.write(b"x");
            client.has_news()
        });
        assert_eq!(client.read_response().unwrap().status(), 408);
    }
}

#[test]
fn a_silent_connection_is_closed_without_a_response() {
    for gateway in over_both(&[("CLIENT_HEADER_TIMEOUT", "300ms"), ("CLIENT_IDLE_TIMEOUT", "300ms")]) {
        assert!(RawClient::connect(gateway.url()).read_to_close().is_empty());
        let mut client = RawClient::connect(gateway.url());
        client.write(PING).unwrap();
        assert_eq!(client.read_response().unwrap().status(), 200);
        assert!(client.read_to_close().is_empty(), "an idle keep-alive connection gets no 408");
    }
}

#[test]
fn client_header_timeout_does_not_run_while_a_response_is_pending() {
    let gateway = ready(&[("CLIENT_HEADER_TIMEOUT", "2s")]);
    let mut client = RawClient::connect(gateway.url());
    client.write(&chat(&gateway)).unwrap();
    gateway.journal().wait_for_requests(CHAT, 1);
    for _ in 0..2 {
        assert!(
            RawClient::connect(gateway.url()).read_to_close().is_empty(),
            "an idle connection has been closed after CLIENT_HEADER_TIMEOUT"
        );
    }
    gateway.control().release_all_requests();
    assert_eq!(client.read_response().unwrap().status(), 200);
    client.write(PING).unwrap();
    assert_eq!(client.read_response().unwrap().status(), 200, "the connection can still be used");
}

/// Regression: load balancers keep an idle connection for 60 s, and sent requests on one that was closed after 30 s.
#[test]
fn a_kept_connection_may_be_idle_for_longer_than_a_head_may_take() {
    let gateway = ready(&[("CLIENT_HEADER_TIMEOUT", "300ms")]);
    for url in [gateway.url(), gateway.health_url()] {
        let mut client = RawClient::connect(url);
        for _ in 0..2 {
            client.write(PING).unwrap();
            assert_eq!(client.read_response().unwrap().status(), 200);
            assert!(RawClient::connect(url).read_to_close().is_empty(), "CLIENT_HEADER_TIMEOUT has passed");
        }
        client.write(b"GET /ping HTTP/1.1\r\n").unwrap();
        assert_eq!(client.read_response().unwrap().status(), 408, "a head that has begun has its own time");
    }
}

#[test]
fn a_stalled_body_gets_408() {
    for gateway in over_both(&[("CLIENT_BODY_TIMEOUT", "300ms")]) {
        for framing in ["Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n64\r\n{"] {
            let mut client = RawClient::connect(gateway.url());
            let head = format!("POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {USER}\r\n{framing}");
            client.write(head.as_bytes()).unwrap();
            let answer = client.read_response().unwrap();
            assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (408, Some("request_timeout")));
        }
        assert!(is_idle(&gateway));
    }
}

#[test]
fn a_client_that_closes_its_side_counts_as_gone_and_its_request_is_cancelled() {
    for gateway in over_both(&[]) {
        // Pipelined behind the request: nothing, a little, more than a buffer holds, and more than the gateway reads ahead.
        for pipelined in [0, 1, 200, 100_000] {
            let mut client = RawClient::connect(gateway.url());
            client.write(&[chat(&gateway), PING.repeat(pipelined)].concat()).unwrap();
            eventually("the request is in flight", SOON, || !is_idle(&gateway));
            client.finish_writing();
            assert!(client.read_to_close().is_empty(), "as with nginx, a half-closed connection gets no response");
            eventually("slot and lease are free", SOON, || is_idle(&gateway));
        }
    }
}

#[test]
fn a_response_before_the_end_of_the_body_says_connection_close() {
    let gateway = ready(&[("CORS_ORIGINS", "*"), ("MAX_QUEUE_SIZE", "1")]);
    let mut held: Vec<_> = (0..2).map(|_| RawClient::connect(gateway.url())).collect();
    for client in &mut held {
        client.write(&chat(&gateway)).unwrap();
    }
    eventually("one request is in flight and one waits", SOON, || {
        let queue = gateway.health().get("/health").json()["queue"].clone();
        queue["active"] == 1 && queue["waiting"] == 1
    });
    for _ in 0..2 {
        assert_eq!(gateway.client_with(LIMITED).get("/v1/models").status(), 200);
    }
    let user = &format!("Authorization: Bearer {USER}\r\n");
    let limited = &format!("Authorization: Bearer {LIMITED}\r\n");
    let wrong = "X-API-Key: wrong-secret-0123456789\r\n";
    let mut asked = Vec::new();
    for (method, path, key, status) in [
        ("POST", CHAT, "", 401),
        ("POST", CHAT, wrong, 401),
        ("POST", "/reload", user, 403),
        ("POST", "/nothing", user, 404),
        ("PUT", CHAT, user, 404),
        ("POST", CHAT, limited, 429),
        ("POST", CHAT, user, 503),
        ("GET", "/ping", "", 200),
        ("OPTIONS", CHAT, "", 204),
    ] {
        asked.push((gateway.url(), format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{key}"), status));
    }
    asked.push((gateway.health_url(), "GET /ping HTTP/1.1\r\nHost: x\r\n".to_owned(), 200));
    for (url, head, status) in asked {
        for (framing, closes) in [
            ("Content-Length: 0\r\n\r\n", false),
            // A small body that has already arrived is discarded, and the connection stays open.
            ("Content-Length: 2\r\n\r\n{}", false),
            ("Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", false),
            ("Content-Length: 2\r\n\r\n", true),
            ("Content-Length: 2\r\nExpect: 100-continue\r\n\r\n", true),
            ("Content-Length: 900000\r\n\r\n{", true),
        ] {
            let mut client = RawClient::connect(url);
            client.write(format!("{head}{framing}").as_bytes()).unwrap();
            let answer = client.read_response().unwrap();
            assert_eq!(answer.status(), status, "{head}{framing}");
            assert_eq!(answer.header("connection") == Some("close"), closes, "{head}{framing}");
            if closes {
                assert!(client.read_to_close().is_empty());
            } else {
                client.write(PING).unwrap();
                assert_eq!(client.read_response().unwrap().status(), 200);
            }
        }
    }
}

#[test]
fn a_client_that_pipelines_too_much_gets_the_current_response_and_no_other() {
    for gateway in over_both(&[]) {
        let mut client = RawClient::connect(gateway.url());
        client.write(&[chat(&gateway), PING.repeat(100_000)].concat()).expect("the gateway takes what is sent");
        gateway.journal().wait_for_requests(CHAT, 1);
        gateway.control().release_all_requests();
        let answer = client.read_response().unwrap();
        assert_eq!((answer.status(), answer.complete), (200, true));
        assert!(client.read_to_close().is_empty());

        let mut client = RawClient::connect(gateway.url());
        client.write(&[chat(&gateway), PING.repeat(900)].concat()).unwrap();
        for _ in 0..=900 {
            assert_eq!(
                client.read_response().unwrap().status(),
                200,
                "a small number of pipelined requests is answered"
            );
        }
    }
}

#[test]
fn a_connection_over_the_limit_waits_until_another_closes() {
    let gateway = ready(&[("MAX_CONNECTIONS", "2")]);
    let mut first = RawClient::connect(gateway.url());
    let mut second = RawClient::connect(gateway.url());
    for client in [&mut first, &mut second] {
        client.write(PING).unwrap();
        assert_eq!(client.read_response().unwrap().status(), 200);
    }
    let mut third = RawClient::connect(gateway.url());
    third.write(PING).unwrap();
    for _ in 0..100 {
        first.write(PING).unwrap();
        assert_eq!(first.read_response().unwrap().status(), 200);
        assert!(!third.has_news(), "only two connections are served");
    }
    drop(second);
    assert_eq!(third.read_response().unwrap().status(), 200);
}

#[test]
fn incomplete_heads_take_little_more_memory_than_their_bytes() {
    const CONNECTIONS: usize = 200;
    let gateway = ready(&[]);
    let port = gateway.url().rsplit(':').next().unwrap().parse().unwrap();
    gateway.anonymous().get("/ping");
    let before = resources::resident_kib(gateway.pid());
    let half_head = format!("GET /ping HTTP/1.1\r\n{}", format!("X: {}\r\n", "x".repeat(7_500)).repeat(4));
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| RawClient::connect(gateway.url())).collect();
    for client in &mut clients {
        client.write(half_head.as_bytes()).unwrap();
    }
    eventually("the gateway has read the heads", SOON, || resources::unread_bytes(port) == 0);
    let grown = resources::resident_kib(gateway.pid()).saturating_sub(before);
    assert!(grown < CONNECTIONS as u64 * 64 + 8 * 1024, "{grown} KiB more for {CONNECTIONS} half heads of 30 KiB");
    for client in &mut clients {
        client.write(b"Host: x\r\n\r\n").unwrap();
        assert_eq!(client.read_response().unwrap().status(), 200);
    }
}

#[test]
fn refused_connections_leak_no_descriptors() {
    for gateway in over_both(&[]) {
        gateway.anonymous().header("X-Request-Id", "first").get("/ping");
        access_log_line(&gateway, "first"); // its file stays open
        let before = gateway.open_fds();
        for bad in [&b"bad\r\n\r\n"[..], b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nno\r\n\r\n"] {
            for _ in 0..20 {
                let mut client = RawClient::connect(gateway.url());
                client.write(bad).unwrap();
                assert_eq!(client.read_response().unwrap().status(), 400);
            }
        }
        eventually("the sockets are closed", SOON, || gateway.open_fds() <= before);
    }
}
