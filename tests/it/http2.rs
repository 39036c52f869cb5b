//! HTTP/2 with prior knowledge: the same behaviour as over HTTP/1.1, with many requests on one connection.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::support::{
    client::RawClient,
    gateway::{Gateway, USER},
    wait::{SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";

/// The start of a connection: the preface and an empty SETTINGS frame (RFC 9113, section 3.4).
pub(super) const CONNECTION_START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A PING frame.
pub(super) const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0pingpong";

/// A HEADERS frame on stream 1 without END_HEADERS: `:method: GET` in HPACK, and more is to follow.
const HALF_A_HEAD: &[u8] = b"\0\0\x01\x01\0\0\0\0\x01\x82";

/// A client connection. hyper answers its pings.
struct Http2 {
    sender: SendRequest<Full<Bytes>>,
    address: String,
    is_closed: Arc<AtomicBool>,
}

/// A response body that is read as text, piece by piece.
struct Text {
    body: Incoming,
    text: String,
}

impl Http2 {
    async fn connect(url: &str) -> Self {
        Self::connect_with(url, &mut Builder::new(TokioExecutor::new())).await
    }

    async fn connect_with(url: &str, builder: &mut Builder<TokioExecutor>) -> Self {
        let address = url.trim_start_matches("http://").to_owned();
        let stream = TokioIo::new(tokio::net::TcpStream::connect(&address).await.unwrap());
        let (sender, connection) = builder.handshake(stream).await.unwrap();
        let is_closed = Arc::new(AtomicBool::new(false));
        let closed = Arc::clone(&is_closed);
        tokio::spawn(async move {
            let _ = connection.await;
            closed.store(true, Ordering::Release);
        });
        Self { sender, address, is_closed }
    }

    fn ask<B: Into<Bytes>>(
        &self,
        method: &str,
        path: &str,
        key: &str,
        body: B,
    ) -> impl Future<Output = Response<Incoming>> + use<B> {
        let request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        let request = if key.is_empty() { request } else { request.header("Authorization", format!("Bearer {key}")) };
        let request = request.body(Full::new(body.into())).unwrap();
        let mut sender = self.sender.clone();
        async move { sender.send_request(request).await.unwrap() }
    }

    fn chat(&self, stream: bool) -> impl Future<Output = Response<Incoming>> + use<> {
        self.ask("POST", CHAT, USER, chat(stream))
    }

    async fn ping(&self) -> u16 {
        self.ask("GET", "/ping", "", "").await.status().as_u16()
    }

    fn wait_closed(&self) {
        eventually("the connection ends", SOON, || self.is_closed.load(Ordering::Acquire));
    }
}

impl Text {
    fn of(answer: Response<Incoming>) -> Self {
        assert_eq!(answer.status(), 200);
        Self { body: answer.into_body(), text: String::new() }
    }

    /// Reads until the text has `count` events.
    async fn read_events(&mut self, count: usize) {
        while self.text.matches("\n\n").count() < count {
            let frame = self.body.frame().await.expect("the body has another frame").unwrap();
            self.text.push_str(std::str::from_utf8(frame.data_ref().expect("no trailers")).unwrap());
        }
    }

    /// Reads the rest and returns the whole text. Panics if the stream was reset.
    async fn read_to_end(mut self) -> String {
        let rest = self.body.collect().await.expect("the stream ends without a reset").to_bytes();
        self.text.push_str(std::str::from_utf8(&rest).unwrap());
        self.text
    }
}

fn chat(stream: bool) -> String {
    json!({"messages": [{"role": "user", "content": "x"}], "stream": stream}).to_string()
}

fn ready(script: Value, settings: &[(&str, &str)]) -> Gateway {
    Gateway::builder().script(script).set_all(settings).start_ready()
}

fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Runtime::new().unwrap().block_on(test)
}

