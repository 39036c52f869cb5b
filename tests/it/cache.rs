//! The cache of answers: which requests it answers, what it keeps, and how clients share an answer in flight.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::{
    client::{Client, RawClient, Response},
    gateway::{ADMIN, Backend, Gateway, LIMITED, USER},
    model_file::Kind,
    wait::{SOON, assert_throughout, eventually},
};

pub(super) const CHAT: &str = "/v1/chat/completions";
pub(super) const EMBEDDINGS: &str = "/v1/embeddings";
pub(super) const MARK: &str = "x-llamagate-cache";

fn ready(script: Value, settings: &[(&str, &str)]) -> Gateway {
    Gateway::builder().script(script).set("CACHE", "safe").set_all(settings).start_ready()
}

/// Returns a chat whose answer may be kept.
pub(super) fn chat(stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": "x"}], "temperature": 0, "stream": stream})
}

#[track_caller]
pub(super) fn ask(client: &Client, path: &str, body: &Value, mark: &str) -> Response {
    let answer = client.post_json(path, body);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.header(MARK), Some(mark), "{path} {body}");
    assert_eq!(answer.header("age").is_some(), mark == "hit", "{path} {body}");
    answer
}

fn begin(gateway: &Gateway, body: &Value) -> RawClient {
    gateway.client().begin("POST", CHAT, body.to_string().as_bytes()).unwrap()
}

fn requests(gateway: &Gateway) -> usize {
    gateway.journal().requests(CHAT).len()
}

/// Returns the value of a metric without labels.
pub(super) fn metric(gateway: &Gateway, name: &str) -> u64 {
    let text = gateway.health().get("/metrics?format=prometheus").text();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name}")).rsplit(' ').next().unwrap().parse().unwrap()
}

fn is_idle(gateway: &Gateway) -> bool {
    let queue = &gateway.anonymous().get("/health").json()["queue"];
    queue["active"] == 0 && queue["waiting"] == 0
}

#[test]
fn an_answer_is_given_again_without_a_worker_and_without_tokens() {
    let gateway = ready(json!({}), &[]);
    let first = ask(&gateway.client(), CHAT, &chat(false), "miss");
    let tokens = |gateway: &Gateway| {
        let text = gateway.health().get("/metrics?format=prometheus").text();
        text.lines().filter(|line| line.contains("_tokens_total{")).map(str::to_owned).collect::<Vec<_>>()
    };
    let counted = tokens(&gateway);
    let second = ask(&gateway.client(), CHAT, &chat(false), "hit");
    assert_eq!(first.text(), second.text());
    let length = first.body.len().to_string();
    assert_eq!([&first, &second].map(|answer| answer.header("content-length")), [Some(length.as_str()); 2]);
    assert_eq!(second.header("x-llamagate-model"), first.header("x-llamagate-model"));
    assert_eq!((second.header("x-llamagate-worker"), second.header("x-llamagate-attempts")), (None, None));
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
    assert_eq!(requests(&gateway), 1);
    assert_eq!(tokens(&gateway), counted, "a hit computes nothing");
    for (name, value) in [("hits_total", 1), ("misses_total", 1), ("entries", 1)] {
        assert_eq!(metric(&gateway, &format!("llamagate_cache_{name}")), value, "{name}");
    }
    assert!(metric(&gateway, "llamagate_cache_bytes") > first.text().len() as u64);
}

#[test]
fn without_cache_no_answer_is_kept_and_no_header_says_so() {
    let gateway = Gateway::builder().start_ready();
    for count in 1..3 {
        let answer = gateway.client().post_json(CHAT, &chat(false));
        assert_eq!((answer.status(), answer.header(MARK), answer.header("age")), (200, None, None));
        assert_eq!(requests(&gateway), count);
    }
}

#[test]
fn enable_cache_means_safe() {
    let gateway = Gateway::builder().set("ENABLE_CACHE", "true").start_ready();
    ask(&gateway.client(), CHAT, &chat(false), "miss");
    ask(&gateway.client(), CHAT, &chat(false), "hit");
    ask(&gateway.client(), CHAT, &json!({"messages": []}), "bypass");
}

