//! Models served by a configured `command`: started, probed and restarted as llama-server is, without any secret.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::support::{
    client::Response,
    fake_server,
    gateway::{ADMIN, Gateway},
    resources::pid_gone,
    wait::{READY, STOPS, eventually},
};

const CHAT: &str = "/v1/chat/completions";

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "x"}]})
}

/// Returns a `command` that runs the fake with a file of the gateway's models folder.
fn command(file: &str) -> String {
    format!("[{:?}, -m, models/{file}, --alias, own, '--port={{port}}']", fake_server::program())
}

fn model(gateway: &Gateway, id: &str) -> Value {
    let health = gateway.anonymous().get("/health").json();
    health["models"].as_array().unwrap().iter().find(|model| model["id"] == id).unwrap().clone()
}

#[test]
fn a_command_is_started_probed_and_restarted_and_gets_no_key() {
    let config = format!(
        "models:\n\
         \x20 own: {{command: {}, health: /v1/models, kind: chat, tier: light, aliases: [mine], ttl: 10m}}\n\
         \x20 other: {{file: other.gguf}}\n",
        command("own.gguf")
    );
    let files = [("own.gguf", json!({"log_requests": true})), ("other.gguf", json!({}))];
    let mut gateway = Gateway::builder().fakes(&config, &files).set("OWN_SECRET", "for-the-command").start_ready();
    let journal = gateway.model_file("own.gguf").journal();
    assert!(journal.starts().is_empty(), "the command is started by the first request");

    let answer = gateway.client().post_json(CHAT, &chat("mine"));
    assert_eq!((answer.status(), answer.header("x-llamagate-model")), (200, Some("own")), "{}", answer.text());
    assert_eq!(answer.json()["model"], "mine", "the name that the client used");
    let start = journal.starts().remove(0);
    let port = journal.wait_for_event("bound")["port"].as_u64().unwrap();
    assert!(start["argv"].as_array().unwrap().contains(&json!(format!("--port={port}"))));
    assert_eq!(start["env"]["HOME"].as_str(), gateway.data_dir().to_str());
    let request = journal.requests(CHAT).remove(0);
    let sent: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
    assert_eq!(sent["model"], "own", "the name that the command knows");
    for request in journal.events("request") {
        assert_eq!(request["headers"].get("authorization"), None, "{request}");
        assert_ne!(request["path"], "/health");
    }
    assert!(!journal.requests("/v1/models").is_empty(), "the probe uses the configured health path");

    let row = &gateway.client().get("/v1/models/chat").json()[0];
    assert_eq!((&row["id"], &row["tier"], &row["loaded"]), (&json!("own"), &json!("light"), &json!(true)));
    let stats = gateway.client_with(ADMIN).get("/lb/stats").json();
    assert_eq!(stats["models"][0]["workers"][0]["kind"], "command", "{stats}");
    let logs = gateway.data_dir().join("logs/llama/own");
    eventually("the output of the command is logged", READY, || {
        let newest = std::fs::read_to_string(logs.join("latest.txt")).unwrap_or_default();
        std::fs::read_to_string(logs.join(newest.trim())).unwrap_or_default().contains("model loaded")
    });

    gateway.model_file("own.gguf").control().die_with_code(3);
    eventually("the exit is noticed", READY, || model(&gateway, "own")["last_exit"]["code"] == 3);
    assert_eq!(gateway.client().post_json(CHAT, &chat("own")).status(), 200);
    assert_eq!(journal.starts().len(), 2);
    let last = journal.starts()[1]["pid"].as_u64().unwrap() as u32;
    assert_eq!(gateway.stop().code(), Some(0));
    assert!(pid_gone(last));
}

