//! Backends that somebody else runs: how they fail, what is tried instead, and what they and clients are told.

use super::routing::{answered_by, chat, refused};
use super::support::{
    client::{Client, Response},
    gateway::{ADMIN, Builder, Gateway, USER},
    remote::{Asked, Remote, Reply},
    wait::{READY, SOON, eventually},
};
use serde_json::{Value, json};
use std::{
    thread,
    time::{Duration, Instant},
};

const CHAT: &str = "/v1/chat/completions";
const EMBED: &str = "/v1/embeddings";

/// Longer than any test takes.
const NEVER: &str = "1h";

/// An entry of `model_list`, of a backend with these parameters and other lines.
fn entry(model: &str, remote: &Remote, params: &str, lines: &str) -> String {
    let api_base = remote.url();
    format!("  - {{model_name: {model}, {lines} litellm_params: {{api_base: \"{api_base}\"{params}}}}}\n")
}

/// `m`, served by these, in the order of their priority.
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

/// Starts it and waits until all workers that do not sleep are ready.
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

/// The worker of this number of the first model.
fn worker(gateway: &Gateway, number: usize) -> Value {
    stats(gateway)[0]["workers"][number].clone()
}

/// Which worker has answered, and at which try.
#[track_caller]
fn told(answer: &Response) -> (&str, &str) {
    let header = |name: &str| answer.header(name).unwrap_or_else(|| panic!("no {name}: {}", answer.text()));
    (header("x-llamagate-worker"), header("x-llamagate-attempts"))
}

fn embed(client: &Client) -> Response {
    client.post_json(EMBED, &json!({"model": "m", "input": "x"}))
}

fn talk(client: &Client) -> Response {
    client.post_json(CHAT, &chat("m"))
}

#[test]
fn what_was_never_begun_goes_to_another_worker_and_what_may_have_been_does_not() {
    let (first, second) = (Remote::start(Reply::Serve), Remote::start(Reply::Serve));
    let config = in_order(&[&first, &second]);
    // Enough failures for all of this.
    let gateway = ready(builder(&config).set("ALLOWED_FAILS", 100));
    let client = gateway.client();
    let overloaded = json!({"error": {"message": "of the backend"}});
    assert_eq!((told(&talk(&client)), second.asked().len()), (("0", "1"), 0));

    for status in [429, 503] {
        first.replies(Reply::Status(status, overloaded.clone()));
        for answer in [talk(&client), embed(&client)] {
            assert_eq!((answer.status(), told(&answer)), (200, ("1", "2")), "{status}");
        }
    }
    for status in [500, 502] {
        first.replies(Reply::Status(status, overloaded.clone()));
        let begun = second.asked().len();
        let answer = talk(&client);
        assert_eq!((answer.status(), answer.json(), told(&answer)), (status, overloaded.clone(), ("0", "1")));
        assert_eq!(second.asked().len(), begun, "it may have been begun");
        let answer = embed(&client);
        assert_eq!((answer.status(), told(&answer)), (200, ("1", "2")), "asking twice changes nothing");
    }
    first.replies(Reply::Status(400, overloaded.clone()));
    assert_eq!((embed(&client).status(), told(&embed(&client))), (400, ("0", "1")), "it is the request's fault");

    first.replies(Reply::Close);
    let begun = second.asked().len();
    let cut = talk(&client);
    assert_eq!((refused(&cut, 502).as_str(), told(&cut)), ("backend_error", ("0", "1")));
    assert_eq!((cut.header("x-llamagate-model"), second.asked().len()), (Some("m"), begun));
    eventually("it is asked again whether it lives", SOON, || {
        let answer = embed(&client);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        told(&answer) == ("1", "2")
    });

    first.replies(Reply::DieMidStream);
    eventually("it is found alive", SOON, || worker(&gateway, 0)["state"] == "ready");
    let begun = (first.asked().len(), second.asked().len());
    let stream = || client.stream(CHAT, &json!({"model": "m", "messages": [], "stream": true}));
    let mut events = Vec::new();
    eventually("it serves", SOON, || {
        events = stream().events();
        first.asked().len() > begun.0
    });
    let last = events.pop().unwrap();
    assert_eq!((events.len(), &last.json()["error"]["code"]), (1, &json!("backend_error")), "{events:?} {last:?}");
    assert_eq!(first.asked().len(), begun.0 + 1, "it is never sent again");
}

