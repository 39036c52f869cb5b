//! Budgets of keys for a day or a month, the people behind a key, and priorities in the queue.

#![expect(clippy::disallowed_methods, reason = "the clients are programs")]

use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use super::accounts::access_log_line;
use super::support::{
    client::{Client, RawClient, Response},
    client_program::{run_client, script},
    gateway::{Backend, Gateway, litellm_python, python},
    remote::{Remote, Reply},
    wait::{SOON, eventually, eventually_some},
};

const CHAT: &str = "/v1/chat/completions";
const SECRET: &str = "budget-secret-0123456789";

/// Returns the builder of a gateway with one key, whose line has these attributes.
fn with_key(attributes: &str) -> super::support::gateway::Builder {
    Gateway::builder().keys(&format!("team:{SECRET}:100000 {attributes}\n"))
}

fn chat(more: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn assert_exceeded(answer: &Response, budget: &str) {
    let error = &answer.json()["error"];
    assert_eq!((answer.status(), error["code"].as_str()), (429, Some("budget_exceeded")), "{}", answer.text());
    assert_eq!(error["type"], "rate_limit_error");
    assert!(error["message"].as_str().unwrap().contains(budget), "{error}");
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=31 * 24 * 60 * 60).contains(&wait));
}

#[test]
fn sixty_four_clients_get_exactly_the_hundred_requests_of_a_day() {
    let gateway = with_key("requests_per_day=100").set("MAX_CONCURRENT_REQUESTS", 8).start_ready();
    let client = gateway.client_with(SECRET);
    let ask = || {
        let answers: Vec<Response> = (0..4).map(|_| client.post_json(CHAT, &chat(json!({})))).collect();
        answers.iter().filter(|answer| answer.status() == 429).for_each(|one| assert_exceeded(one, "requests_per_day"));
        answers.iter().filter(|answer| answer.status() == 200).count()
    };
    let served: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..64).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert_eq!(served, 100);
    assert_eq!(gateway.journal().requests(CHAT).len(), 100);
}

#[test]
fn tokens_of_the_real_llama_server_are_taken_from_the_budget_and_the_rest_is_given_back() {
    let gateway = with_key("tokens_per_day=400").backend(Backend::Real { model: "tiny-chat.gguf" }).start_ready();
    let client = gateway.client_with(SECRET);
    assert_exceeded(&client.post_json(CHAT, &chat(json!({}))), "tokens_per_day");
    let answer = client.post_json(CHAT, &chat(json!({"max_tokens": 4})));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let while_reserved: u64 = answer.header("x-budget-remaining-tokens").unwrap().parse().unwrap();
    let used = answer.json()["usage"]["total_tokens"].as_u64().unwrap();
    let left = || -> u64 {
        let answer = client.post_json(CHAT, &chat(json!({"max_tokens": 0})));
        answer.header("x-budget-remaining-tokens").unwrap().parse().unwrap()
    };
    assert!(while_reserved < 400);
    // The prompt of the request that asks is reserved too.
    eventually("the budget has what was not used", SOON, || left() > 400 - 3 * used);
    let answer = client.post_json(CHAT, &chat(json!({"max_tokens": 399})));
    assert_exceeded(&answer, "tokens are left, and it may take");
}

#[test]
fn sdks_read_the_end_of_a_budget_and_do_not_repeat_the_request() {
    for (sdk, python) in [("openai", python()), ("litellm", litellm_python())] {
        let gateway = with_key("requests_per_day=1 tokens_per_day=10000")
            .backend(Backend::Real { model: "tiny-chat.gguf" })
            .start_ready();
        let base_url = format!("{}/v1", gateway.url());
        let mut client = Command::new(python);
        client.arg(script("budget_client.py")).args([&base_url, SECRET, sdk, "tiny-chat"]);
        run_client(&mut client);
        let metrics = gateway.health().header("Accept", "text/plain").get("/metrics").text();
        assert!(metrics.contains("llamagate_refusals_total{code=\"budget_exceeded\"} 1"), "{sdk}: {metrics}");
    }
}

#[test]
fn a_stream_that_its_client_leaves_costs_what_came() {
    let gateway = with_key("tokens_per_month=2000").start_ready();
    let client = gateway.client_with(SECRET);
    let mut stream = client.stream(CHAT, &chat(json!({"stream": true, "max_tokens": 1500})));
    assert!(stream.next_event().is_some());
    drop(stream);
    let next = || client.post_json(CHAT, &chat(json!({"max_tokens": 400}))).status();
    eventually("what was reserved is given back", SOON, || next() == 200);
}

