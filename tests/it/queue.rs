//! The queue of a model: its bound, its fairness, its timeouts and `Retry-After`, and the wait for a load.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::accounts::access_log_line;
use super::support::{
    client::{Event, RawClient},
    gateway::{ADMIN, Backend, Gateway},
    wait::{SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";

/// The time within which a slot of the real llama-server must be free after its client has left.
const FREED: Duration = Duration::from_secs(2);

fn started(script: Value, settings: &[(&str, &str)]) -> Gateway {
    Gateway::builder().script(script).set_all(settings).start()
}

fn ready(script: Value, settings: &[(&str, &str)]) -> Gateway {
    Gateway::builder().script(script).set_all(settings).start_ready()
}

fn holding(settings: &[(&str, &str)]) -> Gateway {
    ready(json!({"hold_requests": [CHAT]}), settings)
}

fn rejections(gateway: &Gateway) -> u64 {
    gateway.anonymous().get("/metrics").json()["gateway"]["queue_rejections"].as_u64().unwrap()
}

fn chat() -> Value {
    json!({"messages": [{"role": "user", "content": "x"}]})
}

fn begin(gateway: &Gateway) -> RawClient {
    begin_as(gateway, super::support::gateway::USER, "some-request")
}

fn begin_as(gateway: &Gateway, secret: &str, id: &str) -> RawClient {
    let client = gateway.client_with(secret).header("X-Request-Id", id);
    client.begin("POST", CHAT, chat().to_string().as_bytes()).unwrap()
}

fn wait_waiting(gateway: &Gateway, count: usize) {
    eventually(&format!("{count} requests wait"), SOON, || {
        gateway.anonymous().get("/health").json()["queue"]["waiting"] == count
    });
}

fn assert_refused(client: &mut RawClient, code: &str) -> Option<String> {
    let answer = client.read_response().unwrap();
    assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (503, Some(code)));
    answer.header("retry-after").map(str::to_owned)
}

#[test]
fn a_request_to_a_full_queue_is_refused_at_once_with_retry_after() {
    let gateway = holding(&[("MAX_QUEUE_SIZE", "1")]);
    let mut running = begin(&gateway);
    gateway.journal().wait_for_requests(CHAT, 1);
    let mut waiting = begin(&gateway);
    wait_waiting(&gateway, 1);
    assert_eq!(
        assert_refused(&mut begin(&gateway), "queue_full").as_deref(),
        Some("5"),
        "the default, since no request has been timed yet"
    );
    eventually("the rejection is counted", SOON, || rejections(&gateway) == 1);
    gateway.control().release_all_requests();
    assert_eq!(running.read_response().unwrap().status(), 200);
    assert_eq!(waiting.read_response().unwrap().status(), 200);
    assert_eq!(gateway.journal().requests(CHAT).len(), 2);
}

#[test]
fn a_request_to_a_full_queue_that_a_fallback_serves_is_not_counted_as_rejected() {
    let config = "defaults: {parallel: 1}\nmodels: {a: {file: a.gguf}, b: {file: b.gguf}}\nfallbacks: {a: [b]}\n";
    let files = [("a.gguf", json!({"hold_requests": [CHAT]})), ("b.gguf", json!({}))];
    let gateway = Gateway::builder().fakes(config, &files).set("MAX_QUEUE_SIZE", 1).start_ready();
    let ask = || {
        let body = json!({"model": "a", "messages": []}).to_string();
        gateway.client().begin("POST", CHAT, body.as_bytes()).unwrap()
    };
    let _running = ask();
    gateway.model_file("a.gguf").journal().wait_for_requests(CHAT, 1);
    let _waiting = ask();
    wait_waiting(&gateway, 1);
    let answer = ask().read_response().unwrap();
    assert_eq!((answer.status(), answer.header("x-llamagate-model")), (200, Some("b")), "{}", answer.text());
    eventually("the request is counted as a success", SOON, || {
        gateway.anonymous().get("/metrics").json()["gateway"]["requests_success"] == 1
    });
    assert_eq!(rejections(&gateway), 0);
}

#[test]
fn of_a_hundred_requests_at_once_those_beyond_slots_and_queue_are_refused() {
    let gateway = holding(&[("MAX_CONCURRENT_REQUESTS", "4"), ("MAX_QUEUE_SIZE", "8")]);
    let mut clients: Vec<RawClient> = std::iter::repeat_with(|| begin(&gateway)).take(100).collect();
    eventually("all but twelve are refused", SOON, || rejections(&gateway) == 88);
    assert_eq!(gateway.journal().wait_for_requests(CHAT, 4).len(), 4, "no more requests in flight than slots");
    let health = gateway.anonymous().get("/health").json();
    assert_eq!((&health["queue"]["active"], &health["queue"]["waiting"]), (&json!(4), &json!(8)));
    gateway.control().release_all_requests();
    let mut statuses: Vec<u16> = clients.iter_mut().map(|client| client.read_response().unwrap().status()).collect();
    statuses.sort_unstable();
    assert_eq!((statuses[11], statuses[12]), (200, 503));
    eventually("no request is left", SOON, || gateway.anonymous().get("/health").json()["queue"]["active"] == 0);
}

#[test]
fn the_wait_ends_after_queue_timeout() {
    let gateway = holding(&[("QUEUE_TIMEOUT", "200ms")]);
    let _running = begin(&gateway);
    gateway.journal().wait_for_requests(CHAT, 1);
    assert!(assert_refused(&mut begin(&gateway), "queue_timeout").is_some());
    wait_waiting(&gateway, 0);
}

#[test]
fn a_key_with_many_waiting_requests_does_not_delay_another_key() {
    let gateway = holding(&[]);
    let _greedy: Vec<RawClient> =
        (0..21).map(|n| begin_as(&gateway, super::support::gateway::USER, &format!("greedy-{n}"))).collect();
    wait_waiting(&gateway, 20);
    let _modest = begin_as(&gateway, ADMIN, "modest");
    wait_waiting(&gateway, 21);
    let mut control = gateway.control();
    for served in 1..=3 {
        gateway.journal().wait_for_requests(CHAT, served);
        control.release_requests(1);
    }
    let third = &gateway.journal().wait_for_requests(CHAT, 3)[2];
    assert!(third["headers"].to_string().contains("\"modest\""), "{third}");
}

#[test]
fn a_call_to_the_tokenizer_was_refused_while_all_slots_were_in_use() {
    let gateway = holding(&[]);
    let mut held = begin(&gateway);
    gateway.journal().wait_for_requests(CHAT, 1);
    let loaded = gateway.client().post_json("/api/generate", &json!({"model": "dummy", "prompt": ""}));
    assert_eq!(loaded.status(), 200, "{}", loaded.text());
    gateway.control().release_all_requests();
    assert_eq!(held.read_response().unwrap().status(), 200);
}

#[test]
fn requests_wait_while_the_model_loads() {
    let gateway = started(json!({"load": {"until_released": true}}), &[]);
    let mut first = begin(&gateway);
    wait_waiting(&gateway, 1);
    gateway.control().release_load();
    assert_eq!(first.read_response().unwrap().status(), 200);
}

#[test]
fn a_request_without_a_slot_waits_for_the_load_and_a_read_only_one_does_not() {
    let gateway = started(json!({"load": {"until_released": true}}), &[]);
    let mut tokenize = gateway.client().begin("POST", "/tokenize", br#"{"content": "x"}"#).unwrap();
    gateway.journal().wait_for_event("start");
    assert_eq!(
        assert_refused(&mut gateway.client().begin("GET", "/props", b"").unwrap(), "model_loading").as_deref(),
        Some("5")
    );
    gateway.control().release_load();
    assert_eq!(tokenize.read_response().unwrap().status(), 200);
}

#[test]
fn the_wait_for_a_model_ends_after_queue_timeout_or_request_timeout() {
    for setting in ["QUEUE_TIMEOUT", "REQUEST_TIMEOUT"] {
        let gateway = started(json!({"load": {"until_released": true}}), &[(setting, "200ms")]);
        assert!(assert_refused(&mut begin(&gateway), "model_loading").is_some(), "{setting}");
    }
}

#[test]
fn a_load_that_fails_answers_all_requests_that_wait_for_it() {
    let gateway = started(json!({"load": {"until_released": true}}), &[]);
    let mut clients = [begin(&gateway), begin(&gateway)];
    wait_waiting(&gateway, 2);
    gateway.control().die_with_code(1);
    for client in &mut clients {
        assert_refused(client, "backend_unavailable");
    }
}

#[test]
fn a_request_in_the_queue_is_served_after_a_crash() {
    let gateway = ready(json!({"starts": [{"hold_requests": [CHAT]}, {}]}), &[]);
    let mut running = begin(&gateway);
    gateway.journal().wait_for_requests(CHAT, 1);
    let mut waiting = begin(&gateway);
    wait_waiting(&gateway, 1);
    gateway.control().die_with_code(3);
    assert_eq!(running.read_response().unwrap().status(), 502);
    assert_eq!(waiting.read_response().unwrap().status(), 200);
}

#[test]
fn a_slot_of_the_real_llama_server_is_free_soon_after_its_client_has_left() {
    let gateway = Gateway::builder().backend(Backend::Real { model: "tiny-chat.gguf" }).set("CTX", "65536").start();
    gateway.wait_ready();
    let request = json!({"prompt": "a", "n_predict": -1, "ignore_eos": true, "stream": true});
    let mut stream = gateway.client().stream("/completion", &request);
    assert!(stream.next_event().is_some() && stream.next_event().is_some());
    let is_processing = || gateway.client_with(ADMIN).get("/slots").json()[0]["is_processing"] == true;
    assert!(is_processing(), "llama-server goes on while the client is connected");
    drop(stream);
    eventually("llama-server's slot is free", FREED, || !is_processing());
}

#[test]
fn a_request_without_a_slot_does_not_wait_for_one() {
    let gateway = holding(&[("MAX_QUEUE_SIZE", "1")]);
    let _running = begin(&gateway);
    gateway.journal().wait_for_requests(CHAT, 1);
    let _waiting = begin(&gateway);
    wait_waiting(&gateway, 1);
    assert_eq!(gateway.client().get("/props").status(), 200);
    assert_eq!(gateway.client().post_json("/tokenize", &json!({"content": "x"})).status(), 200);
}

#[test]
fn a_streaming_client_that_waits_gets_heartbeats_and_then_its_stream() {
    let gateway = holding(&[("SSE_HEARTBEAT", "50ms")]);
    let mut running = begin(&gateway);
    gateway.journal().wait_for_requests(CHAT, 1);
    let mut request = chat();
    request["stream"] = json!(true);
    let mut stream = gateway.client().stream(CHAT, &request);
    assert_eq!(stream.head.status, 200);
    assert_eq!(stream.head.header("content-type"), Some("text/event-stream"));
    let first = stream.next_event().unwrap();
    assert_eq!((first.name, first.data.as_str()), (None, ""), "the heartbeat is an SSE comment, not an event");
    gateway.control().release_all_requests();
    assert_eq!(running.read_response().unwrap().status(), 200);
    let events = stream.events();
    assert!(events.last().is_some_and(|event| event.is_done()));
    assert!(stream.is_complete());
}

#[test]
fn only_streams_get_heartbeats_and_a_refusal_after_one_is_an_event() {
    let gateway = holding(&[("SSE_HEARTBEAT", "50ms"), ("QUEUE_TIMEOUT", "300ms")]);
    let _running = begin(&gateway);
    gateway.journal().wait_for_requests(CHAT, 1);
    assert_refused(&mut begin(&gateway), "queue_timeout");
    let mut request = chat();
    request["stream"] = json!(true);
    let mut stream = gateway.client().stream(CHAT, &request);
    let events = stream.events();
    assert_eq!(events.last().unwrap().json()["error"]["code"], "queue_timeout");
    assert!(stream.is_complete() && events.iter().all(|event| !event.is_done()));
}

/// Begins a stream that gets a heartbeat in the queue, and to which llama-server then responds with `status` and `body`
/// instead of a stream. Returns the last event and the line of the access log.
fn after_a_heartbeat(status: u16, body: Value) -> (Event, BTreeMap<String, String>) {
    let fixed = json!([{"path": CHAT, "status": status, "body": body}]);
    let script = json!({"hold_requests": [CHAT], "error_status": fixed});
    let gateway = ready(script, &[("SSE_HEARTBEAT", "50ms")]);
    let _running = begin(&gateway);
    gateway.journal().wait_for_requests(CHAT, 1);
    let mut request = chat();
    request["stream"] = json!(true);
    let mut stream = gateway.client().header("X-Request-Id", "late").stream(CHAT, &request);
    assert_eq!(stream.head.status, 200);
    gateway.control().release_all_requests();
    let last = stream.events().pop().unwrap();
    assert!(stream.is_complete());
    (last, access_log_line(&gateway, "late"))
}

#[test]
fn an_error_of_llama_server_after_a_heartbeat_is_an_event() {
    let (event, line) = after_a_heartbeat(501, json!({"error": {"code": 501, "message": "no", "type": "x"}}));
    assert_eq!(event.json()["error"]["code"], 501);
    assert_eq!((line["status"].as_str(), line["code"].as_str()), ("200", "backend_error"));
    assert_eq!(line["out"], format!("data: {}\n\n", event.data).len().to_string());
}

#[test]
fn an_answer_after_a_heartbeat_that_is_not_a_stream_is_an_event() {
    let (event, line) = after_a_heartbeat(200, json!({"choices": []}));
    assert_eq!(event.json(), json!({"choices": []}));
    assert_eq!((line["status"].as_str(), line["code"].as_str()), ("200", "-"));
}

#[test]
fn a_route_without_streams_has_no_heartbeats() {
    let gateway = holding(&[("SSE_HEARTBEAT", "50ms"), ("QUEUE_TIMEOUT", "300ms")]);
    let _running = begin(&gateway);
    gateway.journal().wait_for_requests(CHAT, 1);
    let form = json!({"file": "x", "stream": true});
    let answer = gateway.client().post_json("/v1/audio/transcriptions", &form);
    assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (503, Some("queue_timeout")));
}
