//! Remote backends: how they fail, which retries and fallbacks follow, and what backends and clients are sent.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::routing::{answered_by, chat, refused};
use super::support::{
    client::{Client, Response},
    gateway::{ADMIN, Builder, Gateway, USER},
    remote::{ReceivedRequest, Remote, Reply},
    wait::{READY, SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";
const EMBED: &str = "/v1/embeddings";

/// Longer than any test takes.
const NEVER: &str = "1h";

/// Returns an entry of `model_list` for `remote`, with further `litellm_params` and further fields of the entry.
fn entry(model: &str, remote: &Remote, params: &str, lines: &str) -> String {
    let api_base = remote.url();
    format!("  - {{model_name: {model}, {lines} litellm_params: {{api_base: \"{api_base}\"{params}}}}}\n")
}

/// Returns a configuration of the model `m`, served by these backends, the first with priority 0.
fn in_order(remotes: &[&Remote]) -> String {
    let mut config = "model_list:\n".to_owned();
    for (priority, remote) in remotes.iter().enumerate() {
        config += &entry("m", remote, "", &format!("priority: {priority}, "));
    }
    config
}

fn builder(config: &str) -> Builder {
    let builder = Gateway::builder().fakes(config, &[("local.gguf", json!({})), ("other.gguf", json!({}))]);
    builder.set("ROUTING_STRATEGY", "priority-failover").set("HEALTH_CHECK_INTERVAL", NEVER).set("COOLDOWN_TIME", NEVER)
}

/// Starts the gateway and waits until each worker is ready or asleep.
fn ready(builder: Builder) -> Gateway {
    let gateway = builder.start_ready();
    eventually("all workers are ready", READY, || {
        let is_up = |worker: &Value| worker["state"] == "ready" || worker["state"] == "stopped";
        stats(&gateway).iter().all(|model| model["workers"].as_array().unwrap().iter().all(is_up))
    });
    gateway
}

fn stats(gateway: &Gateway) -> Vec<Value> {
    gateway.client_with(ADMIN).get("/lb/stats").json()["models"].as_array().unwrap().clone()
}

/// Returns the worker `number` of the first model in `/lb/stats`.
fn worker(gateway: &Gateway, number: usize) -> Value {
    stats(gateway)[0]["workers"][number].clone()
}

/// Returns the headers that name the worker that has answered and the number of attempts.
#[track_caller]
fn worker_and_attempts(answer: &Response) -> (&str, &str) {
    let header = |name: &str| answer.header(name).unwrap_or_else(|| panic!("no {name}: {}", answer.text()));
    (header("x-llamagate-worker"), header("x-llamagate-attempts"))
}

fn post_embedding(client: &Client) -> Response {
    client.post_json(EMBED, &json!({"model": "m", "input": "x"}))
}

fn post_chat(client: &Client) -> Response {
    client.post_json(CHAT, &chat("m"))
}

#[test]
fn a_failed_request_goes_to_another_worker_only_if_a_retry_is_safe() {
    let (first, second) = (Remote::start(Reply::Serve), Remote::start(Reply::Serve));
    let config = in_order(&[&first, &second]);
    // More failures than this test causes, so that the breaker stays closed.
    let gateway = ready(builder(&config).set("ALLOWED_FAILS", 100));
    let client = gateway.client();
    let overloaded = json!({"error": {"message": "of the backend"}});
    assert_eq!((worker_and_attempts(&post_chat(&client)), second.received().len()), (("0", "1"), 0));

    for status in [429, 503] {
        first.set_reply(Reply::Status(status, overloaded.clone()));
        for answer in [post_chat(&client), post_embedding(&client)] {
            assert_eq!((answer.status(), worker_and_attempts(&answer)), (200, ("1", "2")), "{status}");
        }
    }
    for status in [500, 502] {
        first.set_reply(Reply::Status(status, overloaded.clone()));
        let begun = second.received().len();
        let answer = post_chat(&client);
        assert_eq!(
            (answer.status(), answer.json(), worker_and_attempts(&answer)),
            (status, overloaded.clone(), ("0", "1"))
        );
        assert_eq!(second.received().len(), begun, "the backend may have begun the request, so it is not sent again");
        let answer = post_embedding(&client);
        assert_eq!(
            (answer.status(), worker_and_attempts(&answer)),
            (200, ("1", "2")),
            "an embedding is safe to send again"
        );
    }
    first.set_reply(Reply::Status(400, overloaded.clone()));
    assert_eq!(
        (post_embedding(&client).status(), worker_and_attempts(&post_embedding(&client))),
        (400, ("0", "1")),
        "400 is the request's fault and is not retried"
    );

    first.set_reply(Reply::Close);
    let begun = second.received().len();
    let cut = post_chat(&client);
    assert_eq!((refused(&cut, 502).as_str(), worker_and_attempts(&cut)), ("backend_error", ("0", "1")));
    assert_eq!((cut.header("x-llamagate-model"), second.received().len()), (Some("m"), begun));
    eventually("the first backend is probed and gets requests again", SOON, || {
        let answer = post_embedding(&client);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        worker_and_attempts(&answer) == ("1", "2")
    });

    first.set_reply(Reply::DieMidStream);
    eventually("a probe has found it alive", SOON, || worker(&gateway, 0)["state"] == "ready");
    let begun = (first.received().len(), second.received().len());
    let stream = || client.stream(CHAT, &json!({"model": "m", "messages": [], "stream": true}));
    let mut events = Vec::new();
    eventually("the first backend gets a stream", SOON, || {
        events = stream().events();
        first.received().len() > begun.0
    });
    let last = events.pop().unwrap();
    assert_eq!((events.len(), &last.json()["error"]["code"]), (1, &json!("backend_error")), "{events:?} {last:?}");
    assert_eq!(first.received().len(), begun.0 + 1, "a stream that has begun is never sent again");
}

#[test]
fn an_answer_names_the_model_as_the_request_did() {
    let remote = Remote::start(Reply::Status(200, json!({"model": "/srv/models/m.gguf", "choices": []})));
    let gateway = ready(builder(&in_order(&[&remote])));
    assert_eq!(post_chat(&gateway.client()).json(), json!({"model": "m", "choices": []}));
}

#[test]
fn a_request_whose_connection_is_refused_goes_to_another_worker() {
    let (mut first, second) = (Remote::start(Reply::Serve), Remote::start(Reply::Serve));
    let gateway = ready(builder(&in_order(&[&first, &second])));
    first.end();
    let answer = post_chat(&gateway.client());
    assert_eq!((answer.status(), worker_and_attempts(&answer)), (200, ("1", "2")), "{}", answer.text());
    assert_eq!(second.received().len(), 1);
    let error = worker(&gateway, 0)["last_error"].as_str().unwrap().to_owned();
    assert!(error.contains("refuse"), "{error}");
}

#[test]
fn no_request_is_lost_to_idle_connections_that_a_backend_closes() {
    let remote = Remote::start(Reply::ServeAndClose);
    let gateway = ready(builder(&in_order(&[&remote])));
    let client = gateway.client();
    for nth in 1..=50 {
        let answer = post_chat(&client);
        assert_eq!((answer.status(), worker_and_attempts(&answer)), (200, ("0", "1")), "{}", answer.text());
        remote.wait_closed_by_gateway(nth);
    }
    assert_eq!(remote.received().len(), 50);
}

#[test]
fn request_timeout_covers_a_hanging_backend_and_all_retries() {
    let (first, second) = (Remote::start(Reply::Hang), Remote::start(Reply::Hang));
    let gateway = ready(builder(&in_order(&[&first, &second])).set("REQUEST_TIMEOUT", "1s"));
    for answer in [post_chat(&gateway.client()), post_embedding(&gateway.client())] {
        assert_eq!((refused(&answer, 504).as_str(), worker_and_attempts(&answer)), ("backend_timeout", ("0", "1")));
    }
    assert_eq!((first.received().len(), second.received().len()), (2, 0), "no time is left to try the other backend");
    assert_eq!(worker(&gateway, 0)["last_error"], "did not answer in time");
}

#[test]
fn a_retry_waits_no_longer_than_request_timeout() {
    let (first, second) = (Remote::start(Reply::Status(503, json!({}))), Remote::start(Reply::HoldMidStream));
    let one_slot = |remote: &Remote, priority: u32| {
        entry("m", remote, ", max_parallel_requests: 1", &format!("priority: {priority}, "))
    };
    let config = format!("model_list:\n{}{}", one_slot(&first, 0), one_slot(&second, 1));
    let gateway =
        ready(builder(&config).set("REQUEST_TIMEOUT", "1s").set("QUEUE_TIMEOUT", NEVER).set("ALLOWED_FAILS", 2));
    let client = gateway.client();
    let mut holder = client.stream(CHAT, &json!({"model": "m", "messages": [], "stream": true}));
    assert!(holder.next_event().is_some(), "the stream has the only slot of the second backend");
    let late = post_chat(&client);
    assert_eq!(
        (refused(&late, 504).as_str(), worker_and_attempts(&late)),
        ("backend_timeout", ("0", "1")),
        "the headers name the only attempt"
    );
    assert_eq!((first.received().len(), second.received().len()), (2, 1));
    second.release();
    assert!(holder.events().last().unwrap().is_done());
}

#[test]
fn a_retry_gets_the_next_slot_of_another_worker() {
    let (first, second) = (Remote::start(Reply::Status(503, json!({}))), Remote::start(Reply::HoldMidStream));
    let config = format!(
        "model_list:\n{}{}",
        entry("m", &first, "", "priority: 0, "),
        entry("m", &second, ", max_parallel_requests: 1", "priority: 1, ")
    );
    let gateway = ready(builder(&config).set("ALLOWED_FAILS", 100).set("RETRY_DELAY", "0s"));
    let client = gateway.client();
    let mut holder = client.stream(CHAT, &json!({"model": "m", "messages": [], "stream": true}));
    assert!(holder.next_event().is_some(), "the stream has the only slot of the second backend");
    second.set_reply(Reply::Serve);
    let body = chat("m").to_string();
    let mut waiting: Vec<_> = (0..3).map(|_| client.begin("POST", CHAT, body.as_bytes()).unwrap()).collect();
    first.wait_received(4);
    second.release();
    assert!(holder.events().last().unwrap().is_done());
    for client in &mut waiting {
        let answer = client.read_response().unwrap();
        assert_eq!((answer.status(), worker_and_attempts(&answer)), (200, ("1", "2")), "{}", answer.text());
    }
    assert_eq!((first.received().len(), second.received().len()), (4, 4));
}

#[test]
fn failures_in_a_row_open_the_breaker() {
    let remote = Remote::start(Reply::Status(500, json!({})));
    let gateway = ready(builder(&in_order(&[&remote])).set("ALLOWED_FAILS", 2));
    let client = gateway.client();
    let breaker = || worker(&gateway, 0)["breaker"].clone();
    post_chat(&client);
    remote.set_reply(Reply::Serve);
    post_chat(&client);
    eventually("the success is counted", SOON, || worker(&gateway, 0)["served"] == 1);
    remote.set_reply(Reply::Status(500, json!({})));
    post_chat(&client);
    assert_eq!(breaker(), "closed", "the failures are not in a row");
    post_chat(&client);
    let failed = worker(&gateway, 0);
    assert_eq!(["breaker", "last_error"].map(|name| &failed[name]), ["open", "answered 500"]);
    assert_eq!(["failures", "served", "in_flight"].map(|name| &failed[name]), [3, 1, 0]);
    assert!(failed["last_failure"].is_string());
    let refusal = post_chat(&client);
    assert_eq!(refused(&refusal, 503), "backend_unavailable");
    let headers = ["model", "worker", "attempts"].map(|name| refusal.header(&format!("x-llamagate-{name}")));
    assert_eq!(headers, [Some("m"), None, None], "the request was not sent");
    let admin = gateway.client_with(ADMIN);
    for order in ["load", "unload"] {
        let answer = admin.post_json(&format!("/v1/models/m/{order}"), &json!({}));
        assert_eq!(refused(&answer, 400), "bad_request");
        assert!(answer.text().contains("remote backends only"), "{}", answer.text());
    }
    let wait: u64 = refusal.header("retry-after").unwrap().parse().unwrap();
    assert!(wait > 3000, "{wait} s until the next attempt");
    assert_eq!(remote.received().len(), 4, "no request reaches the backend");
}

/// Regression: answers that stopped in the middle did not count as failures, so the backend got one request after the
/// other.
#[test]
fn answers_that_stop_in_the_middle_open_the_breaker() {
    for (reply, is_stream) in [(Reply::HoldMidStream, true), (Reply::HoldMidAnswer, false)] {
        let remote = Remote::start(reply);
        let settings = builder(&in_order(&[&remote])).set("ALLOWED_FAILS", 2).set("STREAM_IDLE_TIMEOUT", "1s");
        let gateway = ready(if is_stream { settings } else { settings.set("REQUEST_TIMEOUT", "1s") });
        let client = gateway.client();
        let body = json!({"model": "m", "messages": [], "stream": is_stream});
        for failures in 1..=2 {
            match is_stream {
                true => {
                    let last = client.stream(CHAT, &body).events().pop().unwrap();
                    assert_eq!(last.json()["error"]["code"], "backend_timeout");
                }
                false => {
                    let mut cut = client.begin("POST", CHAT, body.to_string().as_bytes()).unwrap();
                    assert_eq!(cut.read_head().unwrap().status, 200);
                    _ = cut.read_to_close();
                }
            }
            eventually("the failure is counted", SOON, || worker(&gateway, 0)["failures"] == failures);
        }
        let failed = worker(&gateway, 0);
        assert_eq!(["breaker", "last_error"].map(|name| &failed[name]), ["open", "did not answer in time"]);
        assert_eq!((refused(&post_chat(&client), 503).as_str(), remote.received().len()), ("backend_unavailable", 2));
    }
}

/// Regression: the loss was logged twice: by the request that failed, without the name of the model, and by the next
/// probe.
#[test]
fn the_loss_of_a_backend_is_logged_once_with_its_name() {
    let mut remote = Remote::start(Reply::Serve);
    let gateway = ready(builder(&in_order(&[&remote])));
    remote.end();
    assert_eq!(refused(&post_chat(&gateway.client()), 503), "backend_unavailable");
    eventually("the worker is unhealthy", SOON, || worker(&gateway, 0)["state"] == "unhealthy");
    // The log is written by another thread.
    eventually("the loss is logged", SOON, || gateway.output().contains(" WARN "));
    let log = gateway.output();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ") && line.contains("remote")).collect();
    assert!(
        matches!(warnings[..], [line] if line.contains("model=\"m\"") && line.contains("worker=0")),
        "{warnings:#?}"
    );
}

/// Regression: `Retry-After` of a backend was ignored, so that it got the next request at once.
#[test]
fn a_backend_gets_no_request_until_its_retry_after_is_over() {
    for hint in ["Retry-After: 30.5", "Retry-After: 30.0", "retry-after-ms: 30500"] {
        let head = format!("HTTP/1.1 429 X\r\n{hint}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let remote = Remote::start(Reply::Raw(head.into_bytes()));
        let gateway = ready(builder(&in_order(&[&remote])).set("ALLOWED_FAILS", 100));
        assert_eq!(post_chat(&gateway.client()).status(), 429);
        let refusal = post_chat(&gateway.client());
        assert_eq!((refused(&refusal, 503).as_str(), remote.received().len()), ("backend_unavailable", 1), "{hint}");
        let wait: u64 = refusal.header("retry-after").unwrap().parse().unwrap();
        assert!((2..=31).contains(&wait), "{hint}: {wait} s");
    }
    let busy = |status| Reply::Busy(status, "120");
    let (first, second) = (Remote::start(busy(429)), Remote::start(Reply::Serve));
    let gateway = ready(builder(&in_order(&[&first, &second])).set("ALLOWED_FAILS", 100));
    let client = gateway.client();
    assert_eq!(worker_and_attempts(&post_chat(&client)), ("1", "2"));
    assert_eq!(
        (worker_and_attempts(&post_chat(&client)), worker_and_attempts(&post_embedding(&client))),
        (("1", "1"), ("1", "1"))
    );
    second.set_reply(busy(503));
    let last = post_chat(&client);
    assert_eq!((last.status(), worker_and_attempts(&last), last.header("retry-after")), (503, ("1", "1"), Some("120")));
    let refusal = post_chat(&client);
    assert_eq!(refused(&refusal, 503), "backend_unavailable");
    let wait: u64 = refusal.header("retry-after").unwrap().parse().unwrap();
    assert!((60..=120).contains(&wait), "{wait} s until the first backend may get a request again");
    assert_eq!((first.received().len(), second.received().len()), (1, 4));
}

#[test]
fn a_half_open_breaker_lets_one_request_through() {
    let remote = Remote::start(Reply::Status(500, json!({})));
    let gateway = ready(builder(&in_order(&[&remote])).set("ALLOWED_FAILS", 2).set("COOLDOWN_TIME", "1s"));
    let client = gateway.client();
    let wait_breaker = |state: &str| eventually(state, SOON, || worker(&gateway, 0)["breaker"] == state);
    (0..2).for_each(|_| _ = post_chat(&client));
    wait_breaker("half-open");
    remote.set_reply(Reply::Hold);
    let body = chat("m").to_string();
    let mut trial = client.begin("POST", CHAT, body.as_bytes()).unwrap();
    remote.wait_received(3);
    for _ in 0..3 {
        assert_eq!(refused(&post_chat(&client), 503), "backend_unavailable", "one trial at a time");
    }
    assert_eq!(remote.received().len(), 3);
    remote.set_reply(Reply::Serve);
    remote.release();
    assert_eq!(trial.read_response().unwrap().status(), 200);
    wait_breaker("closed");
    assert_eq!(worker_and_attempts(&post_chat(&client)), ("0", "1"));

    // A trial that fails opens the breaker at once.
    remote.set_reply(Reply::Status(500, json!({})));
    (0..2).for_each(|_| _ = post_chat(&client));
    wait_breaker("half-open");
    assert_eq!(post_chat(&client).status(), 500);
    assert_eq!((remote.received().len(), worker(&gateway, 0)["failures"].as_u64()), (7, Some(5)));
    wait_breaker("half-open");
}

#[test]
fn requests_wait_in_the_queue_for_their_quota() {
    const RPM: usize = 60;
    let remote = Remote::start(Reply::Serve);
    let config = format!("model_list:\n{}", entry("m", &remote, ", rpm: 60", ""));
    let gateway = ready(builder(&config));
    let begun = Instant::now();
    // The quota refills by one request a second. After the first 60, two more take about two seconds.
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..RPM / 2 + 1 {
                    assert_eq!(worker_and_attempts(&post_chat(&gateway.client())), ("0", "1"));
                }
            });
        }
    });
    let took = begun.elapsed();
    assert_eq!(remote.received().len(), RPM + 2);
    assert!(took >= Duration::from_secs(2), "{took:?} for {RPM} requests at once and two more at one a second");
    assert_eq!(worker(&gateway, 0)["breaker"], "closed");
}