#[test]
fn a_budget_survives_a_reload_of_the_key_file() {
    let gateway = with_key("requests_per_day=1").start_ready();
    let client = gateway.client_with(SECRET);
    assert_eq!(client.post_json(CHAT, &chat(json!({}))).status(), 200);
    let keys = format!("team:{SECRET}:100000 requests_per_day=2\nops:ops-secret-0123456789 scope=admin\n");
    std::fs::write(gateway.keys_file(), keys).unwrap();
    let ops = gateway.client_with("ops-secret-0123456789");
    eventually("the file is read again", SOON, || ops.post_json("/reload", &json!({})).status() == 200);
    assert_eq!(client.post_json(CHAT, &chat(json!({}))).status(), 200);
    assert_exceeded(&client.post_json(CHAT, &chat(json!({}))), "requests_per_day");
}

#[test]
fn a_budget_goes_on_where_it_was_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        with_key("requests_per_day=3 tokens_per_month=5000 trust_user_headers=true person_tokens_per_day=100")
            .set("USAGE_DB", folder.path().join("usage.db").display())
            .start_ready()
    };
    let ask = |gateway: &Gateway, person: &str| {
        let client = gateway.client_with(SECRET).header("X-LLM-User", person);
        client.post_json(CHAT, &chat(json!({"max_tokens": 20})))
    };
    let left = |answer: &Response| answer.header("x-budget-remaining-tokens").unwrap().to_owned();
    let mut gateway = start();
    assert_eq!(left(&ask(&gateway, "ann")), left(&ask(&gateway, "bob")), "each person has a budget");
    gateway.stop();
    drop(gateway);
    let gateway = start();
    let answer = ask(&gateway, "ann");
    let used = 100 - answer.json()["usage"]["total_tokens"].as_u64().unwrap();
    assert!(left(&answer).parse::<u64>().unwrap() < used, "{}", left(&answer));
    assert_exceeded(&ask(&gateway, "eve"), "requests_per_day");
}

#[test]
fn metrics_show_what_is_left_of_the_budgets_of_a_key() {
    let gateway = with_key("requests_per_day=5 cost_per_month=12.50").start_ready();
    assert_eq!(gateway.client_with(SECRET).post_json(CHAT, &chat(json!({}))).status(), 200);
    let text = || gateway.health().header("Accept", "text/plain").get("/metrics").text();
    let line = "llamagate_budget_left{key=\"team\",budget=\"requests_per_day\"} 4";
    eventually("the request is counted", SOON, || text().lines().any(|one| one.starts_with(line)));
    let cost = "llamagate_budget_left{key=\"team\",budget=\"cost_per_month\"} 12.5";
    assert!(text().lines().any(|one| one == cost), "{}", text());
}

#[test]
fn a_hit_of_the_cache_counts_as_a_request_and_as_no_tokens() {
    let gateway =
        with_key("requests_per_day=3 tokens_per_day=5000 trust_user_headers=true").set("CACHE", "safe").start_ready();
    let ask = |person: &str| {
        let client = gateway.client_with(SECRET).header("X-LLM-User", person);
        client.post_json(CHAT, &chat(json!({"temperature": 0, "max_tokens": 20})))
    };
    let left = || {
        let text = gateway.health().header("Accept", "text/plain").get("/metrics").text();
        let line = text.lines().find(|line| line.contains("tokens_per_day")).unwrap();
        line.rsplit_once(' ').unwrap().1.to_owned()
    };
    let of_cache = |answer: &Response| answer.header("x-llamagate-cache").unwrap().to_owned();
    assert_eq!(of_cache(&ask("ann")), "miss");
    let in_flight = || gateway.anonymous().get("/health").json()["queue"]["active"].clone();
    eventually("the first request has ended", SOON, || in_flight() == 0);
    let before = left();
    assert_eq!(of_cache(&ask("bob")), "hit", "another person gets the same answer");
    assert_eq!(of_cache(&ask("ann")), "hit");
    eventually("nothing is reserved any more", SOON, || left() == before);
    assert_exceeded(&ask("ann"), "requests_per_day");
}

