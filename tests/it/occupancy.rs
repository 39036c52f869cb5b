//! How occupied each model is, as metrics: for programs that choose between several services, or decide how many there are.

use serde_json::json;

use super::support::{
    gateway::{Backend, Gateway, smollm},
    wait::{ANSWERS, PROBES_FAIL, REAL_MODEL_ANSWERS, SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";

/// Returns the value of a metric of a model; `None` if there is no such series.
fn gauge(gateway: &Gateway, name: &str, model: &str) -> Option<f64> {
    let text = gateway.health().get("/metrics?format=prometheus").text();
    let series = format!("llamagate_{name}{{model=\"{model}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)).map(|value| value.parse().unwrap())
}

#[test]
fn requests_that_run_and_wait_are_counted_for_each_model() {
    let config = "models:\n  a: {file: a.gguf, preload: true}\n  b: {file: b.gguf}\n";
    let held = json!({"hold_requests": [CHAT]});
    let gateway = Gateway::builder().fakes(config, &[("a.gguf", held), ("b.gguf", json!({}))]).start_ready();
    let occupancy = |model| ["requests_running", "requests_waiting"].map(|name| gauge(&gateway, name, model));
    assert_eq!(
        (occupancy("a"), occupancy("b")),
        ([Some(0.0); 2], [Some(0.0); 2]),
        "both are there before their first request"
    );
    assert_eq!(gauge(&gateway, "kv_cache_usage_ratio", "b"), Some(0.0), "a model that sleeps uses nothing");
    let body = json!({"model": "a", "messages": []}).to_string();
    let requests: Vec<_> = (0..3).map(|_| gateway.client().begin("POST", CHAT, body.as_bytes()).unwrap()).collect();
    eventually("one runs and two wait", SOON, || occupancy("a") == [Some(1.0), Some(2.0)]);
    assert_eq!(occupancy("b"), [Some(0.0); 2]);
    // The fake's slots are half full.
    eventually("a probe has seen the KV cache", ANSWERS, || gauge(&gateway, "kv_cache_usage_ratio", "a") == Some(0.5));
    drop(requests);
    eventually("nothing is left", SOON, || occupancy("a") == [Some(0.0); 2]);
    eventually("a probe has seen that", ANSWERS, || gauge(&gateway, "kv_cache_usage_ratio", "a") == Some(0.0));
    gateway.rewrite_config("models:\n  b: {file: b.gguf}\n");
    eventually("a model that has gone has no series", ANSWERS, || occupancy("a") == [None; 2]);
}

#[test]
fn the_kv_cache_of_a_real_llama_server_is_seen() {
    let builder = Gateway::builder().backend(Backend::Real { model: "tiny-chat.gguf" });
    let gateway = builder.set("MODEL_PATH", smollm().display()).set("CTX", 4096).start_ready();
    let model = gateway.client().get("/v1/models").json()["data"][0]["id"].as_str().unwrap().to_owned();
    let usage = || gauge(&gateway, "kv_cache_usage_ratio", &model).unwrap();
    assert_eq!(usage(), 0.0);
    let body = json!({"messages": [{"role": "user", "content": "Tell a long story."}], "stream": true,
                      "max_tokens": 4000, "ignore_eos": true});
    let mut stream = gateway.client().stream(CHAT, &body);
    assert!(stream.next_event().is_some());
    eventually("a probe has seen its tokens", REAL_MODEL_ANSWERS, || usage() > 0.0);
    assert!(usage() < 1.0);
    drop(stream);
    eventually("the slot is free", PROBES_FAIL, || usage() == 0.0);
}

/// Regression: the gauge was 0, which a scheduler takes for a free server.
#[test]
fn a_llama_server_that_does_not_tell_its_slots_has_no_kv_cache_usage() {
    let config = "models:\n  a: {file: a.gguf, preload: true}\n  b: {file: b.gguf, preload: true}\n";
    let older = [
        ("a.gguf", json!({"without_slots": true})),
        ("b.gguf", json!({"without_slot_tokens": true, "hold_requests": [CHAT]})),
    ];
    let gateway = Gateway::builder().fakes(config, &older).start_ready();
    let usage = |model| gauge(&gateway, "kv_cache_usage_ratio", model);
    eventually("it was asked once without a request", ANSWERS, || usage("a").is_none());
    let body = json!({"model": "b", "messages": []}).to_string();
    let request = gateway.client().begin("POST", CHAT, body.as_bytes()).unwrap();
    eventually("it was asked while a request is in progress", ANSWERS, || usage("b").is_none());
    drop(request);
    eventually("no request is left", SOON, || gauge(&gateway, "requests_running", "b") == Some(0.0));
    assert_eq!((usage("a"), usage("b")), (None, None), "it does not come back without a request");
}

#[test]
fn a_model_without_a_llama_server_has_no_kv_cache() {
    let config = "model_list:\n  - {model_name: far, litellm_params: {api_base: \"http://127.0.0.1:9\"}}\n";
    let gateway = Gateway::builder().fakes(config, &[]).start();
    eventually("its occupancy is there", SOON, || gauge(&gateway, "requests_waiting", "far") == Some(0.0));
    assert_eq!(gauge(&gateway, "kv_cache_usage_ratio", "far"), None);
}
