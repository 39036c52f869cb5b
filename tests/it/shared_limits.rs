//! Limits that several replicas share through a real Valkey or Redis server.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::support::{
    client::Response,
    gateway::{Builder, Gateway, LIMITED, USER},
    valkey::Valkey,
    wait::{ANSWERS, READY, SOON, eventually},
};

pub(super) const CHAT: &str = "/v1/chat/completions";
pub(super) const SECRET: &str = "shared-secret-0123456789";

/// The holds of a killed replica end: a term of 10 s.
const HOLDS_END: Duration = Duration::from_secs(20);

/// A store that was away is tried again: pauses of up to 5 s.
const STORE_IS_BACK: Duration = Duration::from_secs(20);

/// Returns the builder of a replica whose store may take its time, as that of a busy machine does.
pub(super) fn replica(store: &str) -> Builder {
    Gateway::builder().set("LIMITS_STORE", store).set("LIMITS_STORE_TIMEOUT", 2000)
}

/// Returns the builder of a replica with one more key, whose line has these attributes.
pub(super) fn with_key(store: &str, attributes: &str) -> Builder {
    replica(store).keys(&format!("team:{SECRET}:100000 {attributes}\nadmin:{ADMIN_LINE}\n"))
}

const ADMIN_LINE: &str = "admin-secret-0123456789:100000 scope=inference,admin,metrics";

/// Starts two replicas that differ in nothing, and waits until both share their limits.
pub(super) fn pair(builder: Builder) -> [Gateway; 2] {
    let replicas = [builder.clone().start_ready(), builder.start_ready()];
    replicas.iter().for_each(wait_shared);
    replicas
}

pub(super) fn metric(gateway: &Gateway, name: &str) -> f64 {
    let answer = gateway.client_with(super::support::gateway::ADMIN).get("/metrics?format=prometheus");
    let text = answer.text();
    let value = |line: &str| line.strip_prefix(name)?.split_whitespace().last()?.parse::<f64>().ok();
    text.lines().filter_map(value).sum()
}

pub(super) fn fallbacks(gateway: &Gateway) -> f64 {
    metric(gateway, "llamagate_limits_store_fallbacks_total{")
}

#[track_caller]
pub(super) fn wait_shared(gateway: &Gateway) {
    let is_up = || metric(gateway, "llamagate_limits_store_up ") == 1.0;
    eventually("the store is used", READY.max(STORE_IS_BACK), is_up);
    assert!(!warnings(gateway).contains("LIMITS_STORE"), "{}", warnings(gateway));
}

pub(super) fn warnings(gateway: &Gateway) -> String {
    gateway.anonymous().get("/health").json()["warnings"].to_string()
}

