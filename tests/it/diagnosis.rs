//! Diagnosis of why llama-server ended: the log, `/health` and the exit message agree on the cause and the hint.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::{
    gateway::{Backend, Builder, Gateway, real_llama_server, test_models},
    wait::{READY, REAL_MODEL_READY, eventually, eventually_some},
};

/// The beginning of the exit message.
const FATAL: &str = "fatal: llama-server could not be kept running: ";

/// Returns the lines of a recorded log of tests/logs, without its header.
fn recorded(log: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/logs/{log}.log"));
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.starts_with("# ")).map(str::to_owned).collect()
}

/// Waits until `/health` has a `last_exit`, and returns it.
fn last_exit(gateway: &Gateway) -> Value {
    eventually_some("/health has a last_exit", READY, || {
        let exit = gateway.anonymous().get("/health").json()["models"][0]["last_exit"].clone();
        exit.is_object().then_some(exit)
    })
}

/// Runs a gateway whose llama-server cannot start, asserts that the log has `cause`, and returns the hint of the exit
/// message.
#[track_caller]
fn hint_when_given_up(builder: Builder, cause: &str) -> String {
    let (status, output) = builder.set("RESTART_LIMIT", 0).run_to_exit();
    assert_eq!(status.code(), Some(69), "{output}");
    let fatal: Vec<&str> = output.lines().filter(|line| line.contains(FATAL)).collect();
    assert_eq!(fatal.len(), 1, "{output}");
    let report = output.lines().find(|line| line.contains("is given up")).expect("the log reports it");
    assert!(report.contains(cause), "{report}");
    let hint = fatal[0].split(FATAL).nth(1).unwrap().split(" model=").next().unwrap();
    assert!(report.contains(hint), "{report}");
    hint.to_owned()
}

fn real() -> Builder {
    Gateway::builder().backend(Backend::Real { model: "tiny-chat.gguf" })
}

fn executable(folder: &TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("secret-server");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn the_cause_in_a_log_is_on_health_and_in_the_exit_message() {
    for (log, ending, cause, words) in [
        ("cuda-memory-kv-cache", json!({"code": 1}), "out_of_gpu_memory", "needed 204800.00 MiB on device 0"),
        ("cuda-memory-at-work", json!({"signal": 6}), "out_of_gpu_memory", "out of GPU memory: lower NGL"),
        ("cuda-driver-too-old", json!({"signal": 6}), "driver_too_old", "driver is older"),
        ("cuda-library-missing", json!({"code": 127}), "library_missing", "libcudart.so.12"),
        ("illegal-instruction", json!({"signal": 4}), "illegal_instruction", "build for this CPU"),
        ("host-memory-kv-cache", json!({"code": 1}), "out_of_host_memory", "lower CTX or PARALLEL"),
        ("port-in-use", json!({"code": 1}), "port_in_use", "its port was taken"),
    ] {
        let mut ending = ending;
        ending["stderr"] = json!(recorded(log));
        let gateway = Gateway::builder().script(json!({"starts": [{"exit_at_start": ending}, {}]})).start_ready();
        let exit = last_exit(&gateway);
        let keys: Vec<&String> = exit.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["code", "hint", "signal"], "{log}: the documented fields");
        assert_eq!((&exit["code"], &exit["signal"]), (&ending["code"], &ending["signal"]), "{log}");
        let hint = exit["hint"].as_str().unwrap();
        assert!(hint.contains(words) && !hint.contains('/') && !hint.contains("secret"), "{log}: {hint}");

        let fatal = hint_when_given_up(Gateway::builder().script(json!({"exit_at_start": ending})), cause);
        assert_eq!(fatal, hint, "{log}");
    }
}

