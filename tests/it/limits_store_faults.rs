//! What happens to shared limits when their store is away, slow, empty, full or refuses, and what is refused at the start.

use std::time::Duration;

use llamagate::cores::count_of_machine;
use serde_json::json;

use super::shared_limits::{
    CHAT, SECRET, ask, assert_refused, assert_served, chat, complete, fallbacks, field, holds, metric, number, pair,
    replica, wait_shared, warnings, with_key,
};
use super::support::{
    certificates::TestIssuer,
    gateway::{Gateway, LIMITED, USER},
    valkey::Valkey,
    wait::{READY, SOON, eventually},
};

/// Returns the requests of the day of the key with attributes, as the store has them.
fn requests_of_day(store: &Valkey) -> Option<String> {
    let (key, _) = store.keys().into_iter().find(|(key, _)| key.starts_with("llamagate:{team}:day:"))?;
    field(store, &key, "requests")
}

#[track_caller]
fn wait_alone(gateway: &Gateway) {
    eventually("the store is not used", READY, || warnings(gateway).contains("LIMITS_STORE"));
    assert_eq!(metric(gateway, "llamagate_limits_store_up "), 0.0);
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

/// Renewals come every three seconds, so one of them falls into the wait of one of these requests.
#[test]
fn requests_that_were_refused_while_holds_were_renewed_kept_a_place() {
    let store = Valkey::start();
    let (proxy, through_proxy) = store.behind_proxy();
    let hold = |url: &str| with_key(url, "max_concurrent=1").script(json!({"hold_requests": [CHAT]}));
    let one = hold(&store.url()).start_ready();
    let other = hold(&through_proxy).start_ready();
    wait_shared(&one);
    wait_shared(&other);
    let mut running = one.client_with(SECRET).begin("POST", CHAT, chat(json!({})).to_string().as_bytes()).unwrap();
    one.journal().wait_for_requests(CHAT, 1);
    proxy.delay_answers(Duration::from_millis(500));
    for _ in 0..8 {
        assert_refused(&complete(&other, 1), "rate_limit_exceeded");
    }
    assert_eq!(fallbacks(&other), 0.0);
    assert_eq!(holds(&store), 1, "that of the request that runs");
    one.control().release_all_requests();
    assert_served(&running.read_response().unwrap());
    eventually("none is in flight", SOON, || holds(&store) == 0);
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
    let (proxy, url) = store.behind_proxy();
    let gateway = replica(&url).set("LIMITS_STORE_TIMEOUT", 200).start_ready();
    wait_shared(&gateway);
    proxy.delay_answers(Duration::from_secs(1));
    let slow = || metric(&gateway, "llamagate_limits_store_fallbacks_total{reason=\"slow\"}");
    // Each core gives up after three in a row. One of them must get three of these requests, and then not all can be slow.
    let most = 3 * count_of_machine().get();
    for _ in 0..most + 2 {
        assert_served(&ask(&gateway, USER));
    }
    assert!(slow() >= 3.0 && slow() <= most as f64, "{} of {} were slow", slow(), most + 2);
    wait_alone(&gateway);
    proxy.delay_answers(Duration::ZERO);
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
