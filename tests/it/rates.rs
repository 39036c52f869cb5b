//! Limits of a key: requests and tokens per minute, concurrent requests, and failed authentication.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::accounts::access_log_line;
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

fn assert_rate_limited(answer: &Response) {
    assert_eq!(answer.status(), 429, "{}", answer.text());
    assert_eq!(answer.json()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
    assert!(number(answer, "retry-after") >= 1);
}

#[test]
fn a_key_has_its_own_limit_and_gets_rate_limit_headers() {
    let gateway = ready(json!({}), &[]);
    for remaining in [1, 0] {
        let answer = ask(&gateway, LIMITED);
        assert_eq!(answer.status(), 200);
        assert_eq!(number(&answer, "x-ratelimit-limit-requests"), 2);
        assert_eq!(number(&answer, "x-ratelimit-remaining-requests"), remaining);
        assert!(answer.header("x-ratelimit-reset-requests").is_some_and(|reset| reset.ends_with('s')));
    }
    let refused = ask(&gateway, LIMITED);
    assert_rate_limited(&refused);
    assert!((1..=30).contains(&number(&refused, "retry-after")), "the limit refills by one request every 30 s");
    assert_eq!(number(&refused, "x-ratelimit-remaining-requests"), 0);
    assert_eq!(gateway.journal().requests(CHAT).len(), 2);
    assert_eq!(ask(&gateway, USER).status(), 200, "the limit does not affect another key");
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
fn a_refused_request_does_not_count_and_gets_rate_limit_headers() {
    let gateway = ready(
        json!({"hold_requests": [CHAT]}),
        &[("MAX_QUEUE_SIZE", "1"), ("MAX_REQUEST_BODY_SIZE", "1000"), ("QUEUE_TIMEOUT", "10m")],
    );
    let body = chat().to_string();
    let _running = gateway.client().begin("POST", CHAT, body.as_bytes()).unwrap();
    gateway.journal().wait_for_requests(CHAT, 1);
    let _waiting = gateway.client().begin("POST", CHAT, body.as_bytes()).unwrap();
    eventually("one request waits", SOON, || gateway.anonymous().get("/health").json()["queue"]["waiting"] == 1);
    for _ in 0..3 {
        let full = ask(&gateway, LIMITED);
        assert_eq!(full.json()["error"]["code"], "queue_full");
        assert_eq!(number(&full, "x-ratelimit-remaining-requests"), 2);
    }
    gateway.control().release_all_requests();
    eventually("the queue is empty", SOON, || gateway.anonymous().get("/health").json()["queue"]["active"] == 0);
    assert_eq!(gateway.client_with(LIMITED).send("POST", CHAT, &[b'x'; 1001]).status(), 413);
    assert_eq!(gateway.client_with(LIMITED).get("/nothing").status(), 404);
    assert_eq!(number(&ask(&gateway, LIMITED), "x-ratelimit-remaining-requests"), 1);
}

#[test]
fn the_usage_of_a_key_survives_a_reload() {
    let gateway = ready(json!({}), &[]);
    assert_eq!(ask(&gateway, LIMITED).status(), 200);
    assert_eq!(ask(&gateway, LIMITED).status(), 200);
    let reloaded = gateway.client_with(ADMIN).post_json("/reload", &json!({}));
    assert_eq!(reloaded.status(), 200, "{}", reloaded.text());
    assert_rate_limited(&ask(&gateway, LIMITED));
    let more = fs::read_to_string(gateway.keys_file()).unwrap() + "new:new-secret-0123456789:5\n";
    fs::write(gateway.keys_file(), more).unwrap();
    gateway.signal(Signal::SIGHUP);
    eventually("the new key is loaded", SOON, || ask(&gateway, "new-secret-0123456789").status() == 200);
    assert_rate_limited(&ask(&gateway, LIMITED));
}

/// Asserts that a stream is finished though it exceeds the token budget of its key, and that the next request gets 429.
fn assert_tokens_are_charged(gateway: &Gateway) {
    let client = gateway.client_with("metered-secret-0123456789");
    let mut streamed = chat();
    streamed["stream"] = json!(true);
    streamed["max_tokens"] = json!(4);
    let mut stream = client.stream(CHAT, &streamed);
    assert_eq!(stream.head.header("x-ratelimit-limit-tokens"), Some("6"));
    assert!(
        stream.events().last().is_some_and(|event| event.is_done()),
        "a stream is finished though it exceeds the budget"
    );
    eventually("the tokens are charged", SOON, || client.post_json(CHAT, &chat()).status() == 429);
    let refused = client.post_json(CHAT, &chat());
    assert_rate_limited(&refused);
    assert_eq!(number(&refused, "x-ratelimit-remaining-tokens"), 0);
    assert_eq!(number(&refused, "x-ratelimit-remaining-requests"), 99, "a refused request does not count");
}

const METERED: &str = "metered:metered-secret-0123456789:100 tokens_per_minute=6\n";

#[test]
fn tokens_of_a_stream_are_charged_after_it() {
    let gateway = Gateway::builder().keys(METERED).start();
    gateway.wait_ready();
    assert_tokens_are_charged(&gateway);
}

#[test]
fn tokens_of_the_real_llama_server_are_charged_too() {
    let gateway = Gateway::builder().keys(METERED).backend(Backend::Real { model: "tiny-chat.gguf" }).start();
    gateway.wait_ready();
    assert_tokens_are_charged(&gateway);
}

#[test]
fn a_key_has_no_more_concurrent_requests_than_allowed() {
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
    assert_rate_limited(&client.post_json(CHAT, &chat()));
    let mut other = gateway.client().begin("POST", CHAT, chat().to_string().as_bytes()).unwrap();
    gateway.journal().wait_for_requests(CHAT, 2);
    gateway.control().release_all_requests();
    assert_eq!(first.read_response().unwrap().status(), 200);
    assert_eq!(other.read_response().unwrap().status(), 200);
    eventually("the key may send a request again", SOON, || client.post_json(CHAT, &chat()).status() == 200);
}

#[test]
fn guesses_are_throttled_and_do_not_lock_out_keys_that_the_address_has_used() {
    let gateway = ready(json!({}), &[]);
    assert_eq!(ask(&gateway, USER).status(), 200);
    // The guess limit refills by one a second, so all guesses are pipelined on one connection, with valid keys right
    // behind.
    let models = |secret: &str| gateway.client_with(secret).request("GET", "/v1/models", b"");
    let guess = models("wrong-secret-0123456789");
    let mut client = RawClient::connect(gateway.url());
    client.write(&[guess.repeat(200), models(ADMIN), guess, models(LIMITED)].concat()).unwrap();
    let mut next = || client.read_response().unwrap();
    let guesses: Vec<Response> = (0..200).map(|_| next()).collect();
    assert!(guesses[..60].iter().all(|answer| answer.status() == 401));
    let refused = guesses.iter().find(|answer| answer.status() != 401).unwrap();
    assert_rate_limited(refused);
    assert_eq!(
        refused.header("x-ratelimit-limit-requests"),
        None,
        "a request without a valid key has no rate limit to report"
    );
    let last = [next(), next(), next()];
    let refused = last.iter().step_by(2).find(|answer| answer.status() != 200);
    assert_rate_limited(refused.expect("a valid key that this address has not used before is throttled too"));
    assert_eq!(ask(&gateway, USER).status(), 200, "this address has used the key before");
    assert_eq!(gateway.anonymous().get("/v1/models").status(), 401, "a request without a key is not a guess");
}

/// Regression: behind a proxy all clients were one address, so one guesser had good keys of others refused.
#[test]
fn behind_a_trusted_proxy_a_guesser_is_limited_by_its_own_address() {
    // The gateway takes this test for the proxy.
    let gateway = ready(json!({}), &[("TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8")]);
    let models = |secret: &str, list: &str| {
        gateway
            .client_with(secret)
            .header("X-Forwarded-For", list)
            .header("X-Request-Id", list.split(',').next().unwrap())
    };
    let guess = |list: &str| models("wrong-secret-0123456789", list).get("/v1/models").status();
    // Whatever the guesser writes in front, the proxy appends its address, and a second proxy may append the first.
    let lists = ["192.0.2.1", "203.0.113.9, 192.0.2.1", "garbage, 192.0.2.1, 10.0.0.7", "127.0.0.1,192.0.2.1:4711"];
    let guesses = (0..1000).take_while(|n| guess(lists[n % lists.len()]) == 401).count();
    assert!((60..120).contains(&guesses), "{guesses}");
    for other in ["192.0.2.2", "192.0.2.1, 192.0.2.3", "2001:db8::1"] {
        assert_eq!(models(USER, other).get("/v1/models").status(), 200, "{other} has not guessed");
    }
    assert_eq!(ask(&gateway, ADMIN).status(), 200, "the proxy itself has not guessed");
}

#[test]
fn the_access_log_has_the_address_of_the_client() {
    let client_of = |gateway: &Gateway, id: &str, header: (&str, &str)| {
        let client = gateway.client().header("X-Request-Id", id).header(header.0, header.1);
        assert_eq!(client.get("/v1/models").status(), 200);
        access_log_line(gateway, id)["client"].clone()
    };
    let gateway = ready(json!({}), &[]);
    assert_eq!(client_of(&gateway, "one", ("X-Forwarded-For", "192.0.2.1")), "127.0.0.1", "no proxy is trusted");
    let mut malformed = RawClient::connect(gateway.url());
    malformed.write(b"GET / HTTP/1.1\r\nX-Request-Id: two\r\nX y\r\n\r\n").unwrap();
    assert_eq!(malformed.read_response().unwrap().status(), 400);
    assert_eq!(access_log_line(&gateway, "two")["client"], "127.0.0.1");

    let gateway = ready(json!({}), &[("TRUSTED_PROXIES", "127.0.0.0/8")]);
    for (n, (name, value, expected)) in [
        ("X-Forwarded-For", "192.0.2.9, 192.0.2.1", "192.0.2.1"),
        ("Forwarded", "for=192.0.2.9, for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
        ("X-Forwarded-For", "unknown", "127.0.0.1"),
        ("X-Other", "192.0.2.1", "127.0.0.1"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(client_of(&gateway, &format!("id-{n}"), (name, value)), expected, "{name}: {value}");
    }
}

#[test]
fn rate_limits_apply_with_a_mock_backend() {
    let gateway = Gateway::builder().set("MOCK_BACKEND", true).set("MODEL_PATH", "").start();
    for _ in 0..2 {
        assert_eq!(ask(&gateway, LIMITED).json()["error"]["code"], "backend_unavailable");
    }
    assert_rate_limited(&ask(&gateway, LIMITED));
}
