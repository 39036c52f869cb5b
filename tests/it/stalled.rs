//! Clients that do not read: a response that is not read holds no slot for long and does not delay the exit.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::accounts::access_log_line;
use super::support::{
    client::RawClient,
    gateway::{Gateway, USER},
    wait::{self, SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";

/// Starts a gateway with plain HTTP, and then one with TLS.
fn over_both(script: Value, settings: &[(&str, &str)]) -> impl Iterator<Item = Gateway> + use<> {
    Gateway::builder().script(script).set_all(settings).start_over_both()
}

fn chat(stream: bool) -> Vec<u8> {
    json!({"messages": [{"role": "user", "content": "x"}], "stream": stream}).to_string().into_bytes()
}

fn in_flight(gateway: &Gateway) -> Value {
    gateway.health().get("/health").json()["queue"]["active"].clone()
}

/// One frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Posts a chat over HTTP/2 with a flow-control window of 0, which is never raised. Returns once the head of the
/// response has arrived.
fn post_without_a_window(gateway: &Gateway, request_id: &str, body: &[u8]) -> RawClient {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    let bearer = format!("Bearer {USER}");
    let mut head = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", CHAT),
        (":authority", "x"),
        ("authorization", &bearer),
        ("content-type", "application/json"),
        ("x-request-id", request_id),
    ] {
        // A literal field without indexing (RFC 7541, section 6.2.2).
        head.extend([&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat());
    }
    let no_window = [0, 4, 0, 0, 0, 0];
    let mut client = RawClient::connect(gateway.url());
    let bytes = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &no_window),
        frame(HEADERS, END_HEADERS, 1, &head),
        frame(DATA, END_STREAM, 1, body),
    ];
    client.write(&bytes.concat()).unwrap();
    loop {
        let start = client.read_exactly(9).unwrap();
        let length = usize::from(start[0]) << 16 | usize::from(start[1]) << 8 | usize::from(start[2]);
        client.read_exactly(length).unwrap();
        assert!(start[3] != DATA || length == 0, "the window is 0");
        if (start[3], start[8]) == (HEADERS, 1) {
            return client;
        }
    }
}

#[test]
fn an_http2_client_without_a_window_does_not_delay_the_exit() {
    for mut gateway in over_both(json!({"hold_mid_stream": {"after_frames": 4}}), &[("DRAIN_TIMEOUT", "200ms")]) {
        let client = post_without_a_window(&gateway, "unread", &chat(true));
        assert_eq!(in_flight(&gateway), 1);
        gateway.signal(Signal::SIGTERM);
        assert_eq!(gateway.wait_exit().code(), Some(0));
        assert_eq!(access_log_line(&gateway, "unread")["code"], "shutting_down");
        drop(client);
    }
}

#[test]
fn an_unread_answer_holds_no_slot_for_an_http2_client_without_a_window() {
    for gateway in over_both(json!({}), &[]) {
        let _client = post_without_a_window(&gateway, "unread", &chat(false));
        eventually("the slot is free", SOON, || in_flight(&gateway) == 0);
    }
}

#[test]
fn a_client_that_reads_slowly_is_cut_after_request_timeout() {
    // 18 MB: more than the sockets to the client hold (the kernel enlarges a receive buffer only as it is read), but
    // little enough for the fake to write on a busy machine before REQUEST_TIMEOUT.
    let script = json!({"frames": 300, "frame_bytes": 60_000});
    for gateway in over_both(script, &[("REQUEST_TIMEOUT", "8s")]) {
        let client = gateway.client().header("X-Request-Id", "slow");
        let mut client = client.begin("POST", CHAT, &chat(false)).unwrap();
        assert_eq!(client.read_head().unwrap().status, 200);
        eventually("the slot is free", wait::ANSWERS, || {
            client.read_exactly(1).unwrap();
            in_flight(&gateway) == 0
        });
        assert_eq!(access_log_line(&gateway, "slow")["code"], "backend_timeout");
    }
}
