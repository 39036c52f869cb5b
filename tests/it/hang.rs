//! A llama-server that answers its probes and gets nowhere is found out; one that is only slow is not.

use super::support::{
    gateway::{Backend, Gateway, smollm},
    wait::{READY, eventually, keeps},
};
use serde_json::{Value, json};
use std::time::Duration;

const CHAT: &str = "/v1/chat/completions";

fn hint(gateway: &Gateway) -> String {
    let health = gateway.anonymous().get("/health").json();
    health["models"][0]["last_exit"]["hint"].as_str().unwrap_or_default().to_owned()
}

fn chat(stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": "x"}], "stream": stream})
}

#[test]
fn one_that_gets_nowhere_is_killed_its_requests_end_in_band_and_the_next_is_served() {
    let gateway = Gateway::builder()
        .script(json!({"starts": [{"hold_mid_stream": {"after_frames": 1}}, {}]}))
        .set_all(&[("HANG_TIMEOUT", "1s"), ("MAX_CONCURRENT_REQUESTS", "2")])
        .start_ready();
    let mut streams = [(); 2].map(|()| gateway.client().stream(CHAT, &chat(true)));
    for stream in &mut streams {
        let events = stream.events();
        assert_eq!(events.last().unwrap().json()["error"]["code"], "backend_error");
        assert!(events.iter().all(|event| !event.is_done()));
    }
    eventually("it serves again", READY, || gateway.client().post_json(CHAT, &chat(false)).status() == 200);
    assert!(hint(&gateway).contains("it hung"), "{}", hint(&gateway));
    assert_eq!(gateway.journal().starts().len(), 2);
}

#[test]
fn one_that_hangs_before_its_first_byte_fails_its_request_at_once() {
    let gateway = Gateway::builder()
        .script(json!({"starts": [{"hold_requests": [CHAT]}, {}]}))
        .set("HANG_TIMEOUT", "1s")
        .start_ready();
    let answer = gateway.client().post_json(CHAT, &chat(false));
    assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (502, Some("backend_error")));
}

#[test]
fn one_whose_loop_no_longer_answers_is_killed_though_it_says_it_is_well() {
    let gateway = Gateway::builder()
        .script(json!({"starts": [{"silent_paths": ["/metrics"]}, {}]}))
        .set("HANG_TIMEOUT", "1s")
        .start_ready();
    eventually("it has been restarted", READY, || gateway.journal().starts().len() == 2);
    assert!(hint(&gateway).contains("it hung"), "{}", hint(&gateway));
}

#[test]
fn a_slow_one_an_idle_one_and_one_without_metrics_live() {
    let drip = json!({"drip": {"interval_ms": 150, "frames": 20}});
    let slow = Gateway::builder().script(drip).set("HANG_TIMEOUT", "1s").start_ready();
    let no_metrics = json!({"error_status": [{"path": "/metrics", "status": 501, "body": "no"}]});
    let unknown = Gateway::builder().script(no_metrics).set("HANG_TIMEOUT", "300ms").start_ready();
    let idle = Gateway::builder().set("HANG_TIMEOUT", "300ms").start_ready();
    let events = slow.client().stream(CHAT, &chat(true)).events();
    assert!(events.last().unwrap().is_done(), "longer than HANG_TIMEOUT, and always moving");
    for gateway in [slow, unknown, idle] {
        assert_eq!(gateway.journal().starts().len(), 1);
    }
}

#[test]
fn without_hang_timeout_nobody_is_killed() {
    let gateway = Gateway::builder().script(json!({"hold_requests": [CHAT]})).set("HANG_TIMEOUT", "0").start_ready();
    let mut client = gateway.client().begin("POST", CHAT, chat(false).to_string().as_bytes()).unwrap();
    keeps("it waits", Duration::from_secs(2), || gateway.journal().starts().len() == 1);
    gateway.control().release_all_requests();
    assert_eq!(client.read_response().unwrap().status(), 200);
}

/// The batch of the test takes longer than this, and less than five times as long of each CPU.
const SHORTER_THAN_A_BATCH: &str = "800ms";

#[test]
fn a_long_prompt_on_the_real_one_is_no_hang() {
    let gateway = Gateway::builder()
        .backend(Backend::Real { model: "tiny-chat.gguf" })
        .set_all(&[("MODEL_PATH", smollm().to_str().unwrap()), ("CTX", "2048"), ("THREADS", "2")])
        .set("HANG_TIMEOUT", SHORTER_THAN_A_BATCH)
        .start_ready();
    let body = json!({"prompt": "word ".repeat(350), "max_tokens": 1});
    let answer = gateway.client().post_json("/v1/completions", &body);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let health = gateway.anonymous().get("/health").json();
    assert_eq!(health["models"][0]["restarts"], 0, "{health}");
}