#[test]
fn a_request_that_the_queue_refuses_costs_nothing() {
    let gateway = with_key("requests_per_day=2")
        .script(json!({"hold_requests": [CHAT]}))
        .set("QUEUE_TIMEOUT", "100ms")
        .start_ready();
    let client = gateway.client_with(SECRET);
    let body = chat(json!({})).to_string();
    let mut running = client.begin("POST", CHAT, body.as_bytes()).unwrap();
    gateway.journal().wait_for_requests(CHAT, 1);
    let refused = client.post_json(CHAT, &chat(json!({})));
    assert_eq!(refused.json()["error"]["code"], "queue_timeout");
    gateway.control().release_all_requests();
    assert_eq!(running.read_response().unwrap().status(), 200);
    assert_eq!(client.post_json(CHAT, &chat(json!({}))).status(), 200);
    assert_exceeded(&client.post_json(CHAT, &chat(json!({}))), "requests_per_day");
}

fn begin(client: &Client, id: &str, more: Value) -> RawClient {
    client.clone().header("X-Request-Id", id).begin("POST", CHAT, chat(more).to_string().as_bytes()).unwrap()
}

/// Lets requests through one by one, and returns the ids of those that follow the first, in their order.
fn order_after_the_first(gateway: &Gateway, count: usize) -> Vec<String> {
    let mut control = gateway.control();
    for served in 1..=count {
        gateway.journal().wait_for_requests(CHAT, served);
        control.release_requests(1);
    }
    let id = |request: &Value| {
        let headers = request["headers"].to_string();
        let at = headers.find("id-").unwrap();
        headers[at..].chars().take_while(|one| *one != '"').collect()
    };
    gateway.journal().wait_for_requests(CHAT, count)[1..count].iter().map(id).collect()
}

fn wait_waiting(gateway: &Gateway, count: usize) {
    let waiting = || gateway.anonymous().get("/health").json()["queue"]["waiting"].clone();
    eventually(&format!("{count} requests wait"), SOON, || waiting() == count);
}

#[test]
fn people_behind_one_key_take_turns() {
    let gateway = with_key("trust_user_headers=true").script(json!({"hold_requests": [CHAT]})).start_ready();
    let client = gateway.client_with(SECRET);
    let mut held = vec![begin(&client, "id-first", json!({}))];
    gateway.journal().wait_for_requests(CHAT, 1);
    for nth in 0..4 {
        held.push(begin(&client.clone().header("X-OpenWebUI-User-Id", "ann"), &format!("id-ann-{nth}"), json!({})));
        wait_waiting(&gateway, nth + 1);
    }
    held.push(begin(&client, "id-bob", json!({"user": "bob"})));
    wait_waiting(&gateway, 5);
    held.push(begin(&client, "id-eve", json!({"metadata": {"user_id": "eve"}})));
    wait_waiting(&gateway, 6);
    assert_eq!(order_after_the_first(&gateway, 4), ["id-ann-0", "id-bob", "id-eve"]);
}

#[test]
fn names_of_people_count_only_for_a_trusted_key() {
    let gateway = with_key("").script(json!({"hold_requests": [CHAT]})).start_ready();
    let client = gateway.client_with(SECRET);
    let mut held = vec![begin(&client, "id-first", json!({}))];
    gateway.journal().wait_for_requests(CHAT, 1);
    for (nth, person) in ["ann", "ann", "bob"].into_iter().enumerate() {
        held.push(begin(
            &client.clone().header("X-OpenWebUI-User-Id", person),
            &format!("id-{person}-{nth}"),
            json!({}),
        ));
        wait_waiting(&gateway, nth + 1);
    }
    assert_eq!(order_after_the_first(&gateway, 4), ["id-ann-0", "id-ann-1", "id-bob-2"]);
}

#[test]
fn flex_requests_wait_behind_others_and_a_tier_raises_nothing() {
    let gateway = with_key("").script(json!({"hold_requests": [CHAT]})).start_ready();
    let client = gateway.client_with(SECRET);
    let mut held = vec![begin(&client, "id-first", json!({}))];
    gateway.journal().wait_for_requests(CHAT, 1);
    let tiers = ["flex", "flex", "priority", "default"];
    for (nth, tier) in tiers.into_iter().enumerate() {
        held.push(begin(&client, &format!("id-{tier}-{nth}"), json!({"service_tier": tier})));
        wait_waiting(&gateway, nth + 1);
    }
    let order = order_after_the_first(&gateway, 5);
    assert_eq!(order[..2], ["id-priority-2", "id-default-3"], "{order:?}");
}

