//! Loading and eviction, as clients see them: models are loaded on demand within a memory budget, and no model is
//! starved.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::support::{
    client::{Client, RawClient, Stream},
    gateway::Gateway,
    resources::pid_gone,
    scripted::Journal,
    wait::{READY, SOON, STOPS, eventually, patient},
};

const CHAT: &str = "/v1/chat/completions";
/// Longer than any test runs.
const NEVER: &str = "10m";
/// The time within which all requests of the mixed traffic have been answered.
const TRAFFIC_ENDS: Duration = Duration::from_secs(120);

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 2})
}

fn streamed(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "x"}], "stream": true})
}

fn begin(gateway: &Gateway, model: &str) -> RawClient {
    gateway.client().begin("POST", CHAT, chat(model).to_string().as_bytes()).unwrap()
}

#[track_caller]
fn assert_served(gateway: &Gateway, model: &str) {
    let answer = gateway.client().post_json(CHAT, &chat(model));
    assert_eq!((answer.status(), answer.header("x-llamagate-model")), (200, Some(model)), "{}", answer.text());
}

fn state(gateway: &Gateway, model: &str) -> String {
    let health = gateway.anonymous().get("/health").json();
    let of_model = health["models"].as_array().unwrap().iter().find(|entry| entry["id"] == model);
    of_model.unwrap()["state"].as_str().unwrap().to_owned()
}

#[track_caller]
fn wait_state(gateway: &Gateway, model: &str, expected: &str) {
    eventually(&format!("{model} is {expected}"), READY, || state(gateway, model) == expected);
}

fn journal(gateway: &Gateway, model: &str) -> Journal {
    gateway.model_file(&format!("{model}.gguf")).journal()
}

fn starts(gateway: &Gateway, model: &str) -> usize {
    journal(gateway, model).starts().len()
}

fn pid(start: &Value) -> u32 {
    start["pid"].as_u64().unwrap() as u32
}

/// Returns the process id of the latest llama-server of this model.
fn last_pid(gateway: &Gateway, model: &str) -> u32 {
    pid(journal(gateway, model).starts().last().unwrap())
}

fn waiting(gateway: &Gateway) -> u64 {
    gateway.anonymous().get("/health").json()["queue"]["waiting"].as_u64().unwrap()
}

#[track_caller]
fn assert_ends_with_done(stream: &mut Stream) {
    assert!(stream.events().last().is_some_and(|event| event.is_done()), "{}", stream.rest());
}

/// Starts a gateway with memory for `budget` of these models, each of which needs 1 GiB.
fn gateway_with_budget(budget: usize, models: &[(&str, &str, Value)], settings: &[(&str, &str)]) -> Gateway {
    let lines = models.iter().map(|(id, more, _)| format!("  {id}: {{file: {id}.gguf, memory: 1GiB, {more}}}\n"));
    let config = format!("memory_budget: {budget}GiB\nmodels:\n{}", lines.collect::<String>());
    let files: Vec<_> = models.iter().map(|(id, _, script)| (format!("{id}.gguf"), script.clone())).collect();
    let files: Vec<_> = files.iter().map(|(name, script)| (name.as_str(), script.clone())).collect();
    Gateway::builder().fakes(&config, &files).set_all(settings).start_ready()
}

#[test]
fn a_model_is_started_once_for_all_requests_that_wait_for_it() {
    let gateway = gateway_with_budget(2, &[("a", "", json!({"load_ms": 300})), ("b", "", json!({}))], &[]);
    assert!(["a.gguf", "b.gguf"].iter().all(|file| gateway.model_file(file).journal().starts().is_empty()));
    assert_eq!((gateway.health().get("/ping").status(), gateway.health().get("/readyz").status()), (200, 200));
    assert_eq!(gateway.anonymous().get("/health").json()["status"], "ok");
    let mut clients: Vec<RawClient> = (0..20).map(|_| begin(&gateway, "a")).collect();
    for client in &mut clients {
        assert_eq!(client.read_response().unwrap().status(), 200);
    }
    assert_eq!((starts(&gateway, "a"), starts(&gateway, "b")), (1, 0));
    assert_eq!(journal(&gateway, "a").requests(CHAT).len(), 20);
}