#[test]
fn an_answer_names_the_model_as_the_client_did_whatever_the_backend_calls_it() {
    let remote = Remote::start(Reply::Status(200, json!({"model": "/srv/models/m.gguf", "choices": []})));
    let gateway = ready(builder(&in_order(&[&remote])));
    assert_eq!(talk(&gateway.client()).json(), json!({"model": "m", "choices": []}));
}

#[test]
fn a_connection_that_is_refused_is_tried_elsewhere() {
    let (mut first, second) = (Remote::start(Reply::Serve), Remote::start(Reply::Serve));
    let gateway = ready(builder(&in_order(&[&first, &second])));
    first.end();
    let answer = talk(&gateway.client());
    assert_eq!((answer.status(), told(&answer)), (200, ("1", "2")), "{}", answer.text());
    assert_eq!(second.asked().len(), 1);
    let error = worker(&gateway, 0)["last_error"].as_str().unwrap().to_owned();
    assert!(error.contains("refuse"), "{error}");
}

#[test]
fn idle_connections_that_a_backend_closes_cost_no_request() {
    let remote = Remote::start(Reply::ServeAndClose);
    let gateway = ready(builder(&in_order(&[&remote])));
    let client = gateway.client();
    for nth in 1..=10 {
        assert_eq!(told(&talk(&client)), ("0", "1"));
        remote.wait_left(nth);
    }
    assert_eq!(remote.asked().len(), 10);
}

#[test]
fn one_that_hangs_is_given_up_in_time_and_so_are_all_further_tries() {
    let (first, second) = (Remote::start(Reply::Hang), Remote::start(Reply::Hang));
    let gateway = ready(builder(&in_order(&[&first, &second])).set("REQUEST_TIMEOUT", "1s"));
    for answer in [talk(&gateway.client()), embed(&gateway.client())] {
        assert_eq!((refused(&answer, 504).as_str(), told(&answer)), ("backend_timeout", ("0", "1")));
    }
    assert_eq!((first.asked().len(), second.asked().len()), (2, 0), "there is no time left to try the other");
    assert_eq!(worker(&gateway, 0)["last_error"], "did not answer in time");
}

#[test]
fn whoever_is_tried_again_waits_no_longer_than_it_may() {
    let (first, second) = (Remote::start(Reply::Status(503, json!({}))), Remote::start(Reply::HoldMidStream));
    let one_slot = |remote: &Remote, priority: u32| {
        entry("m", remote, ", max_parallel_requests: 1", &format!("priority: {priority}, "))
    };
    let config = format!("model_list:\n{}{}", one_slot(&first, 0), one_slot(&second, 1));
    let gateway =
        ready(builder(&config).set("REQUEST_TIMEOUT", "1s").set("QUEUE_TIMEOUT", NEVER).set("ALLOWED_FAILS", 2));
    let client = gateway.client();
    let mut holds = client.stream(CHAT, &json!({"model": "m", "messages": [], "stream": true}));
    assert!(holds.next_event().is_some(), "it has the only slot that is left");
    let late = talk(&client);
    assert_eq!((refused(&late, 504).as_str(), told(&late)), ("backend_timeout", ("0", "1")), "where it was tried");
    assert_eq!((first.asked().len(), second.asked().len()), (2, 1));
    second.release();
    assert!(holds.events().last().unwrap().is_done());
}

