//! llama-server's arguments as the real one knows them: those that the gateway passes, and those of `EXTRA_ARGS` and
//! `args`; and values as platforms deliver them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::support::{
    client::RawClient,
    fake_server,
    gateway::{ADMIN, Backend, Builder, Gateway, real_llama_server, test_models},
    resources::{cmdline, environ},
    wait::{REAL_MODEL_READY, eventually},
};

const CHAT: &str = "/v1/chat/completions";

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 2})
}

fn real() -> Builder {
    Gateway::builder().backend(Backend::Real { model: "tiny-chat.gguf" })
}

/// Runs `llamagate check` in front of the real llama-server, with these variables.
fn check(variables: &[(&str, &str)]) -> Output {
    let (server, model) = (real_llama_server(), test_models().join("tiny-chat.gguf"));
    Command::new(env!("CARGO_BIN_EXE_llamagate"))
        .arg("check")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("DATA_DIR", "/nonexistent")
        .env("AUTH_ENABLED", "false")
        .env("LLAMA_SERVER", server)
        .env("MODEL_PATH", model)
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

/// Returns standard output and standard error.
fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Writes a program that runs a real or fake llama-server, after `lines` of shell.
fn wrapper(folder: &Path, lines: &str, program: &Path) -> PathBuf {
    let path = folder.join("wrapper");
    fs::write(&path, format!("#!/bin/sh\n{lines}\nexec '{}' \"$@\"\n", program.display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Regression: with a current llama-server these documented variables ended every start.
#[test]
fn the_variables_for_mapping_and_locking_memory_ended_every_start() {
    for (settings, expected) in [
        (&[("LIGHT_USE_MMAP", "false")][..], Some("none")),
        (&[("LIGHT_USE_MLOCK", "true")], Some("mlock")),
        (&[("LIGHT_USE_MMAP", "true"), ("LIGHT_USE_MLOCK", "true")], Some("mmap+mlock")),
    ] {
        let gateway = Gateway::builder()
            .reals("")
            .set("LIGHT_MODEL_PATH", "tiny-chat.gguf")
            .set("LIGHT_N_BATCH", 64)
            .set_all(settings)
            .start();
        let answer = gateway.client().post_json(CHAT, &chat("light"));
        assert_eq!(answer.status(), 200, "{settings:?}: {}\n{}", answer.text(), gateway.output());
        let words = cmdline(gateway.child_pids().remove(0));
        let mode = words.iter().position(|word| word == "--load-mode").map(|at| words[at + 1].as_str());
        assert_eq!(mode, expected, "{settings:?}");
    }
}

/// Regression: each connection occupies a thread of llama-server, which had few more of them than slots. A burst of small
/// requests left none for chats, and none for the probes.
#[test]
fn connections_of_small_requests_left_llama_server_no_thread_for_a_chat() {
    /// Connections that the gateway may have open to llama-server for requests without a slot, and idle ones.
    const OTHERS: usize = 32 + 32;
    let gateway = real().start_ready();
    let words = cmdline(gateway.child_pids()[0]);
    let port = words.iter().position(|word| word == "--port").map(|at| words[at + 1].as_str()).unwrap();
    let mut others: Vec<RawClient> = std::iter::repeat_with(|| {
        let mut client = RawClient::connect(&format!("http://127.0.0.1:{port}"));
        client.write(b"POST /tokenize HTTP/1.1\r\nHost: ").unwrap();
        client
    })
    .take(OTHERS)
    .collect();
    // All slots at once, while a thread waits for the rest of each of the other requests.
    let answer = gateway.client().post_json(CHAT, &chat("tiny-chat"));
    assert_eq!(answer.status(), 200, "{}\n{}", answer.text(), gateway.output());
    assert!(others.iter_mut().all(|other| !other.has_news()), "none of them has been given up");
}

#[test]
fn a_number_of_http_threads_in_extra_args_is_llama_servers_only_one() {
    for name in ["--threads-http", "--threads_http"] {
        let gateway = real().set("EXTRA_ARGS", format!("{name} 9")).start_ready();
        let words = cmdline(gateway.child_pids()[0]);
        let numbers: Vec<_> = words.windows(2).filter(|pair| pair[0].contains("http")).collect();
        assert_eq!(numbers, [[name, "9"]]);
        assert_eq!(gateway.client().post_json(CHAT, &chat("tiny-chat")).status(), 200);
    }
}

#[test]
fn an_argument_that_this_llama_server_does_not_know_is_named_before_the_start() {
    for (arguments, parts) in [
        ("--flash-atn on", &["--flash-atn", "did you mean --flash-attn?"][..]),
        ("--jinja --no-mmap", &["--no-mmap", "--load-mode none"]),
        ("--temp=0.5", &["--temp", "VALUE"]),
        ("--chat-template-kwarg '{\"a\": 1}'", &["--chat-template-kwarg", "did you mean --chat-template-kwargs?"]),
        ("--draft-max 3", &["--draft-max", "--spec-draft-n-max"]),
        ("-tmp 3", &["-tmp"]),
    ] {
        let output = check(&[("EXTRA_ARGS", arguments)]);
        let found = text(&output);
        assert_eq!(output.status.code(), Some(78), "{arguments}: {found}");
        assert!(parts.iter().all(|part| found.contains(part)) && found.contains("EXTRA_ARGS: "), "{found}");
    }
    let (status, output) = real().set("EXTRA_ARGS", "--flash-atn on").run_to_exit();
    assert_eq!(status.code(), Some(78), "{output}");
    assert!(output.contains("did you mean --flash-attn?") && !output.contains("llama-server started"), "{output}");
    for arguments in [
        "--temp -0.5 --seed -1",
        "--flash_attn on",
        "-fa on -kvu --jinja --control-vector-layer-range 1 2",
        // What the guides and the example unit offer.
        "--verbosity 4 --cache-type-k q8_0 --cache-type-v q8_0 --n-cpu-moe 1 -ub 256 --batch-size 64",
        "--load-mode mlock --chat-template-kwargs '{\"enable_thinking\": false}'",
    ] {
        let output = check(&[("EXTRA_ARGS", arguments)]);
        assert_eq!(output.status.code(), Some(0), "{arguments}: {}", text(&output));
    }
}

#[test]
fn an_unknown_argument_is_named_before_the_start_when_only_a_folder_is_served() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(test_models().join("tiny-chat.gguf"), folder.path().join("tiny.gguf")).unwrap();
    let config = folder.path().join("llamagate.yaml");
    fs::write(&config, "defaults: {args: [--jinjo]}").unwrap();
    let (folder, config) = (folder.path().to_str().unwrap(), config.to_str().unwrap());
    for (variable, value, parts) in [
        ("EXTRA_ARGS", "--flash-atn on", ["EXTRA_ARGS: ", "did you mean --flash-attn?"]),
        ("CONFIG_FILE", config, ["defaults.args: ", "--jinja?"]),
    ] {
        let output = check(&[("MODEL_PATH", ""), ("MODELS_DIR", folder), (variable, value)]);
        let found = text(&output);
        assert_eq!(output.status.code(), Some(78), "{found}");
        assert!(parts.iter().all(|part| found.contains(part)), "{found}");
    }
    let output = check(&[("MODEL_PATH", ""), ("MODELS_DIR", folder), ("EXTRA_ARGS", "--jinja")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn an_unknown_argument_in_the_file_is_refused_at_a_reload() {
    let config = |args: &str| format!("models: {{m: {{file: tiny-chat.gguf, preload: true, args: {args}}}}}\n");
    let gateway = Gateway::builder().reals(&config("[--jinja]")).start_ready();
    gateway.rewrite_config(&config("[--jinjo]"));
    let answer = gateway.client_with(ADMIN).send("POST", "/reload", b"");
    assert_eq!(answer.status(), 500, "{}", answer.text());
    assert!(answer.text().contains("models.m.args") && answer.text().contains("--jinja?"), "{}", answer.text());
    assert_eq!(gateway.client().post_json(CHAT, &chat("m")).status(), 200);
    gateway.rewrite_config(&config("[--no-jinja]"));
    eventually("the corrected file is taken", REAL_MODEL_READY, || {
        let children = gateway.child_pids();
        children.iter().any(|child| cmdline(*child).iter().any(|word| word == "--no-jinja"))
    });
}

#[test]
fn a_program_without_a_help_gets_its_arguments_unchecked() {
    for lines in ["[ \"$1\" = --help ] && exit 1", "[ \"$1\" = --help ] && echo 'usage: none' && exit 0"] {
        let folder = tempfile::tempdir().unwrap();
        let program = wrapper(folder.path(), lines, Path::new(fake_server::program()));
        let gateway = Gateway::builder()
            .set("LLAMA_SERVER", program.display())
            .set("EXTRA_ARGS", "--of-tomorrow 1")
            .start_ready();
        let start = gateway.journal().starts().remove(0);
        let words: Vec<&str> = start["argv"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(words.ends_with(&["--of-tomorrow", "1"]), "{words:?}");
    }
}

#[test]
fn the_help_of_a_wrapper_is_that_of_its_llama_server() {
    let folder = tempfile::tempdir().unwrap();
    let program = wrapper(folder.path(), "echo a note from the wrapper", &real_llama_server());
    let output = check(&[("LLAMA_SERVER", program.to_str().unwrap()), ("EXTRA_ARGS", "--jinjo")]);
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
    assert!(text(&output).contains("did you mean --jinja?"), "{}", text(&output));
}

#[test]
fn harmless_arguments_and_an_alias_start_with_a_warning() {
    let arguments = "--metrics --slots --slot-save-path /x -hf org/name --alias 'gpt-4o-mini, mine'";
    let gateway = real().set("EXTRA_ARGS", arguments).start_ready();
    let listed = gateway.client().get("/v1/models").json();
    assert_eq!(listed["data"][0]["id"], "gpt-4o-mini", "{listed}");
    assert_eq!(gateway.client().get("/v1/models/mine").status(), 200);
    let answer = gateway.client().post_json(CHAT, &chat("mine"));
    assert_eq!((answer.status(), &answer.json()["model"]), (200, &json!("mine")), "{}", answer.text());
    let output = gateway.output();
    for part in ["--metrics has no effect", "--slot-save-path has no effect", "MODEL_NAME=ORG/NAME"] {
        assert!(output.contains(part), "{part} in {output}");
    }
    let config = "models: {a: {file: tiny-chat.gguf}, b: {file: tiny-chat.gguf}}\n";
    let (status, output) = Gateway::builder().reals(config).set("EXTRA_ARGS", "--alias x").run_to_exit();
    assert_eq!(status.code(), Some(78), "{output}");
    assert!(output.contains("there are 2 models") && output.contains("models:"), "{output}");
}

/// Regression: llama-server takes a comma in its name for the end of the name, so `a,b` answered as `a`.
#[test]
fn the_model_of_an_answer_was_cut_at_a_comma() {
    let config = "models: {'a,b': {file: tiny-chat.gguf, aliases: ['x, y', c], preload: true}}\n";
    let gateway = Gateway::builder().reals(config).start_ready();
    for name in ["a,b", "x, y", "c"] {
        let answer = gateway.client().post_json(CHAT, &chat(name));
        assert_eq!(answer.json()["model"], name, "{}", answer.text());
        let mut streamed = chat(name);
        streamed["stream"] = json!(true);
        let mut stream = gateway.client().stream(CHAT, &streamed);
        let events: Vec<Value> =
            stream.events().iter().filter(|event| !event.is_done()).map(|event| event.json()).collect();
        assert!(!events.is_empty() && events.iter().all(|event| event["model"] == name), "{name}: {events:?}");
    }
    let mut unnamed = chat("");
    unnamed.as_object_mut().unwrap().remove("model");
    assert_eq!(gateway.client().post_json(CHAT, &unnamed).json()["model"], "a,b");
}

#[test]
fn variables_of_llama_server_are_named_and_never_reach_it() {
    let variables = [("LLAMA_ARG_CTX_SIZE", "64"), ("LLAMA_ARG_MMPROJ", "/x"), ("LLAMA_API_KEY", "sk-other")];
    let parts = ["LLAMA_ARG_CTX_SIZE (set CTX", "LLAMA_ARG_MMPROJ (write --mmproj into EXTRA_ARGS)", "LLAMA_API_KEY ("];
    let output = check(&variables);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(parts.iter().all(|part| text(&output).contains(part)), "{}", text(&output));
    let gateway = real().set_all(&variables).start_ready();
    let output = gateway.output();
    let warnings: Vec<&str> = output.lines().filter(|line| line.contains("LLAMA_ARG_")).collect();
    assert!(warnings.len() == 1 && parts.iter().all(|part| warnings[0].contains(part)), "{output}");
    assert!(!output.contains("sk-other"), "{output}");
    let health = gateway.anonymous().get("/health").json()["warnings"].to_string();
    assert!(parts.iter().all(|part| health.contains(part)), "{health}");
    let inherited = environ(gateway.child_pids().remove(0));
    assert!(!inherited.iter().any(|entry| entry.starts_with("LLAMA_A")), "{inherited:?}");
    assert_eq!(gateway.client().get("/props").json()["default_generation_settings"]["n_ctx"], 1024);
}

#[test]
fn values_were_taken_with_what_platforms_add_to_them() {
    let model = test_models().join("tiny-chat.gguf");
    let quoted = format!("\"{}\"\r", model.display());
    let output = check(&[
        ("MODEL_PATH", &quoted),
        ("PORT", "\"9000\""),
        ("INSTANCE_ID", "pod-1\r"),
        ("EXTRA_ARGS", "--jinja\r\n--temp 0.5\r\n"),
        ("CORS_ORIGINS", "\u{feff}https://a.example\r\n"),
        ("WORKER_TYPE", " \r\n"),
    ]);
    let found = text(&output);
    assert_eq!(output.status.code(), Some(0), "{found}");
    let row = |name: &str| found.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap().to_owned();
    for (name, value) in [("PORT", " 9000  "), ("INSTANCE_ID", " pod-1  "), ("WORKER_TYPE", " -  (default)")] {
        assert!(row(name).contains(value), "{found}");
    }
    assert!(!found.contains(['\r', '\u{feff}']), "{found:?}");
}

#[test]
fn what_is_printed_of_a_value_has_no_control_characters() {
    for (name, value) in
        [("MODEL_PATH", "/m\u{1b}[31m\rx"), ("INSTANCE_ID", "a\rb\nc"), ("CORS_ORIGINS", "https://a\u{7f}b")]
    {
        let found = text(&check(&[(name, value)]));
        assert!(!found.contains(|c: char| c.is_control() && c != '\n') && !found.contains("\nc"), "{found:?}");
    }
}

#[test]
fn a_folder_in_place_of_a_file_is_called_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    for (name, more) in [
        ("MODEL_PATH", &[][..]),
        ("CONFIG_FILE", &[]),
        ("LLAMA_SERVER", &[]),
        ("AUTH_KEYS_FILE", &[("AUTH_ENABLED", "true")]),
    ] {
        let output = check(&[&[(name, path)][..], more].concat());
        assert_eq!(output.status.code(), Some(78), "{name}: {}", text(&output));
        assert!(text(&output).contains("is a folder, not a "), "{name}: {}", text(&output));
    }
}

#[test]
fn check_printed_secrets_of_extra_args() {
    for arguments in [
        "--hf-tokn hf_sesame",
        "--hf-tokn=hf_sesame",
        "--jinja hf_sesame",
        "'--hf-token hf_sesame'",
        "--mmproj-url https://u:hf_sesame@h/x",
        "--mcp-servers-json '{\"env\":{\"T\":\"hf_sesame\"}}'",
        "--host hf_sesame",
        "--temp 0.5 'hf_sesame",
        "--alias",
    ] {
        for (command, program) in [("with a help", real_llama_server()), ("without", "/bin/sh".into())] {
            let variables = [("EXTRA_ARGS", arguments), ("LLAMA_SERVER", program.to_str().unwrap())];
            let found = text(&check(&variables));
            assert!(!found.contains("sesame"), "{command}, {arguments}: {found}");
        }
    }
    let shown = text(&check(&[("EXTRA_ARGS", "--temp 0.5 --hf-token hf_sesame --jinja")]));
    assert!(shown.contains("--temp 0.5 --hf-token '***' --jinja") && !shown.contains("sesame"), "{shown}");
}

#[test]
fn lost_and_kept_quotes_are_told_by_check() {
    for (arguments, part) in [
        ("--chat-template-kwargs {enable_thinking:false}", "is no JSON"),
        ("\"--jinja --temp 0.5\"", "quoted as a whole"),
    ] {
        let output = check(&[("EXTRA_ARGS", arguments)]);
        assert!(text(&output).contains("warning: EXTRA_ARGS: ") && text(&output).contains(part), "{}", text(&output));
    }
}
