//! Answers that a backend packs although it was asked not to: they are unpacked before anything reads them.

use serde_json::{Value, json};

use super::accounts::access_log_line;
use super::support::{
    client::{Client, Response},
    gateway::{ADMIN, Gateway},
    packing::{bare_deflate, gzip, gzip_in_parts, zlib, zstandard},
    remote::{Remote, Reply},
    resources::peak_resident_kib,
    wait::{READY, SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";
const JSON: &str = "Content-Type: application/json";
const SSE: &str = "Content-Type: text/event-stream";
const DONE: &str = "data: [DONE]\n\n";

/// Packs in each way that is unpacked.
type Pack = fn(&[u8]) -> Vec<u8>;

const CODINGS: [(&str, Pack); 9] = [
    ("gzip", gzip),
    ("x-gzip", gzip),
    ("GZIP", gzip),
    ("deflate", zlib),
    ("deflate", bare_deflate),
    ("zstd", zstandard),
    ("gzip, zstd", |bytes| zstandard(&gzip(bytes))),
    ("identity, gzip", gzip),
    ("identity", <[u8]>::to_vec),
];

/// How the body of an answer is framed.
#[derive(Debug, Clone, Copy)]
enum Framing {
    Length,
    /// Each chunk has seven bytes.
    Chunked,
    Close,
}

/// Returns an answer with this body.
fn answer(status: u16, head: &str, body: &[u8], framing: Framing) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} X\r\n{head}\r\nConnection: close\r\n");
    match framing {
        Framing::Length => [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat(),
        Framing::Close => [head.as_bytes(), b"\r\n", body].concat(),
        Framing::Chunked => {
            let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
            let chunks: Vec<u8> = body.chunks(7).flat_map(chunk).collect();
            [head.as_bytes(), b"Transfer-Encoding: chunked\r\n\r\n", &chunks, b"0\r\n\r\n"].concat()
        }
    }
}

/// Starts a gateway with one remote backend, which calls the model `theirs`.
fn ready(remote: &Remote, settings: &[(&str, &str)]) -> Gateway {
    let params = format!("{{api_base: \"{}\", model: theirs}}", remote.url());
    let config = format!("model_list:\n  - {{model_name: m, litellm_params: {params}}}\n");
    let gateway = Gateway::builder().fakes(&config, &[]).set("ALLOWED_FAILS", 1000).set_all(settings).start_ready();
    eventually("the backend is ready", READY, || worker(&gateway)["state"] == "ready");
    gateway
}

fn worker(gateway: &Gateway) -> Value {
    gateway.client_with(ADMIN).get("/lb/stats").json()["models"][0]["workers"][0].clone()
}

fn question(is_stream: bool) -> Value {
    json!({"model": "m", "messages": [], "max_tokens": 9, "stream": is_stream})
}

fn ask(client: &Client, is_stream: bool) -> Response {
    client.post_json(CHAT, &question(is_stream))
}

/// Regression: a packed answer kept the backend's name of the model, and its tokens were not counted.
#[test]
fn a_packed_answer_is_unpacked_renamed_and_counted() {
    let remote = Remote::start(Reply::Serve);
    let gateway = ready(&remote, &[]);
    let body = |model: &str| {
        let text = "a text that is long enough to be packed ".repeat(200);
        format!(
            "{{\"model\":\"{model}\",\"choices\":[{{\"message\":{{\"content\":\"{text}\"}}}}],\"usage\":{{\"prompt_tokens\":20,\"completion_tokens\":7}}}}"
        )
    };
    let of_packed = "Content-MD5: x\r\nContent-Digest: sha-256=:x:\r\nRepr-Digest: sha-256=:x:\r\nDigest: x\r\n\
                     Accept-Ranges: bytes\r\nETag: \"1\"\r\nVary: Accept-Encoding\r\nX-Kept: 1";
    for (at, (coding, pack)) in CODINGS.into_iter().enumerate() {
        for framing in [Framing::Length, Framing::Chunked, Framing::Close] {
            let head = format!("{JSON}\r\nContent-Encoding: {coding}\r\n{of_packed}");
            remote.set_reply(Reply::Raw(answer(200, &head, &pack(body("theirs").as_bytes()), framing)));
            let id = format!("{at}-{framing:?}");
            let got = ask(&gateway.client().header("X-Request-Id", &id), false);
            let what = format!("{coding} {framing:?}: {got:?}");
            assert!(got.status() == 200 && got.complete, "{what}");
            assert_eq!(got.text(), body("m"), "{what}");
            assert_eq!(got.header("content-encoding"), None, "{what}");
            assert!(got.header("vary").unwrap().contains("Accept-Encoding") && got.header("x-kept") == Some("1"));
            if coding != "identity" {
                assert_eq!((got.header("etag"), got.header("accept-ranges")), (Some("W/\"1\""), None), "{what}");
                for digest in ["content-md5", "content-digest", "repr-digest", "digest"] {
                    assert_eq!(got.header(digest), None, "{what}");
                }
            }
            let line = access_log_line(&gateway, &id);
            assert_eq!((&*line["prompt_tokens"], &*line["completion_tokens"]), ("20", "7"), "{what}");
        }
    }
    assert_eq!((&worker(&gateway)["failures"], &worker(&gateway)["breaker"]), (&json!(0), &json!("closed")));
}

fn events(model: &str) -> Vec<String> {
    let event = |rest: &str| format!("data: {{\"model\":\"{model}\",{rest}}}\n\n");
    vec![
        event("\"choices\":[{\"index\":0,\"delta\":{\"content\":\"one\"}}]"),
        event(
            "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":7}",
        ),
        DONE.to_owned(),
    ]
}