#[test]
fn whoever_is_tried_again_gets_the_next_slot_of_another_worker() {
    let (first, second) = (Remote::start(Reply::Status(503, json!({}))), Remote::start(Reply::HoldMidStream));
    let config = format!(
        "model_list:\n{}{}",
        entry("m", &first, "", "priority: 0, "),
        entry("m", &second, ", max_parallel_requests: 1", "priority: 1, ")
    );
    let gateway = ready(builder(&config).set("ALLOWED_FAILS", 100).set("RETRY_DELAY", "0s"));
    let client = gateway.client();
    let mut holds = client.stream(CHAT, &json!({"model": "m", "messages": [], "stream": true}));
    assert!(holds.next_event().is_some(), "it has the only slot of the one that serves");
    second.replies(Reply::Serve);
    let body = chat("m").to_string();
    let mut waiting: Vec<_> = (0..3).map(|_| client.begin("POST", CHAT, body.as_bytes()).unwrap()).collect();
    first.wait_asked(4);
    second.release();
    assert!(holds.events().last().unwrap().is_done());
    for client in &mut waiting {
        let answer = client.read_response().unwrap();
        assert_eq!((answer.status(), told(&answer)), (200, ("1", "2")), "{}", answer.text());
    }
    assert_eq!((first.asked().len(), second.asked().len()), (4, 4));
}

#[test]
fn failures_in_a_row_open_the_breaker() {
    let remote = Remote::start(Reply::Status(500, json!({})));
    let gateway = ready(builder(&in_order(&[&remote])).set("ALLOWED_FAILS", 2));
    let client = gateway.client();
    let breaker = || worker(&gateway, 0)["breaker"].clone();
    talk(&client);
    remote.replies(Reply::Serve);
    talk(&client);
    eventually("it is served", SOON, || worker(&gateway, 0)["served"] == 1);
    remote.replies(Reply::Status(500, json!({})));
    talk(&client);
    assert_eq!(breaker(), "closed", "they are not in a row");
    talk(&client);
    let failed = worker(&gateway, 0);
    assert_eq!(["breaker", "last_error"].map(|name| &failed[name]), ["open", "answered 500"]);
    assert_eq!(["failures", "served", "in_flight"].map(|name| &failed[name]), [3, 1, 0]);
    assert!(failed["last_failure"].is_string());
    let refusal = talk(&client);
    assert_eq!(refused(&refusal, 503), "backend_unavailable");
    let told = ["model", "worker", "attempts"].map(|name| refusal.header(&format!("x-llamagate-{name}")));
    assert_eq!(told, [Some("m"), None, None], "it was not sent");
    let admin = gateway.client_with(ADMIN);
    for order in ["load", "unload"] {
        let answer = admin.post_json(&format!("/v1/models/m/{order}"), &json!({}));
        assert_eq!(refused(&answer, 400), "bad_request");
        assert!(answer.text().contains("remote backends only"), "{}", answer.text());
    }
    let wait: u64 = refusal.header("retry-after").unwrap().parse().unwrap();
    assert!(wait > 3000, "{wait} s until it is tried again");
    assert_eq!(remote.asked().len(), 4, "nothing reaches it");
}

/// Regression: a backend that stops in the middle of its answers was sent one request after the other.
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
            eventually("it counts", SOON, || worker(&gateway, 0)["failures"] == failures);
        }
        let failed = worker(&gateway, 0);
        assert_eq!(["breaker", "last_error"].map(|name| &failed[name]), ["open", "did not answer in time"]);
        assert_eq!((refused(&talk(&client), 503).as_str(), remote.asked().len()), ("backend_unavailable", 2));
    }
}

/// Regression: the loss was logged by the request that met it, without the model's name, and by the probe that followed.
#[test]
fn the_loss_of_a_backend_is_logged_once_with_its_name() {
    let mut remote = Remote::start(Reply::Serve);
    let gateway = ready(builder(&in_order(&[&remote])));
    remote.end();
    assert_eq!(refused(&talk(&gateway.client()), 503), "backend_unavailable");
    eventually("it is found lost", SOON, || worker(&gateway, 0)["state"] == "unhealthy");
    // The log is written by another thread.
    eventually("it is logged", SOON, || gateway.output().contains(" WARN "));
    let log = gateway.output();
    let told: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ") && line.contains("remote")).collect();
    assert!(matches!(told[..], [line] if line.contains("model=\"m\"") && line.contains("worker=0")), "{told:#?}");
}