/// Regression: a request that timed out in the wait for a quota got `model_loading`.
#[test]
fn a_queue_timeout_in_the_wait_for_a_quota_tells_when_it_refills() {
    let remote = Remote::start(Reply::Serve);
    let config = format!("model_list:\n{}", entry("m", &remote, ", rpm: 1", ""));
    let gateway = ready(builder(&config).set("QUEUE_TIMEOUT", "1s"));
    let client = gateway.client();
    assert_eq!(post_chat(&client).status(), 200);
    for path in [CHAT, "/tokenize"] {
        let late = client.post_json(path, &chat("m"));
        assert_eq!(refused(&late, 503), "queue_timeout", "{path}");
        let wait: u64 = late.header("retry-after").unwrap().parse().unwrap();
        assert!(
            (20..=60).contains(&wait),
            "{path}: the quota refills a minute after the first request, not in {wait} s"
        );
    }
}

#[test]
fn tokens_are_a_quota_too() {
    let remote = Remote::start(Reply::Serve);
    let config = format!("model_list:\n{}", entry("m", &remote, ", tpm: 240", ""));
    let gateway = ready(builder(&config));
    let begun = Instant::now();
    for _ in 0..84 {
        assert_eq!(post_chat(&gateway.client()).status(), 200);
    }
    // Each answer costs 3 tokens: 80 answers use up the quota of 240, which refills by 4 a second. The cost of the
    // latest one or two answers may not be counted yet when the last request begins.
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn a_backend_gets_its_own_key_and_model_name_and_the_client_sees_its_own() {
    let remote = Remote::start(Reply::Serve);
    let config = format!(
        "model_list:\n{}{}",
        entry("m", &remote, ", api_key: of-the-backend, model: openai/their-m", ""),
        entry("plain", &remote, "", ""),
    );
    let gateway = ready(builder(&config));
    let client = gateway.client().header("x-kept", "1").header("Cookie", "secret=1").header("x-api-key", USER);
    let odd = "{ \"messages\" : [\"\\u00e9\"],\"model\": \"m\" ,\"seed\":1e1 }";
    let answer = client.send("POST", CHAT, odd.as_bytes());
    assert_eq!((answered_by(&answer), &answer.json()["model"]), ("m", &json!("m")));
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "their-m", "the content is not changed");
    let asked = remote.received().pop().unwrap();
    assert_eq!(asked.body, odd.replace("\"m\"", "\"their-m\""), "nothing else is changed");
    assert_eq!((asked.header("authorization"), asked.header("x-kept")), (Some("Bearer of-the-backend"), Some("1")));
    let no_secret = |asked: &ReceivedRequest| !format!("{asked:?}").contains(USER) && asked.header("cookie").is_none();
    assert!(no_secret(&asked), "{asked:?}");

    let mut stream = client.stream(CHAT, &json!({"model": "m", "messages": [], "stream": true}));
    let events = stream.events();
    assert!(events[0].json()["model"] == "m" && events[1].is_done() && stream.is_complete(), "{events:?}");

    client.post_json(CHAT, &json!({"model": "plain", "messages": []}));
    let asked = remote.received().pop().unwrap();
    assert!(asked.header("authorization").is_none() && no_secret(&asked), "{asked:?}");

    remote.set_reply(Reply::Status(401, json!({"error": {"message": "wrong key of-the-backend"}})));
    let answer = post_chat(&client);
    assert_eq!(refused(&answer, 502), "backend_error");
    assert!(answer.text().contains("does not accept the gateway's key"), "{}", answer.text());
    assert!(!answer.text().contains("of-the-backend") && !gateway.output().contains("of-the-backend"));
    assert_eq!(worker(&gateway, 0)["last_error"], "does not take its api_key");
}

