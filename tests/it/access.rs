//! Authentication by API keys: which keys are accepted, how requests are refused, and the three ways to reload the key
//! file.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;

use super::support::{
    gateway::{ADMIN, EXPIRED, Gateway, USER},
    wait::{SOON, eventually},
};

fn ready() -> Gateway {
    let gateway = Gateway::builder().start();
    gateway.wait_ready();
    gateway
}

#[test]
fn each_refusal_has_its_own_code_and_names_the_way_to_authenticate() {
    let gateway = ready();
    for (client, code) in [
        (gateway.anonymous(), "missing_api_key"),
        (gateway.client_with("not-a-key-0123456789"), "invalid_api_key"),
        (gateway.client_with(EXPIRED), "api_key_expired"),
    ] {
        let answer = client.post_json("/v1/chat/completions", &json!({}));
        assert_eq!(answer.status(), 401, "{code}");
        assert_eq!(answer.json()["error"]["code"], code);
        assert_eq!(answer.json()["error"]["param"], "authorization");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert!(answer.header("x-request-id").is_some());
    }
    assert!(gateway.journal().requests("/v1/chat/completions").is_empty(), "nothing reached llama-server");
    let answer = gateway.anonymous().post_json("/v1/messages", &json!({}));
    assert_eq!(answer.json()["type"], "error");
    assert_eq!(answer.json()["error"]["type"], "authentication_error");
}

#[test]
fn a_key_is_accepted_in_three_headers_and_never_forwarded() {
    let gateway = ready();
    let body = json!({"messages": [{"role": "user", "content": "x"}]});
    for (name, value) in [
        ("Authorization", format!("Bearer {USER}")),
        ("Authorization", USER.to_owned()),
        ("X-API-Key", USER.to_owned()),
    ] {
        let answer = gateway
            .anonymous()
            .header(name, &value)
            .header("X-Conversation-Id", "c")
            .post_json("/v1/chat/completions", &body);
        assert_eq!(answer.status(), 200, "{name}: {}", answer.text());
    }
    let digest = |secret: &str| {
        use sha2::Digest;
        sha2::Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    for request in gateway.journal().requests("/v1/chat/completions") {
        let headers = request["headers"].to_string();
        assert!(
            !headers.contains(&digest(USER))
                && !headers.contains("x-api-key")
                && !headers.contains("x-conversation-id"),
            "{headers}"
        );
    }
}

#[test]
fn a_key_with_an_allow_list_may_use_only_its_models() {
    let keys = format!("other:{USER}::: models=another-model\nown:{ADMIN}::: models=dummy\n").replace(":::", "");
    let gateway = Gateway::builder().keys(&keys).start();
    gateway.wait_ready();
    let body = json!({"messages": [{"role": "user", "content": "x"}]});
    let answer = gateway.client().post_json("/v1/chat/completions", &body);
    assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (403, Some("model_not_allowed")));
    assert_eq!(gateway.client_with(ADMIN).post_json("/v1/chat/completions", &body).status(), 200);
}

const NEW: &str = "brand-new-secret-0123456789";

fn add_key(gateway: &Gateway) {
    let mut text = fs::read_to_string(gateway.keys_file()).unwrap();
    text.push_str(&format!("new:{NEW}\n"));
    fs::write(gateway.keys_file(), text).unwrap();
}

#[test]
fn a_new_key_works_after_post_reload() {
    let gateway = ready();
    add_key(&gateway);
    assert_eq!(gateway.client().send("POST", "/reload", b"").status(), 403, "a reload needs the scope admin");
    let answer = gateway.client_with(ADMIN).send("POST", "/reload", b"");
    assert_eq!(answer.json(), json!({"status": "ok", "keys_loaded": 5}), "{}", answer.text());
    assert_eq!(gateway.client_with(NEW).get("/v1/models").status(), 200);
}

#[test]
fn a_new_key_works_after_sighup() {
    let gateway = ready();
    add_key(&gateway);
    gateway.signal(Signal::SIGHUP);
    eventually("the new key works", SOON, || gateway.client_with(NEW).get("/v1/models").status() == 200);
}

#[test]
fn a_new_key_works_within_five_seconds_without_a_reload() {
    let gateway = ready();
    add_key(&gateway);
    eventually("the new key works", SOON, || gateway.client_with(NEW).get("/v1/models").status() == 200);
}

#[test]
fn a_failed_reload_answers_500_and_keeps_the_old_keys() {
    let gateway = ready();
    fs::remove_file(gateway.keys_file()).unwrap();
    assert_eq!(gateway.client_with(ADMIN).send("POST", "/reload", b"").status(), 500);
    assert_eq!(gateway.client().get("/v1/models").status(), 200);
}

#[test]
fn with_auth_disabled_no_key_is_needed() {
    let gateway = Gateway::builder().without_keys().start();
    gateway.wait_ready();
    assert_eq!(gateway.anonymous().get("/v1/models").status(), 200);
}

#[test]
fn metrics_auth_enabled_protects_the_metrics_of_both_ports() {
    let gateway = Gateway::builder().set("METRICS_AUTH_ENABLED", true).start();
    assert_eq!(gateway.anonymous().get("/metrics").status(), 401);
    assert_eq!(gateway.health().get("/metrics").status(), 401);
    assert_eq!(gateway.client().get("/metrics").status(), 403);
    assert_eq!(gateway.client_with(ADMIN).get("/metrics").status(), 200);
}