#[test]
fn text_that_is_drawn_by_chance_is_kept_with_all_only() {
    let chance = json!({"messages": [{"role": "user", "content": "x"}], "temperature": 0.7});
    let gateway = ready(json!({}), &[]);
    ask(&gateway.client(), CHAT, &chance, "bypass");
    ask(&gateway.client(), CHAT, &chance, "bypass");
    let seeded = json!({"messages": [], "temperature": 0.7, "seed": 5});
    ask(&gateway.client(), CHAT, &seeded, "miss");
    ask(&gateway.client(), CHAT, &seeded, "hit");
    let gateway = ready(json!({}), &[("CACHE", "all")]);
    ask(&gateway.client(), CHAT, &chance, "miss");
    ask(&gateway.client(), CHAT, &chance, "hit");
}

#[test]
fn a_default_temperature_of_the_configuration_counts() {
    let config = "models: {a: {file: a.gguf, sampling: {temperature: 0}}, b: {file: b.gguf}}\n";
    let gateway = Gateway::builder()
        .fakes(config, &[("a.gguf", json!({})), ("b.gguf", json!({}))])
        .set("CACHE", "safe")
        .start_ready();
    let ask_for =
        |model: &str, mark: &str| ask(&gateway.client(), CHAT, &json!({"model": model, "messages": []}), mark);
    ask_for("a", "miss");
    ask_for("a", "hit");
    ask_for("b", "bypass");
}

#[test]
fn the_answer_of_a_key_is_for_no_other_unless_cache_shared_says_so() {
    for (shared, mark) in [("false", "miss"), ("true", "hit")] {
        let gateway = ready(json!({}), &[("CACHE_SHARED", shared)]);
        ask(&gateway.client_with(USER), CHAT, &chat(false), "miss");
        ask(&gateway.client_with(ADMIN), CHAT, &chat(false), mark);
        ask(&gateway.client_with(USER), CHAT, &chat(false), "hit");
        let wrong = gateway.client_with("wrong-secret-0123456789").post_json(CHAT, &chat(false));
        assert_eq!((wrong.status(), wrong.header(MARK)), (401, None));
    }
}

#[test]
fn a_key_that_may_not_use_the_model_is_refused_before() {
    let keys = "one:one-secret-0123456789\nother:other-secret-0123456789 models=b\n";
    let config = "models: {a: {file: a.gguf}, b: {file: b.gguf}}\n";
    let gateway = Gateway::builder()
        .fakes(config, &[("a.gguf", json!({})), ("b.gguf", json!({}))])
        .keys(keys)
        .set_all(&[("CACHE", "safe"), ("CACHE_SHARED", "true")])
        .start_ready();
    let body = json!({"model": "a", "messages": [], "temperature": 0});
    ask(&gateway.client_with("one-secret-0123456789"), CHAT, &body, "miss");
    let refused = gateway.client_with("other-secret-0123456789").post_json(CHAT, &body);
    assert_eq!((refused.status(), refused.header(MARK)), (403, None), "{}", refused.text());
}

#[test]
fn a_hit_counts_as_a_request_of_its_key() {
    let gateway = ready(json!({}), &[]);
    let client = gateway.client_with(LIMITED);
    let remaining = |answer: &Response| answer.header("x-ratelimit-remaining-requests").map(str::to_owned);
    assert_eq!(remaining(&ask(&client, CHAT, &chat(false), "miss")).as_deref(), Some("1"));
    assert_eq!(remaining(&ask(&client, CHAT, &chat(false), "hit")).as_deref(), Some("0"));
    assert_eq!(client.post_json(CHAT, &chat(false)).status(), 429);
}

