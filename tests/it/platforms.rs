//! What platforms that rent GPUs expect: RunPod's load balancer and cached models, Vast.ai's mapped ports, containers
//! with few permissions, and the two lines of the log that platforms look for.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use nix::{sys::signal::Signal, unistd::geteuid};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::leftovers::namespaces;
use super::support::{
    client::Client,
    fake_server,
    gateway::{ADMIN, Gateway, USER, backend_port, real_llama_server, test_models},
    model_file::Kind,
    process::Process,
    scripted::ScriptedModel,
    wait::{READY, REAL_MODEL_ANSWERS, REAL_MODEL_READY, SOON, STARTS, eventually, eventually_some},
};
use llamagate::{gateway::bounds::AUTH_FAILURES_PER_MINUTE, settings::OPTIONS};

const CHAT: &str = "/v1/chat/completions";
const READY_LINE: &str = "llamagate is ready";

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "x"}]})
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn lines<'a>(output: &'a str, words: &str) -> Vec<&'a str> {
    output.lines().filter(|line| line.contains(words)).collect()
}

/// Starts a worker of a RunPod load-balancing endpoint: only the platform's variables and the model are set.
fn on_runpod(script: &Value) -> (Process, TempDir, ScriptedModel, Client) {
    on_runpod_asked_at("/ping", script)
}

/// As `on_runpod`, but the platform probes the health at `path`.
fn on_runpod_asked_at(path: &str, script: &Value) -> (Process, TempDir, ScriptedModel, Client) {
    let port = free_port();
    let builder = Gateway::builder().script(script.clone()).set("PORT", port).set("PORT_HEALTH", "");
    let builder = builder.set("HEALTH_CHECK_PATH", path);
    let builder = builder.set("RUNPOD_ENDPOINT_ID", "e1").set("RUNPOD_POD_ID", "p1").set("RESTART_LIMIT", 0);
    let (process, folder) = builder.launch();
    let model = ScriptedModel { path: folder.path().join("models/dummy.gguf") };
    (process, folder, model, Client::new(&format!("http://127.0.0.1:{port}")))
}

/// Returns the status of `/ping`, or `None` if the connection is refused.
fn ping(client: &Client) -> Option<u16> {
    client.try_send("GET", "/ping", b"").ok().map(|answer| answer.status())
}

#[test]
fn runpods_load_balancer_finds_204_then_200_on_the_port_that_serves() {
    let (mut process, _folder, model, client) = on_runpod(&json!({"load": {"until_released": true}}));
    assert_eq!(eventually_some("the gateway listens", STARTS, || ping(&client)), 204);
    assert!(lines(&process.output(), READY_LINE).is_empty());
    model.control().release_load();
    eventually("the health path answers 200", READY, || ping(&client) == Some(200));

    // RunPod's edge uses Authorization for its own key, and may forward that key, which is unknown here.
    let edge = client.clone().header("Authorization", "Bearer rpa_OF_THE_PLATFORM").header("X-API-Key", USER);
    let answer = edge.header("X-Runpod-Worker-Id", "strict p1").post_json(CHAT, &chat("dummy"));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let request = model.journal().requests(CHAT).remove(0);
    assert_eq!(request["headers"]["x-runpod-worker-id"], "strict p1", "forwarded unchanged");

    // All clients have the edge's address, so failed authentication must not throttle that address.
    let wrong = client.header("Authorization", "Bearer rpa_OF_ANOTHER_ACCOUNT");
    let refused = |_| wrong.post_json(CHAT, &chat("dummy")).status() == 401;
    assert!((0..=AUTH_FAILURES_PER_MINUTE).all(refused), "no request is throttled");
    let late = wrong.header("X-API-Key", ADMIN).post_json(CHAT, &chat("dummy"));
    assert_eq!(late.status(), 200, "{}", late.text());
    let output = process.output();
    assert_eq!(lines(&output, "listens on http://").len(), 1, "{output}");
    assert!(output.contains("platform=runpod-serverless"), "{output}");
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait_exit().code(), Some(0));
}