/// Regression: only a 401 was kept from the client. A 403, or any other error, could repeat the key.
#[test]
fn the_key_of_a_backend_reached_clients_in_its_errors() {
    const KEY: &str = "sk-of-the-backend";
    let (first, second) = (Remote::start(Reply::Serve), Remote::start(Reply::Serve));
    let config = format!(
        "model_list:\n{}{}",
        entry("m", &first, &format!(", api_key: {KEY}"), "priority: 0,"),
        entry("m", &second, "", "priority: 1,"),
    );
    let gateway = ready(builder(&config).set("ALLOWED_FAILS", 1000));
    let client = gateway.client();
    let error = |words: &str| json!({"error": {"message": words}}).to_string();
    let headers = format!("Content-Type: application/json\r\nX-Echo: Bearer {KEY}\r\nX-Kept: 1\r\nX-Echo: 2");

    first.set_reply(Reply::whole(403, &headers, error(&format!("API key {KEY} is disabled"))));
    assert_eq!(worker_and_attempts(&post_chat(&client)), ("1", "2"), "as after a 401, another backend is asked");
    first.set_reply(Reply::whole(403, &headers, error("This region is not served")));
    assert_eq!(post_chat(&client).text(), error("This region is not served"));

    let long = format!("{{\"error\":{{\"message\":\"{KEY}{}{KEY}\"}}}}", "x".repeat(200_000));
    let chunked = format!(
        "HTTP/1.1 422 X\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{:x}\r\n{KEY}\r\n0\r\n\r\n",
        KEY.len()
    );
    for (status, reply, expected) in [
        (400, Reply::whole(400, &headers, error(&format!("{KEY}: {KEY}"))), error("[api_key]: [api_key]")),
        (
            400,
            Reply::whole(500, &headers, error(&format!("invalid request of {KEY}"))),
            "invalid request of [api_key]".to_owned(),
        ),
        (500, Reply::whole(500, &headers, error(&format!("no machine for {KEY}"))), error("no machine for [api_key]")),
        (422, Reply::Raw(chunked.into_bytes()), "[api_key]".to_owned()),
        (400, Reply::whole(400, &headers, long), "a reason with a secret in it".to_owned()),
        (200, Reply::whole(200, &headers, "{}"), "{}".to_owned()),
    ] {
        first.set_reply(reply);
        let answer = post_chat(&client);
        let what = format!("{status} {expected}: {:?} {}", answer.head, answer.text());
        assert_eq!((answer.status(), answer.complete), (status, true), "{what}");
        assert!(answer.text().contains(&expected) && !what.contains(KEY), "{what}");
    }
    assert!(!gateway.output().contains(KEY));
}

