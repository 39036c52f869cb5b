//! Authentication by API keys: which keys are accepted, how requests are refused, and the three ways to reload the key
//! file.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;

use super::support::{
    client::RawClient,
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
fn a_key_is_accepted_in_four_headers_and_never_forwarded() {
    let gateway = ready();
    let body = json!({"messages": [{"role": "user", "content": "x"}]});
    for (name, value) in [
        ("Authorization", format!("Bearer {USER}")),
        ("Authorization", USER.to_owned()),
        ("X-API-Key", USER.to_owned()),
        ("api-key", USER.to_owned()),
        ("x-goog-api-key", USER.to_owned()),
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

/// Regression: Anthropic's clients got OpenAI's errors on all paths but one, and could not read them.
#[test]
fn errors_have_the_shape_of_the_client_that_asks() {
    let gateway = ready();
    let shape = |client: super::support::client::Client, path: &str| {
        let answer = client.post_json(path, &json!({}));
        assert!(answer.status() >= 400, "{path}");
        let error = answer.json();
        assert!(error["error"]["message"].is_string() && error["error"]["type"].is_string(), "{error}");
        if error["type"] == "error" { "anthropic" } else { "openai" }
    };
    for path in ["/anthropic/v1/messages", "/v1/complete", "/v1/v1/messages", "/v1/messages", "/v1/messages/x"] {
        assert_eq!(shape(gateway.anonymous(), path), "anthropic", "{path}");
    }
    for path in ["/v1/models/none", "/v1/chat/completions", "/none"] {
        assert_eq!(shape(gateway.anonymous(), path), "openai", "{path}");
        let anthropic = gateway.anonymous().header("anthropic-version", "2023-06-01");
        assert_eq!(shape(anthropic, path), "anthropic", "{path}");
    }
    let one = gateway.client().header("anthropic-version", "2023-06-01").get("/v1/models/none");
    assert_eq!((one.status(), one.json()["error"]["type"].as_str()), (404, Some("not_found_error")), "{}", one.text());
    let mut malformed = RawClient::connect(gateway.url());
    malformed.write(b"GET /none HTTP/1.1\r\nAnthropic-Version: 2023-06-01\r\nX y\r\n\r\n").unwrap();
    assert_eq!(malformed.read_response().unwrap().json()["type"], "error");
}

const FOREIGN: &str = "foreign-secret-0123456789";

/// Regression: a good key was refused if a foreign or empty one stood in another header, and counted as a guess.
#[test]
fn who_sends_one_good_key_is_in_whatever_else_is_sent() {
    let gateway = ready();
    let bearer = |secret: &str| format!("Bearer {secret}");
    let status = |headers: &[(&str, String)]| {
        let client = headers.iter().fold(gateway.anonymous(), |client, (name, value)| client.header(name, value));
        client.get("/v1/models").status()
    };
    let headers = ["Authorization", "X-API-Key", "api-key", "x-goog-api-key"];
    // More than the wrong keys that an address may send in a minute.
    for round in 0..6 {
        for good in headers {
            for other in headers.into_iter().filter(|other| *other != good) {
                for value in [FOREIGN.to_owned(), bearer(FOREIGN), bearer(EXPIRED), String::new(), "Basic eDp5".into()]
                {
                    let pair = [(good, USER.to_owned()), (other, value.clone())];
                    assert_eq!(status(&pair), 200, "{round}: {good} is good, {other}: {value}");
                }
            }
        }
    }
    assert_eq!(status(&[("Authorization", bearer(FOREIGN)), ("Authorization", bearer(USER))]), 200, "repeated");
    assert_eq!(status(&[("X-API-Key", format!("{FOREIGN}, {USER}"))]), 200, "joined by a proxy");
    assert_eq!(gateway.client_with(ADMIN).get("/v1/models").status(), 200, "none of these was a guess");

    let code = |headers: &[(&str, &str)]| {
        let client = headers.iter().fold(gateway.anonymous(), |client, (name, value)| client.header(name, value));
        client.get("/v1/models").json()["error"]["code"].as_str().unwrap().to_owned()
    };
    for (headers, expected) in [
        (&[("X-API-Key", FOREIGN), ("Authorization", EXPIRED)][..], "api_key_expired"),
        (&[("X-API-Key", EXPIRED), ("Authorization", FOREIGN)], "api_key_expired"),
        (&[("X-API-Key", FOREIGN), ("Authorization", "")], "invalid_api_key"),
        (&[("X-API-Key", ""), ("Authorization", "Bearer")], "missing_api_key"),
        (&[("X-API-Key", "a-1-0123456789abcdef,b-2-0123456789abcdef")], "invalid_api_key"),
    ] {
        assert_eq!(code(headers), expected, "{headers:?}");
    }
}

/// Each of these requests has four wrong keys; the limit is 60 a minute.
#[test]
fn the_wrong_keys_of_one_request_count_as_one_guess() {
    let gateway = ready();
    let mut guesser = gateway.anonymous();
    for (n, name) in ["Authorization", "X-API-Key", "api-key", "x-goog-api-key"].into_iter().enumerate() {
        guesser = guesser.header(name, &format!("guess-{n}-0123456789"));
    }
    let guesses = (0..1000).take_while(|_| guesser.get("/v1/models").status() == 401).count();
    assert!((60..120).contains(&guesses), "{guesses}");
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
fn a_good_key_was_refused_because_another_good_key_without_the_scope_came_first() {
    let gateway = Gateway::builder()
        .keys("a:only-inference-0123456789:1000\nb:only-admin-0123456789:1000 scope=admin\n")
        .start_ready();
    let (inference, admin) = ("only-inference-0123456789", "only-admin-0123456789");
    for (first, second) in [(inference, admin), (admin, inference)] {
        let client =
            || gateway.anonymous().header("X-API-Key", first).header("Authorization", &format!("Bearer {second}"));
        for path in ["/v1/models", "/lb/stats"] {
            assert_eq!(client().get(path).status(), 200, "{path} with {first} first");
        }
    }
    let one =
        gateway.anonymous().header("X-API-Key", inference).header("Authorization", "Bearer wrong-0123456789abcdef");
    assert_eq!(one.get("/lb/stats").status(), 403, "a key without the scope is still told apart from a wrong one");
}

#[test]
fn metrics_auth_enabled_protects_the_metrics_of_both_ports() {
    let gateway = Gateway::builder().set("METRICS_AUTH_ENABLED", true).start();
    assert_eq!(gateway.anonymous().get("/metrics").status(), 401);
    assert_eq!(gateway.health().get("/metrics").status(), 401);
    assert_eq!(gateway.client().get("/metrics").status(), 403);
    assert_eq!(gateway.client_with(ADMIN).get("/metrics").status(), 200);
}
