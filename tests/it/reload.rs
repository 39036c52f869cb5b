//! The configuration is read again: what stays the same is not disturbed, what is wrong changes nothing.

use super::support::{
    client::{RawClient, Response, Stream},
    gateway::{ADMIN, Gateway, USER},
    resources::pid_gone,
    scripted::{Control, Journal},
    wait::{READY, SOON, STOPS, eventually},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn chat(model: &str, stream: bool) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "x"}], "stream": stream})
}

fn begin(gateway: &Gateway, model: &str) -> RawClient {
    gateway.client().begin("POST", CHAT, chat(model, false).to_string().as_bytes()).unwrap()
}

fn ask(gateway: &Gateway, model: &str) -> Response {
    gateway.client().post_json(CHAT, &chat(model, false))
}

#[track_caller]
fn is_served(gateway: &Gateway, model: &str) {
    let answer = ask(gateway, model);
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

/// A stream that is held after its first event.
fn held_stream(gateway: &Gateway, model: &str) -> Stream {
    let mut stream = gateway.client().stream(CHAT, &chat(model, true));
    assert!(stream.next_event().is_some());
    stream
}

#[track_caller]
fn ends_well(stream: &mut Stream) {
    assert!(stream.events().last().is_some_and(|event| event.is_done()), "{}", stream.rest());
}

fn journal(gateway: &Gateway, model: &str) -> Journal {
    gateway.model_file(&format!("{model}.gguf")).journal()
}

fn pids(gateway: &Gateway, model: &str) -> Vec<u32> {
    journal(gateway, model).starts().iter().map(|start| start["pid"].as_u64().unwrap() as u32).collect()
}

#[track_caller]
fn all_ready(gateway: &Gateway, models: &[&str]) {
    for model in models {
        journal(gateway, model).wait_for_event("ready");
    }
    eventually("all are ready", READY, || {
        let health = gateway.anonymous().get("/health").json();
        health["models"].as_array().unwrap().iter().all(|model| model["state"] == "ready")
    });
}

fn reload(gateway: &Gateway) -> Response {
    gateway.client_with(ADMIN).send("POST", "/reload", b"")
}

#[track_caller]
fn reloads(gateway: &Gateway) {
    let answer = reload(gateway);
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

fn waiting(gateway: &Gateway) -> u64 {
    gateway.anonymous().get("/health").json()["queue"]["waiting"].as_u64().unwrap()
}

fn metrics(gateway: &Gateway) -> String {
    gateway.anonymous().get("/metrics?format=prometheus").text()
}

fn held() -> Value {
    json!({"hold_mid_stream": {"after_frames": 1}})
}

const BEFORE: &str = "defaults: {preload: true}\n\
                      models:\n\
                      \x20 stays: {file: stays.gguf, parallel: 2}\n\
                      \x20 changes: {file: changes.gguf, ctx: 1024}\n\
                      \x20 goes: {file: goes.gguf}\n";
const AFTER: &str = "defaults: {preload: true}\n\
                     models:\n\
                     \x20 comes: {file: comes.gguf}\n\
                     \x20 changes: {file: changes.gguf, ctx: 2048}\n\
                     \x20 stays: {file: stays.gguf, parallel: 2, aliases: [other], sampling: {temperature: 0.25}}\n";

fn before(settings: &[(&str, &str)]) -> Gateway {
    let files = [("stays.gguf", held()), ("changes.gguf", held()), ("goes.gguf", held()), ("comes.gguf", json!({}))];
    let gateway = Gateway::builder().fakes(BEFORE, &files).set_all(settings).start_ready();
    all_ready(&gateway, &["stays", "changes", "goes"]);
    gateway
}

#[test]
fn what_stays_is_left_alone_what_goes_finishes_what_comes_is_served_and_what_changes_starts_anew() {
    let gateway = before(&[]);
    let mut streams = ["stays", "changes", "goes"].map(|model| held_stream(&gateway, model));
    let controls = ["stays", "changes", "goes"].map(|model| journal(&gateway, model).starts().remove(0));
    let mut controls = controls.each_ref().map(Control::of);
    let mut of_goes = begin(&gateway, "goes");
    eventually("it waits behind the stream", SOON, || waiting(&gateway) == 1);
    gateway.rewrite_config(AFTER);
    let answer = reload(&gateway);
    assert_eq!((answer.status(), answer.json()["keys_loaded"].as_u64()), (200, Some(4)), "{}", answer.text());

    let unknown = ask(&gateway, "goes");
    assert_eq!((unknown.status(), unknown.json()["error"]["code"].as_str()), (404, Some("model_not_found")));
    for known in ["comes", "changes", "stays"] {
        assert!(unknown.text().contains(known), "{}", unknown.text());
    }
    let listed = gateway.client().get("/v1/models").json();
    let listed: Vec<&str> =
        listed["data"].as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap()).collect();
    assert_eq!(listed, ["comes", "changes", "stays"]);
    is_served(&gateway, "comes");
    is_served(&gateway, "other");
    let asked = journal(&gateway, "stays").requests(CHAT).pop().unwrap();
    assert!(asked["body"].as_str().unwrap().contains("0.25"), "{asked}");
    is_served(&gateway, "changes");
    let contexts = journal(&gateway, "changes").starts();
    let contexts: Vec<_> = contexts.iter().map(|start| argument_after(start, "-c")).collect();
    assert_eq!(contexts, ["1024", "2048"]);
    let old = [pids(&gateway, "changes")[0], pids(&gateway, "goes")[0]];
    assert!(!old.into_iter().any(pid_gone), "they finish their streams first");

    for (stream, control) in streams.iter_mut().zip(&mut controls) {
        control.release_all_requests();
        ends_well(stream);
    }
    assert_eq!(of_goes.read_response().unwrap().status(), 200, "it had been let in");
    eventually("what is no longer needed ends", STOPS, || old.into_iter().all(pid_gone));
    assert_eq!(["stays", "changes", "goes", "comes"].map(|model| pids(&gateway, model).len()), [1, 2, 1, 1]);
    for model in ["stays", "changes", "comes"] {
        is_served(&gateway, model);
    }
    eventually("the metrics know of those that there are", SOON, || {
        let metrics = metrics(&gateway);
        let is_ready = |model| {
            metrics.contains(&format!("llamagate_worker_state{{model=\"{model}\",worker=\"0\",state=\"ready\"}} 1\n"))
                && metrics.contains(&format!("llamagate_workers_ready{{model=\"{model}\"}} 1\n"))
        };
        ["stays", "changes", "comes"].into_iter().all(is_ready)
            && !metrics.lines().any(|line| line.starts_with("llamagate_worker") && line.contains("\"goes\""))
    });
}

fn argument_after(start: &Value, name: &str) -> String {
    let argv: Vec<&str> = start["argv"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let at = argv.iter().position(|word| *word == name).unwrap();
    argv[at + 1].to_owned()
}

#[test]
fn it_is_read_again_on_sighup_and_when_the_file_changes() {
    let gateway = before(&[]);
    gateway.signal(Signal::SIGHUP);
    eventually("it was reloaded", SOON, || gateway.output().contains("configuration and keys reloaded"));
    assert_eq!(["stays", "changes", "goes"].map(|model| pids(&gateway, model).len()), [1, 1, 1]);
    gateway.rewrite_config(AFTER);
    eventually("nobody has to say so", READY, || ask(&gateway, "goes").status() == 404);
    is_served(&gateway, "comes");
    assert_eq!(pids(&gateway, "stays").len(), 1);
}

#[test]
fn a_mistake_changes_nothing_and_is_named() {
    let gateway = before(&[]);
    let wrong = [
        ("models: [", "llamagate.yaml"),
        (&*format!("{AFTER}\x20 more: {{file: comes.gguf, contxt: 5}}\n"), "models.more.contxt"),
        (&*AFTER.replace("comes.gguf", "nowhere.gguf"), "nowhere.gguf"),
        (&*format!("{AFTER}\x20 bad: {{command: [serve]}}\n"), "({port} stands for the port"),
        ("models: {}", "no model is named"),
    ];
    for (config, named) in wrong {
        gateway.rewrite_config(config);
        let answer = reload(&gateway);
        assert_eq!(answer.status(), 500, "{config}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(named) && message.contains("all stays as it was"), "{message}");
        eventually("the log has it", SOON, || {
            let output = gateway.output();
            output.lines().any(|line| line.contains("ERROR") && line.contains(named))
        });
        for model in ["stays", "changes", "goes"] {
            is_served(&gateway, model);
        }
        assert_eq!(ask(&gateway, "comes").status(), 404);
    }
    assert_eq!(["stays", "changes", "goes"].map(|model| pids(&gateway, model).len()), [1, 1, 1]);
    gateway.rewrite_config(AFTER);
    reloads(&gateway);
    is_served(&gateway, "comes");
}

#[test]
fn a_configuration_file_that_is_gone_changes_nothing() {
    let gateway = before(&[("MODEL_NAME", "comes")]);
    let file = gateway.data_dir().join("llamagate.yaml");
    std::fs::remove_file(&file).unwrap();
    let answer = reload(&gateway);
    assert_eq!(answer.status(), 500, "{}", answer.text());
    assert!(answer.text().contains("the configuration file is gone"), "{}", answer.text());
    for model in ["stays", "changes", "goes"] {
        is_served(&gateway, model);
    }
    gateway.rewrite_config(AFTER.replace("comes: {file: comes.gguf}", "more: {file: goes.gguf}").as_str());
    reloads(&gateway);
    is_served(&gateway, "more");
}

/// Regression: nobody was told before the next `/reload` or start.
#[test]
fn a_configuration_file_that_goes_is_told_of_once_each_time() {
    const GONE: &str = "the configuration file is gone, all stays as it was";
    let gateway = before(&[]);
    let told = || gateway.output().lines().filter(|line| line.contains("ERROR") && line.contains(GONE)).count();
    std::fs::remove_file(gateway.data_dir().join("llamagate.yaml")).unwrap();
    eventually("it is told", READY, || told() == 1);
    is_served(&gateway, "goes");
    gateway.rewrite_config(AFTER);
    eventually("it is back, and taken", READY, || ask(&gateway, "goes").status() == 404);
    assert_eq!(told(), 1);
    std::fs::remove_file(gateway.data_dir().join("llamagate.yaml")).unwrap();
    eventually("it is told again", READY, || told() == 2);
    is_served(&gateway, "comes");
}

#[test]
fn the_log_says_in_numbers_what_has_changed() {
    let gateway = before(&[]);
    gateway.rewrite_config(AFTER);
    reloads(&gateway);
    eventually("the log has it", SOON, || {
        let output = gateway.output();
        let line = output.lines().find(|line| line.contains("configuration and keys reloaded")).unwrap_or_default();
        ["kept=0", "changed=1", "started=2", "removed=1"].into_iter().all(|count| line.contains(count))
    });
}

#[test]
fn max_concurrent_requests_is_taken_and_shown_and_nobody_says_that_it_waits() {
    let with = |number: u32| format!("server: {{max_concurrent_requests: {number}}}\n{BEFORE}");
    let files = [("stays.gguf", json!({})), ("changes.gguf", json!({})), ("goes.gguf", json!({}))];
    let gateway = Gateway::builder().fakes(&with(1), &files).start_ready();
    all_ready(&gateway, &["stays", "changes", "goes"]);
    let shown = || gateway.anonymous().get("/health").json()["queue"]["max_concurrent"].as_u64();
    assert_eq!(shown(), Some(1));
    gateway.rewrite_config(&with(3));
    reloads(&gateway);
    assert_eq!(shown(), Some(3));
    eventually("the one without a number starts anew", READY, || pids(&gateway, "goes").len() == 2);
    let slots = |model: &str| {
        let stats = gateway.client_with(ADMIN).get("/lb/stats").json();
        let of_model = stats["models"].as_array().unwrap().iter().find(|shown| shown["id"] == model).unwrap();
        of_model["workers"][0]["slots"].as_u64()
    };
    assert_eq!((slots("stays"), slots("goes")), (Some(2), Some(3)), "the first has a number of its own");
    assert_eq!(pids(&gateway, "stays").len(), 1);
    eventually("the log has it", SOON, || gateway.output().contains("configuration and keys reloaded"));
    assert!(!gateway.output().contains("MAX_CONCURRENT_REQUESTS has changed"), "{}", gateway.output());
}

#[test]
fn a_request_whose_body_comes_during_a_reload_is_served_by_what_there_is_then() {
    let gateway = before(&[]);
    let body = chat("changes", false).to_string();
    let request = gateway.client().request("POST", CHAT, body.as_bytes());
    let (first, rest) = request.split_at(request.len() - 5);
    let old = pids(&gateway, "changes")[0];
    let mut slow = RawClient::connect(gateway.url());
    slow.write(first).unwrap();
    gateway.rewrite_config(AFTER);
    reloads(&gateway);
    eventually("the old one has ended", STOPS, || pid_gone(old));
    slow.write(rest).unwrap();
    assert_eq!(slow.read_response().unwrap().status(), 200);
    assert_eq!(journal(&gateway, "changes").requests(CHAT).len(), 1);
}

#[test]
fn who_is_still_there_after_drain_timeout_is_told() {
    let gateway = before(&[("DRAIN_TIMEOUT", "500ms")]);
    let mut stream = held_stream(&gateway, "goes");
    let mut waits = begin(&gateway, "goes");
    eventually("it waits behind the stream", SOON, || waiting(&gateway) == 1);
    gateway.rewrite_config(AFTER);
    reloads(&gateway);
    let refused = waits.read_response().unwrap();
    assert_eq!(refused.status(), 404, "{}", refused.text());
    let events = stream.events();
    for error in [&refused.json()["error"], &events.last().unwrap().json()["error"]] {
        assert_eq!((&error["code"], &error["param"]), (&json!("model_not_found"), &json!("model")), "{events:?}");
        assert_eq!(error["message"], "The model 'goes' is no longer served");
    }
    let old = pids(&gateway, "goes")[0];
    eventually("its process ends", STOPS, || pid_gone(old));
    eventually("nothing is left in line", SOON, || waiting(&gateway) == 0);
    is_served(&gateway, "stays");
}

#[test]
fn who_has_no_answer_yet_after_drain_timeout_is_told_too() {
    let files =
        [("stays.gguf", json!({})), ("changes.gguf", json!({})), ("goes.gguf", json!({"hold_requests": [CHAT]}))];
    let gateway = Gateway::builder().fakes(BEFORE, &files).set("DRAIN_TIMEOUT", "500ms").start_ready();
    all_ready(&gateway, &["stays", "changes", "goes"]);
    let mut asks = begin(&gateway, "goes");
    journal(&gateway, "goes").wait_for_requests(CHAT, 1);
    gateway.rewrite_config(&BEFORE.replace("goes: {file: goes.gguf}", "stays2: {file: stays.gguf}"));
    reloads(&gateway);
    let refused = asks.read_response().unwrap();
    assert_eq!((refused.status(), refused.json()["error"]["code"].as_str()), (404, Some("model_not_found")));
}

#[test]
fn drain_timeout_is_that_of_the_start() {
    let with_timeout = |timeout: &str, text: &str| format!("server: {{drain_timeout: {timeout}}}\n{text}");
    let files = [("stays.gguf", held()), ("changes.gguf", held()), ("goes.gguf", held()), ("comes.gguf", json!({}))];
    let gateway = Gateway::builder().fakes(with_timeout("500ms", BEFORE).as_str(), &files).start_ready();
    all_ready(&gateway, &["stays", "changes", "goes"]);
    let mut stream = held_stream(&gateway, "goes");
    gateway.rewrite_config(&with_timeout("1h", AFTER));
    reloads(&gateway);
    let notice = "DRAIN_TIMEOUT has changed, which takes effect at the next start";
    eventually("it is said", SOON, || gateway.output().contains(notice));
    let old = pids(&gateway, "goes")[0];
    eventually("its process ends", STOPS, || pid_gone(old));
    assert!(stream.events().last().is_some_and(|event| event.json()["error"]["code"].is_string()));
}

#[test]
fn reloads_under_traffic_lose_no_request() {
    let other = BEFORE.replace("1024", "4096").replace("parallel: 2", "parallel: 2, aliases: [x]");
    let script = json!({"slow_first_byte_ms": 5});
    let files = ["stays.gguf", "changes.gguf", "goes.gguf"].map(|name| (name, script.clone()));
    let gateway = Gateway::builder().fakes(BEFORE, &files).start_ready();
    all_ready(&gateway, &["stays", "changes", "goes"]);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (gateway, is_over) = (&gateway, &is_over);
            scope.spawn(move || {
                let model = ["stays", "changes"][number % 2];
                while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                    is_served(gateway, model);
                }
            });
        }
        let reloading = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..10 {
                gateway.rewrite_config(if round % 2 == 0 { &other } else { BEFORE });
                reloads(&gateway);
                is_served(&gateway, "changes");
            }
        }));
        is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        reloading.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert_eq!(pids(&gateway, "stays").len(), 1);
    assert_eq!(pids(&gateway, "changes").len(), 11);
}