#[test]
fn health_check_path_answers_as_ping_does_on_any_health_route() {
    for path in ["/health", "/readyz"] {
        let (mut process, _folder, model, client) =
            on_runpod_asked_at(path, &json!({"load": {"until_released": true}}));
        let status = || client.try_send("GET", path, b"").ok().map(|answer| answer.status());
        assert_eq!(eventually_some("the gateway listens", STARTS, status), 204, "{path}");
        model.control().release_load();
        eventually("the health path answers 200", READY, || status() == Some(200));
        process.signal(Signal::SIGTERM);
        process.wait_exit();
    }
}

#[test]
fn runpods_load_balancer_never_finds_a_worker_healthy_that_cannot_serve() {
    let script = json!({"load": {"until_released": true}, "exit_while_loading": {"code": 3}});
    let (mut process, _folder, model, client) = on_runpod(&script);
    assert_eq!(eventually_some("the gateway listens", STARTS, || ping(&client)), 204);
    model.control().release_load();
    let mut statuses = BTreeSet::new();
    eventually("the gateway ends", READY, || {
        statuses.extend(ping(&client));
        process.try_exit_status().is_some()
    });
    assert!(statuses.is_subset(&[204, 503].into()), "{statuses:?}");
    assert_eq!(process.wait_exit().code(), Some(69));
    assert_eq!(lines(&process.output(), "fatal: ").len(), 1, "{}", process.output());
    assert!(lines(&process.output(), READY_LINE).is_empty(), "{}", process.output());
}

#[test]
fn a_model_in_runpods_cache_is_served_by_the_name_of_its_repository() {
    let cache = tempfile::tempdir().unwrap();
    let repository = cache.path().join("models--org--m-gguf");
    let snapshot = repository.join("snapshots/0123456789abcdef0123456789abcdef01234567");
    fs::create_dir_all(&snapshot).unwrap();
    for name in ["M-Q4_K_M.gguf", "M-Q8_0.gguf", "mmproj-M-Q8_0.gguf"] {
        ScriptedModel::create(&snapshot, name, Kind::Chat, &json!({}));
    }
    let with_model = |name: &str| {
        let builder = Gateway::builder().set("MODEL_PATH", "").set("MODEL_NAME", name);
        builder.set("HF_HUB_CACHE", cache.path().display())
    };
    let gateway = with_model("Org/M-GGUF:q8_0").start_ready();
    for name in ["M-Q8_0", "Org/M-GGUF:q8_0", "Org/M-GGUF"] {
        let answer = gateway.client().post_json(CHAT, &chat(name));
        assert_eq!((answer.status(), answer.header("x-llamagate-model")), (200, Some("M-Q8_0")), "{name}");
    }
    let (status, output) = with_model("Org/Other").run_to_exit();
    assert_ne!(status.code(), Some(0));
    for words in ["Org/Other", &cache.path().display().to_string(), "org/m-gguf", "HF_HUB_OFFLINE"] {
        assert!(output.contains(words), "{words} is not in {output}");
    }
}

#[test]
fn the_ready_line_is_logged_once_in_text_and_in_json() {
    for format in ["text", "json"] {
        let gateway = Gateway::builder().set("LOG_FORMAT", format).start_ready();
        eventually("the line is written", SOON, || gateway.output().contains(READY_LINE));
        gateway.control().die_with_code(3);
        eventually("the model serves again", READY, || {
            let health = gateway.anonymous().get("/health").json();
            health["models"][0]["state"] == "ready" && health["models"][0]["restarts"] == 1
        });
        let output = gateway.output();
        let ready_lines = lines(&output, READY_LINE);
        assert_eq!(ready_lines.len(), 1, "{output}");
        if format == "json" {
            let line: Value = serde_json::from_str(ready_lines[0]).unwrap();
            assert_eq!((&line["message"], &line["models"]), (&json!(READY_LINE), &json!(1)));
            assert_eq!(line["port"].as_u64(), gateway.url().rsplit(':').next().unwrap().parse().ok());
        }
    }
}

