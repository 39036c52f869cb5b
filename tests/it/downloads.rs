//! Downloads over HTTP: ordered, followed, cancelled, gone on with; and the removal of models.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::client::{Client, Event, Response};
use super::support::gateway::{ADMIN, Builder, Gateway, ollama_python, smollm, test_models};
use super::support::mock_hub::{COMMIT, HubFaults, MockHub};
use super::support::model_file;
use super::support::page_commands::run_page_where;
use super::support::wait::{REAL_MODEL_ANSWERS, STARTS, STOPS, eventually, eventually_some};

const DOWNLOAD: &str = "/v1/models/download";
const DOWNLOADS: &str = "/v1/models/downloads";
const TINY: &str = "Org/Tiny-GGUF:Q8_0";
pub(super) const SMOL: &str = "Org/Smol-GGUF:Q4_1";
/// The bytes of [`TINY`] that mock hubs have.
const TINY_FILE: &str = "tiny-chat.gguf";

/// A hub, a folder with two models, so that a name means only its own, and an empty cache of the hub beside it.
pub(super) struct Setup {
    hub: MockHub,
    folder: TempDir,
    cache: TempDir,
}

impl Setup {
    fn new() -> Self {
        let [folder, cache] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let hub = MockHub::start();
        hub.add("Org/Tiny-GGUF", "Tiny-Q8_0.gguf", fs::read(test_models().join(TINY_FILE)).unwrap());
        for name in ["first.gguf", "second.gguf"] {
            fs::copy(test_models().join(TINY_FILE), folder.path().join(name)).unwrap();
        }
        Self { hub, folder, cache }
    }

    /// Also has a model of many pieces.
    pub(super) fn with_smol() -> Self {
        let setup = Self::new();
        setup.hub.add("Org/Smol-GGUF", "Smol-Q4_1.gguf", fs::read(smollm()).unwrap());
        setup
    }

    pub(super) fn gateway(&self) -> Builder {
        Gateway::builder()
            .reals("")
            .set("MODELS_DIR", self.folder.path().display())
            .set("HF_HUB_CACHE", self.cache.path().display())
            .set("HF_ENDPOINT", self.hub.url())
            .set("HF_HUB_OFFLINE", false)
            .set("DOWNLOAD_RETRIES", 0)
    }

    /// Adds a model to the cache, as that of the repository `o/m`. Returns its file.
    fn cached(&self, file: &str) -> PathBuf {
        let repository = self.cache.path().join("models--o--m");
        let path = repository.join("snapshots").join(COMMIT).join(file);
        for folder in [path.parent().unwrap(), &repository.join("refs")] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(repository.join("refs/main"), COMMIT).unwrap();
        fs::copy(test_models().join(TINY_FILE), &path).unwrap();
        path
    }

    /// Has the host of files send slowly enough that a download can be stopped in its middle.
    pub(super) fn slow(&self) {
        let pause = std::time::Duration::from_millis(20);
        self.hub.set_faults(HubFaults { pause, ..HubFaults::default() });
    }
}

fn admin(gateway: &Gateway) -> Client {
    gateway.client_with(ADMIN)
}

#[track_caller]
pub(super) fn order(client: &Client, model: &str) -> Value {
    let answer = client.post_json(DOWNLOAD, &json!({"model": model}));
    assert_eq!(answer.status(), 202, "{}", answer.text());
    let download = answer.json();
    assert_eq!(answer.header("location"), Some(path_of(&download).as_str()));
    download
}

fn path_of(download: &Value) -> String {
    format!("{DOWNLOADS}/{}", download["id"].as_str().unwrap())
}

/// Follows a download to its end.
#[track_caller]
fn follow(client: &Client, download: &Value) -> Vec<Event> {
    let mut stream = client.clone().patience(REAL_MODEL_ANSWERS).stream_of(&(path_of(download) + "/events"));
    assert_eq!((stream.head.status, stream.head.header("content-type")), (200, Some("text/event-stream")));
    let events = stream.events();
    assert!(stream.is_complete(), "{events:?}");
    events
}

/// Waits until some bytes have come.
fn wait_for_bytes(client: &Client, download: &Value, least: u64) {
    let path = path_of(download);
    eventually("bytes come", STARTS, || client.get(&path).json()["bytes"].as_u64().unwrap() >= least);
}