async fn code(answer: Response<Incoming>) -> (u16, String) {
    let status = answer.status().as_u16();
    assert!(answer.headers().contains_key("x-request-id"));
    let body: Value = serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

fn queue(gateway: &Gateway, field: &str) -> Value {
    gateway.health().get("/health").json()["queue"][field].clone()
}

#[test]
fn answers_and_refusals_are_as_over_http1_and_the_connection_stays_open() {
    let gateway = ready(json!({}), &[("MAX_REQUEST_BODY_SIZE", "1000")]);
    run(async {
        let client = Http2::connect(gateway.url()).await;
        for _ in 0..2 {
            assert_eq!(code(client.chat(false).await).await, (200, String::new()));
            for (method, path, key, length, status, refusal) in [
                ("POST", CHAT, "", 2, 401, "missing_api_key"),
                ("POST", CHAT, "wrong-secret-0123456789", 900, 401, "invalid_api_key"),
                ("POST", "/reload", USER, 2, 403, "scope_required"),
                ("POST", "/nothing", USER, 2, 404, "route_not_found"),
                ("POST", CHAT, USER, 1_001, 413, "payload_too_large"),
                // About twice the initial flow-control window of a stream (RFC 9113, section 6.9.2).
                ("POST", CHAT, USER, 130_000, 413, "payload_too_large"),
            ] {
                let answer = client.ask(method, path, key, vec![b'x'; length]).await;
                assert_eq!(code(answer).await, (status, refusal.to_owned()), "{method} {path}");
            }
        }
        assert_eq!(client.ping().await, 200);
    });
    assert_eq!(gateway.journal().requests(CHAT).len(), 2);
}

#[test]
fn equal_requests_on_one_connection_share_an_answer_that_later_ones_get_from_the_cache() {
    let gateway = ready(json!({"hold_mid_stream": {"after_frames": 2}}), &[("CACHE", "safe")]);
    let body = json!({"messages": [], "stream": true, "temperature": 0}).to_string();
    let mark = |answer: &Response<Incoming>| answer.headers()["x-llamagate-cache"].to_str().unwrap().to_owned();
    run(async {
        let client = Http2::connect(gateway.url()).await;
        let first = client.ask("POST", CHAT, USER, body.clone()).await;
        assert_eq!(mark(&first), "miss");
        let other = client.ask("POST", CHAT, USER, body.clone()).await;
        assert_eq!(mark(&other), "hit");
        // Neither is read to hold back the other, and the first may leave.
        let mut other = Text::of(other);
        other.read_events(2).await;
        drop(first);
        gateway.control().release_all_requests();
        let whole = other.read_to_end().await;
        assert!(whole.ends_with("data: [DONE]\n\n"), "{whole}");
        let kept = client.ask("POST", CHAT, USER, body).await;
        assert_eq!((mark(&kept), kept.headers().contains_key("age")), ("hit".to_owned(), true));
        assert_eq!(Text::of(kept).read_to_end().await, whole);
    });
    assert_eq!(gateway.journal().requests(CHAT).len(), 1);
}

#[test]
fn a_stream_comes_frame_by_frame_and_ends_with_its_mark() {
    let gateway = ready(json!({"hold_mid_stream": {"after_frames": 2}}), &[]);
    run(async {
        let client = Http2::connect(gateway.url()).await;
        let mut stream = Text::of(client.chat(true).await);
        stream.read_events(2).await;
        assert_eq!(client.ping().await, 200, "other requests on the connection are answered during the stream");
        gateway.control().release_all_requests();
        let text = stream.read_to_end().await;
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    });
}

#[test]
fn a_stream_that_is_reset_is_cancelled_and_frees_its_slot() {
    let gateway = ready(json!({"hold_mid_stream": {"after_frames": 1}}), &[]);
    run(async {
        let client = Http2::connect(gateway.url()).await;
        let mut stream = Text::of(client.chat(true).await);
        stream.read_events(1).await;
        let waiting = tokio::spawn(client.chat(true));
        eventually("the second request waits", SOON, || queue(&gateway, "waiting") == 1);
        waiting.abort();
        eventually("no request waits", SOON, || queue(&gateway, "waiting") == 0);
        drop(stream);
        gateway.journal().wait_for_event("disconnect");
        eventually("the slot is free", SOON, || queue(&gateway, "active") == 0);
        assert_eq!(client.ping().await, 200, "the connection can still be used");
    });
    assert_eq!(gateway.journal().requests(CHAT).len(), 1);
}

#[test]
fn many_requests_at_once_are_all_answered_on_one_connection() {
    let gateway = ready(json!({}), &[("MAX_CONCURRENT_REQUESTS", "4")]);
    run(async {
        let client = Http2::connect(gateway.url()).await;
        let answers: Vec<_> = (0..200).map(|n| tokio::spawn(client.chat(n % 2 == 0))).collect();
        for (n, answer) in answers.into_iter().enumerate() {
            let text = Text::of(answer.await.unwrap()).read_to_end().await;
            let is_whole = if n % 2 == 0 { text.ends_with("data: [DONE]\n\n") } else { text.ends_with('}') };
            assert!(is_whole, "{text}");
        }
    });
    assert_eq!(gateway.journal().requests(CHAT).len(), 200);
    assert_eq!(queue(&gateway, "active"), 0);
}

#[test]
fn after_sigterm_a_stream_is_finished_and_new_requests_on_its_connection_are_refused() {
    let mut gateway = ready(json!({"hold_mid_stream": {"after_frames": 1}}), &[("DRAIN_TIMEOUT", "10m")]);
    run(async {
        let client = Http2::connect(gateway.url()).await;
        let mut stream = Text::of(client.chat(true).await);
        stream.read_events(1).await;
        gateway.signal(Signal::SIGTERM);
        eventually("the health port reports the stop", SOON, || gateway.health().get("/ping").status() == 503);
        assert_eq!(code(client.chat(true).await).await, (503, "shutting_down".to_owned()));
        gateway.control().release_all_requests();
        let text = stream.read_to_end().await;
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        client.wait_closed();
    });
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn a_connection_without_requests_is_closed_whatever_else_is_sent() {
    let gateway = ready(json!({}), &[("CLIENT_HEADER_TIMEOUT", "300ms"), ("CLIENT_IDLE_TIMEOUT", "300ms")]);
    for url in [gateway.url(), gateway.health_url()] {
        run(async {
            Http2::connect(url).await.wait_closed();
            let client = Http2::connect(url).await;
            assert_eq!(client.ping().await, 200);
            client.wait_closed();
        });
        let mut client = RawClient::connect(url);
        client.write(&[CONNECTION_START, HALF_A_HEAD].concat()).unwrap();
        client.read_to_close();
        let mut client = RawClient::connect(url);
        client.write(CONNECTION_START).unwrap();
        eventually("a client that only sends pings is disconnected", SOON, || client.write(PING).is_err());
    }
}

#[test]
fn a_connection_that_had_a_request_may_be_idle_for_longer() {
    let gateway = ready(json!({}), &[("CLIENT_HEADER_TIMEOUT", "300ms")]);
    run(async {
        let client = Http2::connect(gateway.url()).await;
        for _ in 0..2 {
            assert_eq!(client.ping().await, 200);
            Http2::connect(gateway.url()).await.wait_closed();
        }
    });
}

#[test]
fn a_connection_is_not_closed_as_idle_during_a_request_nor_just_after_it() {
    let gateway = ready(json!({"hold_requests": [CHAT]}), &[("CLIENT_HEADER_TIMEOUT", "2s")]);
    run(async {
        let client = Http2::connect(gateway.url()).await;
        let answer = tokio::spawn(client.chat(false));
        gateway.journal().wait_for_requests(CHAT, 1);
        for _ in 0..2 {
            assert!(
                RawClient::connect(gateway.url()).read_to_close().is_empty(),
                "an idle connection has been closed after CLIENT_HEADER_TIMEOUT"
            );
        }
        gateway.control().release_all_requests();
        assert_eq!(answer.await.unwrap().status(), 200);
        assert_eq!(client.ping().await, 200, "the idle time begins at the end of the answer");
    });
}