#[test]
fn a_preloaded_model_is_loaded_before_its_first_request_and_unloaded_after_its_ttl() {
    let models = [("early", "preload: true, ttl: 1s", json!({})), ("late", "", json!({}))];
    let gateway = gateway_with_budget(2, &models, &[]);
    journal(&gateway, "early").wait_for_event("ready");
    let first = last_pid(&gateway, "early");
    eventually("the model sleeps", STOPS, || state(&gateway, "early") == "stopped" && pid_gone(first));
    assert_eq!(gateway.health().get("/ping").status(), 200);
    assert_served(&gateway, "early");
    assert_eq!((starts(&gateway, "early"), starts(&gateway, "late")), (2, 0));
}

/// Regression: a sleeping model counted as ready, so `/ping` answered 200 while the preloaded model was still loading.
#[test]
fn the_service_is_ready_once_all_preloaded_models_are_though_others_sleep() {
    const READY_LINE: &str = "llamagate is ready";
    let config = "models:\n  early: {file: early.gguf, preload: true}\n  late: {file: late.gguf}\n";
    let files = [("early.gguf", json!({"load": {"until_released": true}})), ("late.gguf", json!({}))];
    let gateway = Gateway::builder().fakes(config, &files).start();
    let (ping, readyz) = (|| gateway.health().get("/ping").status(), || gateway.health().get("/readyz").status());
    journal(&gateway, "early").wait_for_event("start");
    assert_served(&gateway, "late");
    assert_eq!((ping(), readyz(), gateway.anonymous().get("/health").status()), (204, 503, 503));
    assert!(!gateway.output().contains(READY_LINE), "{}", gateway.output());
    gateway.model_file("early.gguf").control().release_load();
    eventually("the preloaded model is ready", READY, || (ping(), readyz()) == (200, 200));
    eventually("the ready line is logged", SOON, || gateway.output().contains(READY_LINE));
}

#[test]
fn the_least_recently_used_model_is_evicted_and_a_pinned_one_never_is() {
    let models =
        [("pinned", "pinned: true", json!({})), ("a", "", json!({})), ("b", "", json!({})), ("c", "", json!({}))];
    let gateway = gateway_with_budget(3, &models, &[("MAX_WAIT_BEFORE_DRAIN", NEVER)]);
    // How often each model has been started after each request.
    for (model, expected) in [
        ("pinned", [1, 0, 0, 0]),
        ("a", [1, 1, 0, 0]),
        ("b", [1, 1, 1, 0]),
        ("a", [1, 1, 1, 0]),
        ("c", [1, 1, 1, 1]),
        ("a", [1, 1, 1, 1]),
        ("b", [1, 1, 2, 1]),
        ("a", [1, 1, 2, 1]),
        ("c", [1, 1, 2, 2]),
        ("pinned", [1, 1, 2, 2]),
    ] {
        assert_served(&gateway, model);
        assert_eq!(models.each_ref().map(|(id, ..)| starts(&gateway, id)), expected, "after {model}");
        assert!(gateway.child_pids().len() <= 3);
    }
    for (id, ..) in models {
        for start in journal(&gateway, id).starts() {
            assert!(
                start["beside"].as_array().unwrap().len() < 3,
                "the evicted model had ended before the start: {start}"
            );
        }
    }
}

#[test]
fn a_busy_model_is_not_evicted_until_it_is_idle() {
    let script = json!({"hold_mid_stream": {"after_frames": 1}});
    let models = [("a", "parallel: 2", script), ("b", "", json!({}))];
    let gateway = gateway_with_budget(1, &models, &[("MAX_WAIT_BEFORE_DRAIN", NEVER)]);
    let mut stream = gateway.client().stream(CHAT, &streamed("a"));
    assert!(stream.next_event().is_some());
    let mut waiting = begin(&gateway, "b");
    wait_state(&gateway, "b", "starting");
    assert_eq!(gateway.health().get("/ping").status(), 200);
    assert_served(&gateway, "a");
    assert_eq!(state(&gateway, "a"), "ready");
    gateway.model_file("a.gguf").control().release_requests(1);
    assert_ends_with_done(&mut stream);
    assert_eq!(waiting.read_response().unwrap().status(), 200);
    assert!(pid_gone(last_pid(&gateway, "a")));
}