#[test]
fn a_hint_after_requests_were_served_quotes_nothing_of_the_log() {
    let gateway = Gateway::builder().start_ready();
    gateway.control().die_of_signal(Signal::SIGILL);
    let exit = last_exit(&gateway);
    assert_eq!((&exit["signal"], &exit["code"]), (&json!(4), &Value::Null));
    assert!(exit["hint"].as_str().unwrap().contains("instruction that this CPU lacks"), "{exit}");
    gateway.wait_ready();

    let mut control = gateway.control();
    control.log("0.01.0 E srv operator(): got exception: cannot parse my diary");
    control.die_with_code(3);
    let exit = eventually_some("/health shows the second exit", READY, || {
        Some(last_exit(&gateway)).filter(|exit| exit["code"] == 3)
    });
    assert_eq!(exit["hint"], "it ended with exit code 3");
}

/// Sends requests whose texts look like causes of an exit and are repeated in the log of llama-server.
fn send_texts_that_look_like_causes(gateway: &Gateway) {
    let texts = [
        "CUDA error: tattletale",
        "CUDA error: out of memory tattletale",
        "error while loading shared libraries: libtattletale.so.1: no such file",
        "error: invalid argument: --tattletale",
        "GGML_ASSERT(tattletale) failed",
        "unknown model architecture: 'tattletale'",
        "what():  tattletale",
        "libgomp: Thread creation failed: tattletale",
    ];
    let (client, chat) = (gateway.client(), "/v1/chat/completions");
    let message = json!([{"role": "user", "content": "hi"}]);
    for text in texts {
        let status = client.send("POST", chat, format!("{{\"a\": [\"{text}\" x").as_bytes()).status();
        assert_eq!(status, 400);
        client.post_json(chat, &json!({"messages": message, "tools": [{"type": text}]}));
        client.post_json(chat, &json!({"messages": message, "json_schema": {"type": text}}));
    }
    let lines = texts.join("\n/srv/a.c:1: ");
    client.post_json(
        chat,
        &json!({"messages": message, "grammar": format!("root ::= x\n{}\n{lines}", texts.join("\n"))}),
    );
    let schema = json!({"type": "string", "pattern": format!("(\n{}\n{lines}", texts.join("\n"))});
    let answer = client.post_json(chat, &json!({"messages": message, "max_tokens": 1, "json_schema": schema}));
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

/// Returns the log of the llama-server that is running.
fn log_of_llama_server(gateway: &Gateway) -> String {
    let folder = gateway.data_dir().join("logs/llama");
    let latest = fs::read_to_string(folder.join("latest.txt")).unwrap();
    fs::read_to_string(folder.join(latest.trim())).unwrap()
}

#[test]
fn texts_of_clients_are_neither_shown_nor_taken_for_the_cause() {
    let gateway = real().start_ready();
    for (signal, cause) in [(Signal::SIGSEGV, "crashed"), (Signal::SIGABRT, "aborted")] {
        send_texts_that_look_like_causes(&gateway);
        eventually("llama-server repeats the texts, line by line", READY, || {
            let log = log_of_llama_server(&gateway);
            log.contains("\nCUDA error: tattletale") && log.contains(r#"last read: '\"unknown model architecture"#)
        });
        kill(Pid::from_raw(gateway.child_pids().remove(0) as i32), signal).unwrap();
        let exit = eventually_some("/health shows this exit", READY, || {
            Some(last_exit(&gateway)).filter(|exit| exit["signal"] == signal as i32)
        });
        let health = [gateway.anonymous().get("/health").text(), gateway.health().get("/health").text()].concat();
        assert!(!health.contains("tattletale"), "{health}");
        // The log is written by a thread of its own, perhaps after the status is published.
        let report = eventually_some("the log reports this exit", READY, || {
            let is_report = |line: &&str| line.contains("it will be restarted") && line.contains(cause);
            gateway.output().lines().rfind(is_report).map(str::to_owned)
        });
        let output = gateway.output();
        assert!(report.contains(exit["hint"].as_str().unwrap()), "{report}");
        assert!(!output.contains("tattletale"), "{output}");
        gateway.wait_ready();
    }
}

#[test]
fn an_architecture_that_llama_server_does_not_know_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret-model.gguf");
    let mut bytes = fs::read(test_models().join("tiny-chat.gguf")).unwrap();
    let name = b"\x05\0\0\0\0\0\0\0llama";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len();
    bytes[at - 5..at].copy_from_slice(b"zorgk");
    fs::write(&path, bytes).unwrap();
    let hint = hint_when_given_up(real().set("MODEL_PATH", path.display()), "model_unsupported");
    assert!(hint.contains("architecture 'zorgk'") && hint.contains("update llama.cpp"), "{hint}");
    assert!(!hint.contains("secret"), "{hint}");
}

#[test]
fn a_value_that_llama_server_does_not_take_is_named() {
    let hint = hint_when_given_up(real().set("EXTRA_ARGS", "--flash-attn perhaps"), "bad_argument");
    assert!(hint.contains("--flash-attn") && hint.contains("'perhaps'"), "{hint}");
}

/// Regression: llama-server was restarted up to `RESTART_LIMIT` times before it was given up.
#[test]
fn an_argument_that_llama_server_does_not_know_is_tried_once() {
    let ending = json!({"code": 1, "stderr": recorded("argument-unknown")});
    let (status, output) = Gateway::builder().script(json!({"exit_at_start": ending})).run_to_exit();
    assert_eq!(status.code(), Some(69), "{output}");
    assert_eq!(output.lines().filter(|line| line.contains("llama-server started")).count(), 1, "{output}");
    assert!(output.contains("check EXTRA_ARGS or `args`"), "{output}");
}

#[test]
fn a_llama_server_that_was_ready_before_is_restarted_despite_an_argument_error() {
    let ending = json!({"code": 1, "stderr": recorded("argument-unknown")});
    let gateway = Gateway::builder().script(json!({"starts": [{}, {"exit_at_start": ending}, {}]})).start_ready();
    gateway.control().die_with_code(3);
    eventually("llama-server is ready again", READY, || {
        let model = gateway.anonymous().get("/health").json()["models"][0].clone();
        model["state"] == "ready" && model["restarts"] == 2
    });
    assert!(gateway.output().contains("bad_argument"), "{}", gateway.output());
}

#[test]
fn a_context_that_does_not_fit_into_memory_is_named_with_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let server = real_llama_server();
    let script = format!("#!/bin/sh\nulimit -v 1500000\nexec '{}' \"$@\"\n", server.display());
    let builder = real().set("LLAMA_SERVER", executable(&folder, &script).display()).set("CTX", 4_000_000);
    let hint = hint_when_given_up(builder, "out_of_host_memory");
    assert!(hint.contains("lower CTX or PARALLEL"), "{hint}");
    // Keys and values of 64 numbers of two bytes, in two layers, for each of the 4,000,000 tokens.
    assert!(hint.contains("needed 1953.12 MiB for the KV cache"), "{hint}");
}

