//! Parameters that are not of the type or in the range that an API gives them: a 400 with their name, before a slot is
//! taken.

use serde_json::{Value, json};

use super::support::{
    client::{Client, Response},
    gateway::{ADMIN, Backend, Gateway, LIMITED},
    remote::{Remote, Reply},
};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";
const FIM: &str = "/v1/fim/completions";

/// Sends a request that is right but for this member, whose value is JSON text.
fn ask(client: &Client, path: &str, name: &str, value: &str) -> Response {
    let mut body = json!({"messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x", "suffix": "y"});
    let limit = if path == RESPONSES { "max_output_tokens" } else { "max_tokens" };
    if name != limit {
        body[limit] = json!(2);
    }
    let body = body.to_string();
    client.send("POST", path, format!("{},\"{name}\":{value}}}", &body[..body.len() - 1]).as_bytes())
}

/// Values that no server of these APIs takes, though llama-server may.
const BEYOND: &[(&str, &str, &str)] = &[
    (CHAT, "temperature", "-1"),
    (CHAT, "temperature", "\"0.5\""),
    (CHAT, "temperature", "NaN"),
    (CHAT, "temperature", "1e400"),
    (CHAT, "top_p", "5"),
    (CHAT, "n", "0"),
    (CHAT, "max_tokens", "4294967298"),
    (CHAT, "max_completion_tokens", "0"),
    (CHAT, "top_logprobs", "21"),
    (CHAT, "stop", "5"),
    (CHAT, "stream", "\"true\""),
    ("/chat/completions", "seed", "1.5"),
    ("/openai/deployments/any/chat/completions", "temperature", "3"),
    (COMPLETIONS, "presence_penalty", "2.5"),
    (COMPLETIONS, "logprobs", "-1"),
    (RESPONSES, "temperature", "2.1"),
    ("/responses", "max_output_tokens", "0"),
    (MESSAGES, "temperature", "1.5"),
    (MESSAGES, "top_k", "-1"),
    (MESSAGES, "stop_sequences", "\"x\""),
    (FIM, "temperature", "1.6"),
];

#[track_caller]
fn assert_refused(answer: &Response, path: &str, name: &str) {
    let body = answer.json();
    let (error, what) = (&body["error"], answer.text());
    assert_eq!(answer.status(), 400, "{path} {name}: {what}");
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with(&format!("{name} must be ")) && message.contains("STRICT_PARAMETERS"), "{what}");
    assert_eq!(error["type"], "invalid_request_error", "{what}");
    match path {
        MESSAGES => assert_eq!(body["type"], "error", "{what}"),
        _ => assert_eq!((&error["code"], &error["param"]), (&json!("invalid_parameter"), &json!(name)), "{what}"),
    }
    assert_eq!(answer.header("x-should-retry"), Some("false"), "{what}");
}

#[test]
fn a_value_beyond_the_range_of_its_api_is_refused_by_name_before_a_slot_is_taken() {
    let gateway = Gateway::builder().script(json!({"hold_requests": [CHAT]})).start_ready();
    let body = json!({"messages": [{"role": "user", "content": "x"}]}).to_string();
    let mut holder = gateway.client_with(ADMIN).begin("POST", CHAT, body.as_bytes()).unwrap();
    gateway.journal().wait_for_requests(CHAT, 1);
    for (path, name, value) in BEYOND {
        // The only slot is taken, so a request that waited for it would not be answered.
        assert_refused(&ask(&gateway.client_with(LIMITED), path, name, value), path, name);
    }
    gateway.control().release_all_requests();
    assert_eq!(holder.read_response().unwrap().status(), 200);
    assert_eq!(gateway.journal().requests(CHAT).len(), 1, "none of them reached llama-server");
    let statuses: Vec<u16> =
        (0..3).map(|_| ask(&gateway.client_with(LIMITED), COMPLETIONS, "temperature", "1").status()).collect();
    assert_eq!(statuses, [200, 200, 429], "a refused request is not charged");
}

