//! Which models are loaded, as clients see it: on demand, within a memory budget, and nobody is kept out.

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
/// All requests of the mixed traffic have been answered.
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
fn is_served(gateway: &Gateway, model: &str) {
    let answer = gateway.client().post_json(CHAT, &chat(model));
    assert_eq!((answer.status(), answer.header("x-llamagate-model")), (200, Some(model)), "{}", answer.text());
}

fn state(gateway: &Gateway, model: &str) -> String {
    let health = gateway.anonymous().get("/health").json();
    let of_model = health["models"].as_array().unwrap().iter().find(|entry| entry["id"] == model);
    of_model.unwrap()["state"].as_str().unwrap().to_owned()
}

#[track_caller]
fn becomes(gateway: &Gateway, model: &str, expected: &str) {
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

/// The process that was started last for this model.
fn last_pid(gateway: &Gateway, model: &str) -> u32 {
    pid(journal(gateway, model).starts().last().unwrap())
}

fn waiting(gateway: &Gateway) -> u64 {
    gateway.anonymous().get("/health").json()["queue"]["waiting"].as_u64().unwrap()
}

#[track_caller]
fn ends_well(stream: &mut Stream) {
    assert!(stream.events().last().is_some_and(|event| event.is_done()), "{}", stream.rest());
}

/// A gateway with room for `budget` of these models, each of which needs as much as any other.
fn shelf(budget: usize, models: &[(&str, &str, Value)], settings: &[(&str, &str)]) -> Gateway {
    let lines = models.iter().map(|(id, more, _)| format!("  {id}: {{file: {id}.gguf, memory: 1GiB, {more}}}\n"));
    let config = format!("memory_budget: {budget}GiB\nmodels:\n{}", lines.collect::<String>());
    let files: Vec<_> = models.iter().map(|(id, _, script)| (format!("{id}.gguf"), script.clone())).collect();
    let files: Vec<_> = files.iter().map(|(name, script)| (name.as_str(), script.clone())).collect();
    Gateway::builder().fakes(&config, &files).set_all(settings).start_ready()
}

#[test]
fn a_model_is_started_by_its_first_request_once_for_all_who_wait() {
    let gateway = shelf(2, &[("a", "", json!({"load_ms": 300})), ("b", "", json!({}))], &[]);
    assert!(gateway.child_pids().is_empty());
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
fn a_preloaded_model_is_there_before_its_first_request_and_ttl_puts_it_to_sleep() {
    let models = [("early", "preload: true, ttl: 1s", json!({})), ("late", "", json!({}))];
    let gateway = shelf(2, &models, &[]);
    journal(&gateway, "early").wait_for_event("ready");
    let first = last_pid(&gateway, "early");
    eventually("it sleeps", STOPS, || state(&gateway, "early") == "stopped" && pid_gone(first));
    assert_eq!(gateway.health().get("/ping").status(), 200);
    is_served(&gateway, "early");
    assert_eq!((starts(&gateway, "early"), starts(&gateway, "late")), (2, 0));
}

/// Regression: the model that sleeps counted as one that serves, so `/ping` said 200 while the other was being loaded.
#[test]
fn the_service_is_ready_when_all_that_is_preloaded_is_though_others_sleep() {
    const READY_LINE: &str = "llamagate is ready";
    let config = "models:\n  early: {file: early.gguf, preload: true}\n  late: {file: late.gguf}\n";
    let files = [("early.gguf", json!({"load": {"until_released": true}})), ("late.gguf", json!({}))];
    let gateway = Gateway::builder().fakes(config, &files).start();
    let (ping, readyz) = (|| gateway.health().get("/ping").status(), || gateway.health().get("/readyz").status());
    journal(&gateway, "early").wait_for_event("start");
    is_served(&gateway, "late");
    assert_eq!((ping(), readyz(), gateway.anonymous().get("/health").status()), (204, 503, 503));
    assert!(!gateway.output().contains(READY_LINE), "{}", gateway.output());
    gateway.model_file("early.gguf").control().release_load();
    eventually("all is loaded", READY, || (ping(), readyz()) == (200, 200));
    eventually("the log says so", SOON, || gateway.output().contains(READY_LINE));
}

#[test]
fn the_longest_unused_makes_room_and_a_pinned_one_never_does() {
    let models =
        [("pinned", "pinned: true", json!({})), ("a", "", json!({})), ("b", "", json!({})), ("c", "", json!({}))];
    let gateway = shelf(3, &models, &[("MAX_WAIT_BEFORE_DRAIN", NEVER)]);
    // After each request: who has been started how often.
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
        is_served(&gateway, model);
        assert_eq!(models.each_ref().map(|(id, ..)| starts(&gateway, id)), expected, "after {model}");
        assert!(gateway.child_pids().len() <= 3);
    }
    for (id, ..) in models {
        for start in journal(&gateway, id).starts() {
            assert!(start["beside"].as_array().unwrap().len() < 3, "memory was given back first: {start}");
        }
    }
}

#[test]
fn a_busy_model_is_left_alone_until_it_is_idle() {
    let script = json!({"hold_mid_stream": {"after_frames": 1}});
    let models = [("a", "parallel: 2", script), ("b", "", json!({}))];
    let gateway = shelf(1, &models, &[("MAX_WAIT_BEFORE_DRAIN", NEVER)]);
    let mut stream = gateway.client().stream(CHAT, &streamed("a"));
    assert!(stream.next_event().is_some());
    let mut waits = begin(&gateway, "b");
    becomes(&gateway, "b", "starting");
    assert_eq!(gateway.health().get("/ping").status(), 200);
    is_served(&gateway, "a");
    assert_eq!(state(&gateway, "a"), "ready");
    gateway.model_file("a.gguf").control().release_requests(1);
    ends_well(&mut stream);
    assert_eq!(waits.read_response().unwrap().status(), 200);
    assert!(pid_gone(last_pid(&gateway, "a")));
}

#[test]
fn a_busy_model_finishes_what_it_serves_when_another_has_waited_long_enough_and_comes_back_for_the_rest() {
    let script = json!({"starts": [{"hold_mid_stream": {"after_frames": 1}}, {}]});
    let models = [("a", "", script), ("b", "", json!({}))];
    let gateway = shelf(1, &models, &[("MAX_WAIT_BEFORE_DRAIN", "200ms")]);
    let mut stream = gateway.client().stream(CHAT, &streamed("a"));
    assert!(stream.next_event().is_some());
    let mut of_a = begin(&gateway, "a");
    let mut of_b = begin(&gateway, "b");
    becomes(&gateway, "a", "draining");
    eventually("both wait", SOON, || waiting(&gateway) == 2);
    assert!(!of_b.has_news() && starts(&gateway, "b") == 0, "it waits for the stream");
    gateway.model_file("a.gguf").control().release_all_requests();
    ends_well(&mut stream);
    assert_eq!(of_b.read_response().unwrap().status(), 200);
    assert_eq!(of_a.read_response().unwrap().status(), 200);
    assert_eq!((starts(&gateway, "a"), starts(&gateway, "b")), (2, 1));
}

#[test]
fn steady_traffic_on_one_model_does_not_shut_out_another() {
    let script = json!({"slow_first_byte_ms": 20});
    let models = [("a", "parallel: 2", script), ("b", "", json!({}))];
    let gateway = shelf(1, &models, &[("MAX_WAIT_BEFORE_DRAIN", "300ms")]);
    is_served(&gateway, "a");
    let (is_over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    is_served(&gateway, "a");
                    served.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let _over = Over(&is_over);
        eventually("the traffic is under way", SOON, || served.load(Ordering::SeqCst) >= 8);
        is_served(&gateway, "b");
        let before = served.load(Ordering::SeqCst);
        eventually("the traffic goes on", READY, || served.load(Ordering::SeqCst) >= before + 8);
    });
}