#[test]
fn each_failed_exit_logs_one_fatal_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (variables, argument, code) in [
        (&[("PORT", "http"), ("CTX", "1")][..], None, 78),
        (&[("AUTH_KEYS_FILE", "/nowhere")], None, 78),
        (&[("PORT", &port)], None, 1),
        (&[("PORT_FILE", "/proc")], None, 78),
        (&[], Some("--no-such-flag"), 2),
    ] {
        for format in ["text", "json"] {
            let builder = Gateway::builder().set_all(variables).set("LOG_FORMAT", format);
            let (status, output) = argument.into_iter().fold(builder, |builder, a| builder.argument(a)).run_to_exit();
            assert_eq!(status.code(), Some(code), "{variables:?} {output}");
            let fatal_lines = lines(&output, "fatal: ");
            assert_eq!(fatal_lines.len(), 1, "{variables:?} {output}");
            // Until the settings have been read, the log format is unknown and the line is plain text.
            let has_log = variables.iter().all(|(name, _)| *name != "CTX") && argument.is_none();
            match has_log && format == "json" {
                true => {
                    let line: Value = serde_json::from_str(fatal_lines[0]).unwrap();
                    assert!(line["message"].as_str().unwrap().starts_with("fatal: "), "{line}");
                }
                false => assert!(fatal_lines[0].starts_with("fatal: ") || has_log, "{}", fatal_lines[0]),
            }
        }
    }
}

#[test]
fn ports_that_the_platform_maps_are_logged_with_their_public_addresses() {
    let (port, health) = (free_port(), free_port());
    let mapped = |builder: super::support::gateway::Builder| {
        builder.set("PUBLIC_IPADDR", "203.0.113.7").set(&format!("VAST_TCP_PORT_{port}"), 40001)
    };
    let start = || Gateway::builder().set("PORT", port).set("PORT_HEALTH", health).set("CONTAINER_ID", "1");
    let both = mapped(start()).set(&format!("VAST_TCP_PORT_{health}"), 40002).start();
    let output = both.output();
    let addresses = lines(&output, "reachable from outside: ");
    assert_eq!(addresses.len(), 1, "{output}");
    let expected = "http://203.0.113.7:40001, health port http://203.0.113.7:40002";
    assert!(addresses[0].ends_with(expected), "{}", addresses[0]);
    assert_eq!(both.anonymous().get("/health").json()["platform"], "vast");
    drop(both);
    let one = mapped(start()).start();
    assert!(lines(&one.output(), "reachable from outside: ")[0].ends_with("http://203.0.113.7:40001"));
    drop(one);
    let none = mapped(start()).set("PUBLIC_IPADDR", "203.0.113").start();
    assert!(!none.output().contains("reachable from outside"), "{}", none.output());
}

/// Returns a client of the address in the line of the log that contains `words`.
fn address(process: &mut Process, words: &str) -> Client {
    let line = process.wait_for_line(words);
    Client::new(line.split("listens on ").nth(1).unwrap().trim()).patience(REAL_MODEL_ANSWERS)
}