fn code(answer: &Response) -> (u16, String) {
    (answer.status(), answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

fn send(client: &Client, method: &str, path: &str) -> Response {
    client.send(method, path, b"")
}

fn chat(client: &Client, model: &str) -> Response {
    let messages = json!([{"role": "user", "content": "Say hello."}]);
    client.post_json("/v1/chat/completions", &json!({"model": model, "messages": messages, "max_tokens": 4}))
}

/// Most bytes that the hub sends to connections that were closed: a piece to each of four.
const SENT_IN_VAIN: u64 = 4 * (64 << 10);

#[test]
fn a_model_that_is_ordered_comes_answers_under_its_name_and_can_be_removed() {
    let setup = Setup::with_smol();
    let gateway = setup.gateway().start();
    let client = admin(&gateway);
    let download = order(&client, SMOL);
    assert_eq!((&download["model"], &download["state"]), (&json!(SMOL), &json!("downloading")), "{download}");
    let events = follow(&client, &download);
    let (last, size) = (events.last().unwrap(), fs::metadata(smollm()).unwrap().len());
    assert_eq!(last.name.as_deref(), Some("done"), "{events:?}");
    let done = last.json();
    assert_eq!((&done["bytes"], &done["total"], &done["error"]), (&json!(size), &json!(size), &Value::Null));
    let ids: Vec<u64> = events.iter().map(|event| event.id.as_ref().unwrap().parse().unwrap()).collect();
    assert!(ids.is_sorted_by(|one, other| one < other), "{ids:?}");
    assert!(events[..events.len() - 1].iter().all(|event| event.name.as_deref() == Some("progress")));

    // At once, and without a look at the folder by anything else.
    let answer = chat(&gateway.client(), "Smol-Q4_1");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let metrics = client.get("/metrics?format=prometheus").text();
    assert!(metrics.contains(&format!("llamagate_download_bytes_total{{model=\"{SMOL}\"}} {size}\n")), "{metrics}");
    assert!(metrics.contains("llamagate_downloads{state=\"done\"} 1\n"), "{metrics}");

    let again = client.post_json(DOWNLOAD, &json!({"model": SMOL}));
    assert_eq!((again.status(), &again.json()["state"]), (200, &json!("done")), "it is there");
    assert_eq!(again.json()["id"], download["id"]);
    assert_eq!(setup.hub.bytes_sent() as u64, size);

    let refused = send(&client, "DELETE", "/v1/models/Smol-Q4_1");
    assert_eq!(code(&refused), (409, "model_in_use".to_owned()), "{}", refused.text());
    assert!(refused.text().contains("unload"), "{}", refused.text());
    client.post_json("/v1/models/Smol-Q4_1/unload", &json!({}));
    let removed = eventually_some("the model is removed", STOPS, || {
        let answer = send(&client, "DELETE", "/v1/models/Smol-Q4_1");
        (answer.status() == 200).then_some(answer)
    });
    let removed = removed.json();
    assert_eq!((&removed["deleted"], &removed["id"]), (&json!(true), &json!("Smol-Q4_1")), "{removed}");
    assert!(removed["bytes_freed"].as_u64().unwrap() >= size, "{removed}");
    assert_eq!(chat(&gateway.client(), "Smol-Q4_1").status(), 404);
    assert_eq!(send(&client, "DELETE", "/v1/models/Smol-Q4_1").status(), 404);
    assert!(!client.get("/v1/models").text().contains("Smol"), "it is off the shelf");
}

#[test]
fn two_clients_share_a_download_and_one_that_was_cancelled_goes_on_with_the_rest_alone() {
    let setup = Setup::with_smol();
    setup.slow();
    let gateway = setup.gateway().start();
    let client = admin(&gateway);
    let first = order(&client, SMOL);
    assert_eq!(order(&client, "https://huggingface.co/Org/Smol-GGUF:Q4_1")["id"], first["id"]);
    let mut follower = client.stream_of(&(path_of(&first) + "/events"));
    let present = follower.next_event().unwrap();
    assert_eq!(present.name.as_deref(), Some("progress"), "the first event comes at once");
    wait_for_bytes(&client, &first, 4 << 20);
    let cancelled = send(&client, "DELETE", &path_of(&first));
    assert_eq!((cancelled.status(), &cancelled.json()["state"]), (200, &json!("cancelled")), "{}", cancelled.text());
    assert_eq!(follower.events().last().and_then(|event| event.name.clone()).as_deref(), Some("cancelled"));
    // A client that has seen the last event is told to ask no more; one that has not gets it.
    let seen = |id: &str| client.clone().header("Last-Event-ID", id).get(&(path_of(&first) + "/events"));
    let events = follow(&client, &first);
    assert_eq!(events.len(), 1, "{events:?}");
    let last = events[0].id.clone().unwrap();
    assert_eq!(seen(&last).status(), 204);
    assert_eq!(code(&seen("x")), (400, "bad_request".to_owned()));
    assert!(seen("1").text().contains("event: cancelled"));

    let kept = cancelled.json()["bytes"].as_u64().unwrap();
    setup.hub.set_faults(HubFaults::default());
    setup.hub.forget_requests();
    let second = order(&client, SMOL);
    assert_ne!(second["id"], first["id"]);
    assert_eq!(follow(&client, &second).last().unwrap().name.as_deref(), Some("done"));
    let size = fs::metadata(smollm()).unwrap().len();
    // The connections of the cancelled one may have sent a little more before the hub saw that they are closed.
    let sent = setup.hub.bytes_sent() as u64;
    assert!(sent <= size - kept + SENT_IN_VAIN, "{sent} of {size}, {kept} were kept");

    let list = client.get(DOWNLOADS).json();
    let ids: Vec<&Value> = list["data"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!((&list["object"], ids), (&json!("list"), vec![&second["id"], &first["id"]]), "the newest is first");
    assert_eq!(send(&client, "DELETE", &path_of(&first)).status(), 200, "one that has ended is forgotten");
    assert_eq!(code(&client.get(&path_of(&first))), (404, "download_not_found".to_owned()));
    assert_eq!(code(&send(&client, "DELETE", &path_of(&first))), (404, "download_not_found".to_owned()));
}

#[test]
fn a_stop_ends_those_that_follow_keeps_what_has_arrived_and_the_next_start_goes_on() {
    let setup = Setup::with_smol();
    setup.slow();
    let mut gateway = setup.gateway().start();
    let client = admin(&gateway);
    let download = order(&client, SMOL);
    let mut follower = client.stream_of(&(path_of(&download) + "/events"));
    wait_for_bytes(&client, &download, 4 << 20);
    gateway.signal(Signal::SIGTERM);
    assert!(follower.events().iter().all(|event| event.name.as_deref() == Some("progress")), "it has no end");
    assert_eq!(gateway.wait_exit().code(), Some(0), "{}", gateway.output());
    setup.hub.set_faults(HubFaults::default());
    setup.hub.forget_requests();
    let gateway = setup.gateway().start();
    let client = admin(&gateway);
    let download = order(&client, SMOL);
    assert_eq!(follow(&client, &download).last().unwrap().name.as_deref(), Some("done"));
    let size = fs::metadata(smollm()).unwrap().len();
    assert!(setup.hub.bytes_sent() as u64 <= size - (4 << 20), "{} of {size}", setup.hub.bytes_sent());
}

#[test]
fn a_download_that_fails_says_why_and_harms_nothing_else() {
    let setup = Setup::new();
    let gateway = setup.gateway().start();
    let client = admin(&gateway);
    let busy = (1000, "503 Service Unavailable".to_owned(), "busy".to_owned());
    for (what, model, faults, sentence, hint) in [
        ("hub away", TINY, HubFaults { file_answer: Some(busy), ..HubFaults::default() }, "503", "try again"),
        ("wrong hash", TINY, HubFaults { sends_wrong_bytes: true, ..HubFaults::default() }, "SHA-256", "mirror"),
        ("gated", TINY, HubFaults { token: Some("t".to_owned()), ..HubFaults::default() }, "asked for it", "HF_TOKEN"),
        ("unknown", "Org/None", HubFaults::default(), "no repository Org/None", "check the name"),
        ("disk full", TINY, HubFaults { size_lie: 1 << 60, ..HubFaults::default() }, "free", "free some room"),
    ] {
        setup.hub.set_faults(faults);
        let failed = follow(&client, &order(&client, model));
        let last = failed.last().unwrap();
        assert_eq!(last.name.as_deref(), Some("failed"), "{what}: {failed:?}");
        let error = last.json()["error"].clone();
        assert!(error["message"].as_str().unwrap().contains(sentence), "{what}: {error}");
        assert!(error["hint"].as_str().unwrap().contains(hint), "{what}: {error}");
        assert_eq!(chat(&gateway.client(), "first").status(), 200, "{what}");
    }
    setup.hub.set_faults(HubFaults::default());
    assert_eq!(follow(&client, &order(&client, TINY)).last().unwrap().name.as_deref(), Some("done"));
}

#[test]
fn only_admins_may_and_what_is_no_order_is_refused_by_name() {
    let setup = Setup::new();
    let gateway = setup.gateway().start();
    for (method, path) in [
        ("POST", DOWNLOAD),
        ("GET", DOWNLOADS),
        ("GET", "/v1/models/downloads/x"),
        ("GET", "/v1/models/downloads/x/events"),
        ("DELETE", "/v1/models/downloads/x"),
        ("DELETE", "/v1/models/first"),
        ("POST", "/api/pull"),
        ("DELETE", "/api/delete"),
    ] {
        let body: &[u8] = if method == "POST" { br#"{"model":"Org/Tiny-GGUF"}"# } else { b"" };
        assert_eq!(gateway.client().send(method, path, body).status(), 403, "{method} {path}");
        assert_eq!(gateway.anonymous().send(method, path, body).status(), 401, "{method} {path}");
    }
    let client = admin(&gateway);
    let hostile = [
        "",
        " ",
        "name",
        "../../etc/passwd",
        "/etc/passwd",
        "Org/../x.gguf",
        "Org/Name/../../x.gguf",
        "file:///m.gguf",
        "http://h/m.gguf",
        "https://h/m.gguf",
        "Org/Name\u{0}",
        "Org/Näme",
    ];
    for name in hostile {
        let answer = client.post_json(DOWNLOAD, &json!({"model": name}));
        assert_eq!(code(&answer), (400, "invalid_parameter".to_owned()), "{name:?}: {}", answer.text());
    }
    assert!(client.post_json(DOWNLOAD, &json!({"model": "x"})).text().contains("ORG/NAME[:QUANT]"));
    for (body, word) in [
        (json!({"model": TINY, "quant": "Q4"}), "quant"),
        (json!({"name": TINY}), "name"),
        (json!({"model": "x".repeat(2000)}), "longer"),
        (json!([]), "object"),
    ] {
        let answer = client.post_json(DOWNLOAD, &body);
        assert!(answer.status() == 400 && answer.text().contains(word), "{}", answer.text());
    }
    assert!(setup.hub.requests().is_empty(), "nothing was asked for");
}

#[test]
fn without_keys_orders_are_for_programs_of_this_machine_and_no_page_may_send_one() {
    let setup = Setup::new();
    let gateway = setup.gateway().without_keys().start();
    let page = gateway.anonymous().header("Origin", "http://page.example");
    for (method, path) in [("POST", DOWNLOAD), ("DELETE", "/v1/models/downloads/x"), ("DELETE", "/v1/models/first")] {
        assert_eq!(code(&page.send(method, path, b"{}")), (403, "origin_not_allowed".to_owned()), "{method} {path}");
    }
    let away = gateway.anonymous().header("X-Forwarded-For", "203.0.113.9");
    assert_eq!(code(&send(&away, "DELETE", "/v1/models/first")), (403, "loopback_required".to_owned()));
    assert_eq!(code(&send(&gateway.anonymous(), "DELETE", "/v1/models/downloads/x")).0, 404);
    assert!(setup.folder.path().join("first.gguf").exists());
}

#[test]
fn a_key_for_some_models_brings_and_removes_no_other() {
    let setup = Setup::new();
    let keys = format!("some:{ADMIN}:100000 scope=admin models=second\n");
    let gateway = setup.gateway().keys(&keys).start();
    let client = admin(&gateway);
    for name in ["first", "first.gguf"] {
        let refused = send(&client, "DELETE", &format!("/v1/models/{name}"));
        assert_eq!(code(&refused), (403, "model_not_allowed".to_owned()), "{name}");
    }
    let refused = client.post_json(DOWNLOAD, &json!({"model": TINY}));
    assert_eq!(code(&refused), (403, "model_not_allowed".to_owned()), "{}", refused.text());
    assert_eq!(send(&client, "DELETE", "/v1/models/second").status(), 200);
}

#[test]
fn offline_nothing_comes_and_what_is_there_is_done() {
    let setup = Setup::new();
    let gateway = setup.gateway().set("HF_HUB_OFFLINE", true).start();
    let client = admin(&gateway);
    let refused = client.post_json(DOWNLOAD, &json!({"model": TINY}));
    assert_eq!(code(&refused), (403, "downloads_off".to_owned()), "{}", refused.text());
    assert!(refused.text().contains("HF_HUB_OFFLINE"), "{}", refused.text());
    assert!(setup.hub.requests().is_empty());
    drop(gateway);
    let gateway = setup.gateway().start();
    follow(&admin(&gateway), &order(&admin(&gateway), TINY));
    drop(gateway);
    let gateway = setup.gateway().set("HF_HUB_OFFLINE", true).start();
    let there = admin(&gateway).post_json(DOWNLOAD, &json!({"model": TINY}));
    assert_eq!((there.status(), &there.json()["state"]), (200, &json!("done")), "{}", there.text());
}

#[test]
fn a_download_that_the_start_waits_for_has_one_id_and_cannot_be_cancelled() {
    let setup = Setup::new();
    setup.hub.set_faults(HubFaults { holds: true, ..HubFaults::default() });
    let config = format!("models:\n  tiny: {{file: '{TINY}'}}\n");
    let gateway = setup.gateway().reals(&config).set("MODELS_DIR", setup.folder.path().display()).start();
    let client = admin(&gateway);
    eventually("the model is asked for", STARTS, || setup.hub.requests().iter().any(|request| request.is_of_files));
    let download = order(&client, TINY);
    assert_eq!(client.get(DOWNLOADS).json()["data"].as_array().unwrap().len(), 1);
    let refused = send(&client, "DELETE", &path_of(&download));
    assert_eq!(code(&refused), (409, "download_needed".to_owned()), "{}", refused.text());
    setup.hub.release();
    assert_eq!(follow(&client, &download).last().unwrap().name.as_deref(), Some("done"));
    assert_eq!(chat(&gateway.client(), "tiny").status(), 200);
    // The next start needs it, whatever it is called.
    for name in ["tiny", TINY] {
        let refused = send(&client, "DELETE", &format!("/v1/models/{name}"));
        assert_eq!(code(&refused), (409, "model_in_use".to_owned()), "{}", refused.text());
        assert!(refused.text().contains("the configuration names it"), "{}", refused.text());
    }
}

#[test]
fn only_models_in_the_folders_of_this_program_can_be_removed() {
    let setup = Setup::new();
    let store = setup.folder.path().join(".ollama/models");
    fs::create_dir_all(&store).unwrap();
    fs::copy(test_models().join(TINY_FILE), store.join("theirs.gguf")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let outside = elsewhere.path().join("outside.gguf");
    fs::copy(test_models().join(TINY_FILE), &outside).unwrap();
    let gateway = setup.gateway().start();
    let client = admin(&gateway);
    let remove = |name: &str| send(&client, "DELETE", &format!("/v1/models/{name}"));
    let theirs = remove(".ollama/models/theirs.gguf");
    assert_eq!(code(&theirs), (403, "model_not_removable".to_owned()), "{}", theirs.text());
    let encoded = outside.display().to_string().replace('/', "%2F");
    for name in [encoded.as_str(), "nothing", "..%2F..%2Fetc%2Fpasswd.gguf", "Org/None:Q4"] {
        let answer = remove(name);
        assert!(matches!(answer.status(), 400 | 404), "{name}: {}", answer.text());
    }
    assert!(outside.exists() && store.join("theirs.gguf").exists());
    assert_eq!(remove("first").status(), 200);
    assert!(!setup.folder.path().join("first.gguf").exists());
}

#[test]
fn the_query_of_a_signed_address_is_in_no_log_and_no_answer() {
    let setup = Setup::new();
    let logs = setup.folder.path().join("logs");
    // The address is one that nothing answers at.
    let address = format!("https://127.0.0.1:9/m.gguf?X-Signature=s3cr3t-query#sha256={}", "ab".repeat(32));
    let gateway = setup.gateway().set("LOG_DIR", logs.display()).start();
    let client = admin(&gateway);
    let mut answers = Vec::new();
    let ordered = client.post_json(DOWNLOAD, &json!({"model": address}));
    answers.push(ordered.text());
    let download = ordered.json();
    answers.extend(follow(&client, &download).iter().map(|event| event.data.clone()));
    for wrong in ["http://127.0.0.1:9/m.gguf?X=s3cr3t-query", "https://127.0.0.1:9/m.gguf?X=s3cr3t-query"] {
        answers.push(client.post_json(DOWNLOAD, &json!({"model": wrong})).text());
    }
    let encoded = address.replace(':', "%3A").replace('/', "%2F").replace('?', "%3F").replace('#', "%23");
    answers.push(send(&client, "DELETE", &format!("/v1/models/{encoded}")).text());
    answers.push(client.post_json("/api/pull", &json!({"model": address})).text());
    for path in [DOWNLOADS, "/metrics?format=prometheus", "/health"] {
        answers.push(client.get(path).text());
    }
    let mut gateway = gateway;
    gateway.stop();
    answers.push(gateway.output());
    answers.extend(texts_below(&logs));
    assert!(answers.iter().any(|text| text.contains("/v1/models/download")), "the access log was read");
    for answer in answers {
        assert!(!answer.contains("s3cr3t"), "{answer}");
    }
}

/// Returns the texts of all files below a folder.
fn texts_below(folder: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => texts.extend(texts_below(&entry.path())),
            false => texts.push(String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned()),
        }
    }
    texts
}

#[test]
fn a_service_that_stops_when_it_is_idle_waits_for_its_downloads() {
    let setup = Setup::new();
    setup.hub.set_faults(HubFaults { holds: true, ..HubFaults::default() });
    let mut gateway = setup.gateway().set("SHUTDOWN_TIMEOUT", 1).start();
    let client = admin(&gateway);
    let download = order(&client, TINY);
    let mut follower = client.stream_of(&(path_of(&download) + "/events"));
    assert!(follower.next_event().is_some());
    eventually("the model is asked for", STARTS, || setup.hub.requests().iter().any(|request| request.is_of_files));
    setup.hub.release();
    let last = follower.events().pop().expect("the service runs until its download has ended");
    assert_eq!(last.name.as_deref(), Some("done"));
    assert_eq!(gateway.wait_exit().code(), Some(0), "{}", gateway.output());
}

/// Runs the commands of the pages as they stand there.
#[test]
fn the_commands_of_the_pages_work() {
    let setup = Setup::new();
    for (repository, file) in
        [("Qwen/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf"), ("Qwen/Qwen3-4B-GGUF", "Qwen3-4B-Q4_K_M.gguf")]
    {
        setup.hub.add(repository, file, fs::read(test_models().join(TINY_FILE)).unwrap());
    }
    let gateway = setup.gateway().start();
    let pulled = run_page_where("OLLAMA.md", &gateway, 1, |block| block.contains("ADMIN_KEY"));
    assert!(pulled[0].text.ends_with("{\"status\":\"success\"}\n"), "{}", pulled[0].text);
    let ordered = run_page_where("DOWNLOADS.md", &gateway, 2, |block| !block.contains("/ID"));
    assert!(ordered[0].text.contains("\"state\":\"done\""), "{}", ordered[0].text);
}

/// Runs Ollama's own client.
#[test]
fn ollamas_own_client_pulls_and_deletes() {
    let setup = Setup::new();
    let gateway = setup.gateway().start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/ollama_pull.py");
    let mut command = Command::new(ollama_python());
    command.arg(script).args([gateway.url(), ADMIN]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}\n{}", gateway.output());
}

/// Only the model's own file and its projector were looked at: after a removal of its draft model every chat was a 503.
#[test]
fn what_the_configuration_names_for_a_model_was_removed() {
    let setup = Setup::new();
    let draft = setup.cached("draft-Q8_0.gguf");
    let adapter = setup.folder.path().join("formal.gguf");
    model_file::write_lora(&adapter, "llama", 1);
    let config = "models:
  base:
    file: first.gguf
    aliases: [other]
    draft: o/m/draft-Q8_0.gguf
    lora: [{file: formal.gguf, name: formal}]
";
    let gateway = setup.gateway().reals(config).set("MODELS_DIR", setup.folder.path().display()).start();
    let client = admin(&gateway);
    for name in ["o%2Fm", "o%2Fm%2Fdraft-Q8_0.gguf", "formal.gguf", "base:formal", "other:formal"] {
        let refused = send(&client, "DELETE", &format!("/v1/models/{name}"));
        assert_eq!(code(&refused), (409, "model_in_use".to_owned()), "{name}: {}", refused.text());
        assert!(refused.text().contains("the configuration names it"), "{name}: {}", refused.text());
    }
    assert_eq!(code(&send(&client, "DELETE", "/v1/models/base:none")).0, 404);
    assert!(draft.exists() && adapter.exists());
}

/// A service beside this one would have found its model gone at its next start.
#[test]
fn a_model_that_another_program_uses_was_removed_over_http() {
    let setup = Setup::new();
    let gateway = setup.gateway().start();
    let client = admin(&gateway);
    let file = setup.folder.path().join("first.gguf");
    // In one expression: a command keeps the file open in this process.
    let mut other =
        Command::new("tail").args(["-f", "/dev/null"]).stdin(fs::File::open(&file).unwrap()).spawn().unwrap();
    let refused = send(&client, "DELETE", "/v1/models/first");
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(code(&refused), (409, "model_in_use".to_owned()), "{}", refused.text());
    assert!(refused.text().contains(&format!("in use by process {} (tail)", other.id())), "{}", refused.text());
    assert!(file.exists());
    assert_eq!(send(&client, "DELETE", "/v1/models/first").status(), 200);
}

/// It was "not found", because only the same spelling of the name was known to be coming.
#[test]
fn a_model_that_is_coming_is_in_use_however_it_is_named() {
    let setup = Setup::new();
    setup.hub.set_faults(HubFaults { holds: true, ..HubFaults::default() });
    let gateway = setup.gateway().start();
    let client = admin(&gateway);
    let download = order(&client, TINY);
    for name in ["", ":Q8_0", ":q8_0", "%2FTiny-Q8_0.gguf"] {
        let refused = send(&client, "DELETE", &format!("/v1/models/Org%2FTiny-GGUF{name}"));
        assert_eq!(code(&refused), (409, "model_in_use".to_owned()), "{name}: {}", refused.text());
        assert!(refused.text().contains("it is being downloaded"), "{name}: {}", refused.text());
    }
    assert_eq!(code(&send(&client, "DELETE", "/v1/models/Org%2FOther-GGUF")).0, 404);
    setup.hub.release();
    assert_eq!(follow(&client, &download).last().unwrap().name.as_deref(), Some("done"));
    assert_eq!(send(&client, "DELETE", "/v1/models/Org%2FTiny-GGUF").status(), 200);
}

/// Every removal waited for one before it that a volume did not answer.
#[test]
fn a_removal_that_hangs_blocked_all_that_followed() {
    let setup = Setup::new();
    let model = setup.cached("m-Q8_0.gguf");
    let gateway = setup.gateway().start();
    let client = admin(&gateway);
    let pipe = setup.cache.path().join("models--o--m/refs/hangs");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let first = {
        let client = client.clone().patience(REAL_MODEL_ANSWERS);
        std::thread::spawn(move || send(&client, "DELETE", "/v1/models/o%2Fm"))
    };
    // Opened without a wait, it is there as soon as the removal reads it.
    let writer = eventually_some("the removal hangs", STARTS, || {
        fs::File::options().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&pipe).ok()
    });
    let refused = send(&client, "DELETE", "/v1/models/first");
    assert_eq!(code(&refused), (409, "model_in_use".to_owned()), "{}", refused.text());
    assert!(refused.text().contains("another removal is not done yet"), "{}", refused.text());
    fs::remove_file(&pipe).unwrap();
    drop(writer);
    let removed = first.join().unwrap();
    assert_eq!(removed.status(), 200, "{}", removed.text());
    assert!(!model.exists());
    assert_eq!(send(&client, "DELETE", "/v1/models/first").status(), 200);
}

#[test]
fn a_store_of_another_program_in_the_models_folder_lost_a_file_over_http() {
    let setup = Setup::new();
    let theirs = setup.folder.path().join("lm/pub/repo/theirs.gguf");
    fs::create_dir_all(theirs.parent().unwrap()).unwrap();
    fs::copy(test_models().join(TINY_FILE), &theirs).unwrap();
    for stores in ["auto", "none"] {
        let builder = setup.gateway().set("LM_STUDIO_MODELS", setup.folder.path().join("lm").display());
        let gateway = builder.set("MODEL_STORES", stores).start();
        let refused = send(&admin(&gateway), "DELETE", "/v1/models/theirs");
        assert_eq!(code(&refused), (403, "model_not_removable".to_owned()), "{stores}: {}", refused.text());
        assert!(theirs.exists());
    }
}

/// Regression: the second file waited for the lock that the first one held.
#[test]
fn a_model_of_two_files_with_the_same_bytes_waited_for_itself() {
    let setup = Setup::new();
    let bytes = fs::read(test_models().join(TINY_FILE)).unwrap();
    for name in ["Twin-Q8_0.gguf", "mmproj-Twin-Q8_0.gguf"] {
        setup.hub.add("Org/Twin-GGUF", name, bytes.clone());
    }
    let gateway = setup.gateway().start();
    let client = admin(&gateway);
    let download = order(&client, "Org/Twin-GGUF:Q8_0");
    let last = follow(&client, &download).pop().unwrap();
    assert_eq!(last.name.as_deref(), Some("done"), "{last:?}");
    assert_eq!(setup.hub.bytes_sent(), bytes.len(), "they come once");
}

/// Regression: only `ORG/NAME:QUANT` was a name of what had come, and each spelling was a download of its own.
#[test]
fn a_model_is_asked_for_by_every_name_by_which_it_can_be_pulled() {
    let setup = Setup::new();
    let gateway = setup.gateway().start();
    let client = admin(&gateway);
    let download = order(&client, "hf.co/Org/Tiny-GGUF:q8_0");
    assert_eq!(follow(&client, &download).last().unwrap().name.as_deref(), Some("done"));
    for name in [TINY, "hf.co/Org/Tiny-GGUF:Q8_0", "hf:Org/Tiny-GGUF:Q8_0", "Org/Tiny-GGUF/Tiny-Q8_0.gguf"] {
        let answer = chat(&client, name);
        assert_eq!(answer.status(), 200, "{name}: {}", answer.text());
    }
    let again = client.post_json(DOWNLOAD, &json!({"model": TINY}));
    assert_eq!((again.status(), &again.json()["id"]), (200, &download["id"]), "{}", again.text());
}

/// Regression: a key for some models saw and cancelled the downloads of all others.
#[test]
fn a_key_for_some_models_has_nothing_to_do_with_downloads_of_others() {
    let setup = Setup::with_smol();
    setup.slow();
    let other = "other-secret-0123456789abcdef";
    let keys = format!("admin:{ADMIN}:100000 scope=admin\nother:{other}:100000 scope=admin models=second\n");
    let gateway = setup.gateway().keys(&keys).start();
    let download = order(&admin(&gateway), SMOL);
    let client = gateway.client_with(other);
    assert_eq!(client.get(DOWNLOADS).json()["data"], json!([]));
    for answer in [client.get(&path_of(&download)), send(&client, "DELETE", &path_of(&download))] {
        assert_eq!(code(&answer).0, 403, "{}", answer.text());
    }
    let pulled = client.post_json("/api/pull", &json!({"model": "first", "stream": false}));
    assert_eq!(pulled.status(), 403, "{}", pulled.text());
}