/// Regression: clients repeated a chat after the 504 of a proxy in front of a backend, and each was computed to the limit.
#[test]
fn a_504_of_a_backend_said_nothing_of_a_repetition() {
    let remote = Remote::start(Reply::Serve);
    let gateway = ready(builder(&in_order(&[&remote])).set("ALLOWED_FAILS", 1000));
    let client = gateway.client();
    for (headers, of_chat, of_embedding) in
        [("X-A: b", Some("false"), None), ("X-Should-Retry: true", Some("true"), Some("true"))]
    {
        remote.set_reply(Reply::whole(504, headers, "<html>504</html>"));
        let chat = post_chat(&client);
        assert_eq!((chat.status(), chat.header("x-should-retry")), (504, of_chat));
        let embedding = post_embedding(&client);
        assert_eq!((embedding.status(), embedding.header("x-should-retry")), (504, of_embedding));
    }
}

#[test]
fn a_gateway_behind_a_gateway() {
    let inner = Gateway::builder().start_ready();
    let config = format!(
        "model_list:\n  - {{model_name: m, litellm_params: {{api_base: \"{}/v1\", api_key: {USER}, model: dummy}}}}\n",
        inner.url()
    );
    let outer = ready(builder(&config));
    let answer = post_chat(&outer.client_with(ADMIN));
    assert_eq!((answered_by(&answer), &answer.json()["model"]), ("m", &json!("m")));
    let mut stream = outer.client().stream(CHAT, &json!({"model": "m", "messages": [], "stream": true}));
    let events = stream.events();
    let names = |name: &str| events.iter().filter(|event| !event.is_done() && event.json()["model"] == name).count();
    assert!(names("m") > 8 && names("dummy") == 0 && stream.is_complete());
    let asked = inner.journal().requests(CHAT);
    assert!(asked.len() == 2 && asked.iter().all(|asked| asked["headers"].get("x-api-key").is_none()));
}