#[test]
fn each_person_has_a_budget_and_a_bad_name_is_refused() {
    let gateway = with_key("trust_user_headers=true person_tokens_per_day=100").start_ready();
    let as_person = |name: &str| gateway.client_with(SECRET).header("X-LLM-User", name);
    assert_exceeded(&as_person("ann").post_json(CHAT, &chat(json!({"max_tokens": 100}))), "person_tokens_per_day");
    assert_eq!(as_person("ann").post_json(CHAT, &chat(json!({"max_tokens": 1}))).status(), 200);
    let long = as_person(&"x".repeat(129)).post_json(CHAT, &chat(json!({})));
    assert_eq!((long.status(), long.json()["error"]["code"].as_str()), (400, Some("invalid_parameter")));
    assert_eq!(long.json()["error"]["param"], "x-llm-user");
}

#[test]
fn the_access_log_has_a_hash_of_a_person_unless_it_is_told_to_name_people() {
    for (log_people, is_named) in [("false", false), ("true", true)] {
        let gateway = with_key("trust_user_headers=true").set("LOG_PEOPLE", log_people).start_ready();
        let client = gateway.client_with(SECRET).header("X-OpenWebUI-User-Id", "ann").header("X-Request-Id", "one");
        assert_eq!(client.post_json(CHAT, &chat(json!({}))).status(), 200);
        let person = access_log_line(&gateway, "one")["person"].clone();
        assert_eq!(person == "ann", is_named, "{person}");
        assert!(!person.is_empty());
    }
}

#[test]
fn a_remote_worker_never_sees_who_asks() {
    let remote = Remote::start(Reply::Serve);
    let config = format!(
        "model_list:\n  - {{model_name: m, litellm_params: {{model: openai/m, api_base: \"{}\"}}}}\n",
        remote.url()
    );
    let gateway = with_key("trust_user_headers=true").fakes(&config, &[]).start_ready();
    let names = ["X-OpenWebUI-User-Id", "X-OpenWebUI-User-Email", "X-OpenWebUI-User-Name", "X-LLM-User"];
    let client = names.into_iter().fold(gateway.client_with(SECRET), |client, name| client.header(name, "ann"));
    assert_eq!(client.post_json(CHAT, &chat(json!({"model": "m"}))).status(), 200);
    let received = &remote.received()[0];
    assert!(names.iter().all(|name| received.header(&name.to_lowercase()).is_none()));
}

#[test]
fn a_request_that_moves_to_another_worker_and_model_is_paid_for_once() {
    let failing = Remote::start(Reply::Status(503, json!({"busy": true})));
    let entry =
        |url: &str| format!("  - {{model_name: first, litellm_params: {{model: openai/m, api_base: \"{url}\"}}}}\n");
    let entries = entry(&failing.url()).repeat(2);
    let config =
        format!("models: {{second: {{file: a.gguf}}}}\nmodel_list:\n{entries}fallbacks: {{first: [second]}}\n");
    let gateway =
        with_key("requests_per_day=2 tokens_per_day=1000").fakes(&config, &[("a.gguf", json!({}))]).start_ready();
    let client = gateway.client_with(SECRET);
    let ask = || client.post_json(CHAT, &chat(json!({"model": "first", "max_tokens": 20})));
    let answer = ask();
    assert_eq!((answer.status(), answer.header("x-llamagate-model")), (200, Some("second")), "{}", answer.text());
    assert!(failing.received().len() > 1, "more than one attempt has failed");
    let row = eventually_some("the request is recorded", SOON, || {
        client.get("/usage?by=key,model").json()["data"]
            .as_array()
            .filter(|rows| rows.len() == 1)
            .map(|rows| rows[0].clone())
    });
    let usage = &answer.json()["usage"];
    assert_eq!((&row["model"], &row["requests"], &row["refused"]), (&json!("second"), &json!(1), &json!(0)));
    assert_eq!(
        (&row["prompt_tokens"], &row["completion_tokens"]),
        (&usage["prompt_tokens"], &usage["completion_tokens"])
    );
    assert_eq!(ask().status(), 200, "one of two requests was left");
    assert_exceeded(&ask(), "requests_per_day");
}