pub(super) fn chat(more: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

pub(super) fn ask(gateway: &Gateway, secret: &str) -> Response {
    gateway.client_with(secret).post_json(CHAT, &chat(json!({})))
}

#[track_caller]
pub(super) fn assert_served(answer: &Response) {
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

#[track_caller]
pub(super) fn assert_refused(answer: &Response, code: &str) {
    assert_eq!((answer.status(), &answer.json()["error"]["code"]), (429, &json!(code)), "{}", answer.text());
    assert!(number(answer, "retry-after") >= 1);
}

#[track_caller]
pub(super) fn number(answer: &Response, header: &str) -> u64 {
    answer.header(header).unwrap_or_else(|| panic!("no {header}")).parse().unwrap()
}

pub(super) fn field(store: &Valkey, key: &str, field: &str) -> Option<String> {
    redis::cmd("HGET").arg(key).arg(field).query(&mut store.connect()).unwrap()
}

pub(super) fn holds(store: &Valkey) -> u64 {
    redis::cmd("ZCARD").arg("llamagate:{team}:holds").query(&mut store.connect()).unwrap()
}

/// Asks on a route that the fake answers at once, though it holds chats.
pub(super) fn complete(gateway: &Gateway, tokens: u32) -> Response {
    gateway.client_with(SECRET).post_json("/v1/completions", &json!({"prompt": "x", "max_tokens": tokens}))
}

#[test]
fn requests_a_minute_are_counted_over_two_replicas() {
    let store = Valkey::start();
    let [one, other] = pair(replica(&store.url()));
    let first = ask(&one, LIMITED);
    assert_served(&first);
    assert_eq!(number(&first, "x-ratelimit-remaining-requests"), 1);
    let second = ask(&other, LIMITED);
    assert_served(&second);
    assert_eq!(number(&second, "x-ratelimit-remaining-requests"), 0, "the headers tell of both");
    for gateway in [&one, &other] {
        let refused = ask(gateway, LIMITED);
        assert_refused(&refused, "rate_limit_exceeded");
        assert!((1..=30).contains(&number(&refused, "retry-after")));
        assert_eq!(number(&refused, "x-ratelimit-remaining-requests"), 0);
        let list = gateway.client_with(LIMITED).get("/v1/models");
        assert_refused(&list, "rate_limit_exceeded");
        assert_served(&ask(gateway, USER));
        assert_eq!(fallbacks(gateway), 0.0);
    }
    for (key, kept) in store.keys() {
        assert!(
            key.starts_with("llamagate:{") && (1..=120_000 + 60_000).contains(&kept),
            "{key} is kept for {kept} ms"
        );
    }
}

#[test]
fn a_request_that_is_refused_later_costs_nothing_at_any_replica() {
    let store = Valkey::start();
    let [one, other] = pair(replica(&store.url()).set("STRICT_PARAMETERS", true));
    for _ in 0..3 {
        let refused = one.client_with(LIMITED).post_json(CHAT, &chat(json!({"temperature": "hot"})));
        assert_eq!((refused.status(), &refused.json()["error"]["code"]), (400, &json!("invalid_parameter")));
        eventually("the store has got the request back", SOON, || {
            field(&store, "llamagate:{limited}:requests", "used").as_deref() == Some("0")
        });
    }
    // Model lists count as requests.
    let list = other.client_with(LIMITED).get("/v1/models");
    assert_eq!(number(&list, "x-ratelimit-remaining-requests"), 1);
}

#[test]
fn a_client_that_leaves_while_the_store_is_asked_gets_nothing_back_that_was_not_taken() {
    let store = Valkey::start();
    let (proxy, through_proxy) = store.behind_proxy();
    let keys = format!("team:{SECRET}:2 max_concurrent=5\nadmin:{ADMIN_LINE}\n");
    let one = replica(&store.url()).keys(&keys).start_ready();
    let other = replica(&through_proxy).keys(&keys).start_ready();
    wait_shared(&one);
    wait_shared(&other);
    assert_served(&ask(&one, SECRET));
    assert_served(&ask(&one, SECRET));
    eventually("both ends are told", SOON, || holds(&store) == 0);
    let bucket = |name: &str| field(&store, "llamagate:{team}:requests", name);
    let (before, calls) = ((bucket("at"), bucket("used")), store.script_calls());
    // The store refuses, but its answer does not arrive.
    proxy.delay_answers(ANSWERS);
    let left = other.client_with(SECRET).begin("POST", CHAT, chat(json!({})).to_string().as_bytes()).unwrap();
    eventually("the store is asked", SOON, || store.script_calls() > calls);
    drop(left);
    eventually("the end is told", SOON, || store.script_calls() > calls + 1);
    assert_eq!((bucket("at"), bucket("used")), before, "the bucket is as the store left it");
}

#[test]
fn tokens_a_minute_are_counted_over_two_replicas() {
    let store = Valkey::start();
    let [one, other] = pair(with_key(&store.url(), "tokens_per_minute=1"));
    assert_served(&ask(&one, SECRET));
    eventually("the tokens are told", SOON, || field(&store, "llamagate:{team}:tokens", "used").is_some());
    let refused = ask(&other, SECRET);
    assert_refused(&refused, "rate_limit_exceeded");
    assert_eq!(number(&refused, "x-ratelimit-remaining-tokens"), 0);
    assert!(refused.text().contains("tokens"), "{}", refused.text());
}

#[test]
fn requests_at_once_are_counted_over_two_replicas() {
    let store = Valkey::start();
    let builder = with_key(&store.url(), "max_concurrent=1").script(json!({"hold_requests": [CHAT]}));
    let [one, other] = pair(builder.set("MAX_CONCURRENT_REQUESTS", 3));
    let begin = |gateway: &Gateway| {
        let running = gateway.client_with(SECRET).begin("POST", CHAT, chat(json!({})).to_string().as_bytes()).unwrap();
        gateway.journal().wait_for_requests(CHAT, 1);
        assert_eq!(holds(&store), 1);
        running
    };
    // A client that leaves gives its place back too.
    drop(begin(&other));
    eventually("the place is free", SOON, || holds(&store) == 0);
    let mut running = begin(&one);
    let refused = ask(&other, SECRET);
    assert_refused(&refused, "rate_limit_exceeded");
    assert!(refused.text().contains("at once"), "{}", refused.text());
    one.control().release_all_requests();
    other.control().release_all_requests();
    assert_served(&running.read_response().unwrap());
    eventually("the key may send a request again", SOON, || ask(&other, SECRET).status() == 200);
}

#[test]
fn what_a_killed_replica_held_is_given_back_after_a_term_and_what_a_living_one_holds_is_not() {
    let store = Valkey::start();
    let builder = with_key(&store.url(), "max_concurrent=2 tokens_per_day=3000");
    let [mut one, other] = pair(builder.script(json!({"hold_requests": [CHAT]})).set("MAX_CONCURRENT_REQUESTS", 3));
    let begin = |gateway: &Gateway| {
        let body = chat(json!({"max_tokens": 1000})).to_string();
        gateway.client_with(SECRET).begin("POST", CHAT, body.as_bytes()).unwrap()
    };
    let (_on_one, mut on_other) = (begin(&one), begin(&other));
    one.journal().wait_for_requests(CHAT, 1);
    other.journal().wait_for_requests(CHAT, 1);
    one.signal(Signal::SIGKILL);
    one.wait_exit();
    assert_refused(&complete(&other, 1), "rate_limit_exceeded");
    assert_eq!(holds(&store), 2);
    eventually("the place of the killed replica is free", HOLDS_END, || complete(&other, 1).status() == 200);
    eventually("one is in flight", SOON, || holds(&store) == 1);
    let reserved: u64 = field(&store, "llamagate:{team}:reserved", "tokens").unwrap().parse().unwrap();
    assert!((1000..1100).contains(&reserved), "the one that runs since the beginning still holds its own: {reserved}");
    other.control().release_all_requests();
    assert_served(&on_other.read_response().unwrap());
    eventually("none is in flight", SOON, || holds(&store) == 0);
}

#[test]
fn budgets_are_counted_over_two_replicas_and_never_exceeded_together() {
    let store = Valkey::start();
    let [one, other] = pair(with_key(&store.url(), "requests_per_day=20").set("MAX_CONCURRENT_REQUESTS", 4));
    let served: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..12)
            .map(|number| {
                let gateway = if number % 2 == 0 { &one } else { &other };
                scope.spawn(move || (0..4).filter(|_| ask(gateway, SECRET).status() == 200).count())
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert_eq!(served, 20);
    assert_refused(&ask(&one, SECRET), "budget_exceeded");
    assert_eq!(fallbacks(&one) + fallbacks(&other), 0.0);
    for (key, kept) in store.keys() {
        assert!((1..=62 * 86_400_000).contains(&kept), "{key} is kept for {kept} ms");
    }
}

#[test]
fn what_a_request_has_reserved_at_one_replica_is_not_given_away_by_another() {
    let store = Valkey::start();
    let builder = with_key(&store.url(), "tokens_per_day=400").script(json!({"hold_requests": [CHAT]}));
    let [one, other] = pair(builder);
    let body = chat(json!({"max_tokens": 300}));
    let mut running = one.client_with(SECRET).begin("POST", CHAT, body.to_string().as_bytes()).unwrap();
    one.journal().wait_for_requests(CHAT, 1);
    let refused = other.client_with(SECRET).post_json(CHAT, &chat(json!({"max_tokens": 200})));
    assert_refused(&refused, "budget_exceeded");
    assert!(refused.text().contains("tokens are left, and it may take"), "{}", refused.text());
    assert!(number(&refused, "x-budget-remaining-tokens") < 100);
    one.control().release_all_requests();
    other.control().release_all_requests();
    assert_served(&running.read_response().unwrap());
    eventually("what was not used is given back", SOON, || {
        other.client_with(SECRET).post_json(CHAT, &chat(json!({"max_tokens": 200}))).status() == 200
    });
}

#[test]
fn the_budget_of_a_person_holds_at_every_replica() {
    let store = Valkey::start();
    let builder = with_key(&store.url(), "trust_user_headers=true person_tokens_per_day=60");
    let [one, other] = pair(builder.script(json!({"hold_requests": [CHAT]})));
    let ann = one.client_with(SECRET).header("X-LLM-User", "ann@example.com");
    let _running = ann.begin("POST", CHAT, chat(json!({"max_tokens": 40})).to_string().as_bytes()).unwrap();
    one.journal().wait_for_requests(CHAT, 1);
    let ask = |person: &str| {
        let client = other.client_with(SECRET).header("X-LLM-User", person);
        client.post_json("/v1/completions", &json!({"prompt": "x", "max_tokens": 40}))
    };
    let refused = ask("ann@example.com");
    assert_refused(&refused, "budget_exceeded");
    assert!(refused.text().contains("person_tokens_per_day"), "{}", refused.text());
    assert_served(&ask("bob@example.com"));
    assert!(store.keys().iter().all(|(key, _)| !key.contains("ann")), "names of people are not in the store");
}

#[test]
fn a_request_that_nothing_limits_does_not_ask_the_store() {
    let store = Valkey::start();
    let gateway = replica(&store.url()).start_ready();
    wait_shared(&gateway);
    let before = store.script_calls();
    for _ in 0..5 {
        let answer = gateway.client().post_json("/tokenize", &json!({"content": "x"}));
        assert_served(&answer);
    }
    assert_eq!(store.script_calls(), before, "requests that need no slot are not counted");
    assert_served(&ask(&gateway, USER));
    assert_eq!(store.script_calls(), before + 1, "one round trip, and nothing to tell at the end");
}

#[test]
fn a_replica_that_stops_gives_back_what_it_held() {
    let store = Valkey::start();
    let builder = with_key(&store.url(), "max_concurrent=1").script(json!({"hold_requests": [CHAT]}));
    let [mut one, other] = pair(builder.set("DRAIN_TIMEOUT", "1s"));
    let _running = one.client_with(SECRET).begin("POST", CHAT, chat(json!({})).to_string().as_bytes()).unwrap();
    one.journal().wait_for_requests(CHAT, 1);
    one.stop();
    assert_eq!(holds(&store), 0, "the term of a hold is longer than this test waits");
    other.control().release_all_requests();
    assert_served(&ask(&other, SECRET));
}