/// Starts the gateway behind the command prefix `words`, with these variables and the defaults below alone. Sends one
/// request, stops the gateway, and returns its output.
fn serve_one_request(words: &[&str], variables: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let program = [env!("CARGO_BIN_EXE_llamagate")];
    let mut words = words.iter().chain(&program);
    let mut command = Command::new(words.next().unwrap());
    let backend = backend_port().to_string();
    command.args(words).env_clear().current_dir("/").envs([
        ("PATH", "/usr/bin:/bin"),
        ("HOST", "127.0.0.1"),
        ("PORT", "0"),
        ("PORT_HEALTH", "0"),
        ("PORT_BACKEND", &backend),
        ("AUTH_ENABLED", "false"),
        ("NGL", "0"),
        ("CTX", "512"),
    ]);
    let mut process = Process::start("llamagate", command.envs(variables.iter().copied()), folder.path());
    let gateway = address(&mut process, "gateway listens on http://");
    let health = address(&mut process, "health port listens on http://");
    eventually("the gateway is ready", REAL_MODEL_READY, || ping(&health) == Some(200));
    let answer = gateway.post_json(CHAT, &json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait_exit().code(), Some(0), "{}", process.output());
    process.output()
}

#[test]
fn the_service_runs_on_a_read_only_root_without_a_data_folder() {
    let Some(words) = namespaces(&[], "mount -o remount,bind,ro / && ! touch /etc/x 2>/dev/null && ") else { return };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let model = test_models().join("tiny-chat.gguf");
    let output = serve_one_request(
        &words,
        &[
            ("MODEL_PATH", model.to_str().unwrap()),
            ("LLAMA_SERVER", real_llama_server().to_str().unwrap()),
            ("DATA_DIR", "/etc/nowhere"),
        ],
    );
    assert_eq!(lines(&output, READY_LINE).len(), 1, "{output}");
}

#[test]
fn the_service_runs_as_any_user_without_a_name_a_home_or_a_writable_folder() {
    // The tests may already run as such a user.
    let other = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"];
    let words: &[&str] = if geteuid().is_root() { &other } else { &[] };
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let models = folder.path().join("models");
    fs::create_dir(&models).unwrap();
    let model = ScriptedModel::create(&models, "m.gguf", Kind::Chat, &json!({}));
    // The fake writes its journal beside the model. DATA_DIR is the folder above, in which the gateway cannot write.
    open(&models, 0o777);
    open(folder.path(), 0o555);
    let is_executable = |path: &str| {
        let words = [words, &["test", "-x", path]].concat();
        Command::new(words[0]).args(&words[1..]).env_clear().status().is_ok_and(|status| status.success())
    };
    if !is_executable(env!("CARGO_BIN_EXE_llamagate")) || !is_executable(fake_server::program()) {
        println!("skipped: another user cannot execute the programs that were built here");
        return;
    }
    let path = model.path.to_str().unwrap();
    let data = folder.path().to_str().unwrap();
    let output =
        serve_one_request(words, &[("MODEL_PATH", path), ("LLAMA_SERVER", fake_server::program()), ("DATA_DIR", data)]);
    assert_eq!(lines(&output, READY_LINE).len(), 1, "{output}");
    if geteuid().is_root() {
        assert!(!folder.path().join("logs").exists());
        let status = fs::metadata(model.journal_path()).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&status), 54321, "llama-server ran as that user");
    }
    open(folder.path(), 0o755);
}

#[test]
fn the_service_runs_without_its_log_folder() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for place in [file.path().join("logs"), "/proc/nowhere/logs".into()] {
        let mut gateway = Gateway::builder().set("LOG_DIR", place.display()).start_ready();
        assert_eq!(gateway.client().post_json(CHAT, &chat("dummy")).status(), 200);
        assert_eq!(gateway.stop().code(), Some(0));
        assert!(gateway.output().contains(READY_LINE), "standard error has the whole log");
    }
}

#[test]
fn a_debug_shell_opens_with_wrong_settings_and_names_them() {
    let wrong = [("CTX", "0", "CTX=\"0\""), ("MODEL_PATH", "/nowhere/none.gguf", "MODEL_PATH=\"/nowhere/none.gguf\"")];
    for (variable, value, problem) in wrong {
        let (mut process, _folder) = Gateway::builder().set("DEBUG_SHELL", true).set(variable, value).launch();
        process.wait_for_line("waiting for a signal");
        assert!(process.output().contains(problem), "{}", process.output());
        process.signal(Signal::SIGTERM);
        assert_eq!(process.wait_exit().code(), Some(0));
    }
}