#[test]
fn a_command_gets_its_own_model_name_and_the_client_gets_the_requested_one() {
    let config = format!(
        "models:\n\
         \x20 own: {{command: {}, health: /v1/models, served_model_name: org/own, aliases: [mine]}}\n\
         \x20 other: {{file: other.gguf}}\n",
        command("own.gguf")
    );
    let gateway =
        Gateway::builder().fakes(&config, &[("own.gguf", json!({})), ("other.gguf", json!({}))]).start_ready();
    for name in ["own", "mine"] {
        assert_eq!(gateway.client().post_json(CHAT, &chat(name)).json()["model"], name);
        let request = gateway.model_file("own.gguf").journal().requests(CHAT).pop().unwrap();
        let sent: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
        assert_eq!(sent["model"], "org/own");
    }
}

/// Regression: that such ends are due to another program is true of llama-server only.
#[test]
fn a_request_on_which_a_command_kills_itself_or_ends_with_exit_code_0_is_refused() {
    let config = format!(
        "models:\n\x20 own: {{command: {}, health: /v1/models}}\n\x20 other: {{file: other.gguf}}\n",
        command("own.gguf")
    );
    let files = [("own.gguf", json!({"hold_requests": [CHAT]})), ("other.gguf", json!({}))];
    for signal in [Some(Signal::SIGKILL), None] {
        let gateway = Gateway::builder().fakes(&config, &files).start_ready();
        let own = gateway.model_file("own.gguf");
        let code = |answer: &Response| answer.json()["error"]["code"].as_str().unwrap_or("none").to_owned();
        for times in 1..=2 {
            let mut client = gateway.client().begin("POST", CHAT, chat("own").to_string().as_bytes()).unwrap();
            own.journal().wait_for_requests(CHAT, times);
            match signal {
                Some(signal) => own.control().die_of_signal(signal),
                None => own.control().die_with_code(0),
            }
            assert_eq!(code(&client.read_response().unwrap()), "backend_error", "{signal:?}");
        }
        assert_eq!(code(&gateway.client().post_json(CHAT, &chat("own"))), "request_kills_backend", "{signal:?}");
        assert_eq!(own.journal().requests(CHAT).len(), 2);
    }
}

#[test]
fn a_command_that_cannot_be_kept_running_is_given_up_with_a_hint_and_others_are_served() {
    // The file exists at the start of the service, but its interpreter does not.
    let missing = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempfile().unwrap();
    std::fs::write(missing.path(), "#!/nowhere/interpreter\n").unwrap();
    let missing = missing.into_temp_path();
    let config = format!(
        "defaults: {{restart_limit: 1}}\n\
         models:\n\
         \x20 missing: {{command: [{missing:?}, '{{port}}']}}\n\
         \x20 ends: {{command: {}}}\n\
         \x20 good: {{file: good.gguf}}\n",
        command("ends.gguf")
    );
    let ends = json!({"exit_at_start": {"code": 7, "stderr": ["a word of its own"]}});
    let gateway = Gateway::builder().fakes(&config, &[("ends.gguf", ends), ("good.gguf", json!({}))]).start_ready();
    for (id, code) in [("missing", Value::Null), ("ends", json!(7))] {
        let refused = gateway.client().post_json(CHAT, &chat(id));
        assert_eq!((refused.status(), refused.json()["error"]["code"].as_str()), (503, Some("backend_unavailable")));
        // Each request for the model causes another start.
        eventually("the command is given up", STOPS, || {
            gateway.client().post_json(CHAT, &chat(id));
            model(&gateway, id)["state"] == "failed"
        });
        let exit = &model(&gateway, id)["last_exit"];
        assert_eq!(exit["code"], code);
        let hint = exit["hint"].as_str().unwrap();
        assert!(!hint.is_empty() && !hint.contains("/nowhere"), "{hint}");
        assert_eq!(gateway.client().post_json(CHAT, &chat("good")).status(), 200);
        assert_eq!(gateway.health().get("/ping").status(), 200);
    }
    assert_eq!(gateway.anonymous().get("/health").json()["status"], "degraded");
    // A load request starts the command once more.
    gateway.model_file("ends.gguf").rewrite_script(&json!({}));
    let loaded = gateway.client_with(ADMIN).send("POST", "/v1/models/ends/load", b"");
    assert_eq!(loaded.status(), 202, "{}", loaded.text());
    eventually("the command serves", READY, || model(&gateway, "ends")["state"] == "ready");
    assert_eq!(gateway.client().post_json(CHAT, &chat("ends")).status(), 200);
}