/// Regression: a packed stream was passed on packed: no tokens, no name, and no word when it was cut.
#[test]
fn a_packed_stream_is_unpacked_renamed_and_counted_in_every_framing() {
    let remote = Remote::start(Reply::Serve);
    let gateway = ready(&remote, &[]);
    for (at, (coding, pack)) in CODINGS.into_iter().enumerate() {
        for framing in [Framing::Length, Framing::Chunked, Framing::Close] {
            let head = format!("{SSE}\r\nContent-Encoding: {coding}");
            remote.set_reply(Reply::Raw(answer(200, &head, &pack(events("theirs").concat().as_bytes()), framing)));
            let id = format!("{at}-{framing:?}");
            let got = ask(&gateway.client().header("X-Request-Id", &id), true);
            let what = format!("{coding} {framing:?}: {got:?}");
            assert!(got.complete && got.header("content-encoding").is_none(), "{what}");
            assert_eq!(got.text(), events("m").concat(), "{what}");
            let line = access_log_line(&gateway, &id);
            assert_eq!((&*line["prompt_tokens"], &*line["completion_tokens"]), ("20", "7"), "{what}");
        }
    }
    assert_eq!(worker(&gateway)["failures"], 0);
}

#[test]
fn the_events_of_a_packed_stream_arrive_as_they_are_flushed() {
    let (sent, wanted) = (events("theirs"), events("m"));
    let packed = gzip_in_parts(&sent.iter().map(String::as_str).collect::<Vec<_>>());
    let head = format!("HTTP/1.1 200 OK\r\n{SSE}\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n");
    let first = [head.as_bytes(), &packed[0]].concat();
    // The last part is the end of the gzip format, which some proxies leave out.
    for parts in [packed.len(), packed.len() - 1] {
        let remote = Remote::start(Reply::HoldBetween(first.clone(), packed[1..parts].concat()));
        let gateway = ready(&remote, &[]);
        let mut stream = gateway.client().stream(CHAT, &question(true));
        assert_eq!(format!("data: {}\n\n", stream.next_event().expect("it comes before the next one").data), wanted[0]);
        remote.release();
        let rest = stream.events();
        assert!(stream.is_complete() && rest.len() == 2 && rest[1].is_done(), "{parts}: {rest:?}");
        assert_eq!(worker(&gateway)["failures"], 0, "{parts}: the client has got the whole stream");
    }
    let remote = Remote::start(Reply::HoldBetween(first, Vec::new()));
    let gateway = ready(&remote, &[("STREAM_IDLE_TIMEOUT", "300ms")]);
    let got = gateway.client().stream(CHAT, &question(true)).events();
    assert!(got.len() == 2 && got[1].data.contains("backend_timeout"), "a silent one is ended: {got:?}");
}

/// Regression: an answer that was packed and broke off was passed on without a word.
#[test]
fn a_packed_answer_that_breaks_off_or_is_damaged_is_told_as_cut() {
    let remote = Remote::start(Reply::Serve);
    let gateway = ready(&remote, &[]);
    let noise: String =
        (0_u32..9000).map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 27) as u8 % 26)).collect();
    let event = format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{noise}\"}}}}]}}\n\n");
    let mut failures = 0;
    for (coding, pack) in CODINGS.into_iter().filter(|(coding, _)| *coding != "identity") {
        for (kind, text) in [(SSE, event.repeat(3)), (JSON, format!("{{\"text\":\"{}\"}}", noise.repeat(3)))] {
            let packed = pack(text.as_bytes());
            let mut bodies = vec![packed[..packed.len() / 2].to_vec(), packed[..packed.len() - 1].to_vec()];
            let cut = bodies.len();
            bodies.push(text.clone().into_bytes());
            // The others need not have a checksum.
            if coding.contains("gzip") {
                bodies.push([&packed[..packed.len() / 2], &[0xff; 64], &packed[packed.len() / 2..]].concat());
            }
            for (at, body) in bodies.iter().enumerate() {
                eventually("the backend has answered its probe", READY, || worker(&gateway)["state"] == "ready");
                let head = format!("{kind}\r\nContent-Encoding: {coding}");
                remote.set_reply(Reply::Raw(answer(200, &head, body, Framing::Chunked)));
                let got = ask(&gateway.client(), kind == SSE);
                let what = format!("{coding} {kind} {at}: {} bytes", got.body.len());
                failures += 1;
                eventually(&format!("a failure is counted: {what}"), SOON, || worker(&gateway)["failures"] == failures);
                assert_eq!(got.status(), 200, "{what}");
                match kind == SSE {
                    true => assert!(
                        got.complete && got.text().contains("backend_error") && !got.text().contains(DONE),
                        "{what}"
                    ),
                    // What is damaged may give other bytes before its checksum tells.
                    false => assert!(!got.complete && (at >= cut || text.starts_with(&got.text())), "{what}"),
                }
            }
        }
    }
}

