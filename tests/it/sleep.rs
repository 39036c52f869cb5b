//! Sleep and wake: an idle llama-server is stopped, the next request starts it again, and no request is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::support::{
    client::RawClient,
    gateway::{ADMIN, Backend, Gateway, LIMITED, USER, smollm},
    resources::pid_gone,
    wait::{READY, REAL_MODEL_READY, SOON, STOPS, assert_throughout, eventually},
};

const CHAT: &str = "/v1/chat/completions";

fn chat() -> Value {
    json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 2})
}

fn begin(gateway: &Gateway) -> RawClient {
    gateway.client().begin("POST", CHAT, chat().to_string().as_bytes()).unwrap()
}

/// Begins a request that needs no slot, but a loaded model.
fn begin_helper(gateway: &Gateway) -> RawClient {
    gateway.client().begin("POST", "/tokenize", json!({"content": "x"}).to_string().as_bytes()).unwrap()
}

fn sleeper(script: Value, idle_unload: &str) -> Gateway {
    Gateway::builder().script(script).set("IDLE_UNLOAD", idle_unload).start_ready()
}

fn state(gateway: &Gateway) -> String {
    gateway.anonymous().get("/health").json()["models"][0]["state"].as_str().unwrap().to_owned()
}

fn wait_asleep(gateway: &Gateway) {
    eventually("the model sleeps", STOPS, || state(gateway) == "stopped");
}

#[test]
fn an_idle_llama_server_is_stopped_counts_as_servable_and_is_woken_by_the_next_request() {
    let gateway = sleeper(json!({}), "300ms");
    wait_asleep(&gateway);
    assert!(gateway.child_pids().is_empty());
    let health = gateway.anonymous().get("/health");
    assert_eq!((health.status(), &health.json()["status"]), (200, &json!("ok")));
    assert_eq!(gateway.health().get("/ping").status(), 200, "a request would be served");
    assert_eq!(gateway.health().get("/readyz").status(), 503, "but only after a load");
    assert_eq!(gateway.client().post_json(CHAT, &chat()).status(), 200);
    wait_asleep(&gateway);
    assert_eq!(gateway.client().post_json(CHAT, &chat()).status(), 200);
    let health = gateway.anonymous().get("/health").json();
    assert_eq!((&health["models"][0]["restarts"], &health["models"][0]["last_exit"]), (&json!(0), &Value::Null));
    assert_eq!(gateway.journal().starts().len(), 3);
}

#[test]
fn the_load_does_not_count_as_idle_time() {
    let gateway = sleeper(json!({"load_ms": 1500}), "1s");
    assert_throughout("the model stays loaded for IDLE_UNLOAD after its load", Duration::from_millis(700), || {
        state(&gateway) == "ready"
    });
    wait_asleep(&gateway);
}

#[test]
fn probes_and_scrapes_neither_keep_a_model_awake_nor_wake_it() {
    let gateway = sleeper(json!({}), "500ms");
    let probe = || {
        for path in ["/ping", "/livez", "/readyz", "/health", "/metrics"] {
            gateway.health().get(path);
        }
        for path in ["/ping", "/health", "/metrics", "/no-such-route"] {
            gateway.anonymous().get(path);
        }
        // Chat front ends poll these.
        for path in ["/v1/models", "/models", "/props"] {
            gateway.client().get(path);
        }
        assert_eq!(gateway.anonymous().post_json(CHAT, &chat()).status(), 401);
    };
    eventually("the model falls asleep despite the probes", STOPS, || {
        probe();
        state(&gateway) == "stopped"
    });
    assert_throughout("the model stays asleep", Duration::from_millis(500), || {
        probe();
        state(&gateway) == "stopped"
    });
    assert_eq!(gateway.journal().starts().len(), 1);
}

#[test]
fn a_model_with_requests_in_flight_or_in_the_queue_stays_awake() {
    let gateway = sleeper(json!({"hold_requests": [CHAT]}), "1s");
    let mut first = begin(&gateway);
    // The model may have fallen asleep before the request came, so the starts are counted only now.
    gateway.journal().wait_for_requests(CHAT, 1);
    let mut second = begin(&gateway);
    let starts = gateway.journal().starts().len();
    assert_throughout("the model stays loaded", Duration::from_secs(2), || state(&gateway) == "ready");
    gateway.control().release_requests(1);
    assert_eq!(first.read_response().unwrap().status(), 200);
    assert_throughout("the model stays loaded for the second request", Duration::from_secs(2), || {
        state(&gateway) == "ready"
    });
    gateway.control().release_requests(1);
    assert_eq!(second.read_response().unwrap().status(), 200);
    wait_asleep(&gateway);
    assert_eq!(gateway.journal().starts().len(), starts);
}