/// llama.cpp's own clients send these, and LM Studio's examples.
#[test]
fn what_unmodified_clients_of_llama_server_send_is_served() {
    let gateway = Gateway::builder().backend(Backend::Real { model: "tiny-chat.gguf" }).set("CTX", 64).start_ready();
    for (path, name, value) in [
        (CHAT, "max_tokens", "-1"),
        (CHAT, "max_completion_tokens", "-1"),
        (COMPLETIONS, "max_tokens", "-1"),
        (RESPONSES, "max_output_tokens", "-1"),
        (CHAT, "seed", "-1"),
        (CHAT, "top_k", "-1"),
        (CHAT, "top_k", "0"),
        (COMPLETIONS, "min_p", "1.5"),
        (CHAT, "repeat_penalty", "7"),
        (CHAT, "n_predict", "0"),
        (CHAT, "temperature", "null"),
        (CHAT, "stop", "null"),
        (CHAT, "stream", "null"),
        (CHAT, "max_tokens", "2.0"),
        (CHAT, "stop", "[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\"]"),
        (CHAT, "temperature", "2"),
        (MESSAGES, "temperature", "1"),
        (MESSAGES, "max_tokens", "0"),
        (COMPLETIONS, "logprobs", "10"),
        ("/completion", "temperature", "-1"),
        ("/completion", "top_p", "5"),
        ("/completion", "stop", "5"),
    ] {
        let answer = ask(&gateway.client(), path, name, value);
        assert_eq!(answer.status(), 200, "{path} {name} {value}: {}", answer.text());
    }
}

/// The table of parameters says so of llama-server b11669: what it refuses itself needs no check here.
#[test]
fn strict_parameters_off_passes_on_what_llama_server_takes_in_silence() {
    let gateway = Gateway::builder()
        .backend(Backend::Real { model: "tiny-chat.gguf" })
        .set("STRICT_PARAMETERS", false)
        .start_ready();
    for (path, name, value) in [
        (CHAT, "temperature", "-1"),
        (CHAT, "temperature", "5"),
        (CHAT, "temperature", "true"),
        (MESSAGES, "temperature", "5"),
        (COMPLETIONS, "top_p", "-1"),
        (CHAT, "presence_penalty", "9"),
        (CHAT, "max_tokens", "0"),
        (CHAT, "max_tokens", "4294967298"),
        (CHAT, "n", "1.5"),
        (CHAT, "seed", "1.5"),
        (CHAT, "stop", "5"),
        (CHAT, "logprobs", "5"),
        (MESSAGES, "stop_sequences", "5"),
    ] {
        let answer = ask(&gateway.client(), path, name, value);
        assert_eq!(answer.status(), 200, "{path} {name} {value}: {}", answer.text());
    }
    for (path, name, value) in [
        (CHAT, "temperature", "\"hot\""),
        (CHAT, "stream", "1"),
        (CHAT, "max_tokens", "-2"),
        (CHAT, "temperature", "1e400"),
    ] {
        let answer = ask(&gateway.client(), path, name, value);
        let is_own = answer.json()["error"]["code"] == "invalid_parameter";
        assert!(answer.status() == 400 && !is_own, "{path} {name} {value}: {}", answer.text());
    }
}

#[test]
fn the_ranges_are_those_of_the_api_whatever_backend_serves_it() {
    let remote = Remote::start(Reply::Serve);
    let config = format!("model_list: [{{model_name: m, litellm_params: {{api_base: '{}'}}}}]", remote.url());
    let gateway = Gateway::builder().fakes(&config, &[]).start_ready();
    for (path, name, value) in BEYOND {
        assert_refused(&ask(&gateway.client(), path, name, value), path, name);
    }
    assert!(remote.received().is_empty());
    let served = gateway.client().post_json(CHAT, &json!({"model": "m", "messages": [], "top_k": -1}));
    assert_eq!((served.status(), remote.received().len()), (200, 1));
}

#[test]
fn a_member_of_an_object_in_the_body_is_no_parameter() {
    let gateway = Gateway::builder().start_ready();
    let wide: Value = json!({"temperature": 9, "n": 0});
    let body = json!({"messages": [wide.clone()], "metadata": wide, "max_tokens": 2});
    assert_eq!(gateway.client().post_json(CHAT, &body).status(), 200);
}
