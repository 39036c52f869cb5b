//! Streams: forwarded event by event, cancelled when the client leaves, and ended with an error event if they break.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::{
    gateway::Gateway,
    remote::{Remote, Reply},
    wait::{SOON, eventually},
};

fn ready(script: Value) -> Gateway {
    ready_with(script, &[])
}

fn ready_with(script: Value, settings: &[(&str, &str)]) -> Gateway {
    Gateway::builder().script(script).set_all(settings).start_ready()
}

fn chat(stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": "x"}], "stream": stream})
}

#[test]
fn an_event_arrives_before_the_next_one_is_produced() {
    let gateway = ready(json!({"hold_mid_stream": {"after_frames": 2}}));
    let mut stream = gateway.client().stream("/v1/chat/completions", &chat(true));
    assert!(stream.next_event().is_some() && stream.next_event().is_some(), "two events while the third is held");
    gateway.control().release_all_requests();
    assert!(stream.events().last().is_some_and(|event| event.is_done()));
}

fn assert_ends_with_one_error(script: Value, settings: &[(&str, &str)], code: &str) {
    let gateway = ready_with(script, settings);
    let mut stream = gateway.client().stream("/v1/chat/completions", &chat(true));
    let events = stream.events();
    let errors: Vec<_> = events.iter().filter(|event| event.data.contains("\"error\"")).collect();
    assert_eq!(errors.len(), 1, "{:?}", events.iter().map(|event| &event.data).collect::<Vec<_>>());
    assert_eq!(events.last().unwrap().json()["error"]["code"], code);
    assert!(events.iter().all(|event| !event.is_done()));
    for event in &events {
        serde_json::from_str::<Value>(&event.data).expect("each event is complete");
    }
    eventually("the slot is free again", SOON, || gateway.anonymous().get("/health").json()["queue"]["active"] == 0);
}

#[test]
fn a_stream_whose_llama_server_is_killed_ends_with_an_error_and_without_done() {
    assert_ends_with_one_error(json!({"exit_mid_stream": {"after_frames": 2, "signal": 9}}), &[], "backend_error");
}

#[test]
fn a_stream_that_is_reset_ends_with_an_error() {
    assert_ends_with_one_error(json!({"reset_mid_stream": {"after_frames": 2}}), &[], "backend_error");
}

#[test]
fn half_an_event_never_reaches_the_client() {
    assert_ends_with_one_error(json!({"half_event_then_die": {"after_frames": 2, "code": 1}}), &[], "backend_error");
}

#[test]
fn a_stream_that_ends_without_done_ends_with_an_error() {
    assert_ends_with_one_error(json!({"truncate_mid_stream": {"after_frames": 2}}), &[], "backend_error");
}

#[test]
fn a_silent_stream_ends_with_an_error_after_stream_idle_timeout() {
    assert_ends_with_one_error(
        json!({"hold_mid_stream": {"after_frames": 2}}),
        &[("STREAM_IDLE_TIMEOUT", "300ms")],
        "backend_timeout",
    );
}

#[test]
fn request_timeout_and_not_stream_idle_timeout_applies_before_the_first_byte_of_a_stream() {
    let settings = [("STREAM_IDLE_TIMEOUT", "100ms"), ("REQUEST_TIMEOUT", "10m")];
    let gateway = ready_with(json!({"hold_mid_stream": {"after_frames": 0}}), &settings);
    let mut stream = gateway.client().stream("/v1/chat/completions", &chat(true));
    super::support::wait::assert_throughout("the stream is not ended", Duration::from_millis(400), || {
        gateway.anonymous().get("/health").json()["queue"]["active"] == 1
    });
    gateway.control().release_all_requests();
    assert!(stream.events().last().is_some_and(|event| event.is_done()));
}

#[test]
fn a_request_gets_502_when_llama_server_dies_before_its_answer() {
    let gateway = ready(json!({"hold_requests": ["/v1/chat/completions"]}));
    let mut waiting =
        gateway.client().begin("POST", "/v1/chat/completions", chat(false).to_string().as_bytes()).unwrap();
    gateway.journal().wait_for_requests("/v1/chat/completions", 1);
    gateway.control().die_with_code(3);
    let answer = waiting.read_response().unwrap();
    assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (502, Some("backend_error")));
    assert_eq!(gateway.journal().requests("/v1/chat/completions").len(), 1, "the request is not sent again");
}