#[test]
fn cache_control_of_a_request_is_obeyed() {
    let gateway = ready(json!({}), &[]);
    let with = |value: &str| gateway.client().header("Cache-Control", value);
    ask(&with("no-store"), CHAT, &chat(false), "bypass");
    ask(&gateway.client(), CHAT, &chat(false), "miss");
    ask(&with("no-store"), CHAT, &chat(false), "bypass");
    ask(&with("max-age=600"), CHAT, &chat(false), "hit");
    assert_eq!(requests(&gateway), 3);
    let entries = metric(&gateway, "llamagate_cache_entries");
    ask(&with("no-cache"), CHAT, &chat(false), "bypass");
    ask(&with("max-age=0"), CHAT, &chat(false), "bypass");
    assert_eq!((requests(&gateway), metric(&gateway, "llamagate_cache_entries")), (5, entries), "it is replaced");
    ask(&gateway.client(), CHAT, &chat(false), "hit");
    let other = json!({"messages": [], "temperature": 0});
    ask(&with("no-cache"), CHAT, &other, "bypass");
    ask(&gateway.client(), CHAT, &other, "hit");
}

#[test]
fn an_answer_is_kept_for_cache_ttl() {
    let gateway = ready(json!({}), &[("CACHE_TTL", "50ms")]);
    ask(&gateway.client(), CHAT, &chat(false), "miss");
    eventually("the answer is too old", SOON, || {
        gateway.client().post_json(CHAT, &chat(false)).header(MARK) == Some("miss")
    });
}

#[test]
fn the_answers_that_were_used_longest_ago_leave_first() {
    let numbered = |number: u32| json!({"messages": [], "temperature": 0, "seed": number});
    let gateway = ready(json!({}), &[("CACHE_MAX_SIZE", "2")]);
    for (number, mark) in [(1, "miss"), (2, "miss"), (1, "hit"), (3, "miss"), (2, "miss"), (3, "hit")] {
        ask(&gateway.client(), CHAT, &numbered(number), mark);
        assert!(metric(&gateway, "llamagate_cache_entries") <= 2);
    }
}

#[test]
fn of_three_entries_only_two_were_kept() {
    let numbered = |number: u32| json!({"messages": [], "temperature": 0, "seed": number});
    let gateway = ready(json!({}), &[("CACHE_MAX_SIZE", "3")]);
    for mark in ["miss", "hit"] {
        for number in 1..4 {
            ask(&gateway.client(), CHAT, &numbered(number), mark);
        }
    }
    assert_eq!(metric(&gateway, "llamagate_cache_entries"), 3);
}

#[test]
fn an_answer_that_is_larger_than_its_share_is_not_kept() {
    let gateway = ready(json!({"frames": 64, "frame_bytes": 1024}), &[("CACHE_MAX_BYTES", "256KiB")]);
    for stream in [false, true] {
        let long = gateway.client().post_json(CHAT, &chat(stream));
        assert!(long.text().len() > 64 * 1024);
        ask(&gateway.client(), CHAT, &chat(stream), "miss");
    }
    let mut short = chat(false);
    short["max_tokens"] = json!(2);
    ask(&gateway.client(), CHAT, &short, "miss");
    ask(&gateway.client(), CHAT, &short, "hit");
}

