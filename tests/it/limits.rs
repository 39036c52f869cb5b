//! Limits on the form and the size of a request: a malformed or oversized request gets an error of the API at once, and
//! no part of it reaches llama-server.

use std::fs;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use super::support::{
    client::{RawClient, Response},
    gateway::{Gateway, USER},
    wait::{SOON, eventually, eventually_some},
};

const CHAT: &str = "/v1/chat/completions";

fn ready(settings: &[(&str, &str)]) -> Gateway {
    Gateway::builder().set_all(settings).start_ready()
}

/// Starts a gateway with plain HTTP, and then one with TLS.
fn over_both(settings: &[(&str, &str)]) -> impl Iterator<Item = Gateway> + use<> {
    Gateway::builder().set_all(settings).start_over_both()
}

fn chat() -> String {
    json!({"messages": [{"role": "user", "content": "x"}]}).to_string()
}

fn ask(gateway: &Gateway, bytes: &[u8]) -> Response {
    let mut client = RawClient::connect(gateway.url());
    client.write(bytes).unwrap();
    client.read_response().unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(bytes)))
}

#[track_caller]
fn assert_refused(answer: &Response, status: u16, code: &str) {
    assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (status, Some(code)), "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(answer.header("x-request-id").is_some() && answer.header("date").is_some());
    assert!(answer.complete);
}

/// Returns the head of a chat request with a valid key and further header lines.
fn head(lines: &str) -> String {
    format!("POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {USER}\r\n{lines}\r\n\r\n")
}