#[test]
fn a_request_gets_504_when_llama_server_does_not_answer_in_time() {
    let gateway = ready_with(json!({"hold_requests": ["*"]}), &[("REQUEST_TIMEOUT", "300ms")]);
    let answer = gateway.client().post_json("/v1/chat/completions", &chat(false));
    assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (504, Some("backend_timeout")));
}

#[test]
fn a_client_that_leaves_cancels_its_request_at_once() {
    let gateway = ready(json!({"hold_mid_stream": {"after_frames": 1}}));
    let mut stream = gateway.client().stream("/v1/chat/completions", &chat(true));
    assert!(stream.next_event().is_some());
    drop(stream);
    gateway.journal().wait_for_event("disconnect");
    eventually("the slot is free again", SOON, || gateway.anonymous().get("/health").json()["queue"]["active"] == 0);
}

#[test]
fn a_request_whose_client_leaves_the_queue_never_reaches_llama_server() {
    let gateway = ready(json!({"hold_requests": ["/v1/chat/completions"]}));
    let body = chat(false).to_string();
    let mut first = gateway.client().begin("POST", "/v1/chat/completions", body.as_bytes()).unwrap();
    gateway.journal().wait_for_requests("/v1/chat/completions", 1);
    let waiting = || gateway.anonymous().get("/health").json()["queue"]["waiting"].clone();
    let second = gateway.client().begin("POST", "/v1/chat/completions", body.as_bytes()).unwrap();
    eventually("the second request waits", SOON, || waiting() == 1);
    drop(second);
    eventually("no request waits", SOON, || waiting() == 0);
    gateway.control().release_all_requests();
    assert_eq!(first.read_response().unwrap().status(), 200);
    assert_eq!(gateway.journal().requests("/v1/chat/completions").len(), 1);
}

#[test]
fn a_body_that_is_too_large_is_refused_by_its_length() {
    let gateway = ready_with(json!({}), &[("MAX_REQUEST_BODY_SIZE", "1000")]);
    let answer = gateway.client().send("POST", "/v1/chat/completions", &[b'x'; 1001]);
    assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (413, Some("payload_too_large")));
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn a_body_that_llama_server_cuts_short_is_cut_short_for_the_client() {
    let gateway = ready(json!({"truncate_body": 10}));
    let answer = gateway.client().post_json("/v1/chat/completions", &chat(false));
    assert!(answer.status() == 200 && !answer.complete, "the body is shorter than its declared length: {answer:?}");
}

/// Regression: proxies in front buffered streams of remote backends and heartbeats, so that clients saw nothing until the
/// end.
#[test]
fn every_stream_tells_proxies_not_to_buffer_or_keep_it() {
    let remote = Remote::start(Reply::Serve);
    let base = remote.url();
    let config = format!(
        "models: {{local: {{file: local.gguf, preload: true}}}}\nmodel_list: [{{model_name: far, litellm_params: {{api_base: \"{base}\"}}}}]\n"
    );
    let script = json!({"hold_requests": ["/v1/completions"]});
    let settings = [("MAX_CONCURRENT_REQUESTS", "1"), ("SSE_HEARTBEAT", "50ms")];
    let gateway = Gateway::builder().fakes(&config, &[("local.gguf", script)]).set_all(&settings).start_ready();
    let ask = |model: &str| json!({"model": model, "messages": [{"role": "user", "content": "x"}], "stream": true});
    let assert_told = |what: &str, model: &str| {
        let stream = gateway.client().stream("/v1/chat/completions", &ask(model));
        let header = |name: &str| stream.head.header(name).map(str::to_owned);
        assert_eq!(stream.head.status, 200, "{what}");
        assert_eq!(header("x-accel-buffering").as_deref(), Some("no"), "{what}");
        assert_eq!(header("cache-control").as_deref(), Some("no-store"), "{what}");
    };
    assert_told("a llama-server", "local");
    eventually("the remote backend is ready", SOON, || {
        gateway.client().post_json("/v1/chat/completions", &json!({"model": "far", "messages": []})).status() == 200
    });
    assert_told("a remote backend", "far");
    let body = json!({"model": "local", "prompt": "x"}).to_string();
    let _running = gateway.client().begin("POST", "/v1/completions", body.as_bytes()).unwrap();
    gateway.model_file("local.gguf").journal().wait_for_requests("/v1/completions", 1);
    assert_told("a heartbeat", "local");
    let whole = gateway.client().post_json("/v1/chat/completions", &json!({"model": "far", "messages": []}));
    assert_eq!((whole.header("x-accel-buffering"), whole.header("cache-control")), (None, None), "no stream");
}