#[test]
fn the_fatal_line_names_the_command_and_its_model_and_not_llama_server() {
    let config = format!(
        "defaults: {{restart_limit: 0, preload: true}}\nmodels:\n\x20 own: {{command: {}}}\n",
        command("own.gguf")
    );
    let files = [("own.gguf", json!({"exit_at_start": {"code": 7}}))];
    let (status, output) = Gateway::builder().fakes(&config, &files).run_to_exit();
    assert_eq!(status.code(), Some(69), "{output}");
    let last = output.lines().find(|line| line.contains("fatal: ")).unwrap();
    let program = fake_server::program().rsplit('/').next().unwrap();
    assert!(last.contains(&format!("fatal: {program} could not be kept running: ")), "{last}");
    assert!(last.contains("own") && !last.contains('/'), "{last}");
}

#[test]
fn a_command_without_a_port_placeholder_is_refused_at_the_start() {
    let config = "models:\n  own: {command: [serve, --port, '8080']}\n";
    let (status, output) = Gateway::builder().fakes(config, &[]).run_to_exit();
    assert_eq!(status.code(), Some(78), "{output}");
    assert!(output.contains("models.own.command") && output.contains("{port}"), "{output}");
}

/// Regression: a whole stream of a server that sends no end mark ended with an error event. That of a llama-server still
/// does: one that is being stopped ends its streams like this.
#[test]
fn a_finished_stream_without_an_end_mark_is_whole_for_a_command_and_cut_for_a_llama_server() {
    let stream = |script: Value| {
        let config = format!(
            "models:\n  own: {{command: {}, health: /v1/models, kind: chat}}\n  other: {{file: other.gguf}}\n",
            command("own.gguf")
        );
        let files = [("own.gguf", script.clone()), ("other.gguf", script)];
        let gateway = Gateway::builder().fakes(&config, &files).start_ready();
        ["own", "other"].map(|name| {
            let mut body = chat(name);
            body["stream"] = json!(true);
            gateway.client().stream(CHAT, &body).events()
        })
    };
    let [whole, _] = stream(json!({}));
    let frames = whole.len() - 1;
    let [own, other] = stream(json!({"truncate_mid_stream": {"after_frames": frames}}));
    assert!(own.len() == whole.len() && own.last().unwrap().is_done(), "{own:?}");
    assert_eq!(other.last().unwrap().json()["error"]["code"], "backend_error", "{other:?}");
    let [own, _] = stream(json!({"truncate_mid_stream": {"after_frames": frames - 1}}));
    assert_eq!(own.last().unwrap().json()["error"]["code"], "backend_error", "no choice has finished: {own:?}");
}