/// Returns a request for `/ping` with further header lines, each with its CRLF.
fn ping(lines: &str) -> String {
    format!("GET /ping HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
}

/// Regression: a client that was told "larger than 10485760 bytes" could not know what to change.
#[test]
fn each_limit_names_its_setting() {
    let settings =
        [("MAX_REQUEST_BODY_SIZE", "1000"), ("CLIENT_HEADER_TIMEOUT", "300ms"), ("CLIENT_BODY_TIMEOUT", "300ms")];
    let gateway = ready(&settings);
    for path in [CHAT, "/v1/messages"] {
        let head = |lines: &str| head(lines).replace(CHAT, path);
        let chunk = format!("Transfer-Encoding: chunked\r\n\r\n3e9\r\n{}\r\n0", "x".repeat(1001));
        let start = format!("POST {path} HTTP/1.1\r\n");
        for (request, status, settings) in [
            (head("Content-Length: 1001"), 413, &["MAX_REQUEST_BODY_SIZE"][..]),
            (head(&chunk), 413, &["MAX_REQUEST_BODY_SIZE"]),
            (head(&"X: 1\r\n".repeat(64)), 431, &["MAX_HEADERS"]),
            (head(&format!("X: {}", "x".repeat(9_000))), 431, &["MAX_HEADER_LINE_SIZE"]),
            (
                head(&format!("X: {}\r\n", "x".repeat(8_000)).repeat(5)),
                431,
                &["MAX_REQUEST_LINE_SIZE", "MAX_HEADER_LINE_SIZE"],
            ),
            (format!("POST {path}?{} HTTP/1.1\r\n\r\n", "x".repeat(9_000)), 414, &["MAX_REQUEST_LINE_SIZE"]),
            (start, 408, &["CLIENT_HEADER_TIMEOUT"]),
            (head("Content-Length: 9"), 408, &["CLIENT_BODY_TIMEOUT"]),
        ] {
            let answer = ask(&gateway, request.as_bytes());
            let error = answer.json();
            let message = error["error"]["message"].as_str().unwrap();
            assert_eq!(answer.status(), status, "{message}");
            assert_eq!(error["type"] == "error", path != CHAT, "{path}: {error}");
            assert!(settings.iter().all(|setting| message.contains(setting)), "{message}");
        }
    }
}

#[test]
fn no_ambiguous_request_reaches_llama_server() {
    for gateway in over_both(&[]) {
        let smuggled = format!("0\r\n\r\n{}", head("Content-Length: 2") + "{}");
        for lines in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5, 6",
            "Content-Length: 5, 5",
            "Content-Length: +5",
            "Content-Length: -5",
            "Content-Length: 5a",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "Transfer-Encoding : chunked",
            "X: y\r\n folded: line",
            "no colon",
            "X: bare\rreturn",
            "X: nul\0",
            "X: bare\nContent-Length: 5",
            "Host: another",
        ] {
            let answer = ask(&gateway, format!("{}{smuggled}", head(lines)).as_bytes());
            assert_refused(&answer, 400, "bad_request");
        }
        for request in [
            format!("POST {CHAT} HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}"),
            format!("POST {CHAT} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            format!("POST {CHAT} HTTP/1.1\nHost: x\n\n"),
            format!("POST {CHAT} HTTP/3.0\r\nHost: x\r\n\r\n"),
            format!("POST {CHAT}\r\n\r\n"),
            "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(),
        ] {
            assert_refused(&ask(&gateway, request.as_bytes()), 400, "bad_request");
        }
        assert!(gateway.journal().requests(CHAT).is_empty(), "nothing reached llama-server");
        assert_eq!(gateway.client().send("POST", CHAT, chat().as_bytes()).status(), 200);
    }
}

#[test]
fn a_malformed_chunk_is_refused_and_what_follows_is_not_read_as_a_request() {
    for gateway in over_both(&[]) {
        for chunks in [
            "5\nhello",
            "5\r\nhelloX\r\n",
            "-5\r\n",
            "5 \r\nhello\r\n",
            "0\r\nTrailer: x\n\r\n",
            "fffffffffffffffff\r\n",
        ] {
            let request = format!("{}{chunks}{}", head("Transfer-Encoding: chunked"), head("Content-Length: 2") + "{}");
            assert_refused(&ask(&gateway, request.as_bytes()), 400, "bad_request");
        }
        assert!(gateway.journal().requests(CHAT).is_empty(), "nothing reached llama-server");
    }
}

#[test]
fn refusals_keep_the_request_id_and_the_dialect_and_are_logged_and_counted() {
    let gateway = ready(&[]);
    let answer = ask(&gateway, b"POST /v1/messages?q HTTP/1.1\r\nHost: x\r\nX-Request-Id: my-id.7\r\nbad\r\n\r\n");
    assert_eq!((answer.status(), answer.header("x-request-id")), (400, Some("my-id.7")));
    assert_eq!(answer.json()["type"], "error", "{}", answer.text());
    ask(&gateway, b"\0\r\n\r\n");
    let log = || {
        let files = fs::read_dir(gateway.data_dir().join("logs/access")).into_iter().flatten().flatten();
        files
            .filter(|file| file.file_name() != "latest.txt")
            .map(|file| fs::read_to_string(file.path()).unwrap())
            .collect::<String>()
    };
    let line_with =
        |what: &str| eventually_some(what, SOON, || log().lines().find(|line| line.contains(what)).map(str::to_owned));
    let line = line_with("req=my-id.7");
    assert!(line.contains(" POST /v1/messages model=- status=400 code=bad_request "), "{line}");
    line_with(" key=- - - model=- status=400 code=bad_request ");
    let metrics = gateway.anonymous().get("/metrics?format=prometheus").text();
    assert!(metrics.contains("llamagate_refusals_total{code=\"bad_request\"} 2"), "{metrics}");
}

#[test]
fn the_health_port_has_the_same_limits() {
    let gateway = ready(&[]);
    let mut client = RawClient::connect(gateway.health_url());
    client.write(b"GET /ping HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n").unwrap();
    assert_refused(&client.read_response().unwrap(), 400, "bad_request");
}

#[test]
fn a_head_that_exactly_meets_its_limits_passes_and_one_byte_or_line_more_is_refused() {
    let gateway = ready(&[("MAX_REQUEST_LINE_SIZE", "200"), ("MAX_HEADER_LINE_SIZE", "9000"), ("MAX_HEADERS", "10")]);
    let line = |length: usize| {
        let begin = "GET /ping?";
        format!("{begin}{} HTTP/1.1\r\nHost: x\r\n\r\n", "q".repeat(length - begin.len() - 9))
    };
    let header = |length: usize| ping(&format!("X: {}\r\n", "x".repeat(length - 3)));
    let lines = |count: usize| ping(&"X: y\r\n".repeat(count - 1));
    let total = |size: usize| {
        let filler = size - ping("").len() - 4 * "X: \r\n".len();
        let long = format!("X: {}\r\n", "x".repeat(8_000)).repeat(3);
        ping(&format!("{long}X: {}\r\n", "x".repeat(filler - 24_000)))
    };
    for (good, bad, status, code) in [
        (line(200), line(201), 414, "uri_too_long"),
        (header(9000), header(9001), 431, "header_fields_too_large"),
        (lines(10), lines(11), 431, "header_fields_too_large"),
        (total(32 * 1024), total(32 * 1024 + 1), 431, "header_fields_too_large"),
    ] {
        assert_eq!(ask(&gateway, good.as_bytes()).status(), 200);
        assert_refused(&ask(&gateway, bad.as_bytes()), status, code);
        // On a keep-alive connection: the second request after the first response, and both pipelined.
        let mut client = RawClient::connect(gateway.url());
        client.write(good.as_bytes()).unwrap();
        assert_eq!(client.read_response().unwrap().status(), 200);
        client.write(bad.as_bytes()).unwrap();
        assert_refused(&client.read_response().unwrap(), status, code);
        let mut client = RawClient::connect(gateway.url());
        client.write(format!("{good}{bad}").as_bytes()).unwrap();
        assert_eq!(client.read_response().unwrap().status(), 200);
        assert_refused(&client.read_response().unwrap(), status, code);
        assert!(client.read_to_close().is_empty());
    }
}

#[test]
fn a_request_line_without_end_is_refused_before_its_end() {
    let gateway = ready(&[]);
    let mut client = RawClient::connect(gateway.url());
    client.write(format!("GET /{}", "x".repeat(9_000)).as_bytes()).unwrap();
    assert_refused(&client.read_response().unwrap(), 414, "uri_too_long");
}

#[test]
fn a_body_over_its_limit_is_refused_while_it_arrives_and_the_response_is_not_lost() {
    for gateway in over_both(&[("MAX_REQUEST_BODY_SIZE", "1000")]) {
        let chunk = format!("{:x}\r\n{}\r\n", 16 * 1024, "x".repeat(16 * 1024));
        let mut client = RawClient::connect(gateway.url());
        client.write(head("Transfer-Encoding: chunked").as_bytes()).unwrap();
        for _ in 0..512 {
            client.write(chunk.as_bytes()).expect("the gateway takes what is sent");
        }
        assert_refused(&client.read_response().unwrap(), 413, "payload_too_large");

        let mut client = RawClient::connect(gateway.url());
        client.write(head("Content-Length: 8000000").as_bytes()).unwrap();
        client.write(&vec![b'x'; 8_000_000]).expect("the gateway takes what is sent");
        assert_refused(&client.read_response().unwrap(), 413, "payload_too_large");
        assert!(gateway.journal().requests(CHAT).is_empty());
    }
}

/// The headers that curl's `--http2` and Java's `HttpClient` send with each request (RFC 7540, section 3.2).
const UPGRADE: &str = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA";

#[test]
fn a_request_to_upgrade_is_answered_over_http1_within_its_limits() {
    let gateway = ready(&[("MAX_REQUEST_BODY_SIZE", "1000")]);
    let mut client = RawClient::connect(gateway.url());
    client.write(ping(&format!("{UPGRADE}\r\n")).as_bytes()).unwrap();
    assert_eq!(client.read_response().unwrap().status(), 200);
    client.write(b"bad\r\n\r\n").unwrap();
    assert_refused(&client.read_response().unwrap(), 400, "bad_request");
    assert!(client.read_to_close().is_empty());

    let mut client = RawClient::connect(gateway.url());
    client.write(head(&format!("{UPGRADE}\r\nContent-Length: 8000000")).as_bytes()).unwrap();
    client.write(&vec![b'x'; 8_000_000]).expect("the gateway takes what is sent");
    assert_refused(&client.read_response().unwrap(), 413, "payload_too_large");

    let body = chat();
    let upgrading = head(&format!("{UPGRADE}\r\nContent-Length: {}", body.len())) + &body;
    assert_eq!(ask(&gateway, upgrading.as_bytes()).status(), 200);
    let received = gateway.journal().requests(CHAT).pop().unwrap()["headers"].to_string().to_lowercase();
    for hop_by_hop in ["upgrade", "trailer", "h2c", "http2-settings"] {
        assert!(!received.contains(hop_by_hop), "{received}");
    }
    assert_refused(&ask(&gateway, b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n"), 400, "bad_request");
}

#[test]
fn a_client_gets_100_continue_only_if_its_body_will_be_read() {
    let gateway = ready(&[("MAX_REQUEST_BODY_SIZE", "1000")]);
    let expect = |length: usize| format!("Expect: 100-continue\r\nContent-Length: {length}");
    let body = chat();
    let mut client = RawClient::connect(gateway.url());
    client.write(head(&expect(body.len())).as_bytes()).unwrap();
    assert_eq!(client.read_head().unwrap().status, 100);
    client.write(body.as_bytes()).unwrap();
    assert_eq!(client.read_response().unwrap().status(), 200);
    assert_refused(&ask(&gateway, head(&expect(1001)).as_bytes()), 413, "payload_too_large");
    let without_key = head(&expect(body.len())).replace(USER, "not-a-key-0123456789");
    assert_eq!(ask(&gateway, without_key.as_bytes()).status(), 401);
}

#[test]
fn pipelined_requests_are_answered_in_order_up_to_a_malformed_one() {
    for gateway in over_both(&[]) {
        let body = chat();
        let good = head(&format!("Content-Length: {}\r\nX-Request-Id: first", body.len())) + &body;
        let chunked = head("Transfer-Encoding: chunked\r\nX-Request-Id: second");
        let chunked = format!("{chunked}{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let mut client = RawClient::connect(gateway.url());
        let third = ping("X-Request-Id: third\r\n");
        client.write(format!("{good}{chunked}{third}GET bad\r\n\r\n{third}").as_bytes()).unwrap();
        for id in ["first", "second", "third"] {
            let answer = client.read_response().unwrap();
            assert_eq!((answer.status(), answer.header("x-request-id")), (200, Some(id)), "{}", answer.text());
        }
        assert_refused(&client.read_response().unwrap(), 400, "bad_request");
        assert!(client.read_to_close().is_empty());
        assert_eq!(gateway.journal().requests(CHAT).len(), 2);
    }
}

#[test]
fn the_refusal_of_a_bad_head_behind_a_stream_waits_for_the_end_of_the_stream() {
    let gateway = Gateway::builder().script(json!({"hold_mid_stream": {"after_frames": 1}})).start();
    gateway.wait_ready();
    let body = json!({"messages": [{"role": "user", "content": "x"}], "stream": true}).to_string();
    let mut client = RawClient::connect(gateway.url());
    client.write((head(&format!("Content-Length: {}", body.len())) + &body + "bad\r\n\r\n").as_bytes()).unwrap();
    gateway.journal().wait_for_requests(CHAT, 1);
    gateway.control().release_all_requests();
    let stream = client.read_response().unwrap();
    assert!(stream.complete && stream.text().ends_with("data: [DONE]\n\n"), "{}", stream.text());
    assert_refused(&client.read_response().unwrap(), 400, "bad_request");
}

#[test]
fn http2_has_the_same_limits() {
    let gateway = ready(&[("MAX_REQUEST_LINE_SIZE", "200"), ("MAX_HEADER_LINE_SIZE", "300"), ("MAX_HEADERS", "10")]);
    let ask = async |path: String, headers: Vec<(String, String)>| {
        let address = gateway.url().trim_start_matches("http://").to_owned();
        let stream = TokioIo::new(tokio::net::TcpStream::connect(&address).await.unwrap());
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        let mut request = http::Request::get(format!("http://{address}{path}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let code = serde_json::from_slice(&body).map(|body: Value| body["error"]["code"].as_str().map(str::to_owned));
        (status, code.ok().flatten())
    };
    let header = |name: &str, length: usize| vec![(name.to_owned(), "x".repeat(length))];
    let many = (0..11).map(|n| (format!("x-{n}"), "y".to_owned())).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        assert_eq!(ask("/ping".into(), header("x", 200)).await, (200, None));
        let refused = |status, code: &str| (status, Some(code.to_owned()));
        assert_eq!(ask(format!("/ping?{}", "q".repeat(200)), vec![]).await, refused(414, "uri_too_long"));
        assert_eq!(ask("/ping".into(), header("x", 300)).await, refused(431, "header_fields_too_large"));
        assert_eq!(ask("/ping".into(), many).await, refused(431, "header_fields_too_large"));
    });
    eventually("the refusals are counted", SOON, || {
        let metrics = gateway.anonymous().get("/metrics?format=prometheus").text();
        metrics.contains("llamagate_refusals_total{code=\"header_fields_too_large\"} 2")
    });
}