#[test]
fn a_reload_does_not_let_anybody_in_once_the_service_stops() {
    let mut gateway = before(&[]);
    let mut stream = held_stream(&gateway, "stays");
    gateway.signal(Signal::SIGTERM);
    eventually("it stops", SOON, || gateway.health().get("/ping").status() == 503);
    gateway.rewrite_config(AFTER);
    reloads(&gateway);
    for model in ["comes", "changes", "stays"] {
        let refused = ask(&gateway, model);
        assert_eq!((refused.status(), refused.json()["error"]["code"].as_str()), (503, Some("shutting_down")));
    }
    gateway.model_file("stays.gguf").control().release_all_requests();
    ends_well(&mut stream);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    let starts = ["stays", "changes", "goes", "comes"].map(|model| pids(&gateway, model));
    assert!(starts.into_iter().flatten().all(pid_gone));
}

#[test]
fn keys_are_read_again_with_it_and_not_without() {
    let gateway = before(&[]);
    let keys = std::fs::read_to_string(gateway.keys_file()).unwrap();
    std::fs::write(gateway.keys_file(), format!("{keys}more:more-secret-0123456789:100\n")).unwrap();
    assert_eq!(reload(&gateway).json()["keys_loaded"], 5);
    assert_eq!(gateway.client_with("more-secret-0123456789").get("/v1/models").status(), 200);
    assert_eq!(gateway.client_with(USER).send("POST", "/reload", b"").status(), 403);
}
