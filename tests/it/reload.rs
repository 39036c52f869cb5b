//! Reloads of the configuration: a model that is unchanged is not disturbed, and a configuration with a mistake changes
//! nothing.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::support::{
    client::{RawClient, Response, Stream},
    file_lease::FileLease,
    gateway::{ADMIN, Gateway, USER},
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

fn ask(gateway: &Gateway, model: &str) -> Response {
    gateway.client().post_json(CHAT, &chat(model, false))
}

#[track_caller]
fn assert_served(gateway: &Gateway, model: &str) {
    let answer = ask(gateway, model);
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

/// Begins a stream, which llama-server holds after its first event.
fn held_stream(gateway: &Gateway, model: &str) -> Stream {
    let mut stream = gateway.client().stream(CHAT, &chat(model, true));
    assert!(stream.next_event().is_some());
    stream
}

#[track_caller]
fn assert_ends_with_done(stream: &mut Stream) {
    assert!(stream.events().last().is_some_and(|event| event.is_done()), "{}", stream.rest());
}

fn journal(gateway: &Gateway, model: &str) -> Journal {
    gateway.model_file(&format!("{model}.gguf")).journal()
}

fn pids(gateway: &Gateway, model: &str) -> Vec<u32> {
    journal(gateway, model).starts().iter().map(|start| start["pid"].as_u64().unwrap() as u32).collect()
}

#[track_caller]
fn wait_all_ready(gateway: &Gateway, models: &[&str]) {
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

/// Reloads by `POST /reload`, which must succeed.
#[track_caller]
fn reload_ok(gateway: &Gateway) {
    let answer = reload(gateway);
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

fn waiting(gateway: &Gateway) -> u64 {
    gateway.anonymous().get("/health").json()["queue"]["waiting"].as_u64().unwrap()
}

fn metrics(gateway: &Gateway) -> String {
    gateway.anonymous().get("/metrics?format=prometheus").text()
}

fn held_script() -> Value {
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
    let files = [
        ("stays.gguf", held_script()),
        ("changes.gguf", held_script()),
        ("goes.gguf", held_script()),
        ("comes.gguf", json!({})),
    ];
    let gateway = Gateway::builder().fakes(BEFORE, &files).set_all(settings).start_ready();
    wait_all_ready(&gateway, &["stays", "changes", "goes"]);
    gateway
}

#[test]
fn a_llama_server_that_a_reload_had_started_was_killed_at_the_stop() {
    let mut gateway = before(&[]);
    gateway.rewrite_config(AFTER);
    reload_ok(&gateway);
    wait_all_ready(&gateway, &["comes", "changes"]);
    assert_eq!(gateway.stop().code(), Some(0));
    for model in ["comes", "changes", "stays"] {
        let last = journal(&gateway, model).starts().pop().unwrap();
        let stopped = journal(&gateway, model).events("sigterm");
        assert!(stopped.iter().any(|event| event["pid"] == last["pid"]), "{model}: {stopped:?}");
    }
}

#[test]
fn a_reload_keeps_unchanged_models_drains_removed_ones_adds_new_ones_and_restarts_changed_ones() {
    let gateway = before(&[]);
    let mut streams = ["stays", "changes", "goes"].map(|model| held_stream(&gateway, model));
    let controls = ["stays", "changes", "goes"].map(|model| journal(&gateway, model).starts().remove(0));
    let mut controls = controls.each_ref().map(Control::of);
    let mut queued = begin(&gateway, "goes");
    eventually("the request waits behind the stream", SOON, || waiting(&gateway) == 1);
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
    assert_served(&gateway, "comes");
    assert_served(&gateway, "other");
    let asked = journal(&gateway, "stays").requests(CHAT).pop().unwrap();
    assert!(asked["body"].as_str().unwrap().contains("0.25"), "{asked}");
    assert_served(&gateway, "changes");
    let contexts = journal(&gateway, "changes").starts();
    let contexts: Vec<_> = contexts.iter().map(|start| argument_after(start, "-c")).collect();
    assert_eq!(contexts, ["1024", "2048"]);
    let old = [pids(&gateway, "changes")[0], pids(&gateway, "goes")[0]];
    assert!(!old.into_iter().any(pid_gone), "the old processes finish their streams first");

    for (stream, control) in streams.iter_mut().zip(&mut controls) {
        control.release_all_requests();
        assert_ends_with_done(stream);
    }
    assert_eq!(queued.read_response().unwrap().status(), 200, "the request was already in the queue");
    eventually("the old processes end", STOPS, || old.into_iter().all(pid_gone));
    assert_eq!(["stays", "changes", "goes", "comes"].map(|model| pids(&gateway, model).len()), [1, 2, 1, 1]);
    for model in ["stays", "changes", "comes"] {
        assert_served(&gateway, model);
    }
    eventually("the metrics have the models that are served, and no other", SOON, || {
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
fn the_configuration_is_reloaded_on_sighup_and_when_its_file_changes() {
    let gateway = before(&[]);
    gateway.signal(Signal::SIGHUP);
    eventually("the configuration is reloaded", SOON, || gateway.output().contains("configuration and keys reloaded"));
    assert_eq!(["stays", "changes", "goes"].map(|model| pids(&gateway, model).len()), [1, 1, 1]);
    gateway.rewrite_config(AFTER);
    eventually("the change is noticed without a request to reload", READY, || ask(&gateway, "goes").status() == 404);
    assert_served(&gateway, "comes");
    assert_eq!(pids(&gateway, "stays").len(), 1);
}

#[test]
fn a_mistake_changes_nothing_and_is_named() {
    let gateway = before(&[]);
    let wrong = [
        ("models: [", "llamagate.yaml"),
        (&*format!("{AFTER}\x20 more: {{file: comes.gguf, contxt: 5}}\n"), "models.more.contxt"),
        (&*AFTER.replace("comes.gguf", "nowhere.gguf"), "nowhere.gguf"),
        (&*format!("{AFTER}\x20 bad: {{command: [serve]}}\n"), "({port} is replaced by the port"),
        ("models: {}", "no model is named"),
    ];
    for (config, named) in wrong {
        gateway.rewrite_config(config);
        let answer = reload(&gateway);
        assert_eq!(answer.status(), 500, "{config}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(named) && message.contains("all stays as it was"), "{message}");
        eventually("the log names the mistake", SOON, || {
            let output = gateway.output();
            output.lines().any(|line| line.contains("ERROR") && line.contains(named))
        });
        for model in ["stays", "changes", "goes"] {
            assert_served(&gateway, model);
        }
        assert_eq!(ask(&gateway, "comes").status(), 404);
    }
    assert_eq!(["stays", "changes", "goes"].map(|model| pids(&gateway, model).len()), [1, 1, 1]);
    gateway.rewrite_config(AFTER);
    reload_ok(&gateway);
    assert_served(&gateway, "comes");
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
        assert_served(&gateway, model);
    }
    gateway.rewrite_config(AFTER.replace("comes: {file: comes.gguf}", "more: {file: goes.gguf}").as_str());
    reload_ok(&gateway);
    assert_served(&gateway, "more");
}

/// Regression: the missing file was not reported before the next `/reload` or start.
#[test]
fn a_missing_configuration_file_is_logged_once_each_time() {
    const GONE: &str = "the configuration file is gone, all stays as it was";
    let gateway = before(&[]);
    let reports = || gateway.output().lines().filter(|line| line.contains("ERROR") && line.contains(GONE)).count();
    std::fs::remove_file(gateway.data_dir().join("llamagate.yaml")).unwrap();
    eventually("the missing file is reported", READY, || reports() == 1);
    assert_served(&gateway, "goes");
    gateway.rewrite_config(AFTER);
    eventually("the new file is loaded", READY, || ask(&gateway, "goes").status() == 404);
    assert_eq!(reports(), 1);
    std::fs::remove_file(gateway.data_dir().join("llamagate.yaml")).unwrap();
    eventually("the missing file is reported again", READY, || reports() == 2);
    assert_served(&gateway, "comes");
}

#[test]
fn a_reload_logs_how_many_models_have_changed() {
    let gateway = before(&[]);
    gateway.rewrite_config(AFTER);
    reload_ok(&gateway);
    eventually("the log has the counts", SOON, || {
        let output = gateway.output();
        let line = output.lines().find(|line| line.contains("configuration and keys reloaded")).unwrap_or_default();
        ["kept=0", "changed=1", "started=2", "removed=1"].into_iter().all(|count| line.contains(count))
    });
}

#[test]
fn a_change_of_max_concurrent_requests_takes_effect_at_a_reload() {
    let with = |number: u32| format!("server: {{max_concurrent_requests: {number}}}\n{BEFORE}");
    let files = [("stays.gguf", json!({})), ("changes.gguf", json!({})), ("goes.gguf", json!({}))];
    let gateway = Gateway::builder().fakes(&with(1), &files).start_ready();
    wait_all_ready(&gateway, &["stays", "changes", "goes"]);
    let shown = || gateway.anonymous().get("/health").json()["queue"]["max_concurrent"].as_u64();
    assert_eq!(shown(), Some(1));
    gateway.rewrite_config(&with(3));
    reload_ok(&gateway);
    assert_eq!(shown(), Some(3));
    eventually("the model without a number of its own is restarted", READY, || pids(&gateway, "goes").len() == 2);
    let slots = |model: &str| {
        let stats = gateway.client_with(ADMIN).get("/lb/stats").json();
        let of_model = stats["models"].as_array().unwrap().iter().find(|shown| shown["id"] == model).unwrap();
        of_model["workers"][0]["slots"].as_u64()
    };
    assert_eq!((slots("stays"), slots("goes")), (Some(2), Some(3)), "the first model has its own number");
    assert_eq!(pids(&gateway, "stays").len(), 1);
    eventually("the reload is logged", SOON, || gateway.output().contains("configuration and keys reloaded"));
    assert!(!gateway.output().contains("MAX_CONCURRENT_REQUESTS has changed"), "{}", gateway.output());
}

#[test]
fn a_request_whose_body_comes_during_a_reload_is_served_by_the_new_configuration() {
    let gateway = before(&[]);
    let body = chat("changes", false).to_string();
    let request = gateway.client().request("POST", CHAT, body.as_bytes());
    let (first, rest) = request.split_at(request.len() - 5);
    let old = pids(&gateway, "changes")[0];
    let mut slow = RawClient::connect(gateway.url());
    slow.write(first).unwrap();
    gateway.rewrite_config(AFTER);
    reload_ok(&gateway);
    eventually("the old process has ended", STOPS, || pid_gone(old));
    slow.write(rest).unwrap();
    assert_eq!(slow.read_response().unwrap().status(), 200);
    assert_eq!(journal(&gateway, "changes").requests(CHAT).len(), 1);
}

#[test]
fn requests_of_a_removed_model_get_404_after_drain_timeout() {
    let gateway = before(&[("DRAIN_TIMEOUT", "500ms")]);
    let mut stream = held_stream(&gateway, "goes");
    let mut waits = begin(&gateway, "goes");
    eventually("the request waits behind the stream", SOON, || waiting(&gateway) == 1);
    gateway.rewrite_config(AFTER);
    reload_ok(&gateway);
    let refused = waits.read_response().unwrap();
    assert_eq!(refused.status(), 404, "{}", refused.text());
    let events = stream.events();
    for error in [&refused.json()["error"], &events.last().unwrap().json()["error"]] {
        assert_eq!((&error["code"], &error["param"]), (&json!("model_not_found"), &json!("model")), "{events:?}");
        assert_eq!(error["message"], "The model 'goes' is no longer served");
    }
    let old = pids(&gateway, "goes")[0];
    eventually("the process of the model ends", STOPS, || pid_gone(old));
    eventually("the queue is empty", SOON, || waiting(&gateway) == 0);
    assert_served(&gateway, "stays");
}

#[test]
fn a_request_of_a_removed_model_without_an_answer_yet_gets_404_after_drain_timeout() {
    let files =
        [("stays.gguf", json!({})), ("changes.gguf", json!({})), ("goes.gguf", json!({"hold_requests": [CHAT]}))];
    let gateway = Gateway::builder().fakes(BEFORE, &files).set("DRAIN_TIMEOUT", "500ms").start_ready();
    wait_all_ready(&gateway, &["stays", "changes", "goes"]);
    let mut unanswered = begin(&gateway, "goes");
    journal(&gateway, "goes").wait_for_requests(CHAT, 1);
    gateway.rewrite_config(&BEFORE.replace("goes: {file: goes.gguf}", "stays2: {file: stays.gguf}"));
    reload_ok(&gateway);
    let refused = unanswered.read_response().unwrap();
    assert_eq!((refused.status(), refused.json()["error"]["code"].as_str()), (404, Some("model_not_found")));
}

/// A configuration with one model whose workers `ctx` replaces.
fn with_context(ctx: u32) -> String {
    format!("defaults: {{preload: true}}\nmodels:\n  m: {{file: m.gguf, ctx: {ctx}}}\n  stays: {{file: stays.gguf}}\n")
}

/// Starts a gateway whose model `m` follows `first` until it is replaced, and is healthy then.
fn replaceable(first: &Value, settings: &[(&str, &str)]) -> Gateway {
    let files = [("m.gguf", json!({"starts": [first, {}]})), ("stays.gguf", json!({}))];
    let gateway = Gateway::builder().fakes(&with_context(1024), &files).set_all(settings).start_ready();
    wait_all_ready(&gateway, &["m", "stays"]);
    gateway
}

#[track_caller]
fn replace_workers(gateway: &Gateway) {
    gateway.rewrite_config(&with_context(2048));
    reload_ok(gateway);
}

/// Regression: requests that waited for a model whose workers a reload replaced waited for the old ones, and were refused
/// when `DRAIN_TIMEOUT` had passed.
#[test]
fn requests_that_wait_for_a_replaced_model_are_served_by_its_new_workers() {
    let gateway = replaceable(&held_script(), &[("DRAIN_TIMEOUT", "10m")]);
    let mut stream = held_stream(&gateway, "m");
    let mut waiting = ["m", "m", "m"].map(|model| begin(&gateway, model));
    eventually("the requests wait behind the stream", SOON, || waiting.len() as u64 == self::waiting(&gateway));
    let old = Control::of(&journal(&gateway, "m").starts()[0]);
    replace_workers(&gateway);
    for client in &mut waiting {
        let answer = client.read_response().unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    let starts = pids(&gateway, "m");
    assert!(starts.len() == 2 && !pid_gone(starts[0]), "the old worker still serves the stream");
    let mut old = old;
    old.release_all_requests();
    assert_ends_with_done(&mut stream);
    eventually("the old worker ends", STOPS, || pid_gone(starts[0]));
    assert_eq!(journal(&gateway, "m").requests(CHAT).len(), 4, "each is sent once");
}

/// Siblings of the case above: the old workers are loading, or have failed for good.
#[test]
fn requests_for_a_model_whose_workers_cannot_serve_go_on_at_the_new_ones_after_a_reload() {
    let gateway = {
        let files = [("m.gguf", json!({"starts": [{"never_ready": true}, {}]})), ("stays.gguf", json!({}))];
        Gateway::builder().fakes(&with_context(1024), &files).set("LOAD_TIMEOUT", "10m").start()
    };
    journal(&gateway, "m").wait_for_event("start");
    let tokenize = json!({"model": "m", "content": "x"}).to_string();
    let mut clients = [begin(&gateway, "m"), gateway.client().begin("POST", "/tokenize", tokenize.as_bytes()).unwrap()];
    eventually("the chat waits", SOON, || waiting(&gateway) == 1);
    replace_workers(&gateway);
    for client in &mut clients {
        let answer = client.read_response().unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    eventually("the old worker ends", STOPS, || pid_gone(pids(&gateway, "m")[0]));
}

/// Regression: it was 502 `backend_error`.
#[test]
fn a_request_that_is_cut_by_a_reload_goes_on_at_the_new_workers_if_it_may_be_repeated() {
    for (path, body, is_repeated) in [
        ("/v1/embeddings", json!({"model": "m", "input": "x"}), true),
        ("/tokenize", json!({"model": "m", "content": "x"}), true),
        ("/apply-template", json!({"model": "m", "messages": [{"role": "user", "content": "x"}]}), true),
        (CHAT, chat("m", false), false),
        (CHAT, chat("m", true), false),
    ] {
        let arguments = if path == "/v1/embeddings" { "m.gguf, args: [--embeddings]" } else { "m.gguf" };
        let config = |ctx: u32| with_context(ctx).replace("m.gguf", arguments);
        let files = [("m.gguf", json!({"starts": [{"hold_requests": [path]}, {}]})), ("stays.gguf", json!({}))];
        let gateway = Gateway::builder().fakes(&config(1024), &files).set("DRAIN_TIMEOUT", "300ms").start_ready();
        wait_all_ready(&gateway, &["m", "stays"]);
        let mut client = gateway.client().begin("POST", path, body.to_string().as_bytes()).unwrap();
        journal(&gateway, "m").wait_for_requests(path, 1);
        gateway.rewrite_config(&config(2048));
        reload_ok(&gateway);
        let answer = client.read_response().unwrap();
        let sent = journal(&gateway, "m").requests(path).len();
        if is_repeated {
            assert_eq!((answer.status(), sent), (200, 2), "{path}: {}", answer.text());
            assert_eq!(answer.header("x-llamagate-attempts"), Some("2"));
            continue;
        }
        let error = answer.json();
        assert_eq!((answer.status(), &error["error"]["code"]), (503, &json!("backend_unavailable")), "{path}: {error}");
        assert!(error.to_string().contains("restarted with a new configuration"), "{error}");
        assert!(answer.header("retry-after").is_some());
        assert_eq!(sent, 1, "what may have begun is not computed twice");
    }
}

#[test]
fn a_stream_that_is_cut_by_a_reload_says_that_its_model_was_restarted() {
    let gateway = replaceable(&held_script(), &[("DRAIN_TIMEOUT", "300ms")]);
    let mut stream = held_stream(&gateway, "m");
    replace_workers(&gateway);
    let error = stream.events().last().unwrap().json();
    assert_eq!(error["error"]["code"], "backend_unavailable", "{error}");
    assert_served(&gateway, "m");
}

/// The new configuration counts for a request that waited for the old one.
#[test]
fn a_request_that_waits_is_refused_if_the_new_model_is_of_another_kind() {
    let gateway = replaceable(&held_script(), &[]);
    let _stream = held_stream(&gateway, "m");
    let mut waits = begin(&gateway, "m");
    eventually("the request waits behind the stream", SOON, || waiting(&gateway) == 1);
    gateway.rewrite_config(&with_context(1024).replace("m.gguf", "m.gguf, kind: embedding"));
    reload_ok(&gateway);
    let refused = waits.read_response().unwrap();
    assert_eq!((refused.status(), refused.json()["error"]["code"].as_str()), (400, Some("wrong_model_kind")));
}

#[test]
fn a_change_of_drain_timeout_takes_effect_at_the_next_start() {
    let with_timeout = |timeout: &str, text: &str| format!("server: {{drain_timeout: {timeout}}}\n{text}");
    let files = [
        ("stays.gguf", held_script()),
        ("changes.gguf", held_script()),
        ("goes.gguf", held_script()),
        ("comes.gguf", json!({})),
    ];
    let gateway = Gateway::builder().fakes(with_timeout("500ms", BEFORE).as_str(), &files).start_ready();
    wait_all_ready(&gateway, &["stays", "changes", "goes"]);
    let mut stream = held_stream(&gateway, "goes");
    gateway.rewrite_config(&with_timeout("1h", AFTER));
    reload_ok(&gateway);
    let notice = "DRAIN_TIMEOUT has changed, which takes effect at the next start";
    eventually("the notice is logged", SOON, || gateway.output().contains(notice));
    let old = pids(&gateway, "goes")[0];
    eventually("the process of the model ends", STOPS, || pid_gone(old));
    assert!(stream.events().last().is_some_and(|event| event.json()["error"]["code"].is_string()));
}

/// Regression: stop signals were not handled before a reload had read its files, which a hanging volume can delay for ever.
#[test]
fn a_reload_whose_files_cannot_be_read_holds_up_no_stop() {
    let causes: [fn(&Gateway); 2] = [|gateway| gateway.signal(Signal::SIGHUP), |gateway| gateway.rewrite_config(AFTER)];
    for cause in causes {
        let mut gateway = before(&[]);
        let mut lease = FileLease::take(&gateway.keys_file());
        cause(&gateway);
        lease.wait_asked();
        assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.output());
        assert!(!gateway.output().contains("did not end in time"), "{}", gateway.output());
    }
}

#[test]
fn reloads_under_traffic_lose_no_request() {
    let changed = BEFORE.replace("1024", "4096").replace("parallel: 2", "parallel: 2, aliases: [x]");
    let script = json!({"slow_first_byte_ms": 5});
    let files = ["stays.gguf", "changes.gguf", "goes.gguf"].map(|name| (name, script.clone()));
    let gateway = Gateway::builder().fakes(BEFORE, &files).start_ready();
    wait_all_ready(&gateway, &["stays", "changes", "goes"]);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (gateway, is_over) = (&gateway, &is_over);
            scope.spawn(move || {
                let model = ["stays", "changes"][number % 2];
                while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                    assert_served(gateway, model);
                }
            });
        }
        let reloading = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..10 {
                gateway.rewrite_config(if round % 2 == 0 { &changed } else { BEFORE });
                reload_ok(&gateway);
                assert_served(&gateway, "changes");
            }
        }));
        is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        reloading.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert_eq!(pids(&gateway, "stays").len(), 1);
    assert_eq!(pids(&gateway, "changes").len(), 11);
}

#[test]
fn a_reload_while_the_service_stops_admits_no_request() {
    let mut gateway = before(&[]);
    let mut stream = held_stream(&gateway, "stays");
    gateway.signal(Signal::SIGTERM);
    eventually("the service is stopping", SOON, || gateway.health().get("/ping").status() == 503);
    gateway.rewrite_config(AFTER);
    reload_ok(&gateway);
    for model in ["comes", "changes", "stays"] {
        let refused = ask(&gateway, model);
        assert_eq!((refused.status(), refused.json()["error"]["code"].as_str()), (503, Some("shutting_down")));
    }
    gateway.model_file("stays.gguf").control().release_all_requests();
    assert_ends_with_done(&mut stream);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    let starts = ["stays", "changes", "goes", "comes"].map(|model| pids(&gateway, model));
    assert!(starts.into_iter().flatten().all(pid_gone));
}

#[test]
fn a_reload_reads_the_keys_too_and_needs_the_admin_scope() {
    let gateway = before(&[]);
    let keys = std::fs::read_to_string(gateway.keys_file()).unwrap();
    std::fs::write(gateway.keys_file(), format!("{keys}more:more-secret-0123456789:100\n")).unwrap();
    assert_eq!(reload(&gateway).json()["keys_loaded"], 5);
    assert_eq!(gateway.client_with("more-secret-0123456789").get("/v1/models").status(), 200);
    assert_eq!(gateway.client_with(USER).send("POST", "/reload", b"").status(), 403);
}