/// Ends the traffic, whatever has happened.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_model_for_which_there_is_no_room_beside_pinned_ones_is_refused_at_once_and_nobody_waits_behind_it() {
    let config = "memory_budget: 3GiB\n\
                  models:\n\
                  \x20 pinned: {file: p.gguf, memory: 2GiB, pinned: true, preload: true}\n\
                  \x20 large: {file: l.gguf, memory: 2GiB}\n\
                  \x20 twice: {file: l.gguf, memory: 2GiB, replicas: 2}\n\
                  \x20 small: {file: s.gguf, memory: 1GiB}\n";
    let files = ["p.gguf", "l.gguf", "s.gguf"].map(|name| (name, json!({})));
    let gateway = Gateway::builder().fakes(config, &files).set("QUEUE_TIMEOUT", NEVER).start_ready();
    becomes(&gateway, "pinned", "ready");
    for _ in 0..2 {
        for model in ["large", "twice"] {
            let refused = gateway.client().post_json(CHAT, &chat(model));
            assert_eq!(
                (refused.status(), refused.json()["error"]["code"].as_str()),
                (503, Some("backend_unavailable"))
            );
            assert!(refused.header("retry-after").is_some());
            becomes(&gateway, model, "stopped");
        }
        is_served(&gateway, "small");
        is_served(&gateway, "pinned");
    }
    let health = gateway.anonymous().get("/health").json();
    let large = health["models"].as_array().unwrap().iter().find(|entry| entry["id"] == "large").unwrap();
    let hint = "it does not fit beside the pinned models (pinned); raise memory_budget or unpin one";
    assert_eq!((&large["last_exit"]["hint"], &large["restarts"]), (&json!(hint), &json!(0)));
    assert!(gateway.model_file("l.gguf").journal().starts().is_empty());
    assert_eq!(gateway.model_file("p.gguf").journal().starts().len(), 1);
}