#[test]
fn a_request_during_the_unload_is_served_after_a_new_load() {
    let gateway = sleeper(json!({"starts": [{"ignore_sigterm": true}, {}]}), "300ms");
    gateway.journal().wait_for_event("sigterm");
    let (mut chat, mut tokens) = (begin(&gateway), begin_helper(&gateway));
    eventually("the chat request waits", SOON, || gateway.anonymous().get("/health").json()["queue"]["waiting"] == 1);
    assert_eq!(state(&gateway), "draining");
    assert_eq!(gateway.health().get("/ping").status(), 200);
    gateway.control().die_with_code(0);
    assert_eq!(chat.read_response().unwrap().status(), 200);
    assert_eq!(tokens.read_response().unwrap().status(), 200);
    assert_eq!(gateway.journal().starts().len(), 2);
}

#[test]
fn a_request_without_a_slot_wakes_a_model_and_a_read_only_one_does_not() {
    let keys = format!("admin:{ADMIN}:100000 scope=inference,admin\nother:{USER}:100000 models=some-other-model\n");
    let gateway = Gateway::builder().keys(&keys).set("IDLE_UNLOAD", "300ms").start_ready();
    let client = gateway.client_with(ADMIN);
    let awake = client.get("/v1/models").json()["data"][0]["id"].clone();
    wait_asleep(&gateway);
    for path in ["/v1/models", "/models"] {
        let list = client.get(path);
        assert_eq!((list.status(), list.header("content-type")), (200, Some("application/json")));
        let list = list.json();
        assert_eq!((&list["object"], list["data"].as_array().map(Vec::len)), (&json!("list"), Some(1)));
        let model = &list["data"][0];
        assert_eq!((&model["id"], &model["object"]), (&awake, &json!("model")));
        assert_eq!(model["owned_by"], "llamagate");
        assert!(model["created"].as_i64().is_some_and(|created| created > 1_700_000_000), "{model}");
        let nothing = gateway.client().get(path);
        let empty = json!({"object": "list", "data": [], "models": [], "has_more": false});
        assert_eq!((nothing.status(), nothing.json()), (200, empty));
        assert_eq!(gateway.anonymous().get(path).status(), 401);
    }
    for path in ["/props", "/slots"] {
        let answer = client.get(path);
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status(), error["code"].as_str()), (503, Some("backend_unavailable")), "{path}");
        // Regression: it said that the model was being loaded, and clients repeated the request forever.
        assert_eq!((answer.header("x-should-retry"), answer.header("retry-after")), (Some("false"), None), "{path}");
        let load = format!("POST /v1/models/{}/load", awake.as_str().unwrap());
        assert!(error["message"].as_str().is_some_and(|words| words.contains(&load)), "{error}");
    }
    assert_eq!((state(&gateway), gateway.journal().starts().len()), ("stopped".to_owned(), 1));
    assert_eq!(client.post_json("/tokenize", &json!({"content": "x"})).status(), 200);
    assert_eq!(gateway.journal().starts().len(), 2);
}

#[test]
fn a_model_is_not_unloaded_during_a_read_only_request() {
    let gateway = sleeper(json!({"silent_paths": ["/slots"]}), "300ms");
    let reader = gateway.client_with(ADMIN).begin("GET", "/slots", b"").unwrap();
    gateway.journal().wait_for_requests("/slots", 1);
    assert_throughout("the model stays loaded", Duration::from_secs(1), || state(&gateway) == "ready");
    drop(reader);
    wait_asleep(&gateway);
}

#[test]
fn a_wake_that_fails_answers_the_waiting_requests_and_the_next_wake_may_succeed() {
    let gateway = sleeper(json!({"starts": [{}, {"exit_while_loading": {"code": 1}}, {}]}), "300ms");
    wait_asleep(&gateway);
    let answer = gateway.client().post_json(CHAT, &chat());
    assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (503, Some("backend_unavailable")));
    eventually("a later wake succeeds", READY, || gateway.client().post_json(CHAT, &chat()).status() == 200);
}

#[test]
fn a_request_gets_model_loading_if_the_wake_takes_too_long() {
    let gateway = Gateway::builder()
        .script(json!({"starts": [{}, {"load": {"until_released": true}}]}))
        .set_all(&[("IDLE_UNLOAD", "300ms"), ("QUEUE_TIMEOUT", "300ms")])
        .start_ready();
    wait_asleep(&gateway);
    for path in [CHAT, "/tokenize"] {
        let answer = gateway.client().post_json(path, &json!({"messages": [], "content": "x"}));
        assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (503, Some("model_loading")), "{path}");
    }
}

