//! Limits that several replicas share through a real Valkey or Redis server.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::support::{
    certificates::TestIssuer,
    client::Response,
    gateway::{Builder, Gateway, LIMITED, USER},
    valkey::{SlowProxy, Valkey},
    wait::{ANSWERS, READY, SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";
const SECRET: &str = "shared-secret-0123456789";

/// The holds of a killed replica end: a term of 10 s.
const HOLDS_END: Duration = Duration::from_secs(20);

/// A store that was away is tried again: pauses of up to 5 s.
const STORE_IS_BACK: Duration = Duration::from_secs(20);

/// Returns the builder of a replica whose store may take its time, as that of a busy machine does.
fn replica(store: &str) -> Builder {
    Gateway::builder().set("LIMITS_STORE", store).set("LIMITS_STORE_TIMEOUT", 2000)
}

/// Returns the builder of a replica with one more key, whose line has these attributes.
fn with_key(store: &str, attributes: &str) -> Builder {
    replica(store).keys(&format!("team:{SECRET}:100000 {attributes}\nadmin:{ADMIN_LINE}\n"))
}

const ADMIN_LINE: &str = "admin-secret-0123456789:100000 scope=inference,admin,metrics";

/// Starts two replicas that differ in nothing, and waits until both share their limits.
fn pair(builder: Builder) -> [Gateway; 2] {
    let replicas = [builder.clone().start_ready(), builder.start_ready()];
    replicas.iter().for_each(wait_shared);
    replicas
}

fn metric(gateway: &Gateway, name: &str) -> f64 {
    let answer = gateway.client_with(super::support::gateway::ADMIN).get("/metrics?format=prometheus");
    let text = answer.text();
    let value = |line: &str| line.strip_prefix(name)?.split_whitespace().last()?.parse::<f64>().ok();
    text.lines().filter_map(value).sum()
}

fn fallbacks(gateway: &Gateway) -> f64 {
    metric(gateway, "llamagate_limits_store_fallbacks_total{")
}

#[track_caller]
fn wait_shared(gateway: &Gateway) {
    let is_up = || metric(gateway, "llamagate_limits_store_up ") == 1.0;
    eventually("the store is used", READY.max(STORE_IS_BACK), is_up);
    assert!(!warnings(gateway).contains("LIMITS_STORE"), "{}", warnings(gateway));
}

#[track_caller]
fn wait_alone(gateway: &Gateway) {
    eventually("the store is not used", READY, || warnings(gateway).contains("LIMITS_STORE"));
    assert_eq!(metric(gateway, "llamagate_limits_store_up "), 0.0);
}

fn warnings(gateway: &Gateway) -> String {
    gateway.anonymous().get("/health").json()["warnings"].to_string()
}

fn chat(more: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn ask(gateway: &Gateway, secret: &str) -> Response {
    gateway.client_with(secret).post_json(CHAT, &chat(json!({})))
}

#[track_caller]
fn assert_served(answer: &Response) {
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

#[track_caller]
fn assert_refused(answer: &Response, code: &str) {
    assert_eq!((answer.status(), &answer.json()["error"]["code"]), (429, &json!(code)), "{}", answer.text());
    assert!(number(answer, "retry-after") >= 1);
}

#[track_caller]
fn number(answer: &Response, header: &str) -> u64 {
    answer.header(header).unwrap_or_else(|| panic!("no {header}")).parse().unwrap()
}

fn field(store: &Valkey, key: &str, field: &str) -> Option<String> {
    redis::cmd("HGET").arg(key).arg(field).query(&mut store.connect()).unwrap()
}

/// Returns the requests of the day of the key with attributes, as the store has them.
fn requests_of_day(store: &Valkey) -> Option<String> {
    let (key, _) = store.keys().into_iter().find(|(key, _)| key.starts_with("llamagate:{team}:day:"))?;
    field(store, &key, "requests")
}

fn holds(store: &Valkey) -> u64 {
    redis::cmd("ZCARD").arg("llamagate:{team}:holds").query(&mut store.connect()).unwrap()
}

/// Asks on a route that the fake answers at once, though it holds chats.
fn complete(gateway: &Gateway, tokens: u32) -> Response {
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
    let proxy = SlowProxy::start(store.port);
    let keys = format!("team:{SECRET}:2 max_concurrent=5\nadmin:{ADMIN_LINE}\n");
    let one = replica(&store.url()).keys(&keys).start_ready();
    let other = replica(&format!("redis://127.0.0.1:{}/0", proxy.port)).keys(&keys).start_ready();
    wait_shared(&one);
    wait_shared(&other);
    assert_served(&ask(&one, SECRET));
    assert_served(&ask(&one, SECRET));
    eventually("both ends are told", SOON, || holds(&store) == 0);
    let bucket = |name: &str| field(&store, "llamagate:{team}:requests", name);
    let (before, calls) = ((bucket("at"), bucket("used")), store.script_calls());
    // The store refuses, but its answer does not arrive.
    proxy.delay(ANSWERS);
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
    let mut running = one.client_with(SECRET).begin("POST", CHAT, chat(json!({})).to_string().as_bytes()).unwrap();
    one.journal().wait_for_requests(CHAT, 1);
    let refused = ask(&other, SECRET);
    assert_refused(&refused, "rate_limit_exceeded");
    assert!(refused.text().contains("at once"), "{}", refused.text());
    one.control().release_all_requests();
    other.control().release_all_requests();
    assert_served(&running.read_response().unwrap());
    eventually("the key may send a request again", SOON, || ask(&other, SECRET).status() == 200);
    // A client that leaves gives its place back too.
    let left = other.client_with(SECRET).begin("POST", CHAT, chat(json!({})).to_string().as_bytes()).unwrap();
    drop(left);
    eventually("the key may send a request again", SOON, || ask(&one, SECRET).status() == 200);
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
fn a_store_that_goes_away_leaves_each_replica_its_own_limits_until_it_is_back() {
    let mut store = Valkey::start();
    let [one, other] = pair(replica(&store.url()));
    assert_served(&ask(&one, LIMITED));
    store.kill();
    wait_alone(&one);
    wait_alone(&other);
    assert_served(&ask(&one, LIMITED));
    assert_refused(&ask(&one, LIMITED), "rate_limit_exceeded");
    assert_served(&ask(&other, LIMITED));
    assert!(fallbacks(&one) >= 1.0 && fallbacks(&other) >= 1.0);
    let times = |words: &str| one.output().matches(words).count();
    eventually("the log says so", SOON, || times("does not answer as it should") == 1);
    store.restart();
    wait_shared(&one);
    wait_shared(&other);
    let before = fallbacks(&other);
    assert_served(&ask(&other, USER));
    assert_eq!(fallbacks(&other), before);
    eventually("the log says so", SOON, || times("the limits of keys are shared") == 2);
    assert_eq!(times("does not answer as it should"), 1, "once for each change");
}

#[test]
fn a_store_that_comes_back_empty_knows_what_is_in_flight_before_it_is_asked() {
    let mut store = Valkey::start();
    let [one, other] = pair(with_key(&store.url(), "max_concurrent=1").script(json!({"hold_requests": [CHAT]})));
    let mut running = one.client_with(SECRET).begin("POST", CHAT, chat(json!({})).to_string().as_bytes()).unwrap();
    one.journal().wait_for_requests(CHAT, 1);
    store.kill();
    wait_alone(&one);
    wait_alone(&other);
    store.restart();
    wait_shared(&one);
    wait_shared(&other);
    assert_eq!(holds(&store), 1);
    assert_refused(&complete(&other, 1), "rate_limit_exceeded");
    one.control().release_all_requests();
    assert_served(&running.read_response().unwrap());
    eventually("the key may send a request again", SOON, || complete(&other, 1).status() == 200);
}

#[test]
fn a_store_that_cannot_be_reached_at_the_start_does_not_stop_it() {
    let mut store = Valkey::start();
    store.kill();
    let gateway = replica(&store.url()).start_ready();
    wait_alone(&gateway);
    assert_served(&ask(&gateway, LIMITED));
    store.restart();
    wait_shared(&gateway);
    let answer = ask(&gateway, LIMITED);
    assert_served(&answer);
    assert_eq!(number(&answer, "x-ratelimit-remaining-requests"), 0, "what was served meanwhile counts");
}

#[test]
fn a_slow_store_is_waited_for_briefly_and_then_not_at_all() {
    let store = Valkey::start();
    let proxy = SlowProxy::start(store.port);
    let url = format!("redis://127.0.0.1:{}/0", proxy.port);
    let gateway = replica(&url).set("LIMITS_STORE_TIMEOUT", 200).start_ready();
    wait_shared(&gateway);
    proxy.delay(Duration::from_secs(1));
    let slow = || metric(&gateway, "llamagate_limits_store_fallbacks_total{reason=\"slow\"}");
    for _ in 0..20 {
        assert_served(&ask(&gateway, USER));
    }
    assert!((1.0..=8.0).contains(&slow()), "each core gives up after three in a row: {}", slow());
    wait_alone(&gateway);
    proxy.delay(Duration::ZERO);
    wait_shared(&gateway);
    let before = fallbacks(&gateway);
    assert_served(&ask(&gateway, USER));
    assert_eq!(fallbacks(&gateway), before);
}

#[test]
fn a_store_that_is_emptied_learns_from_each_replica_what_it_has_used() {
    let store = Valkey::start();
    let [one, other] = pair(with_key(&store.url(), "requests_per_day=6"));
    for gateway in [&one, &one, &one, &other, &other] {
        assert_served(&ask(gateway, SECRET));
    }
    let total = |expected: &str| {
        eventually("the store knows what was used", SOON, || requests_of_day(&store).as_deref() == Some(expected));
    };
    total("5");
    store.run(&["FLUSHALL"]);
    assert_served(&ask(&other, SECRET));
    total("3");
    assert_refused(&ask(&one, SECRET), "budget_exceeded");
    total("6");
    assert_refused(&ask(&other, SECRET), "budget_exceeded");
}

#[test]
fn a_restarted_replica_brings_what_its_ledger_knows_to_an_emptied_store() {
    let store = Valkey::start();
    let folder = tempfile::tempdir().unwrap();
    let usage = folder.path().join("usage.db");
    let builder = with_key(&store.url(), "requests_per_day=3").set("USAGE_DB", usage.display());
    let mut first = builder.clone().start_ready();
    wait_shared(&first);
    assert_served(&ask(&first, SECRET));
    assert_served(&ask(&first, SECRET));
    assert!(first.stop().success());
    store.run(&["FLUSHALL"]);
    let again = builder.start_ready();
    let other = with_key(&store.url(), "requests_per_day=3").start_ready();
    wait_shared(&again);
    wait_shared(&other);
    assert_served(&ask(&again, SECRET));
    eventually("the other replica knows of three", SOON, || ask(&other, SECRET).status() == 429);
}

#[test]
fn a_store_that_has_forgotten_the_scripts_gets_them_again() {
    let store = Valkey::start();
    let gateway = with_key(&store.url(), "max_concurrent=5 tokens_per_minute=100000").start_ready();
    wait_shared(&gateway);
    for _ in 0..3 {
        store.run(&["SCRIPT", "FLUSH"]);
        assert_served(&ask(&gateway, SECRET));
    }
    eventually("all ends are told", SOON, || store.keys().iter().all(|(key, _)| !key.ends_with(":holds")));
    assert_eq!(fallbacks(&gateway) + metric(&gateway, "llamagate_limits_store_lost_total "), 0.0);
}

#[test]
fn a_wrong_password_is_reported_plainly_and_never_shown() {
    let store = Valkey::start_with_password("sesame-of-the-store");
    let wrong = store.url().replace("sesame-of-the-store", "wrong-sesame");
    let gateway = replica(&wrong).start_ready();
    wait_alone(&gateway);
    assert!(warnings(&gateway).contains("refuses the user or the password"), "{}", warnings(&gateway));
    assert_served(&ask(&gateway, LIMITED));
    let metrics = gateway.client_with(super::support::gateway::ADMIN).get("/metrics?format=prometheus").text();
    for text in [gateway.output(), warnings(&gateway), metrics] {
        assert!(!text.contains("wrong-sesame"), "{text}");
    }
    eventually("the log says so", SOON, || gateway.output().contains("refuses the user or the password"));
    let gateway = replica(&store.url()).start_ready();
    wait_shared(&gateway);
    assert!(!gateway.output().contains("sesame-of-the-store"));
}

#[test]
fn a_store_behind_tls_is_used_if_its_certificate_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = TestIssuer::new("authority of the store");
    let (certificate, key) = issuer.issue("store").write(folder.path());
    let store = Valkey::start_with_tls(&certificate, &key);
    let url = format!("valkeys://127.0.0.1:{}/0", store.port);
    let trusting = replica(&url).set("SSL_CERT_FILE", issuer.write_root(folder.path()).display()).start_ready();
    wait_shared(&trusting);
    assert_served(&ask(&trusting, USER));
    assert_eq!(fallbacks(&trusting), 0.0);
    let elsewhere = tempfile::tempdir().unwrap();
    let other = TestIssuer::new("authority of others").write_root(elsewhere.path());
    let distrusting = replica(&url).set("SSL_CERT_FILE", other.display()).start_ready();
    wait_alone(&distrusting);
    eventually("the log says why", SOON, || distrusting.output().contains("certificate"));
    assert_served(&ask(&distrusting, USER));
    let plain = replica(&url.replace("valkeys", "valkey")).start_ready();
    wait_alone(&plain);
    assert_served(&ask(&plain, USER));
}

#[test]
fn a_store_without_memory_is_not_used() {
    let store = Valkey::start();
    let gateway = replica(&store.url()).start_ready();
    wait_shared(&gateway);
    store.run(&["CONFIG", "SET", "maxmemory", "1"]);
    for _ in 0..12 {
        assert_served(&ask(&gateway, USER));
    }
    assert!(metric(&gateway, "llamagate_limits_store_fallbacks_total{reason=\"error\"}") >= 1.0);
    wait_alone(&gateway);
    store.run(&["CONFIG", "SET", "maxmemory", "0"]);
    wait_shared(&gateway);
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

#[test]
fn a_bad_address_is_refused_and_not_shown() {
    for address in ["http://:sesame@store", "valkey://:sesame@store/zero", "valkey://:sesame@"] {
        let (status, output) = Gateway::builder().set("LIMITS_STORE", address).run_to_exit();
        assert_eq!(status.code(), Some(78), "{output}");
        assert!(output.contains("LIMITS_STORE") && !output.contains("sesame"), "{output}");
    }
}

#[test]
fn a_wait_for_the_store_that_would_be_cut_short_is_refused_by_name() {
    for wait in ["2001", "5000", "60000"] {
        let (status, output) = Gateway::builder().set("LIMITS_STORE_TIMEOUT", wait).run_to_exit();
        assert_eq!(status.code(), Some(78), "{output}");
        assert!(output.contains(&format!("LIMITS_STORE_TIMEOUT={wait}")), "{output}");
        assert!(output.contains("expected at most 2000"), "{output}");
    }
}