#[test]
fn the_llama_server_of_a_model_takes_over_from_its_remote_backend() {
    let remote = Remote::start(Reply::Serve);
    let models = "models: {m: {file: local.gguf, preload: true}}\n";
    let config = format!("{models}model_list:\n{}", entry("m", &remote, "", ""));
    let gateway = ready(builder(&config));
    let client = gateway.client();
    assert_eq!(worker_and_attempts(&post_chat(&client)), ("1", "1"), "the remote backend has the higher priority");
    remote.set_reply(Reply::Status(503, json!({})));
    assert_eq!(worker_and_attempts(&post_chat(&client)), ("0", "2"));
    remote.set_reply(Reply::Status(500, json!({})));
    assert_eq!(post_chat(&client).status(), 500);
    post_chat(&client);
    // The breaker of the remote backend is open now.
    assert_eq!(worker_and_attempts(&post_chat(&client)), ("0", "1"));
}

#[test]
fn the_sleeping_llama_server_of_a_model_is_woken_if_its_remote_backend_fails() {
    let mut remote = Remote::start(Reply::Serve);
    let config = format!("models: {{m: {{file: local.gguf}}}}\nmodel_list:\n{}", entry("m", &remote, "", ""));
    let gateway = ready(builder(&config));
    assert!(gateway.child_pids().is_empty());
    remote.end();
    let answer = post_chat(&gateway.client());
    assert_eq!((answer.status(), worker_and_attempts(&answer)), (200, ("0", "2")), "{}", answer.text());
}