#[test]
fn a_busy_model_is_drained_after_max_wait_before_drain_and_loaded_again_for_its_queue() {
    let script = json!({"starts": [{"hold_mid_stream": {"after_frames": 1}}, {}]});
    let models = [("a", "", script), ("b", "", json!({}))];
    let gateway = gateway_with_budget(1, &models, &[("MAX_WAIT_BEFORE_DRAIN", "200ms")]);
    let mut stream = gateway.client().stream(CHAT, &streamed("a"));
    assert!(stream.next_event().is_some());
    let mut for_a = begin(&gateway, "a");
    let mut for_b = begin(&gateway, "b");
    wait_state(&gateway, "a", "draining");
    eventually("both wait", SOON, || waiting(&gateway) == 2);
    assert!(!for_b.has_news() && starts(&gateway, "b") == 0, "the request waits for the end of the stream");
    gateway.model_file("a.gguf").control().release_all_requests();
    assert_ends_with_done(&mut stream);
    assert_eq!(for_b.read_response().unwrap().status(), 200);
    assert_eq!(for_a.read_response().unwrap().status(), 200);
    assert_eq!((starts(&gateway, "a"), starts(&gateway, "b")), (2, 1));
}

#[test]
fn steady_traffic_on_one_model_does_not_starve_another() {
    let script = json!({"slow_first_byte_ms": 20});
    let models = [("a", "parallel: 2", script), ("b", "", json!({}))];
    let gateway = gateway_with_budget(1, &models, &[("MAX_WAIT_BEFORE_DRAIN", "300ms")]);
    assert_served(&gateway, "a");
    let (is_over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    assert_served(&gateway, "a");
                    served.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let _over = SetOnDrop(&is_over);
        eventually("the traffic is under way", SOON, || served.load(Ordering::SeqCst) >= 8);
        assert_served(&gateway, "b");
        let before = served.load(Ordering::SeqCst);
        eventually("the traffic goes on", READY, || served.load(Ordering::SeqCst) >= before + 8);
    });
}

/// Ends the traffic when it is dropped, also by a panic.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_model_that_does_not_fit_beside_pinned_ones_is_refused_at_once_and_blocks_no_other() {
    let config = "memory_budget: 3GiB\n\
                  models:\n\
                  \x20 pinned: {file: p.gguf, memory: 2GiB, pinned: true, preload: true}\n\
                  \x20 large: {file: l.gguf, memory: 2GiB}\n\
                  \x20 twice: {file: l.gguf, memory: 2GiB, replicas: 2}\n\
                  \x20 small: {file: s.gguf, memory: 1GiB}\n";
    let files = ["p.gguf", "l.gguf", "s.gguf"].map(|name| (name, json!({})));
    let gateway = Gateway::builder().fakes(config, &files).set("QUEUE_TIMEOUT", NEVER).start_ready();
    wait_state(&gateway, "pinned", "ready");
    for _ in 0..2 {
        for model in ["large", "twice"] {
            let refused = gateway.client().post_json(CHAT, &chat(model));
            assert_eq!(
                (refused.status(), refused.json()["error"]["code"].as_str()),
                (503, Some("backend_unavailable"))
            );
            assert!(refused.header("retry-after").is_some());
            wait_state(&gateway, model, "stopped");
        }
        assert_served(&gateway, "small");
        assert_served(&gateway, "pinned");
    }
    let health = gateway.anonymous().get("/health").json();
    let large = health["models"].as_array().unwrap().iter().find(|entry| entry["id"] == "large").unwrap();
    let hint = "it does not fit beside the pinned models (pinned); raise memory_budget or unpin one";
    assert_eq!((&large["last_exit"]["hint"], &large["restarts"]), (&json!(hint), &json!(0)));
    assert!(gateway.model_file("l.gguf").journal().starts().is_empty());
    assert_eq!(gateway.model_file("p.gguf").journal().starts().len(), 1);
}