#[test]
fn a_stream_is_given_again_as_a_stream_of_the_same_events() {
    let gateway = ready(json!({}), &[]);
    let read = |mark: &str| {
        let mut stream = gateway.client().stream(CHAT, &chat(true));
        assert_eq!(stream.head.header(MARK), Some(mark));
        assert!(stream.head.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")));
        assert_eq!(stream.head.header("x-accel-buffering"), Some("no"));
        let events: Vec<String> = stream.events().into_iter().map(|event| event.data).collect();
        assert!(stream.is_complete() && events.len() > 2);
        events
    };
    let first = read("miss");
    assert_eq!(first.last().map(String::as_str), Some("[DONE]"));
    assert_eq!(read("hit"), first);
    ask(&gateway.client(), CHAT, &chat(false), "miss");
    assert_eq!(requests(&gateway), 2, "a stream and a whole answer are two");
}

#[test]
fn answers_that_failed_are_not_kept() {
    let broken = [
        (json!({"error_mid_stream": {"after_frames": 2}}), true),
        (json!({"truncate_mid_stream": {"after_frames": 2}}), true),
        (json!({"reset_mid_stream": {"after_frames": 2}}), true),
        (json!({"truncate_body": 20}), false),
        (json!({"error_status": [{"path": CHAT, "status": 400, "body": {"error": {"message": "no"}}}]}), false),
        (json!({"error_status": [{"path": CHAT, "status": 500, "body": {"error": {"message": "no"}}}]}), false),
    ];
    for (script, stream) in broken {
        let gateway = ready(script.clone(), &[]);
        for _ in 0..2 {
            let answer = begin(&gateway, &chat(stream)).read_response().unwrap();
            assert_eq!(answer.header(MARK), Some("miss"), "{script}");
        }
        assert_eq!((requests(&gateway), metric(&gateway, "llamagate_cache_entries")), (2, 0), "{script}");
    }
}

#[test]
fn sixteen_equal_requests_in_flight_are_one_at_the_worker() {
    for stream in [false, true] {
        let gateway = ready(json!({"hold_requests": [CHAT]}), &[]);
        let mut first = begin(&gateway, &chat(stream));
        gateway.journal().wait_for_requests(CHAT, 1);
        let mut others: Vec<RawClient> = std::iter::repeat_with(|| begin(&gateway, &chat(stream))).take(15).collect();
        gateway.control().release_all_requests();
        let answer = first.read_response().unwrap();
        assert_eq!((answer.status(), answer.header(MARK)), (200, Some("miss")));
        for other in &mut others {
            let other = other.read_response().unwrap();
            assert_eq!((other.status(), other.header(MARK)), (200, Some("hit")));
            assert_eq!(other.text(), answer.text());
        }
        assert_eq!(requests(&gateway), 1);
        assert_eq!(metric(&gateway, "llamagate_cache_hits_total"), 15);
        eventually("no slot is held", SOON, || is_idle(&gateway));
    }
}

#[test]
fn the_first_of_those_that_share_an_answer_may_leave_and_the_last_cancels_it() {
    let gateway = ready(json!({"hold_mid_stream": {"after_frames": 2}}), &[]);
    let share = || {
        let mut first = begin(&gateway, &chat(true));
        assert_eq!(first.read_head().unwrap().header(MARK), Some("miss"));
        let other = gateway.client().stream(CHAT, &chat(true));
        assert_eq!(other.head.header(MARK), Some("hit"));
        (first, other)
    };
    let (first, other) = share();
    drop((first, other));
    eventually("it is cancelled", SOON, || is_idle(&gateway));
    assert_eq!(metric(&gateway, "llamagate_cache_entries"), 0);
    let (first, mut other) = share();
    drop(first);
    assert_throughout("it goes on", Duration::from_millis(200), || !is_idle(&gateway));
    gateway.control().release_all_requests();
    assert!(other.events().last().is_some_and(|event| event.is_done()));
    assert_eq!(requests(&gateway), 2);
    ask(&gateway.client(), CHAT, &chat(true), "hit");
}

#[test]
fn an_answer_is_kept_though_its_client_leaves_at_the_end_mark() {
    // The body ends a pause after the mark.
    let gateway = ready(json!({"frames": 1, "drip": {"interval_ms": 300}}), &[]);
    let mut stream = gateway.client().stream(CHAT, &chat(true));
    while !stream.next_event().expect("there is an end mark").is_done() {}
    drop(stream);
    eventually("it is kept", SOON, || metric(&gateway, "llamagate_cache_entries") == 1);
    assert!(gateway.client().stream(CHAT, &chat(true)).events().last().is_some_and(|event| event.is_done()));
    assert_eq!(requests(&gateway), 1);
}

#[test]
fn a_client_that_does_not_read_holds_back_no_other() {
    let gateway = ready(json!({"frames": 400, "frame_bytes": 32 * 1024, "hold_mid_stream": {"after_frames": 1}}), &[]);
    let mut slow = begin(&gateway, &chat(true));
    slow.read_head().unwrap();
    let mut stream = gateway.client().stream(CHAT, &chat(true));
    assert_eq!(stream.head.header(MARK), Some("hit"));
    gateway.control().release_all_requests();
    assert!(stream.events().last().is_some_and(|event| event.is_done()));
    assert_eq!(requests(&gateway), 1);
}

#[test]
fn a_hit_wakes_no_model_that_sleeps() {
    let gateway = ready(json!({}), &[]);
    ask(&gateway.client(), CHAT, &chat(false), "miss");
    let model = gateway.client().get("/v1/models").json()["data"][0]["id"].as_str().unwrap().to_owned();
    let unloaded = gateway.client_with(ADMIN).post_json(&format!("/v1/models/{model}/unload"), &json!({}));
    assert!(unloaded.status() < 300, "{}", unloaded.text());
    eventually("the llama-server has ended", SOON, || gateway.child_pids().is_empty());
    ask(&gateway.client(), CHAT, &chat(false), "hit");
    assert_eq!((gateway.journal().starts().len(), gateway.child_pids().len()), (1, 0));
    // Another file at the next start: what the old one has answered is not given any more.
    let path = &gateway.model().path;
    let later = std::fs::metadata(path).unwrap().modified().unwrap() + Duration::from_secs(60);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(later).unwrap();
    let other = json!({"messages": [], "temperature": 0});
    ask(&gateway.client(), CHAT, &other, "miss");
    ask(&gateway.client(), CHAT, &chat(false), "miss");
    ask(&gateway.client(), CHAT, &other, "miss");
    ask(&gateway.client(), CHAT, &other, "hit");
}

#[test]
fn a_reload_drops_the_answers_of_models_that_it_changes() {
    let config = |of_b: &str| format!("models: {{a: {{file: a.gguf}}, b: {{file: b.gguf, {of_b}}}}}\n");
    let gateway = Gateway::builder()
        .fakes(&config("aliases: [x]"), &[("a.gguf", json!({})), ("b.gguf", json!({}))])
        .set("CACHE", "safe")
        .start_ready();
    let ask_for = |model: &str, mark: &str| {
        ask(&gateway.client(), CHAT, &json!({"model": model, "messages": [], "temperature": 0}), mark);
    };
    for mark in ["miss", "hit"] {
        ask_for("a", mark);
        ask_for("b", mark);
    }
    gateway.rewrite_config(&config("sampling: {top_k: 5}"));
    let reloaded = gateway.client_with(ADMIN).post_json("/reload", &json!({}));
    assert_eq!(reloaded.status(), 200, "{}", reloaded.text());
    ask_for("a", "hit");
    assert_eq!(metric(&gateway, "llamagate_cache_entries"), 1, "that of b is gone");
    ask_for("b", "miss");
}

#[test]
fn other_methods_and_routes_have_nothing_to_do_with_the_cache() {
    let gateway = ready(json!({}), &[("CACHE", "all")]);
    for (method, path) in [("HEAD", "/props"), ("GET", "/props"), ("GET", "/v1/models"), ("GET", CHAT), ("PUT", CHAT)] {
        let answer = gateway.client().send(method, path, b"");
        assert_eq!(answer.header(MARK), None, "{method} {path}");
    }
    let answer = gateway.client().post_json("/apply-template", &json!({"messages": []}));
    assert_eq!(answer.header(MARK), None);
    assert_eq!(gateway.client().send("POST", CHAT, b"[").header(MARK), None);
}

#[test]
fn embeddings_in_every_dialect_are_kept() {
    let gateway = Gateway::builder()
        .backend(Backend::Fake { script: json!({}), kind: Kind::Embedding })
        .set("CACHE", "safe")
        .start_ready();
    for (path, body) in [
        (EMBEDDINGS, json!({"input": ["a", "b"]})),
        ("/v2/embed", json!({"texts": ["a"], "input_type": "search_query", "embedding_types": ["float"]})),
        ("/embed", json!({"inputs": "a"})),
        ("/api/embed", json!({"input": "a", "model": ""})),
        ("/tokenize", json!({"content": "a"})),
    ] {
        let first = ask(&gateway.client(), path, &body, "miss");
        assert_eq!(ask(&gateway.client(), path, &body, "hit").text(), first.text(), "{path}");
    }
    ask(&gateway.client(), "/api/embed", &json!({"input": "a", "model": "", "keep_alive": "5m"}), "bypass");
}

/// The same requests to a real llama-server, without the cache, and with it twice.
#[test]
fn answers_with_and_without_the_cache_are_the_same() {
    let config = "models: {chat: {file: tiny-chat.gguf}, embed: {file: tiny-embedding.gguf}}\n";
    // The length follows from what `repeatable` leaves out.
    let own = ["content-length", "x-request-id", "date", "age", MARK, "x-llamagate-worker", "x-llamagate-attempts"];
    let shown = |answer: &Response| {
        let remaining = |name: &str| name.starts_with("x-ratelimit-");
        let headers = answer.head.headers.iter().filter(|(name, _)| !own.contains(&name.as_str()) && !remaining(name));
        (answer.status(), headers.cloned().collect::<Vec<_>>(), repeatable(&answer.text()))
    };
    let requests = [
        (EMBEDDINGS, json!({"model": "embed", "input": ["a small bird", "rain"]})),
        ("/v1/completions", json!({"model": "chat", "prompt": "a", "max_tokens": 8, "temperature": 0})),
        ("/v1/completions", json!({"model": "chat", "prompt": "a", "max_tokens": 8, "temperature": 0, "stream": true})),
        (CHAT, json!({"model": "chat", "messages": [{"role": "user", "content": "a"}], "max_tokens": 4, "seed": 7})),
        ("/tokenize", json!({"model": "chat", "content": "a small bird"})),
    ];
    let answers = |mode: &str| {
        let gateway = Gateway::builder()
            .reals(config)
            .set_all(&[("CACHE", mode), ("MAX_REQUESTS_PER_MINUTE", "1000")])
            .start_ready();
        let twice = requests.iter().map(|(path, body)| {
            let ask = || gateway.client().post_json(path, body);
            let (first, second) = (ask(), ask());
            if mode == "safe" {
                assert_eq!((first.header(MARK), second.header(MARK)), (Some("miss"), Some("hit")), "{path} {body}");
                assert_eq!(first.text(), second.text(), "{path} {body}");
            }
            [shown(&first), shown(&second)]
        });
        twice.collect::<Vec<_>>()
    };
    let (without, with) = (answers("off"), answers("safe"));
    for ((one, other), (path, body)) in without.iter().zip(&with).zip(&requests) {
        assert_eq!(one[0], other[0], "{path} {body}");
        assert_eq!(one[0], other[1], "{path} {body}");
    }
}

/// Returns an answer without what a llama-server makes new each time: ids, times, and what it had in its own cache.
fn repeatable(text: &str) -> Vec<Value> {
    let without = |mut value: Value| {
        if let Some(members) = value.as_object_mut() {
            for name in ["id", "created", "timings", "usage", "created_at"] {
                members.remove(name);
            }
        }
        value
    };
    let lines = text.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    lines.filter_map(|line| serde_json::from_str(line).ok()).map(without).collect()
}

/// A key that was made under the name of a removed one once got the answers that were kept for that one.
#[test]
fn a_key_of_the_same_name_as_a_removed_one_gets_none_of_its_answers() {
    let gateway = ready(json!({}), &[]);
    let admin = gateway.client_with(ADMIN);
    let make = || {
        let made = admin.post_json("/keys", &json!({"name": "team"}));
        assert_eq!(made.status(), 201, "{}", made.text());
        gateway.client_with(made.json()["secret"].as_str().unwrap())
    };
    let first = make();
    ask(&first, CHAT, &chat(false), "miss");
    ask(&first, CHAT, &chat(false), "hit");
    let rotated = admin.post_json("/keys/team/rotate", &json!({"overlap": "1h"})).json();
    let rotated = gateway.client_with(rotated["secret"].as_str().unwrap());
    ask(&rotated, CHAT, &chat(false), "miss");
    ask(&first, CHAT, &chat(false), "hit");
    assert_eq!(admin.send("DELETE", "/keys/team", b"").status(), 200);
    ask(&make(), CHAT, &chat(false), "miss");
}