#[test]
fn a_debug_shell_shows_the_settings_without_secrets_and_starts_nothing() {
    let builder = Gateway::builder().set("DEBUG_SHELL", true).set("EXTRA_ARGS", "--hf-token hf_s3cret --jinja");
    let (mut process, folder) = builder.set("RUNPOD_API_KEY", "rpa_s3cret").launch();
    process.wait_for_line("waiting for a signal");
    let output = process.output();
    assert!(output.contains("EXTRA_ARGS") && output.contains("--jinja") && !output.contains("s3cret"), "{output}");
    assert!(output.contains("dummy") && !output.contains("listens on"), "{output}");
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait_exit().code(), Some(0));
    assert!(!folder.path().join("logs").exists() && !folder.path().join(".port").exists());
    assert!(ScriptedModel { path: folder.path().join("models/dummy.gguf") }.journal().starts().is_empty());
}

/// Returns `docker-compose.yml`, with each variable replaced as compose does if nothing sets it.
fn compose_file() -> Value {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docker-compose.yml")).unwrap();
    let mut pieces = text.split("${");
    let mut replaced = pieces.next().unwrap().to_owned();
    for piece in pieces {
        let (variable, rest) = piece.split_once('}').unwrap();
        let (_, default) = variable.split_once(":-").unwrap_or_else(|| panic!("{variable} has to be set"));
        replaced += default;
        replaced += rest;
    }
    serde_saphyr::from_str(&replaced).unwrap()
}

/// Regression: of the settings in `.env` only three reached the container, and without `MODEL_NAME` compose refused to
/// start anything.
#[test]
fn compose_passed_three_settings_of_the_env_file() {
    let compose = compose_file();
    for service in ["inference-cpu", "inference-gpu"] {
        let service = &compose["services"][service];
        let shared = if service["env_file"].is_null() { &compose["x-inference"] } else { service };
        assert_eq!(shared["env_file"], json!([{"path": ".env", "required": false}]));
        assert_eq!(shared["ports"], json!(["0.0.0.0:8000:8000", "127.0.0.1:8001:8001"]));
    }
    // Compose lets these win over .env.
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir_all(data.join("models")).unwrap();
    fs::copy(test_models().join("tiny-chat.gguf"), data.join("models/tiny-chat.gguf")).unwrap();
    let inside = |value: &Value| {
        let text = value
            .as_str()
            .map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, str::to_owned);
        if text.starts_with("/data") { format!("{}{text}", folder.path().display()) } else { text }
    };
    let environment = compose["x-inference"]["environment"].as_object().unwrap();
    for (name, value) in environment {
        let is_setting = OPTIONS.iter().any(|row| row.key.eq_ignore_ascii_case(name));
        assert!(is_setting, "{name}={value} is no setting");
    }
    let path = folder.path().join(".env");
    let lines = "HOST=127.0.0.1\nPORT=9000\nN_CTX=512\nIDLE_UNLOAD=7m\nLLAMAGATE_API_KEY=s3cr3t-of-a-test-0123\n";
    fs::write(&path, lines).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_llamagate"))
        .args(["check", "--env-file", path.to_str().unwrap()])
        .env_clear()
        .env("LLAMA_SERVER", real_llama_server())
        .envs(environment.iter().map(|(name, value)| (name, inside(value))))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for (name, value) in
        [("HOST", "0.0.0.0"), ("PORT", "8000"), ("CTX", "512"), ("IDLE_UNLOAD", "7m"), ("LLAMAGATE_API_KEY", "***")]
    {
        let row = text.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
        assert_eq!(row.split_whitespace().nth(1), Some(value), "{row}");
    }
    assert!(text.lines().any(|line| line.starts_with("tiny-chat ")), "the folder is served: {text}");
}