/// Adds a key that may use only `models`, and returns its secret.
fn with_key(builder: Builder, models: &str) -> (Builder, &'static str) {
    const SECRET: &str = "some-secret-0123456789";
    (
        builder.keys(&format!("admin:{ADMIN}:100000 scope=inference,admin\nsome:{SECRET}:100000 models={models}\n")),
        SECRET,
    )
}

#[test]
fn fallback_models_serve_if_the_key_may_use_them() {
    let (big, small) = (Remote::start(Reply::Status(503, json!({"of": "big"}))), Remote::start(Reply::Serve));
    let config = format!(
        "model_list:\n{}{}{}fallbacks: {{big: [secret, light], heavy: [secret]}}\n",
        entry("big", &big, ", model: their-big", "tier: heavy, "),
        entry("secret", &small, ", model: their-secret", "tier: secret, "),
        entry("small", &small, ", model: their-small", "tier: light, "),
    );
    let (builder, key) = with_key(builder(&config).set("ALLOWED_FAILS", 3), "big,light");
    let gateway = ready(builder);
    let client = gateway.client_with(key);
    let answer = client.post_json(CHAT, &chat("big"));
    assert_eq!((answered_by(&answer), worker_and_attempts(&answer)), ("small", ("0", "2")));
    assert_eq!(answer.json()["model"], "big", "the client sees the name that it asked for");
    let sent: Value = serde_json::from_str(&small.received()[0].body).unwrap();
    assert_eq!(sent["model"], "their-small");
    let answer = gateway.client_with(ADMIN).post_json(CHAT, &chat("big"));
    assert_eq!(answered_by(&answer), "secret", "fallbacks are tried in the configured order");
    client.post_json(CHAT, &chat("big"));
    // The breaker of big is open, so big gets no request.
    let asked = big.received().len();
    let answer = client.post_json(CHAT, &chat("heavy"));
    assert_eq!(
        (answered_by(&answer), worker_and_attempts(&answer), big.received().len()),
        ("small", ("0", "1"), asked)
    );
}