#[test]
fn thirty_models_take_turns_in_the_room_of_three_and_no_request_is_lost() {
    const MODELS: usize = 30;
    const REQUESTS: usize = 400;
    let ids: Vec<String> = (0..MODELS).map(|number| format!("m{number:02}")).collect();
    let models: Vec<_> = ids.iter().map(|id| (id.as_str(), "parallel: 2", json!({}))).collect();
    let gateway = shelf(3, &models, &[("MAX_WAIT_BEFORE_DRAIN", "200ms")]);
    let (begun, begin) = (AtomicUsize::new(0), Instant::now());
    thread::scope(|scope| {
        for seed in 0..8u64 {
            let (gateway, ids, begun) = (&gateway, &ids, &begun);
            scope.spawn(move || {
                let client = gateway.client();
                let mut dice = Dice(seed + 1);
                while begun.fetch_add(1, Ordering::SeqCst) < REQUESTS {
                    assert!(begin.elapsed() < patient(TRAFFIC_ENDS), "the traffic goes on for too long");
                    one_request(&client, &ids[dice.below(MODELS)], &mut dice);
                }
            });
        }
    });
    let mut loads = 0;
    for id in &ids {
        let starts = journal(&gateway, id).starts();
        assert!(!journal(&gateway, id).requests(CHAT).is_empty(), "{id} was asked and served");
        let own: BTreeSet<u32> = starts.iter().map(pid).collect();
        for start in &starts {
            let beside: Vec<u32> =
                start["beside"].as_array().unwrap().iter().map(|pid| pid.as_u64().unwrap() as u32).collect();
            assert!(beside.len() < 3, "there is room for three: {id} beside {beside:?}");
            assert!(!beside.iter().any(|pid| own.contains(pid)), "{id} was loaded twice at the same time");
        }
        loads += starts.len();
    }
    assert!(loads > MODELS, "they had to take turns: {loads}");
    eventually("nothing is left in line", SOON, || {
        let queue = &gateway.anonymous().get("/health").json()["queue"];
        (queue["active"].as_u64(), queue["waiting"].as_u64()) == (Some(0), Some(0))
    });
    let health = gateway.anonymous().get("/health").json();
    for model in health["models"].as_array().unwrap() {
        assert_eq!((&model["restarts"], &model["last_exit"]), (&json!(0), &Value::Null), "{model}");
    }
}

/// One request of the mixed traffic: plain, streamed, or of a client that does not wait for its answer.
#[track_caller]
fn one_request(client: &Client, model: &str, dice: &mut Dice) {
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
            ends_well(&mut stream);
        }
        _ => {
            let answer = client.post_json(CHAT, &chat(model));
            assert_eq!((answer.status(), answer.complete), (200, true), "{model}: {}", answer.text());
            assert_eq!(answer.header("x-llamagate-model"), Some(model));
        }
    }
}

/// Numbers that are the same in every run.
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
fn each_worker_of_many_has_a_log_folder_of_its_own_and_the_only_one_has_none_inside() {
    let models = [("a", "preload: true", json!({})), ("b", "preload: true, replicas: 2", json!({}))];
    let many = shelf(3, &models, &[]);
    let one = Gateway::builder().set("MODEL_NAME", "dummy.gguf").set("MODEL_PATH", "").start_ready();
    for (gateway, folders) in [(&many, &["llama/a", "llama/b", "llama/b@1"][..]), (&one, &["llama"][..])] {
        for folder in folders {
            let folder = gateway.data_dir().join("logs").join(folder);
            eventually(&format!("llama-server's words are in {}", folder.display()), READY, || {
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