/// The time within which the model has been unloaded and woken ten times.
const WAKES_OFTEN: Duration = Duration::from_secs(60);

#[test]
fn requests_that_race_with_the_unload_are_all_answered() {
    let gateway = sleeper(json!({}), "30ms");
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..2)
        .map(|client: u64| {
            let (requester, is_over) = (gateway.client(), Arc::clone(&is_over));
            std::thread::spawn(move || {
                for n in 0.. {
                    // Pauses that are about as long as IDLE_UNLOAD.
                    std::thread::sleep(Duration::from_millis(10 + (client * 7 + n * 13) % 50));
                    assert_eq!(requester.post_json(CHAT, &chat()).status(), 200);
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            })
        })
        .collect();
    eventually("the model has slept ten times", WAKES_OFTEN, || gateway.journal().starts().len() > 10);
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    let health = gateway.anonymous().get("/health").json();
    assert_eq!((&health["queue"]["active"], &health["queue"]["waiting"]), (&json!(0), &json!(0)));
    assert_eq!(health["models"][0]["restarts"], 0);
}

#[test]
fn the_service_stops_while_its_model_sleeps_or_is_being_woken() {
    let mut asleep = sleeper(json!({}), "300ms");
    wait_asleep(&asleep);
    assert_eq!(asleep.stop().code(), Some(0));
    let mut waking = sleeper(json!({"starts": [{}, {"load": {"until_released": true}}]}), "300ms");
    wait_asleep(&waking);
    let (mut queued, mut helper) = (begin(&waking), begin_helper(&waking));
    eventually("the model is being loaded", SOON, || waking.journal().starts().len() == 2);
    waking.signal(nix::sys::signal::Signal::SIGTERM);
    for client in [&mut queued, &mut helper] {
        let answer = client.read_response().unwrap();
        assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (503, Some("shutting_down")));
    }
    assert_eq!(waking.wait_exit().code(), Some(0));
}

#[test]
fn the_real_llama_server_is_unloaded_and_started_again() {
    let gateway = Gateway::builder()
        .backend(Backend::Real { model: "tiny-chat.gguf" })
        .set_all(&[("MODEL_PATH", smollm().to_str().unwrap()), ("IDLE_UNLOAD", "1s")])
        .start_ready();
    let worker = gateway.child_pids()[0];
    assert_eq!(gateway.client().post_json(CHAT, &chat()).status(), 200);
    eventually("the llama-server process is gone", REAL_MODEL_READY, || pid_gone(worker));
    let answer = gateway.client().post_json(CHAT, &chat());
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_ne!(gateway.child_pids()[0], worker);
}

#[test]
fn an_unused_service_stops_with_0() {
    let settings = [("SHUTDOWN_TIMEOUT", "2s")];
    let script = json!({"starts": [{"load_ms": 2500, "hold_requests": [CHAT]}]});
    let mut gateway = Gateway::builder().script(script).set_all(&settings).start_ready();
    let mut client = begin(&gateway);
    assert_throughout("the service keeps running", Duration::from_secs(3), || {
        gateway.health().get("/livez").status() == 200
    });
    gateway.control().release_all_requests();
    assert_eq!(client.read_response().unwrap().status(), 200);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(gateway.output().contains("no request for SHUTDOWN_TIMEOUT"), "{}", gateway.output());
}

#[test]
fn a_worker_that_crashes_does_not_keep_the_service_running() {
    // The second start never finishes its load.
    let script = json!({"starts": [{}, {"never_ready": true}]});
    let mut gateway = Gateway::builder().script(script).set("SHUTDOWN_TIMEOUT", "2s").start_ready();
    gateway.control().die_with_code(1);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(gateway.output().contains("no request for SHUTDOWN_TIMEOUT"), "{}", gateway.output());
}

#[test]
fn refused_and_read_only_requests_do_not_keep_the_service_running() {
    let mut gateway = Gateway::builder().set("SHUTDOWN_TIMEOUT", "1s").start_ready();
    let (limited, reader) = (gateway.client_with(LIMITED), gateway.client());
    eventually("the service stops despite the requests", STOPS, || {
        let _ = reader.try_send("GET", "/props", b"");
        limited.try_send("POST", CHAT, chat().to_string().as_bytes()).is_err()
    });
    assert_eq!(gateway.wait_exit().code(), Some(0));
}