#[test]
fn a_model_file_that_is_removed_while_it_is_served_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret-model.gguf");
    fs::copy(test_models().join("tiny-chat.gguf"), &path).unwrap();
    let mut gateway = real().set("MODEL_PATH", path.display()).set("RESTART_LIMIT", 1).start_ready();
    fs::remove_file(&path).unwrap();
    let child = gateway.child_pids().remove(0);
    kill(Pid::from_raw(child as i32), Signal::SIGKILL).unwrap();
    assert_eq!(gateway.wait_exit().code(), Some(69));
    let output = gateway.output();
    let first = output.lines().find(|line| line.contains("it will be restarted")).unwrap();
    assert!(first.contains("it was killed"), "{first}");
    let fatal = output.lines().find(|line| line.contains(FATAL)).unwrap();
    assert!(fatal.contains("the model file cannot be read: No such file or directory"), "{fatal}");
    let (hint, model) = fatal.split_once(" model=").unwrap();
    assert!(model.contains("secret-model") && !hint.contains("secret"), "{fatal}");
}

#[test]
fn a_text_file_is_not_run_as_llama_server() {
    let folder = tempfile::tempdir().unwrap();
    let text = executable(&folder, "touch started\n");
    let (status, output) = Gateway::builder().set("LLAMA_SERVER", text.display()).run_to_exit();
    assert_eq!(status.code(), Some(78), "{output}");
    assert!(output.contains("LLAMA_SERVER") && output.contains("is no program"), "{output}");
}

