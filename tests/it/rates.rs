//! What a key may use: requests and tokens a minute, requests at once, and wrong guesses.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::support::{
    client::{RawClient, Response},
    gateway::{ADMIN, Backend, Gateway, LIMITED, USER},
    wait::{SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";

fn ready(script: Value, settings: &[(&str, &str)]) -> Gateway {
    Gateway::builder().script(script).set_all(settings).start_ready()
}

fn chat() -> Value {
    json!({"messages": [{"role": "user", "content": "x"}]})
}

fn ask(gateway: &Gateway, secret: &str) -> Response {
    gateway.client_with(secret).post_json(CHAT, &chat())
}

fn number(answer: &Response, header: &str) -> u64 {
    answer.header(header).unwrap_or_else(|| panic!("no {header}")).parse().unwrap()
}

fn is_rate_limited(answer: &Response) {
    assert_eq!(answer.status(), 429, "{}", answer.text());
    assert_eq!(answer.json()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
    assert!(number(answer, "retry-after") >= 1);
}

#[test]
fn a_key_gets_its_own_limit_and_is_told_how_it_stands() {
    let gateway = ready(json!({}), &[]);
    for remaining in [1, 0] {
        let answer = ask(&gateway, LIMITED);
        assert_eq!(answer.status(), 200);
        assert_eq!(number(&answer, "x-ratelimit-limit-requests"), 2);
        assert_eq!(number(&answer, "x-ratelimit-remaining-requests"), remaining);
        assert!(answer.header("x-ratelimit-reset-requests").is_some_and(|reset| reset.ends_with('s')));
    }
    let refused = ask(&gateway, LIMITED);
    is_rate_limited(&refused);
    assert!((1..=30).contains(&number(&refused, "retry-after")), "one comes back every 30 s");
    assert_eq!(number(&refused, "x-ratelimit-remaining-requests"), 0);
    assert_eq!(gateway.journal().requests(CHAT).len(), 2);
    assert_eq!(ask(&gateway, USER).status(), 200, "another key is not concerned");
}

#[test]
fn a_key_without_a_limit_of_its_own_gets_the_default() {
    let keys = "plain:plain-secret-0123456789\n";
    let gateway = Gateway::builder().keys(keys).set("MAX_REQUESTS_PER_MINUTE", "3").start();
    gateway.wait_ready();
    let answer = ask(&gateway, "plain-secret-0123456789");
    assert_eq!(number(&answer, "x-ratelimit-limit-requests"), 3);
}

#[test]
fn a_refused_request_costs_nothing_and_says_how_the_key_stands_all_the_same() {
    let gateway = ready(
        json!({"hold_requests": [CHAT]}),
        &[("MAX_QUEUE_SIZE", "1"), ("MAX_REQUEST_BODY_SIZE", "1000"), ("QUEUE_TIMEOUT", "10m")],
    );
    let body = chat().to_string();
    let _running = gateway.client().begin("POST", CHAT, body.as_bytes()).unwrap();
    gateway.journal().wait_for_requests(CHAT, 1);
    let _waiting = gateway.client().begin("POST", CHAT, body.as_bytes()).unwrap();
    eventually("one waits", SOON, || gateway.anonymous().get("/health").json()["queue"]["waiting"] == 1);
    for _ in 0..3 {
        let full = ask(&gateway, LIMITED);
        assert_eq!(full.json()["error"]["code"], "queue_full");
        assert_eq!(number(&full, "x-ratelimit-remaining-requests"), 2);
    }
    gateway.control().release_all_requests();
    eventually("the line is empty", SOON, || gateway.anonymous().get("/health").json()["queue"]["active"] == 0);
    assert_eq!(gateway.client_with(LIMITED).send("POST", CHAT, &[b'x'; 1001]).status(), 413);
    assert_eq!(gateway.client_with(LIMITED).get("/nothing").status(), 404);
    assert_eq!(number(&ask(&gateway, LIMITED), "x-ratelimit-remaining-requests"), 1);
}

#[test]
fn what_a_key_has_used_survives_a_reload() {
    let gateway = ready(json!({}), &[]);
    assert_eq!(ask(&gateway, LIMITED).status(), 200);
    assert_eq!(ask(&gateway, LIMITED).status(), 200);
    let reloaded = gateway.client_with(ADMIN).post_json("/reload", &json!({}));
    assert_eq!(reloaded.status(), 200, "{}", reloaded.text());
    is_rate_limited(&ask(&gateway, LIMITED));
    let more = fs::read_to_string(gateway.keys_file()).unwrap() + "new:new-secret-0123456789:5\n";
    fs::write(gateway.keys_file(), more).unwrap();
    gateway.signal(Signal::SIGHUP);
    eventually("the new key is there", SOON, || ask(&gateway, "new-secret-0123456789").status() == 200);
    is_rate_limited(&ask(&gateway, LIMITED));
}

/// Three words of prompt and eight tokens of answer, by the fake's count or by the real one's.
fn tokens_are_charged(gateway: &Gateway) {
    let client = gateway.client_with("metered-secret-0123456789");
    let mut streamed = chat();
    streamed["stream"] = json!(true);
    streamed["max_tokens"] = json!(4);
    let mut stream = client.stream(CHAT, &streamed);
    assert_eq!(stream.head.header("x-ratelimit-limit-tokens"), Some("6"));
    assert!(stream.events().last().is_some_and(|event| event.is_done()), "an answer is finished, whatever it costs");
    eventually("the tokens are charged", SOON, || client.post_json(CHAT, &chat()).status() == 429);
    let refused = client.post_json(CHAT, &chat());
    is_rate_limited(&refused);
    assert_eq!(number(&refused, "x-ratelimit-remaining-tokens"), 0);
    assert_eq!(number(&refused, "x-ratelimit-remaining-requests"), 99, "and it costs no request");
}

const METERED: &str = "metered:metered-secret-0123456789:100 tokens_per_minute=6\n";

#[test]
fn tokens_of_a_stream_are_charged_after_it() {
    let gateway = Gateway::builder().keys(METERED).start();
    gateway.wait_ready();
    tokens_are_charged(&gateway);
}

#[test]
fn tokens_of_the_real_llama_server_are_charged_too() {
    let gateway = Gateway::builder().keys(METERED).backend(Backend::Real { model: "tiny-chat.gguf" }).start();
    gateway.wait_ready();
    tokens_are_charged(&gateway);
}

#[test]
fn a_key_has_no_more_requests_at_once_than_it_may() {
    let keys = format!("single:single-secret-0123456789 max_concurrent=1\nuser:{USER}\n");
    let gateway = Gateway::builder()
        .keys(&keys)
        .script(json!({"hold_requests": [CHAT]}))
        .set("MAX_CONCURRENT_REQUESTS", 3)
        .start();
    gateway.wait_ready();
    let client = gateway.client_with("single-secret-0123456789");
    let mut first = client.begin("POST", CHAT, chat().to_string().as_bytes()).unwrap();
    gateway.journal().wait_for_requests(CHAT, 1);
    is_rate_limited(&client.post_json(CHAT, &chat()));
    let mut other = gateway.client().begin("POST", CHAT, chat().to_string().as_bytes()).unwrap();
    gateway.journal().wait_for_requests(CHAT, 2);
    gateway.control().release_all_requests();
    assert_eq!(first.read_response().unwrap().status(), 200);
    assert_eq!(other.read_response().unwrap().status(), 200);
    eventually("the place is free again", SOON, || client.post_json(CHAT, &chat()).status() == 200);
}

#[test]
fn guessing_keys_is_slowed_down_and_does_not_lock_out_who_is_known() {
    let gateway = ready(json!({}), &[]);
    assert_eq!(ask(&gateway, USER).status(), 200);
    // A second forgives a guess, so all are made at once, on one connection, and a good key follows close behind one.
    let models = |secret: &str| gateway.client_with(secret).request("GET", "/v1/models", b"");
    let guess = models("wrong-secret-0123456789");
    let mut client = RawClient::connect(gateway.url());
    client.write(&[guess.repeat(200), models(ADMIN), guess, models(LIMITED)].concat()).unwrap();
    let mut next = || client.read_response().unwrap();
    let guesses: Vec<Response> = (0..200).map(|_| next()).collect();
    assert!(guesses[..60].iter().all(|answer| answer.status() == 401));
    let refused = guesses.iter().find(|answer| answer.status() != 401).unwrap();
    is_rate_limited(refused);
    assert_eq!(refused.header("x-ratelimit-limit-requests"), None, "nobody is known here");
    let strangers = [next(), next(), next()];
    let refused = strangers.iter().step_by(2).find(|answer| answer.status() != 200);
    is_rate_limited(refused.expect("a good key that is new here waits with the guesser"));
    assert_eq!(ask(&gateway, USER).status(), 200, "this key was used from here before");
    assert_eq!(gateway.anonymous().get("/v1/models").status(), 401, "no key is no guess");
}

#[test]
fn limits_can_be_tried_without_a_model() {
    let gateway = Gateway::builder().set("MOCK_BACKEND", true).set("MODEL_PATH", "").start();
    for _ in 0..2 {
        assert_eq!(ask(&gateway, LIMITED).json()["error"]["code"], "backend_unavailable");
    }
    is_rate_limited(&ask(&gateway, LIMITED));
}