/// Regression: a backend that said for how long it cannot serve was asked again with the next request.
#[test]
fn a_backend_is_left_alone_for_as_long_as_it_asks_for() {
    let busy = |status| Reply::Busy(status, "120");
    let (first, second) = (Remote::start(busy(429)), Remote::start(Reply::Serve));
    let gateway = ready(builder(&in_order(&[&first, &second])).set("ALLOWED_FAILS", 100));
    let client = gateway.client();
    assert_eq!(told(&talk(&client)), ("1", "2"));
    assert_eq!((told(&talk(&client)), told(&embed(&client))), (("1", "1"), ("1", "1")));
    second.replies(busy(503));
    let last = talk(&client);
    assert_eq!((last.status(), told(&last), last.header("retry-after")), (503, ("1", "1"), Some("120")));
    let refusal = talk(&client);
    assert_eq!(refused(&refusal, 503), "backend_unavailable");
    let wait: u64 = refusal.header("retry-after").unwrap().parse().unwrap();
    assert!((60..=120).contains(&wait), "{wait} s until the first may be asked again");
    assert_eq!((first.asked().len(), second.asked().len()), (1, 4));
}

#[test]
fn one_request_tries_a_worker_that_was_left_alone() {
    let remote = Remote::start(Reply::Status(500, json!({})));
    let gateway = ready(builder(&in_order(&[&remote])).set("ALLOWED_FAILS", 2).set("COOLDOWN_TIME", "1s"));
    let client = gateway.client();
    let is = |state: &str| eventually(state, SOON, || worker(&gateway, 0)["breaker"] == state);
    (0..2).for_each(|_| _ = talk(&client));
    is("half-open");
    remote.replies(Reply::Hold);
    let body = chat("m").to_string();
    let mut trial = client.begin("POST", CHAT, body.as_bytes()).unwrap();
    remote.wait_asked(3);
    for _ in 0..3 {
        assert_eq!(refused(&talk(&client), 503), "backend_unavailable", "one at a time");
    }
    assert_eq!(remote.asked().len(), 3);
    remote.replies(Reply::Serve);
    remote.release();
    assert_eq!(trial.read_response().unwrap().status(), 200);
    is("closed");
    assert_eq!(told(&talk(&client)), ("0", "1"));

    // A trial that fails opens it at once.
    remote.replies(Reply::Status(500, json!({})));
    (0..2).for_each(|_| _ = talk(&client));
    is("half-open");
    assert_eq!(talk(&client).status(), 500);
    assert_eq!((remote.asked().len(), worker(&gateway, 0)["failures"].as_u64()), (7, Some(5)));
    is("half-open");
}

#[test]
fn requests_wait_in_line_for_their_quota() {
    const RPM: usize = 60;
    let remote = Remote::start(Reply::Serve);
    let config = format!("model_list:\n{}", entry("m", &remote, ", rpm: 60", ""));
    let gateway = ready(builder(&config));
    let begun = Instant::now();
    // One a second comes back, so two more take at least one second longer than the first are taken apart.
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..RPM / 2 + 1 {
                    assert_eq!(told(&talk(&gateway.client())), ("0", "1"));
                }
            });
        }
    });
    let took = begun.elapsed();
    assert_eq!(remote.asked().len(), RPM + 2);
    assert!(took >= Duration::from_secs(2), "{took:?} for {RPM} at once and one a second from then on");
    assert_eq!(worker(&gateway, 0)["breaker"], "closed");
}

/// Regression: whoever had waited in vain for a quota was told that the model is being loaded.
#[test]
fn who_waits_in_vain_for_a_quota_is_told_when_it_opens() {
    let remote = Remote::start(Reply::Serve);
    let config = format!("model_list:\n{}", entry("m", &remote, ", rpm: 1", ""));
    let gateway = ready(builder(&config).set("QUEUE_TIMEOUT", "1s"));
    let client = gateway.client();
    assert_eq!(talk(&client).status(), 200);
    for path in [CHAT, "/tokenize"] {
        let late = client.post_json(path, &chat("m"));
        assert_eq!(refused(&late, 503), "queue_timeout", "{path}");
        let wait: u64 = late.header("retry-after").unwrap().parse().unwrap();
        assert!((20..=60).contains(&wait), "{path}: one comes back a minute after the first, not in {wait} s");
    }
}

