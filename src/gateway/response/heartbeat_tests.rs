use tokio::io::AsyncWriteExt;

use super::*;
use crate::gateway::bounds::{SWEEP_INTERVAL, WRAPPED_ANSWER};
use crate::gateway::queue::ticket::QueueEntry;
use crate::gateway::testing::{
    REQUEST_TIMEOUT, STALL_TIMEOUT, TestGateway, chunk, error_code, expect_response, next_piece,
};

const INTERVAL: Duration = Duration::from_secs(15);
const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

/// A request that takes its slot and never gets a response.
async fn never_answered(entry: QueueEntry) -> Result<Response<ResponseBody>, (Refusal, Record)> {
    let _ticket = entry.ticket().await;
    std::future::pending().await
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_no_heartbeat_keeps_neither_its_queue_entry_nor_its_slot() {
    for is_aborted in [false, true] {
        let mut gateway = TestGateway::new();
        let first = gateway.enter_queue();
        let rest = Box::pin(never_answered(gateway.enter_queue()));
        let response = expect_response(respond_with_heartbeats(rest, INTERVAL, Shape::OpenAi, &gateway.sweeper).await);
        let _response = gateway.send_to_stalled_client(response).await;
        tokio::time::sleep(SWEEP_INTERVAL / 2).await;
        drop(first);
        let start = Instant::now();
        if is_aborted {
            gateway.abort.cancel();
        }
        gateway.slot_freed().await;
        let longest = if is_aborted { SWEEP_INTERVAL / 2 } else { STALL_TIMEOUT + 2 * SWEEP_INTERVAL };
        assert!(start.elapsed() <= longest, "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_its_heartbeats_may_wait_as_long_as_it_likes() {
    let gateway = TestGateway::new();
    let first = gateway.enter_queue();
    let rest = Box::pin(never_answered(gateway.enter_queue()));
    let mut answer =
        expect_response(respond_with_heartbeats(rest, INTERVAL, Shape::OpenAi, &gateway.sweeper).await).into_body();
    let start = Instant::now();
    while start.elapsed() < REQUEST_TIMEOUT {
        assert_eq!(next_piece(&mut answer).await.unwrap().as_bytes(), COMMENT);
    }
    drop(first);
}

/// Returns the events that follow the comments when llama-server sends this response, and the log.
async fn after_comments(path: &str, status: u16, kind: ContentKind, head: &str, body: &[u8]) -> (Vec<String>, String) {
    let mut gateway = TestGateway::new();
    let (proxied, mut llama) = gateway.proxied_body(path, status, kind, head).await;
    llama.write_all(body).await.unwrap();
    drop(llama);
    let mut answer = Response::new(ResponseBody::Proxied(proxied));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    let content_type = head.lines().find_map(|line| line.strip_prefix("Content-Type: ")).unwrap();
    answer.headers_mut().insert(CONTENT_TYPE, content_type.parse().unwrap());
    let rest = Box::pin(async move {
        tokio::time::sleep(INTERVAL + INTERVAL / 2).await;
        Ok(answer)
    });
    let mut answer =
        expect_response(respond_with_heartbeats(rest, INTERVAL, Shape::of(path, false), &gateway.sweeper).await)
            .into_body();
    let expected = if path == MESSAGES { PING } else { COMMENT };
    assert_eq!(next_piece(&mut answer).await.unwrap().as_bytes(), expected);
    let mut events = Vec::new();
    while let Some(event) = next_piece(&mut answer).await {
        events.push(event);
    }
    drop(answer);
    (events, gateway.log())
}

/// Regression: clients of Anthropic's API got comments, which they do not count as a sign of life.
#[tokio::test(start_paused = true)]
async fn anthropics_clients_get_pings_while_they_wait() {
    let gateway = TestGateway::new();
    let first = gateway.enter_queue();
    for (shape, expected) in
        [(Shape::Anthropic, "event: ping\ndata: {\"type\": \"ping\"}\n\n"), (Shape::OpenAi, ": waiting\n\n")]
    {
        let rest = Box::pin(never_answered(gateway.enter_queue()));
        let mut answer =
            expect_response(respond_with_heartbeats(rest, INTERVAL, shape, &gateway.sweeper).await).into_body();
        for _ in 0..3 {
            assert_eq!(next_piece(&mut answer).await.unwrap(), expected);
        }
    }
    drop(first);
}

fn json(body: &str) -> String {
    format!("Content-Type: application/json\r\nContent-Length: {}", body.len())
}

#[tokio::test(start_paused = true)]
async fn an_event_stream_follows_unchanged() {
    let body = [&chunk("data: 1\n\ndata: [DONE]\n\n")[..], b"0\r\n\r\n"].concat();
    let head = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked";
    let (events, log) = after_comments(CHAT, 200, ContentKind::Stream, head, &body).await;
    assert_eq!(events, ["data: 1\n\ndata: [DONE]\n\n"]);
    assert!(log.contains("status=200 code=- "), "{log}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_a_stream_becomes_one_event() {
    let body = "{\n \"usage\": {\"prompt_tokens\": 8}\n}";
    let (events, log) = after_comments(CHAT, 200, ContentKind::Json, &json(body), body.as_bytes()).await;
    assert_eq!(events, ["data: {  \"usage\": {\"prompt_tokens\": 8} }\n\n"]);
    assert!(log.contains("status=200 code=- ") && log.contains("prompt_tokens=8"), "{log}");
    assert!(log.contains(&format!(" out={} ", events[0].len())), "{log}");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_llama_server_is_sent_in_the_clients_shape_and_recorded_as_it_was_sent() {
    let body = r#"{"error":{"code":400,"message":"no","type":"invalid_request_error"}}"#;
    for (path, start) in [(CHAT, "data: {\"error\":{\"code\":400,"), (MESSAGES, "event: error\ndata: {\"error\":{")] {
        let (events, log) = after_comments(path, 400, ContentKind::Json, &json(body), body.as_bytes()).await;
        assert!(events.len() == 1 && events[0].starts_with(start), "{events:?}");
        assert!(log.contains("status=200 code=backend_error "), "{log}");
        assert!(log.contains(&format!(" out={} ", events[0].len())), "{log}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_cannot_be_an_event_is_an_error() {
    let html = "<html></html>";
    let head = format!("Content-Type: text/html\r\nContent-Length: {}", html.len());
    let long = format!("\"{}\"", "x".repeat(WRAPPED_ANSWER));
    let cases =
        [(200, head.clone(), html), (502, head, html), (200, json(&long), &long[..1_000_000]), (200, json("{}"), "{")];
    for (status, head, body) in cases {
        let (events, log) = after_comments(CHAT, status, ContentKind::Other, &head, body.as_bytes()).await;
        assert_eq!(
            events.iter().filter_map(|event| error_code(event)).collect::<Vec<_>>(),
            ["backend_error"],
            "{events:?}"
        );
        assert!(log.contains("status=200 code=backend_error "), "{log}");
    }
}