/// Regression: a `command` without `memory` counted as nothing for as long as its first process ran, and after each
/// restart of the service.
#[test]
fn a_command_without_memory_is_measured_at_its_first_load_and_warned_about_once() {
    let config = format!(
        "memory_budget: 1GiB\nmodels:\n  own: {{command: {}, health: /v1/models}}\n  large: {{file: large.gguf, memory: 1GiB}}\n",
        command("own.gguf")
    );
    let files = [("own.gguf", json!({})), ("large.gguf", json!({}))];
    let mut gateway = Gateway::builder().fakes(&config, &files).start_ready();
    let serve = |gateway: &Gateway, id: &str| {
        let answer = gateway.client().post_json(CHAT, &chat(id));
        assert_eq!(answer.status(), 200, "{}", answer.text());
    };
    let unload = |gateway: &Gateway, id: &str| {
        gateway.client_with(ADMIN).send("POST", &format!("/v1/models/{id}/unload"), b"");
        eventually("it is unloaded", STOPS, || model(gateway, id)["state"] == "stopped");
    };
    let counted = |gateway: &Gateway| {
        let metrics = gateway.anonymous().get("/metrics?format=prometheus").text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("llamagate_model_memory_bytes{model=\"own\"} "));
        line.map_or(0, |bytes| bytes.parse::<u64>().unwrap())
    };
    let warnings = |gateway: &Gateway| gateway.output().matches("counted as 0: set `memory`").count();
    // What the program writes arrives here a moment after it is written.
    eventually("the warning is shown", STOPS, || {
        let health = gateway.anonymous().get("/health").json()["warnings"].to_string();
        let is_logged = gateway.output().matches("counts as 0 in MEMORY_BUDGET").count() == 1;
        is_logged && health.contains("counts as 0 in MEMORY_BUDGET")
    });
    serve(&gateway, "large");
    serve(&gateway, "own");
    assert_eq!(model(&gateway, "large")["state"], "ready", "it was loaded beside it");
    eventually("its memory is measured", READY, || counted(&gateway) > 0 && warnings(&gateway) == 1);
    unload(&gateway, "own");
    serve(&gateway, "own");
    assert_eq!(model(&gateway, "large")["state"], "stopped", "the two do not fit together");
    serve(&gateway, "large");
    assert_eq!(model(&gateway, "own")["state"], "stopped");
    assert_eq!(warnings(&gateway), 1);
    let measured = counted(&gateway);

    let file = gateway.data_dir().join("learned_memory.json");
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!((&kept["version"], &kept["entries"][0]["model"]), (&json!(1), &json!("own")), "{kept}");
    assert_eq!(gateway.stop().code(), Some(0));
    // The next run of the service knows it from the start.
    let data = gateway.data_dir().to_str().unwrap().to_owned();
    let again = Gateway::builder().fakes(&config, &files).set("DATA_DIR", &data).start_ready();
    serve(&again, "large");
    serve(&again, "own");
    assert_eq!(model(&again, "large")["state"], "stopped", "{}", again.output());
    assert!(measured > 0 && counted(&again) > 0 && warnings(&again) == 0);
}

#[test]
fn a_broken_file_of_learned_memory_is_ignored_with_one_warning_and_a_read_only_one_is_no_fault() {
    let config = "memory_budget: 1GiB\nmodels:\n  a: {file: a.gguf}\n  b: {file: b.gguf}\n";
    let files = [("a.gguf", json!({})), ("b.gguf", json!({}))];
    let mut first = Gateway::builder().fakes(config, &files).start_ready();
    let path = first.data_dir().join("learned_memory.json");
    assert_eq!(first.stop().code(), Some(0));
    std::fs::write(&path, "{\"version\": 1, \"entries\": [{\"key\"").unwrap();
    let data = first.data_dir().to_str().unwrap().to_owned();
    let second = Gateway::builder().fakes(config, &files).set("DATA_DIR", &data).start_ready();
    for id in ["a", "b"] {
        assert_eq!(second.client().post_json(CHAT, &chat(id)).status(), 200);
    }
    assert_eq!(second.output().matches("the file is ignored").count(), 1, "{}", second.output());
    eventually("the file is replaced", READY, || {
        let text = std::fs::read_to_string(&path).unwrap();
        serde_json::from_str::<Value>(&text).is_ok_and(|kept| kept["entries"].as_array().map(Vec::len) == Some(2))
    });
    // A folder in its place can be neither read nor replaced.
    drop(second);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let third = Gateway::builder().fakes(config, &files).set("DATA_DIR", &data).start_ready();
    for id in ["a", "b"] {
        assert_eq!(third.client().post_json(CHAT, &chat(id)).status(), 200);
    }
    assert_eq!(third.output().matches("WARN").count(), 1, "{}", third.output());
}