#[test]
fn a_tier_falls_back_and_a_key_without_fallbacks_gets_the_answer_of_the_backend() {
    let (big, small) = (Remote::start(Reply::Status(503, json!({"of": "big"}))), Remote::start(Reply::Serve));
    let config = format!(
        "model_list:\n{}{}fallbacks: {{heavy: [light]}}\n",
        entry("big", &big, "", "tier: heavy, "),
        entry("small", &small, "", "tier: light, "),
    );
    let (builder, key) = with_key(builder(&config).set("ALLOWED_FAILS", 3), "big");
    let gateway = ready(builder);
    assert_eq!(answered_by(&gateway.client_with(ADMIN).post_json(CHAT, &chat("big"))), "small");
    let answer = gateway.client_with(key).post_json(CHAT, &chat("big"));
    assert_eq!((answer.status(), answer.json()), (503, json!({"of": "big"})), "the response of the backend, unchanged");
    let answer = gateway.client_with(key).post_json(EMBED, &json!({"model": "big", "input": "x"}));
    assert_eq!(refused(&answer, 400), "wrong_model_kind");
    assert_eq!(small.received().len(), 1);
    gateway.client_with(key).post_json(CHAT, &chat("big"));
    assert_eq!(refused(&gateway.client_with(key).post_json(CHAT, &chat("big")), 503), "backend_unavailable");
    assert_eq!((small.received().len(), big.received().len()), (1, 3));
}

#[test]
fn num_retries_limits_the_retries() {
    let remotes: Vec<Remote> = (0..4).map(|_| Remote::start(Reply::Status(503, json!({"busy": true})))).collect();
    let gateway = ready(builder(&in_order(&remotes.iter().collect::<Vec<_>>())).set("NUM_RETRIES", 2));
    let answer = post_chat(&gateway.client());
    assert_eq!(
        (answer.status(), answer.json(), worker_and_attempts(&answer)),
        (503, json!({"busy": true}), ("2", "3"))
    );
    assert_eq!(remotes.iter().map(|remote| remote.received().len()).collect::<Vec<_>>(), [1, 1, 1, 0]);
}

