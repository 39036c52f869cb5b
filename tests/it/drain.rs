//! The drain at the end of the service: new requests are refused, requests in flight may finish, and those that are cut
//! end with an error.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::support::{
    client::Stream,
    gateway::Gateway,
    wait::{SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";

fn chat(stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": "x"}], "stream": stream})
}

fn ready(script: Value, drain_timeout: &str) -> Gateway {
    let gateway = Gateway::builder().script(script).set("DRAIN_TIMEOUT", drain_timeout).start();
    gateway.wait_ready();
    gateway
}

/// Sends SIGTERM to a gateway while a stream is held after its first event.
fn stop_mid_stream(drain_timeout: &str) -> (Gateway, Stream) {
    let gateway = ready(json!({"hold_mid_stream": {"after_frames": 1}}), drain_timeout);
    let mut stream = gateway.client().stream(CHAT, &chat(true));
    assert!(stream.next_event().is_some());
    gateway.signal(Signal::SIGTERM);
    (gateway, stream)
}

fn wait_until_stopping(gateway: &Gateway) {
    eventually("the health port reports the stop", SOON, || gateway.health().get("/ping").status() == 503);
}

fn assert_ends_with_an_error(stream: &mut Stream) {
    let events = stream.events();
    assert_eq!(events.last().unwrap().json()["error"]["code"], "shutting_down");
    assert!(events.iter().all(|event| !event.is_done()));
    assert!(stream.is_complete(), "the chunked body is complete and ends with the error event");
}

#[test]
fn during_the_drain_a_request_in_flight_is_finished_and_new_ones_are_refused() {
    let (mut gateway, mut stream) = stop_mid_stream("30s");
    wait_until_stopping(&gateway);
    assert_eq!(gateway.health().get("/readyz").status(), 503);
    assert_eq!(gateway.health().get("/livez").status(), 200);
    let refused = gateway.client().post_json(CHAT, &chat(false));
    assert_eq!((refused.status(), refused.json()["error"]["code"].as_str()), (503, Some("shutting_down")));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.header("connection"), Some("close"));
    gateway.control().release_all_requests();
    assert!(stream.events().last().is_some_and(|event| event.is_done()));
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn a_request_that_holds_no_slot_is_finished_too() {
    let mut gateway = ready(json!({"hold_requests": ["/tokenize"]}), "30s");
    let mut running = gateway.client().begin("POST", "/tokenize", br#"{"content": "one three"}"#).unwrap();
    gateway.journal().wait_for_requests("/tokenize", 1);
    assert_eq!(gateway.anonymous().get("/health").json()["queue"]["active"], 0, "the request does not count as active");
    gateway.signal(Signal::SIGTERM);
    wait_until_stopping(&gateway);
    gateway.control().release_all_requests();
    assert_eq!(running.read_response().unwrap().json()["tokens"], json!([3, 5]));
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn a_request_in_the_queue_is_refused() {
    let mut gateway = ready(json!({"hold_requests": [CHAT]}), "30s");
    let body = chat(false).to_string();
    let mut running = gateway.client().begin("POST", CHAT, body.as_bytes()).unwrap();
    gateway.journal().wait_for_requests(CHAT, 1);
    let mut waiting = gateway.client().begin("POST", CHAT, body.as_bytes()).unwrap();
    eventually("one request waits", SOON, || gateway.anonymous().get("/health").json()["queue"]["waiting"] == 1);
    gateway.signal(Signal::SIGTERM);
    let refused = waiting.read_response().unwrap();
    assert_eq!((refused.status(), refused.json()["error"]["code"].as_str()), (503, Some("shutting_down")));
    gateway.control().release_all_requests();
    assert_eq!(running.read_response().unwrap().status(), 200);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn a_stream_that_outlives_the_drain_ends_with_an_error_event() {
    let (mut gateway, mut stream) = stop_mid_stream("200ms");
    assert_ends_with_an_error(&mut stream);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn a_request_without_an_answer_at_the_end_of_the_drain_is_refused() {
    let mut gateway = ready(json!({"hold_requests": [CHAT]}), "200ms");
    let mut running = gateway.client().begin("POST", CHAT, chat(false).to_string().as_bytes()).unwrap();
    gateway.journal().wait_for_requests(CHAT, 1);
    gateway.signal(Signal::SIGTERM);
    let refused = running.read_response().unwrap();
    assert_eq!((refused.status(), refused.json()["error"]["code"].as_str()), (503, Some("shutting_down")));
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn a_second_sigterm_ends_the_drain() {
    let (mut gateway, mut stream) = stop_mid_stream("10m");
    wait_until_stopping(&gateway);
    gateway.signal(Signal::SIGTERM);
    assert_ends_with_an_error(&mut stream);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn an_idle_connection_does_not_delay_the_exit() {
    let mut gateway = ready(json!({}), "10m");
    let mut idle = gateway.client().begin("GET", "/ping", b"").unwrap();
    assert_eq!(idle.read_response().unwrap().status(), 200);
    assert_eq!(gateway.stop().code(), Some(0));
    assert!(idle.read_to_close().is_empty());
}