#[test]
fn the_fault_of_a_packed_error_is_found_by_its_words() {
    let remote = Remote::start(Reply::Serve);
    let gateway = ready(&remote, &[]);
    let fault = json!({"error": {"message": "input (700 tokens) is too large to process", "type": "server_error"}});
    let other = json!({"error": {"message": "out of luck", "type": "server_error"}});
    for (coding, pack) in CODINGS {
        let reply = |status, body: &Value| {
            let head = format!("{JSON}\r\nContent-Encoding: {coding}");
            Reply::Raw(answer(status, &head, &pack(body.to_string().as_bytes()), Framing::Length))
        };
        remote.set_reply(reply(500, &fault));
        let got = ask(&gateway.client(), false);
        assert_eq!((got.status(), &got.json()["error"]["code"]), (400, &json!("bad_request")), "{coding}");
        assert!(got.text().contains("too large to process"), "{coding}: {}", got.text());
        assert_eq!(worker(&gateway)["breaker"], "closed", "{coding}");
        for status in [400, 500] {
            remote.set_reply(reply(status, &other));
            let got = ask(&gateway.client(), false);
            assert_eq!((got.status(), got.json(), got.complete), (status, other.clone(), true), "{coding}");
        }
        remote.set_reply(reply(404, &json!({"detail": "Not Found"})));
        assert_eq!(ask(&gateway.client(), false).json()["error"]["code"], "route_not_found", "{coding}");
    }
}

#[test]
fn an_answer_without_a_body_is_whole_though_it_is_marked_as_packed() {
    let remote = Remote::start(Reply::Serve);
    let gateway = ready(&remote, &[]);
    for (status, framing) in
        [(200, Framing::Length), (200, Framing::Chunked), (204, Framing::Close), (304, Framing::Close)]
    {
        let head = format!("{JSON}\r\nContent-Encoding: gzip");
        remote.set_reply(Reply::Raw(answer(status, &head, b"", framing)));
        let got = ask(&gateway.client(), false);
        assert_eq!((got.status(), got.complete, got.text()), (status, true, String::new()), "{framing:?}");
        assert_eq!(got.header("content-encoding"), None);
    }
    assert_eq!(worker(&gateway)["failures"], 0);
}

#[test]
fn a_part_of_something_packed_stays_as_it_is() {
    let remote = Remote::start(Reply::Serve);
    let gateway = ready(&remote, &[]);
    let part = &gzip(&[b'x'; 5000])[5..20];
    let head = format!("{JSON}\r\nContent-Encoding: gzip\r\nContent-Range: bytes 5-19/30");
    remote.set_reply(Reply::Raw(answer(206, &head, part, Framing::Length)));
    let got = ask(&gateway.client(), false);
    assert_eq!((got.status(), &*got.body, got.header("content-encoding")), (206, part, Some("gzip")));
}

#[test]
fn a_bomb_is_passed_on_in_small_pieces() {
    let remote = Remote::start(Reply::Serve);
    let gateway = ready(&remote, &[]);
    let blanks = vec![b' '; 60_000_000];
    let before = peak_resident_kib(gateway.pid());
    for (coding, body) in
        [("gzip", gzip(&blanks)), ("zstd", zstandard(&blanks)), ("gzip, zstd", zstandard(&gzip(&blanks)))]
    {
        let head = format!("{JSON}\r\nContent-Encoding: {coding}");
        remote.set_reply(Reply::Raw(answer(200, &head, &body, Framing::Length)));
        let got = ask(&gateway.client(), false);
        assert!(got.complete && got.body == blanks, "{coding}: {}", got.body.len());
        let grown = peak_resident_kib(gateway.pid()) - before;
        assert!(grown < 24 * 1024, "{coding}: {grown} KiB");
    }
}