#[test]
fn the_worker_with_the_lowest_priority_number_serves_as_long_as_it_can() {
    let (mut first, second) = (Remote::start(Reply::Serve), Remote::start(Reply::Serve));
    let gateway = ready(builder(&in_order(&[&first, &second])));
    let client = gateway.client();
    assert!((0..5).all(|_| worker_and_attempts(&post_chat(&client)) == ("0", "1")));
    first.end();
    // The next request may use an idle connection and fail, which only then reveals that the backend has ended.
    eventually("the end of the backend is noticed", SOON, || post_chat(&client).status() == 200);
    assert!((0..5).all(|_| worker_and_attempts(&post_chat(&client)) == ("1", "1")));
    assert_eq!((first.received().len(), second.received().len()), (5, 6));
}

#[test]
fn requests_are_spread_by_weight() {
    let (heavy, light) = (Remote::start(Reply::Serve), Remote::start(Reply::Serve));
    let config =
        format!("model_list:\n{}{}", entry("m", &heavy, "", "weight: 9, "), entry("m", &light, "", "weight: 1, "));
    let gateway = ready(builder(&config).set("ROUTING_STRATEGY", "weighted-random"));
    let client = gateway.client();
    for _ in 0..200 {
        assert_eq!(post_chat(&client).status(), 200);
    }
    let served = [&heavy, &light].map(|remote| remote.received().len());
    // For heavy 180 requests are expected, with a standard deviation of 4: 140 are ten deviations away. The probability
    // that light gets none is 0.9^200.
    assert!(served[0] >= 140 && served[1] >= 1, "{served:?}");
}

/// Regression: a key in `api-key`, or in any header beside `Authorization`, reached the remote backend.
#[test]
fn no_copy_of_a_clients_key_reaches_a_worker() {
    let foreign = "foreign-secret-9876543210";
    let copies = [
        ("Api-Key", USER.to_owned()),
        ("X-Goog-Api-Key", USER.to_owned()),
        ("X-Litellm-Key", format!("Bearer {USER}")),
        ("Ocp-Apim-Subscription-Key", USER.to_owned()),
        ("X-Keys", format!("a, {USER}")),
        ("X-Portkey-Config", format!("{{\"api_key\":\"{USER}\"}}")),
        ("X-Foreign", foreign.to_owned()),
        ("Referer", format!("https://host/?key={USER}")),
        ("Cookie", format!("a=1; key={USER}; b=2")),
        ("X-Request-Id", USER.to_owned()),
        ("X-Api-Key", foreign.to_owned()),
        ("X-Kept", "kept".to_owned()),
    ];
    let path = format!("{CHAT}?a=b&key={USER}&api_key={}", USER.replace('-', "%2D"));
    let remote = Remote::start(Reply::Serve);
    let config = format!("{}models: {{own: {{file: local.gguf}}}}\n", in_order(&[&remote]));
    let gateway = ready(builder(&config));
    // With `Authorization` the foreign key may stand anywhere, and with it the good one in any other key header.
    for good in ["Authorization", "X-Goog-Api-Key", "Api-Key"] {
        let mut client = gateway.anonymous();
        for (name, value) in &copies {
            let is_sent = *name != "X-Api-Key" && *name != "Api-Key" && *name != "X-Goog-Api-Key";
            if is_sent || (good == "Authorization" && *name == "X-Goog-Api-Key") {
                client = client.header(name, value);
            }
        }
        client = match good {
            "Authorization" => client.key(USER),
            _ => client.header(good, USER).key(foreign),
        };
        for model in ["m", "own"] {
            let answer = client.post_json(&path, &chat(model));
            assert_eq!(answer.status(), 200, "{good}: {}", answer.text());
            assert_ne!(answer.header("x-request-id"), Some(USER), "the id is written to the access log");
        }
    }
    let received = remote.received();
    assert_eq!(received.len(), 3);
    for request in &received {
        assert_eq!((request.path.as_str(), request.header("x-kept")), ("/v1/chat/completions?a=b", Some("kept")));
        let head = format!("{:?}", request.headers);
        assert!(!head.contains(USER), "{head}");
    }
    assert!(received[1..].iter().all(|request| request.header("x-foreign").is_none()), "it was presented as a key");
    let own = gateway.model_file("local.gguf").journal().requests(CHAT);
    assert_eq!(own.len(), 3);
    for request in own {
        let headers = request["headers"].as_object().unwrap();
        for name in ["api-key", "x-goog-api-key", "x-litellm-key", "x-keys", "x-portkey-config", "referer"] {
            assert!(!headers.contains_key(name), "{name}: {headers:?}");
        }
        assert!(headers.contains_key("cookie") && headers.contains_key("x-kept"), "{headers:?}");
    }
}
