use std::time::Duration;

use http::{Method, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::fleet::Unavailable;
use crate::gateway::bounds::{MAX_BUFFERED_EVENT, SWEEP_INTERVAL};
use crate::gateway::content_kind::ContentKind;
use crate::gateway::testing::{
    FINGERPRINT, REQUEST_TIMEOUT, STALL_TIMEOUT, TestGateway, chunk, error_code, next_piece,
};
use crate::pause_clock::ActiveInstant;
use crate::worker::bounds::COMPUTE_ERRORS_UNTIL_RESTART;

const CHAT: &str = "/v1/chat/completions";
const CHUNKED: &str = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked";

#[tokio::test(start_paused = true)]
async fn an_http2_client_that_never_reads_its_stream_keeps_no_slot() {
    let mut gateway = TestGateway::new();
    let (proxied, mut llama) = gateway.proxied_body(CHAT, 200, ContentKind::Stream, CHUNKED).await;
    let response = gateway.send_to_stalled_client(Response::new(ResponseBody::Proxied(proxied))).await;
    llama.write_all(&chunk("data: 1\n\n")).await.unwrap();
    let start = ActiveInstant::now();
    gateway.slot_freed().await;
    assert!(start.elapsed() >= STALL_TIMEOUT && start.elapsed() <= STALL_TIMEOUT + 2 * SWEEP_INTERVAL);
    assert_eq!(llama.read(&mut [0]).await.unwrap(), 0, "the connection to llama-server is closed");
    drop(response);
    let log = gateway.log();
    assert!(log.contains("client_closed"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn a_response_to_an_http2_client_that_never_reads_is_aborted_as_soon_as_any_other() {
    let mut gateway = TestGateway::new();
    let (proxied, mut llama) = gateway.proxied_body(CHAT, 200, ContentKind::Stream, CHUNKED).await;
    let _response = gateway.send_to_stalled_client(Response::new(ResponseBody::Proxied(proxied))).await;
    llama.write_all(&chunk("data: 1\n\n")).await.unwrap();
    tokio::time::sleep(SWEEP_INTERVAL / 2).await;
    let start = ActiveInstant::now();
    gateway.abort.cancel();
    gateway.slot_freed().await;
    assert!(start.elapsed() < SWEEP_INTERVAL / 2);
    let log = gateway.log();
    assert!(log.contains("shutting_down"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_aborted_at_once_is_distinguishable_from_no_answer() {
    let mut gateway = TestGateway::new();
    let (proxied, _llama) = gateway.proxied_body(CHAT, 200, ContentKind::Json, "Content-Length: 10").await;
    gateway.abort.cancel();
    let got = gateway.send_to_client(Response::new(ResponseBody::Proxied(proxied))).await;
    assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && got.contains("content-length: 10"), "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn no_error_follows_the_end_mark_of_a_stream() {
    for body_end in ["killed", "silent", "cut"] {
        let mut gateway = TestGateway::new();
        let (proxied, mut llama) = gateway.proxied_body(CHAT, 200, ContentKind::Stream, CHUNKED).await;
        let mut answer = ResponseBody::Proxied(proxied);
        llama.write_all(&chunk("data: [DONE]\n\n")).await.unwrap();
        assert_eq!(next_piece(&mut answer).await.as_deref(), Some("data: [DONE]\n\n"));
        match body_end {
            "killed" => drop(llama),
            "cut" => gateway.abort.cancel(),
            _ => {}
        }
        assert_eq!(next_piece(&mut answer).await, None, "{body_end}");
        gateway.slot_freed().await;
        let log = gateway.log();
        assert!(log.contains(" code=- "), "{body_end}: {log}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_read_slowly_is_aborted_at_its_deadline() {
    let mut gateway = TestGateway::new();
    let (proxied, mut llama) = gateway.proxied_body(CHAT, 200, ContentKind::Json, "Content-Length: 1000000").await;
    let mut answer = ResponseBody::Proxied(proxied);
    let start = ActiveInstant::now();
    llama.write_all(&[b'x'; 500_000]).await.unwrap();
    let mut read = 0;
    let last = loop {
        match next_piece(&mut answer).await.unwrap() {
            piece if piece.starts_with('x') => read += piece.len(),
            last => break last,
        }
        llama.write_all(&[b'x'; 1_000]).await.unwrap_or_default();
        tokio::time::sleep(STALL_TIMEOUT - SWEEP_INTERVAL).await;
    };
    assert!(read > 0 && last.contains("backend_timeout"), "{last}");
    assert!(start.elapsed() < REQUEST_TIMEOUT + STALL_TIMEOUT);
    assert!(next_piece(&mut answer).await.is_none());
    gateway.slot_freed().await;
    let log = gateway.log();
    assert!(log.contains("backend_timeout"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn a_stalled_client_that_reads_again_is_cut_off_and_one_met_by_the_shutdown_gets_an_error() {
    for (cut, whole, expected) in [(false, true, None), (true, true, Some("data: ")), (true, false, Some("\n\ndata: "))]
    {
        let mut gateway = TestGateway::new();
        let (proxied, mut llama) = gateway.proxied_body(CHAT, 200, ContentKind::Stream, CHUNKED).await;
        let mut answer = ResponseBody::Proxied(proxied);
        let event = if whole { "data: 1\n\n".to_owned() } else { "x".repeat(MAX_BUFFERED_EVENT + 1) };
        llama.write_all(&chunk(&event)).await.unwrap();
        assert!(next_piece(&mut answer).await.is_some());
        if cut {
            gateway.abort.cancel();
        }
        gateway.slot_freed().await;
        let last = next_piece(&mut answer).await.unwrap();
        match expected {
            None => assert_eq!(last, "<the answer was cut: the client did not read it>"),
            Some(start) => {
                assert!(last.starts_with(start), "{last}");
                assert_eq!(error_code(&last).as_deref(), Some("shutting_down"));
            }
        }
        assert!(next_piece(&mut answer).await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_a_silent_llama_server_is_left_alone() {
    let mut gateway = TestGateway::new();
    let (proxied, mut llama) = gateway.proxied_body(CHAT, 200, ContentKind::Stream, CHUNKED).await;
    let mut answer = ResponseBody::Proxied(proxied);
    let write = async {
        tokio::time::sleep(STALL_TIMEOUT * 3).await;
        llama.write_all(&chunk("data: 1\n\n")).await.unwrap();
    };
    let (piece, ()) = tokio::join!(next_piece(&mut answer), write);
    assert_eq!(piece.unwrap(), "data: 1\n\n");
}

#[tokio::test(start_paused = true)]
async fn the_last_piece_frees_the_slot_even_if_the_client_does_not_read_it() {
    let mut gateway = TestGateway::new();
    let (proxied, mut llama) = gateway.proxied_body(CHAT, 200, ContentKind::Json, "Content-Length: 2").await;
    llama.write_all(b"{}").await.unwrap();
    let start = ActiveInstant::now();
    let _response = gateway.send_to_stalled_client(Response::new(ResponseBody::Proxied(proxied))).await;
    gateway.slot_freed().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_error_after_half_a_long_event_begins_on_a_line_of_its_own() {
    let mut gateway = TestGateway::new();
    let (proxied, mut llama) = gateway.proxied_body(CHAT, 200, ContentKind::Stream, CHUNKED).await;
    let mut answer = ResponseBody::Proxied(proxied);
    llama.write_all(&chunk(&format!("data: {}", "x".repeat(MAX_BUFFERED_EVENT)))).await.unwrap();
    drop(llama);
    let mut text = String::new();
    while let Some(piece) = next_piece(&mut answer).await {
        text += &piece;
    }
    let (half, error) = text.rsplit_once("\n\ndata: ").unwrap();
    assert!(half.ends_with('x') && error.contains("backend_error") && error.ends_with("\n\n"), "{error}");
    drop(answer);
    let log = gateway.log();
    assert!(log.contains(&format!(" out={} ", text.len())), "{log}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_after_the_end_mark_has_a_complete_answer() {
    for (path, mark, code) in [(CHAT, "data: [DONE]\n\n", "-"), ("/completion", "data: {}\n\n", "client_closed")] {
        let mut gateway = TestGateway::new();
        let (proxied, mut llama) = gateway.proxied_body(path, 200, ContentKind::Stream, CHUNKED).await;
        let mut answer = ResponseBody::Proxied(proxied);
        llama.write_all(&chunk(mark)).await.unwrap();
        assert_eq!(next_piece(&mut answer).await.as_deref(), Some(mark));
        drop(answer);
        let log = gateway.log();
        assert!(log.contains(&format!("code={code} ")), "{log}");
    }
}

#[tokio::test]
async fn bytes_that_a_head_request_leaves_out_are_not_counted() {
    for (method, bytes) in [(Method::GET, 5), (Method::HEAD, 0)] {
        let gateway = TestGateway::new();
        drop(ResponseBody::local(Bytes::from_static(b"hello"), gateway.record(method, "/ping")));
        let log = gateway.log();
        assert!(log.contains(&format!(" out={bytes} ")), "{log}");
    }
}

/// How a response of llama-server ends in a test.
#[derive(Debug, Clone, Copy, PartialEq)]
enum BodyEnd {
    /// Read to its end.
    Ends,
    /// Its client leaves after the first piece.
    Left,
}

/// Passes on one response: one JSON value if the status is not 200 or the text is an object, else a stream of events.
async fn relay(gateway: &mut TestGateway, path: &str, status: u16, text: &str, body_end: BodyEnd) {
    let length = format!("Content-Length: {}", text.len());
    let is_stream = status == 200 && !text.starts_with('{');
    let (kind, framing) = if is_stream { (ContentKind::Stream, CHUNKED) } else { (ContentKind::Json, &*length) };
    let (proxied, mut llama) = gateway.proxied_body(path, status, kind, framing).await;
    let bytes = if is_stream { [chunk(text), chunk("")].concat() } else { text.as_bytes().to_vec() };
    llama.write_all(&bytes).await.unwrap();
    let mut answer = ResponseBody::Proxied(proxied);
    while next_piece(&mut answer).await.is_some() && body_end == BodyEnd::Ends {}
    drop(answer);
    gateway.slot_freed().await;
}

const COMPUTE_ERROR: &str = r#"{"error":{"code":500,"message":"Compute error.","type":"server_error"}}"#;
const CLIENT_FAULT: &str = r#"{"error":{"code":500,"message":"input (700 tokens) is too large to process. increase the physical batch size (current batch size: 512)","type":"server_error"}}"#;

#[tokio::test(start_paused = true)]
async fn compute_failures_count_against_llama_server_and_client_errors_do_not() {
    let in_band = |json: &str| format!("data: {{}}\n\ndata: {json}\n\n");
    let named = "event: error\ndata: {\"code\":500,\"message\":\"Compute error.\",\"type\":\"server_error\"}\n\n";
    for (path, status, text, restarts) in [
        (CHAT, 500, COMPUTE_ERROR, true),
        ("/v1/messages", 500, COMPUTE_ERROR, true),
        ("/v1/embeddings", 500, CLIENT_FAULT, false),
        (CHAT, 400, COMPUTE_ERROR, false),
        ("/tokenize", 500, COMPUTE_ERROR, false),
        (CHAT, 200, &in_band(COMPUTE_ERROR), true),
        ("/completion", 200, &in_band(COMPUTE_ERROR), true),
        ("/v1/responses", 200, &in_band(COMPUTE_ERROR), true),
        ("/v1/messages", 200, named, true),
        (CHAT, 200, &in_band(CLIENT_FAULT), false),
        (CHAT, 200, COMPUTE_ERROR, false),
    ] {
        for body_end in [BodyEnd::Ends, BodyEnd::Left] {
            let mut gateway = TestGateway::new();
            for _ in 0..COMPUTE_ERRORS_UNTIL_RESTART {
                assert!(gateway.model.available().is_ok());
                relay(&mut gateway, path, status, text, body_end).await;
            }
            let expected = if restarts { Err(Unavailable::BeingProbed) } else { Ok(()) };
            assert_eq!(gateway.model.available(), expected, "{path} {status} {text} {body_end:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_complete_answer_clears_the_suspicion_against_a_request() {
    let in_band = format!("data: {COMPUTE_ERROR}\n\n");
    for (path, status, text, body_end, cleared) in [
        (CHAT, 200, "{}", BodyEnd::Ends, true),
        (CHAT, 200, "data: {}\n\ndata: [DONE]\n\n", BodyEnd::Ends, true),
        (CHAT, 200, "data: {}\n\ndata: [DONE]\n\n", BodyEnd::Left, true),
        ("/completion", 200, "data: {}\n\n", BodyEnd::Ends, true),
        ("/completion", 200, "data: {}\n\n", BodyEnd::Left, false),
        ("/v1/messages", 200, "event: message_stop\ndata: {}\n\n", BodyEnd::Ends, true),
        (CHAT, 200, "data: {}\n\n", BodyEnd::Ends, false),
        (CHAT, 200, &in_band, BodyEnd::Ends, false),
        ("/completion", 200, &in_band, BodyEnd::Ends, false),
        (CHAT, 500, CLIENT_FAULT, BodyEnd::Ends, false),
        (CHAT, 400, "{}", BodyEnd::Ends, false),
    ] {
        let mut gateway = TestGateway::new();
        gateway.model.record_crash_by(FINGERPRINT);
        relay(&mut gateway, path, status, text, body_end).await;
        gateway.model.record_crash_by(FINGERPRINT);
        assert_eq!(gateway.model.is_blocked(FINGERPRINT), !cleared, "{path} {status} {text} {body_end:?}");
    }
}