#[test]
fn thirty_models_share_the_memory_of_three_and_no_request_is_lost() {
    const MODELS: usize = 30;
    const REQUESTS: usize = 400;
    let ids: Vec<String> = (0..MODELS).map(|number| format!("m{number:02}")).collect();
    let models: Vec<_> = ids.iter().map(|id| (id.as_str(), "parallel: 2", json!({}))).collect();
    let gateway = gateway_with_budget(3, &models, &[("MAX_WAIT_BEFORE_DRAIN", "200ms")]);
    let (begun, begin) = (AtomicUsize::new(0), Instant::now());
    thread::scope(|scope| {
        for seed in 0..8u64 {
            let (gateway, ids, begun) = (&gateway, &ids, &begun);
            scope.spawn(move || {
                let client = gateway.client();
                let mut dice = Dice(seed + 1);
                while begun.fetch_add(1, Ordering::SeqCst) < REQUESTS {
                    assert!(begin.elapsed() < patient(TRAFFIC_ENDS), "the traffic goes on for too long");
                    send_one_request(&client, &ids[dice.below(MODELS)], &mut dice);
                }
            });
        }
    });
    let mut loads = 0;
    for id in &ids {
        let starts = journal(&gateway, id).starts();
        assert!(!journal(&gateway, id).requests(CHAT).is_empty(), "{id} has had requests");
        let own: BTreeSet<u32> = starts.iter().map(pid).collect();
        for start in &starts {
            let beside: Vec<u32> =
                start["beside"].as_array().unwrap().iter().map(|pid| pid.as_u64().unwrap() as u32).collect();
            assert!(beside.len() < 3, "the budget allows three: {id} beside {beside:?}");
            assert!(!beside.iter().any(|pid| own.contains(pid)), "{id} was loaded twice at the same time");
        }
        loads += starts.len();
    }
    assert!(loads > MODELS, "some models were evicted and loaded again: {loads}");
    eventually("the queue is empty", SOON, || {
        let queue = &gateway.anonymous().get("/health").json()["queue"];
        (queue["active"].as_u64(), queue["waiting"].as_u64()) == (Some(0), Some(0))
    });
    let health = gateway.anonymous().get("/health").json();
    for model in health["models"].as_array().unwrap() {
        assert_eq!((&model["restarts"], &model["last_exit"]), (&json!(0), &Value::Null), "{model}");
    }
}

/// Sends one request of the mixed traffic: plain, streamed, or abandoned before or during the response.
#[track_caller]
fn send_one_request(client: &Client, model: &str, dice: &mut Dice) {
    match dice.below(10) {
        0 => {
            let _ = client.begin("POST", CHAT, chat(model).to_string().as_bytes()).unwrap();
        }
        1 => {
            let mut stream = client.stream(CHAT, &streamed(model));
            assert!(stream.next_event().is_some());
        }
        2..5 => {
            let mut stream = client.stream(CHAT, &streamed(model));
            assert_eq!(stream.head.status, 200);
            assert_ends_with_done(&mut stream);
        }
        _ => {
            let answer = client.post_json(CHAT, &chat(model));
            assert_eq!((answer.status(), answer.complete), (200, true), "{model}: {}", answer.text());
            assert_eq!(answer.header("x-llamagate-model"), Some(model));
        }
    }
}

/// A pseudorandom generator (xorshift64*) with a fixed seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}

#[test]
fn each_of_several_workers_has_its_own_log_folder_and_a_single_worker_has_no_subfolder() {
    let models = [("a", "preload: true", json!({})), ("b", "preload: true, replicas: 2", json!({}))];
    let many = gateway_with_budget(3, &models, &[]);
    let one = Gateway::builder().set("MODEL_NAME", "dummy.gguf").set("MODEL_PATH", "").start_ready();
    for (gateway, folders) in [(&many, &["llama/a", "llama/b", "llama/b@1"][..]), (&one, &["llama"][..])] {
        for folder in folders {
            let folder = gateway.data_dir().join("logs").join(folder);
            eventually(&format!("the output of llama-server is in {}", folder.display()), READY, || {
                let newest = std::fs::read_to_string(folder.join("latest.txt")).unwrap_or_default();
                let text = std::fs::read_to_string(folder.join(newest.trim())).unwrap_or_default();
                text.contains("model loaded")
            });
        }
    }
    let inside = |folder: &str| {
        let entries = std::fs::read_dir(one.data_dir().join("logs").join(folder)).unwrap().flatten();
        entries.filter(|entry| entry.file_type().unwrap().is_dir()).count()
    };
    assert_eq!(inside("llama"), 0);
}