#[test]
fn tokens_are_a_quota_too() {
    let remote = Remote::start(Reply::Serve);
    let config = format!("model_list:\n{}", entry("m", &remote, ", tpm: 240", ""));
    let gateway = ready(builder(&config));
    let begun = Instant::now();
    for _ in 0..84 {
        assert_eq!(talk(&gateway.client()).status(), 200);
    }
    // Each answer costs 3, so 80 take all that there is, and 4 come back in a second. What the last but one or two have
    // cost may not be counted yet when the last begins.
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn a_backend_gets_its_own_key_and_name_and_the_client_sees_its_own() {
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
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "their-m", "what is said is left alone");
    let asked = remote.asked().pop().unwrap();
    assert_eq!(asked.body, odd.replace("\"m\"", "\"their-m\""), "nothing else is changed");
    assert_eq!((asked.header("authorization"), asked.header("x-kept")), (Some("Bearer of-the-backend"), Some("1")));
    let no_secret = |asked: &Asked| !format!("{asked:?}").contains(USER) && asked.header("cookie").is_none();
    assert!(no_secret(&asked), "{asked:?}");

    let mut stream = client.stream(CHAT, &json!({"model": "m", "messages": [], "stream": true}));
    let events = stream.events();
    assert!(events[0].json()["model"] == "m" && events[1].is_done() && stream.is_complete(), "{events:?}");

    client.post_json(CHAT, &json!({"model": "plain", "messages": []}));
    let asked = remote.asked().pop().unwrap();
    assert!(asked.header("authorization").is_none() && no_secret(&asked), "{asked:?}");

    remote.replies(Reply::Status(401, json!({"error": {"message": "wrong key of-the-backend"}})));
    let answer = talk(&client);
    assert_eq!(refused(&answer, 502), "backend_error");
    assert!(answer.text().contains("does not accept the gateway's key"), "{}", answer.text());
    assert!(!answer.text().contains("of-the-backend") && !gateway.output().contains("of-the-backend"));
    assert_eq!(worker(&gateway, 0)["last_error"], "does not take its api_key");
}

#[test]
fn a_gateway_behind_a_gateway() {
    let inner = Gateway::builder().start_ready();
    let config = format!(
        "model_list:\n  - {{model_name: m, litellm_params: {{api_base: \"{}/v1\", api_key: {USER}, model: dummy}}}}\n",
        inner.url()
    );
    let outer = ready(builder(&config));
    let answer = talk(&outer.client_with(ADMIN));
    assert_eq!((answered_by(&answer), &answer.json()["model"]), ("m", &json!("m")));
    let mut stream = outer.client().stream(CHAT, &json!({"model": "m", "messages": [], "stream": true}));
    let events = stream.events();
    let names = |name: &str| events.iter().filter(|event| !event.is_done() && event.json()["model"] == name).count();
    assert!(names("m") > 8 && names("dummy") == 0 && stream.is_complete());
    let asked = inner.journal().requests(CHAT);
    assert!(asked.len() == 2 && asked.iter().all(|asked| asked["headers"].get("x-api-key").is_none()));
}

#[test]
fn its_own_llama_server_takes_over_from_a_remote_backend() {
    let remote = Remote::start(Reply::Serve);
    let models = "models: {m: {file: local.gguf, preload: true}}\n";
    let config = format!("{models}model_list:\n{}", entry("m", &remote, "", ""));
    let gateway = ready(builder(&config));
    let client = gateway.client();
    assert_eq!(told(&talk(&client)), ("1", "1"), "the remote one first");
    remote.replies(Reply::Status(503, json!({})));
    assert_eq!(told(&talk(&client)), ("0", "2"));
    remote.replies(Reply::Status(500, json!({})));
    assert_eq!(talk(&client).status(), 500);
    talk(&client);
    // Now it is left alone.
    assert_eq!(told(&talk(&client)), ("0", "1"));
}

#[test]
fn its_own_llama_server_is_woken_for_a_request_that_no_remote_backend_has_taken() {
    let mut remote = Remote::start(Reply::Serve);
    let config = format!("models: {{m: {{file: local.gguf}}}}\nmodel_list:\n{}", entry("m", &remote, "", ""));
    let gateway = ready(builder(&config));
    assert!(gateway.child_pids().is_empty());
    remote.end();
    let answer = talk(&gateway.client());
    assert_eq!((answer.status(), told(&answer)), (200, ("0", "2")), "{}", answer.text());
}

