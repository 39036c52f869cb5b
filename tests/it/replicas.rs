//! Several workers of one model, and several models: the failure of one affects no other.

use std::collections::BTreeSet;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::support::{
    client::{RawClient, Stream},
    gateway::Gateway,
    resources::pid_gone,
    scripted::{Control, Journal},
    wait::{READY, SOON, STOPS, eventually},
};

const CHAT: &str = "/v1/chat/completions";

fn chat(model: &str, stream: bool) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "x"}], "stream": stream})
}

fn begin(gateway: &Gateway, model: &str) -> RawClient {
    gateway.client().begin("POST", CHAT, chat(model, false).to_string().as_bytes()).unwrap()
}

fn journal(gateway: &Gateway, model: &str) -> Journal {
    gateway.model_file(&format!("{model}.gguf")).journal()
}

fn pid(record: &Value) -> u32 {
    record["pid"].as_u64().unwrap() as u32
}

fn waiting(gateway: &Gateway) -> u64 {
    gateway.anonymous().get("/health").json()["queue"]["waiting"].as_u64().unwrap()
}

/// Waits until `count` workers of a model are ready.
#[track_caller]
fn wait_workers_ready(gateway: &Gateway, model: &str, count: usize) {
    let line = format!("llamagate_workers_ready{{model=\"{model}\"}} {count}\n");
    eventually(&format!("{count} workers of {model} are ready"), READY, || {
        gateway.anonymous().get("/metrics?format=prometheus").text().contains(&line)
    });
}

/// Begins a stream and waits for its first event.
fn held_stream(gateway: &Gateway, model: &str) -> Stream {
    let mut stream = gateway.client().stream(CHAT, &chat(model, true));
    assert!(stream.next_event().is_some());
    stream
}

#[test]
fn a_killed_replica_fails_only_its_own_requests_and_is_restarted() {
    let holds = json!({"hold_requests": [CHAT]});
    let script = json!({"starts": [holds, holds, {}]});
    let config = "models:\n  r: {file: r.gguf, replicas: 2, preload: true}\n  s: {file: s.gguf}\n";
    let gateway = Gateway::builder().fakes(config, &[("r.gguf", script), ("s.gguf", json!({}))]).start_ready();
    wait_workers_ready(&gateway, "r", 2);
    let journal = journal(&gateway, "r");
    let mut clients: Vec<RawClient> = Vec::new();
    for number in 1..=2 {
        clients.push(begin(&gateway, "r"));
        journal.wait_for_requests(CHAT, number);
    }
    let asked: Vec<u32> = journal.requests(CHAT).iter().map(pid).collect();
    assert_ne!(asked[0], asked[1], "each worker gets one request");
    let mut third = begin(&gateway, "r");
    eventually("both workers are busy, so the third request waits", SOON, || waiting(&gateway) == 1);

    kill(Pid::from_raw(asked[1] as i32), Signal::SIGKILL).unwrap();
    let failed = clients.pop().unwrap().read_response().unwrap();
    assert_eq!((failed.status(), failed.json()["error"]["code"].as_str()), (502, Some("backend_error")));
    assert_eq!(gateway.health().get("/ping").status(), 200);
    let starts = journal.starts();
    let survivor = starts.iter().find(|start| pid(start) == asked[0]).unwrap();
    Control::of(survivor).release_all_requests();
    assert_eq!(clients.pop().unwrap().read_response().unwrap().status(), 200);

    assert_eq!(third.read_response().unwrap().status(), 200);
    let mut workers = BTreeSet::new();
    eventually("both workers serve", READY, || {
        // Single requests might always go to the same idle worker, so two are sent at once.
        let mut two = [begin(&gateway, "r"), begin(&gateway, "r")];
        for client in &mut two {
            let answer = client.read_response().unwrap();
            assert_eq!(answer.status(), 200, "{}", answer.text());
            workers.insert(answer.header("x-llamagate-worker").unwrap().to_owned());
        }
        workers.len() == 2
    });
    assert!(!pid_gone(asked[0]), "the other worker was not restarted");
}

#[test]
fn after_sigterm_the_streams_of_all_models_finish_and_no_process_is_left() {
    let script = json!({"hold_mid_stream": {"after_frames": 1}});
    let config = "defaults: {preload: true}\n\
                  models:\n\
                  \x20 a: {file: a.gguf}\n\
                  \x20 b: {file: b.gguf, replicas: 2}\n\
                  \x20 c: {file: c.gguf, preload: false}\n";
    let files = ["a.gguf", "b.gguf", "c.gguf"].map(|name| (name, script.clone()));
    let mut gateway = Gateway::builder().fakes(config, &files).start_ready();
    wait_workers_ready(&gateway, "b", 2);
    let mut streams: Vec<Stream> = ["a", "b", "b", "c"].iter().map(|model| held_stream(&gateway, model)).collect();
    gateway.signal(Signal::SIGTERM);
    eventually("the health port reports the stop", SOON, || gateway.health().get("/ping").status() == 503);
    for model in ["a", "b", "c"] {
        let refused = gateway.client().post_json(CHAT, &chat(model, false));
        assert_eq!((refused.status(), refused.json()["error"]["code"].as_str()), (503, Some("shutting_down")));
    }
    let starts: Vec<Value> = ["a", "b", "c"].iter().flat_map(|model| journal(&gateway, model).starts()).collect();
    let pids: Vec<u32> = starts.iter().map(pid).collect();
    for start in starts.iter().filter(|start| !pid_gone(pid(start))) {
        Control::of(start).release_all_requests();
    }
    for stream in &mut streams {
        assert!(stream.events().last().is_some_and(|event| event.is_done()));
    }
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(pids.len() >= 4 && pids.into_iter().all(pid_gone));
}

#[test]
fn a_model_that_hangs_is_restarted_and_another_is_not_disturbed() {
    let hangs = json!({"starts": [{"hold_mid_stream": {"after_frames": 1}}, {}]});
    let drips = json!({"drip": {"interval_ms": 150, "frames": 30}});
    let config = "defaults: {preload: true, hang_timeout: 1s}\n\
                  models:\n\
                  \x20 hangs: {file: hangs.gguf}\n\
                  \x20 drips: {file: drips.gguf}\n";
    let gateway = Gateway::builder().fakes(config, &[("hangs.gguf", hangs), ("drips.gguf", drips)]).start_ready();
    for model in ["hangs", "drips"] {
        wait_workers_ready(&gateway, model, 1);
    }
    let mut healthy = held_stream(&gateway, "drips");
    let mut hung = held_stream(&gateway, "hangs");
    let last = hung.events().pop().unwrap();
    assert_eq!(last.json()["error"]["code"], "backend_error");
    assert_eq!(gateway.client().post_json(CHAT, &chat("hangs", false)).status(), 200);
    assert!(healthy.events().last().is_some_and(|event| event.is_done()));
    eventually("the hung model was restarted", STOPS, || journal(&gateway, "hangs").starts().len() == 2);
    assert_eq!(journal(&gateway, "drips").starts().len(), 1);
}
