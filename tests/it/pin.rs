//! Models that an administrator pins: they are passed over by evictions and idle times until they are let go.

use serde_json::{Value, json};

use super::support::client::Client;
use super::support::gateway::{ADMIN, Gateway};
use super::support::wait::{READY, SOON, eventually, eventually_some};

const CHAT: &str = "/v1/chat/completions";
/// Longer than any test runs.
const NEVER: &str = "10m";

fn admin(gateway: &Gateway) -> Client {
    gateway.client_with(ADMIN)
}

/// Starts a gateway with memory for `budget` of these models, each of which needs 1 GiB.
fn gateway_with_budget(budget: usize, models: &[(&str, &str)]) -> Gateway {
    let files: Vec<String> = models.iter().map(|(id, _)| format!("{id}.gguf")).collect();
    let files: Vec<(&str, Value)> = files.iter().map(|file| (file.as_str(), json!({}))).collect();
    Gateway::builder().fakes(&config(budget, models), &files).set("MAX_WAIT_BEFORE_DRAIN", NEVER).start_ready()
}

fn config(budget: usize, models: &[(&str, &str)]) -> String {
    let lines = models.iter().map(|(id, more)| format!("  {id}: {{file: {id}.gguf, memory: 1GiB, {more}}}\n"));
    format!("memory_budget: {budget}GiB\nmodels:\n{}", lines.collect::<String>())
}

#[track_caller]
fn assert_served(gateway: &Gateway, model: &str) {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 2});
    let answer = gateway.client().post_json(CHAT, &body);
    assert_eq!((answer.status(), answer.header("x-llamagate-model")), (200, Some(model)), "{}", answer.text());
}

fn starts(gateway: &Gateway, model: &str) -> usize {
    gateway.model_file(&format!("{model}.gguf")).journal().starts().len()
}

/// Returns the entry of a model in the list.
fn entry(gateway: &Gateway, model: &str) -> Value {
    gateway.client().get(&format!("/v1/models/{model}")).json()
}

fn state(gateway: &Gateway, model: &str) -> String {
    entry(gateway, model)["meta"]["state"].as_str().unwrap().to_owned()
}

/// Pins a model, or lets it go.
#[track_caller]
fn order(gateway: &Gateway, model: &str, what: &str) -> Value {
    let answer = admin(gateway).post_json(&format!("/v1/models/{model}/{what}"), &json!({}));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()
}

#[test]
fn an_eviction_passes_a_pinned_model_over_until_it_is_let_go() {
    let models = [("a", ""), ("b", ""), ("c", "")];
    let gateway = gateway_with_budget(2, &models);
    let all = || models.map(|(id, _)| starts(&gateway, id));
    assert_served(&gateway, "a");
    let pinned = order(&gateway, "a", "pin");
    assert_eq!(pinned, json!({"id": "a", "state": "ready", "pin": "ordered"}));
    assert_eq!(entry(&gateway, "a")["meta"]["pin"], "ordered");
    assert_served(&gateway, "b");
    assert_served(&gateway, "c");
    // The least recently used one would have been `a`.
    assert_eq!((all(), state(&gateway, "a")), ([1, 1, 1], "ready".to_owned()));
    assert_served(&gateway, "b");
    assert_eq!((all(), state(&gateway, "a")), ([1, 2, 1], "ready".to_owned()));
    assert_eq!(order(&gateway, "a", "unpin")["pin"], "off");
    assert_served(&gateway, "c");
    assert_eq!((all(), state(&gateway, "a")), ([1, 2, 2], "stopped".to_owned()));
}

#[test]
fn a_load_that_does_not_fit_beside_an_ordered_pin_is_refused_until_that_is_taken_back() {
    let gateway = gateway_with_budget(1, &[("a", ""), ("b", "")]);
    assert_served(&gateway, "a");
    order(&gateway, "a", "pin");
    let body = json!({"model": "b", "messages": [{"role": "user", "content": "x"}]});
    let refused = gateway.client().post_json(CHAT, &body);
    assert_eq!((refused.status(), &refused.json()["error"]["code"]), (503, &json!("backend_unavailable")));
    order(&gateway, "a", "unpin");
    assert_served(&gateway, "b");
    assert_eq!((starts(&gateway, "a"), starts(&gateway, "b")), (1, 1));
}