/// A key that may use only these.
fn with_key(builder: Builder, models: &str) -> (Builder, &'static str) {
    const SECRET: &str = "some-secret-0123456789";
    (
        builder.keys(&format!("admin:{ADMIN}:100000 scope=inference,admin\nsome:{SECRET}:100000 models={models}\n")),
        SECRET,
    )
}

#[test]
fn other_models_take_over_where_the_key_may_use_them() {
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
    assert_eq!((answered_by(&answer), told(&answer)), ("small", ("0", "2")));
    assert_eq!(answer.json()["model"], "big", "the client sees what it asked for");
    let sent: Value = serde_json::from_str(&small.asked()[0].body).unwrap();
    assert_eq!(sent["model"], "their-small");
    let answer = gateway.client_with(ADMIN).post_json(CHAT, &chat("big"));
    assert_eq!(answered_by(&answer), "secret", "in the order that is configured");
    client.post_json(CHAT, &chat("big"));
    // Big is left alone, and is not even asked.
    let asked = big.asked().len();
    let answer = client.post_json(CHAT, &chat("heavy"));
    assert_eq!((answered_by(&answer), told(&answer), big.asked().len()), ("small", ("0", "1"), asked));
}

#[test]
fn a_tier_falls_back_and_who_may_use_nothing_else_hears_the_truth() {
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
    assert_eq!((answer.status(), answer.json()), (503, json!({"of": "big"})), "the backend's own words");
    let answer = gateway.client_with(key).post_json(EMBED, &json!({"model": "big", "input": "x"}));
    assert_eq!(refused(&answer, 400), "wrong_model_kind");
    assert_eq!(small.asked().len(), 1);
    gateway.client_with(key).post_json(CHAT, &chat("big"));
    assert_eq!(refused(&gateway.client_with(key).post_json(CHAT, &chat("big")), 503), "backend_unavailable");
    assert_eq!((small.asked().len(), big.asked().len()), (1, 3));
}

#[test]
fn tries_come_to_an_end() {
    let remotes: Vec<Remote> = (0..4).map(|_| Remote::start(Reply::Status(503, json!({"busy": true})))).collect();
    let gateway = ready(builder(&in_order(&remotes.iter().collect::<Vec<_>>())).set("NUM_RETRIES", 2));
    let answer = talk(&gateway.client());
    assert_eq!((answer.status(), answer.json(), told(&answer)), (503, json!({"busy": true}), ("2", "3")));
    assert_eq!(remotes.iter().map(|remote| remote.asked().len()).collect::<Vec<_>>(), [1, 1, 1, 0]);
}

#[test]
fn the_one_with_the_least_priority_serves_as_long_as_it_can() {
    let (mut first, second) = (Remote::start(Reply::Serve), Remote::start(Reply::Serve));
    let gateway = ready(builder(&in_order(&[&first, &second])));
    let client = gateway.client();
    assert!((0..5).all(|_| told(&talk(&client)) == ("0", "1")));
    first.end();
    // The end of an idle connection may be found out by the request that was to use it.
    eventually("it is found out", SOON, || talk(&client).status() == 200);
    assert!((0..5).all(|_| told(&talk(&client)) == ("1", "1")));
    assert_eq!((first.asked().len(), second.asked().len()), (5, 6));
}

#[test]
fn weights_are_kept() {
    let (heavy, light) = (Remote::start(Reply::Serve), Remote::start(Reply::Serve));
    let config =
        format!("model_list:\n{}{}", entry("m", &heavy, "", "weight: 9, "), entry("m", &light, "", "weight: 1, "));
    let gateway = ready(builder(&config).set("ROUTING_STRATEGY", "weighted-random"));
    let client = gateway.client();
    for _ in 0..200 {
        assert_eq!(talk(&client).status(), 200);
    }
    let served = [&heavy, &light].map(|remote| remote.asked().len());
    // 180 are expected, with a standard deviation of 4: 140 are ten of them away. None at all for light is 0.9^200.
    assert!(served[0] >= 140 && served[1] >= 1, "{served:?}");
}