#[test]
fn a_program_that_cannot_be_executed_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let server = executable(&folder, "#!/nowhere/sh\n");
    let hint = hint_when_given_up(Gateway::builder().set("LLAMA_SERVER", server.display()), "not_started");
    assert!(hint.contains("the interpreter that it names, is missing"), "{hint}");
    let server = executable(&folder, "#!/bin/sh\nexec /nowhere/llama-server\n");
    let hint = hint_when_given_up(Gateway::builder().set("LLAMA_SERVER", server.display()), "not_started");
    assert!(hint.contains("LLAMA_SERVER") && !hint.contains("nowhere"), "{hint}");
}

/// Regression: a model ran on the CPU without a word, because `NGL` asks for a GPU by default.
#[test]
fn a_gpu_that_is_not_there_was_no_warning() {
    let config = "models: {a: {file: tiny-chat.gguf, preload: true}, b: {file: tiny-embedding.gguf, preload: true}, \
                  c: {file: tiny-rerank.gguf, preload: true, ngl: 0}}\n";
    let gateway = Gateway::builder().reals(config).set("NGL", 99).start_ready();
    let health = || gateway.anonymous().get("/health").json();
    eventually("all models are ready", REAL_MODEL_READY, || {
        health()["models"].as_array().unwrap().iter().all(|model| model["state"] == "ready")
    });
    let warnings = health()["warnings"].clone();
    assert_eq!(warnings.as_array().map(Vec::len), Some(1), "{warnings}");
    let warning = warnings[0].as_str().unwrap().to_owned();
    assert!(warning.contains("no GPU is in use") && warning.contains("NGL=0"), "{warning}");
    let output = gateway.output();
    assert_eq!(output.matches("no GPU is in use").count(), 1, "{output}");
    // Without layers for a GPU there is nothing to warn about.
    gateway.rewrite_config(
        &config.replace("preload: true", "preload: true, ngl: 0").replace(", ngl: 0, ngl: 0", ", ngl: 0"),
    );
    eventually("the warning is taken back", REAL_MODEL_READY, || health()["warnings"] == json!([]));
}

#[test]
fn a_machine_without_warnings_shows_none() {
    let gateway = real().start_ready();
    assert_eq!(gateway.anonymous().get("/health").json()["warnings"], json!([]));
    assert_eq!(gateway.health().get("/health").json()["warnings"], json!([]));
}

/// Regression: the hint was to raise LOAD_TIMEOUT.
#[test]
fn a_llama_server_that_listens_elsewhere_was_taken_for_a_slow_load() {
    for (arguments, address) in [
        ("--host ::1", "it listens on [::1]:"),
        ("--host 127.0.0.2", "it listens on 127.0.0.2:"),
        ("--port 0", "it listens on 127.0.0.1:"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        // The last value of an argument counts.
        let script = format!("#!/bin/sh\nexec '{}' \"$@\" {arguments}\n", real_llama_server().display());
        let builder = real().set("LLAMA_SERVER", executable(&folder, &script).display()).set("LOAD_TIMEOUT", "3s");
        let hint = hint_when_given_up(builder, "listens_elsewhere");
        assert!(hint.contains(address) && hint.contains("and not on 127.0.0.1:"), "{hint}");
        assert!(!hint.contains("LOAD_TIMEOUT"), "{hint}");
    }
}