#[test]
fn no_idle_time_and_no_client_unloads_a_pinned_model() {
    let models = [("kept", "ttl: 1s"), ("other", "ttl: 1s")];
    let gateway = gateway_with_budget(2, &models);
    assert_served(&gateway, "kept");
    order(&gateway, "kept", "pin");
    assert_served(&gateway, "other");
    // It has been idle for a shorter time than the pinned one.
    eventually("the other model sleeps", READY, || state(&gateway, "other") == "stopped");
    let away = gateway.client().post_json("/api/generate", &json!({"model": "kept", "keep_alive": 0}));
    assert_eq!(away.status(), 200, "{}", away.text());
    assert_eq!((state(&gateway, "kept"), starts(&gateway, "kept")), ("ready".to_owned(), 1));
    order(&gateway, "kept", "unpin");
    eventually("it sleeps like any other", READY, || state(&gateway, "kept") == "stopped");
    // An administrator's order to unload it counts in any case, and the pin stays for the next load.
    assert_served(&gateway, "kept");
    order(&gateway, "kept", "pin");
    assert_eq!(admin(&gateway).post_json("/v1/models/kept/unload", &json!({})).status(), 202);
    eventually("it is unloaded", READY, || state(&gateway, "kept") == "stopped");
    assert_eq!(entry(&gateway, "kept")["meta"]["pin"], "ordered");
}

#[test]
fn a_pin_outlives_the_reload_that_gives_a_model_new_workers() {
    let before = [("a", ""), ("set", "pinned: true")];
    let gateway = gateway_with_budget(3, &before);
    assert_eq!(entry(&gateway, "set")["meta"]["pin"], "configured");
    order(&gateway, "a", "pin");
    gateway.rewrite_config(&config(3, &[("a", "ctx: 2048"), ("set", "pinned: true")]));
    assert_eq!(admin(&gateway).post_json("/reload", &json!({})).status(), 200);
    assert_eq!(entry(&gateway, "a")["max_model_len"], 2048, "the model has new workers");
    assert_eq!(entry(&gateway, "a")["meta"]["pin"], "ordered");
    assert_eq!(order(&gateway, "set", "unpin")["pin"], "off", "a pin of the configuration too");
}

#[test]
fn pins_are_for_administrators_and_are_told_and_kept_as_acts() {
    let config = "models:\n  a: {file: a.gguf}\nmodel_list:\n  - model_name: far\n    litellm_params: {api_base: \"http://127.0.0.1:9/v1\"}\n";
    let gateway = Gateway::builder().fakes(config, &[("a.gguf", json!({}))]).start();
    let code = |client: Client, path: &str| {
        let answer = client.post_json(path, &json!({}));
        (answer.status(), answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    for what in ["pin", "unpin"] {
        let of = |model: &str| format!("/v1/models/{model}/{what}");
        assert_eq!(code(gateway.client(), &of("a")), (403, "scope_required".to_owned()));
        assert_eq!(code(admin(&gateway), &of("none")), (404, "model_not_found".to_owned()));
        assert_eq!(code(admin(&gateway), &of("far")), (400, "bad_request".to_owned()), "others run it");
    }
    let mut feed = admin(&gateway).stream_of("/events");
    // What was before: an order that comes earlier may be a part of it.
    assert_eq!(feed.next_event().expect("the feed begins").name.as_deref(), Some("snapshot"));
    order(&gateway, "a", "pin");
    let mut told = (false, false);
    while !(told.0 && told.1) {
        let event = feed.next_event().expect("the feed goes on");
        match event.name.as_deref() {
            Some("model") => told.0 |= event.json()["pin"] == "ordered",
            Some("act") => told.1 |= event.json()["act"] == "POST /v1/models/{id}/pin" && event.json()["target"] == "a",
            _ => {}
        }
    }
    let kept = eventually_some("the act is kept", SOON, || {
        let acts = admin(&gateway).get("/audit").json()["data"].as_array().cloned().unwrap_or_default();
        acts.into_iter().find(|act| act["act"] == "POST /v1/models/{id}/pin" && act["status"] == 200)
    });
    assert_eq!((&kept["key"], &kept["target"]), (&json!("admin"), &json!("a")), "{kept}");
}
