//! The configuration at a start: bad settings, the ports, and the subcommands `check`, `health` and `models`.

use std::process::{Command, Output};

use serde_json::json;

use super::support::{
    gateway::Gateway,
    wait::{SOON, eventually},
};

pub(super) fn llamagate(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_llamagate"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn bad_settings_are_listed_together_and_exit_78() {
    for command in ["serve", "check"] {
        let output = llamagate(
            &[command],
            &[("PORT", "http"), ("AUTH_ENABLED", "perhaps"), ("CTX", "lots"), ("DATA_DIR", "/nonexistent")],
        );
        assert_eq!(output.status.code(), Some(78));
        let text = stderr(&output);
        for part in ["PORT=\"http\"", "AUTH_ENABLED=\"perhaps\"", "CTX=\"lots\"", "expected"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

#[test]
fn a_missing_model_llama_server_and_key_file_are_listed_together() {
    let output = llamagate(&["check"], &[("DATA_DIR", "/nonexistent")]);
    assert_eq!(output.status.code(), Some(78));
    let text = stderr(&output);
    for part in ["MODEL_NAME", "LLAMA_SERVER", "AUTH_KEYS_FILE", "hint:"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn check_prints_every_setting_with_its_source_and_masks_secrets() {
    let output = llamagate(
        &["check", "--ctx", "4096", "--mock-backend"],
        &[("DATA_DIR", "/nonexistent"), ("AUTH_ENABLED", "no"), ("EXTRA_ARGS", "--hf-token hf_sesame")],
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.lines().any(|line| line.starts_with("CTX ") && line.contains("4096") && line.contains("flag")),
        "{text}"
    );
    assert!(!text.contains("hf_sesame"));
    assert!(text.contains("MODELS_DIR"));
}

#[test]
fn a_gateway_that_every_machine_can_use_without_a_key_is_warned_about() {
    let warns = |host, auth| {
        let settings = [("DATA_DIR", "/nonexistent"), ("AUTH_ENABLED", auth), ("HOST", host), ("MODEL_NAME", "x.gguf")];
        stderr(&llamagate(&["check"], &settings)).contains(&format!("warning: AUTH_ENABLED=false and HOST={host}"))
    };
    for host in ["0.0.0.0", "::", "192.0.2.1"] {
        assert!(warns(host, "false") && !warns(host, "true"), "{host}");
    }
    for host in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        assert!(!warns(host, "false"), "{host}");
    }
    let gateway = Gateway::builder().without_keys().set("HOST", "0.0.0.0").launch();
    let (mut process, _folder) = gateway;
    process.wait_for_line("WARN AUTH_ENABLED=false and HOST=0.0.0.0");
}

/// Regression: with CORS_ORIGINS=* and without keys every page could chat and read the answers, and nothing said so.
#[test]
fn a_gateway_that_every_web_page_can_use_without_a_key_is_warned_about() {
    let warns = |origins, auth| {
        let settings = [("DATA_DIR", "/nonexistent"), ("MODEL_NAME", "x.gguf"), ("HOST", "127.0.0.1")];
        let access = [("CORS_ORIGINS", origins), ("AUTH_ENABLED", auth)];
        let output = llamagate(&["check"], &[&settings[..], &access[..]].concat());
        stderr(&output).contains("warning: AUTH_ENABLED=false and CORS_ORIGINS=*")
    };
    assert!(warns("*", "false") && warns("https://a.example, *", "false"));
    assert!(!warns("*", "true") && !warns("https://a.example", "false") && !warns("", "false"));
    let gateway = Gateway::builder().without_keys().set("CORS_ORIGINS", "*").start_ready();
    let warnings = gateway.anonymous().get("/health").json()["warnings"].to_string();
    assert!(warnings.contains("AUTH_ENABLED=false and CORS_ORIGINS=*"), "{warnings}");
    let output = gateway.output();
    assert_eq!(output.matches("WARN AUTH_ENABLED=false and CORS_ORIGINS=*").count(), 1, "{output}");
}

/// Regression: a reranker as an embedding model answered with uninitialised memory, and an encoder as a model for chat ended
/// the service after six aborts; `check` said nothing about either.
#[test]
fn a_kind_that_the_file_of_a_model_cannot_have_is_a_problem() {
    let models = super::support::gateway::test_models();
    let check = |text: &str, variables: &[(&str, &str)]| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kinds.yaml");
        std::fs::write(&file, format!("server: {{auth_enabled: no, llama_server: /bin/sh}}\n{text}")).unwrap();
        let arguments = ["check", "--config", file.to_str().unwrap(), "--models-dir", models.to_str().unwrap()];
        let output = llamagate(&arguments, &[&[("DATA_DIR", "/nonexistent")], variables].concat());
        (output.status.code(), stderr(&output))
    };
    let embeddings = ("EXTRA_ARGS", "--embeddings");
    for (text, variables, parts) in [
        (
            "models: {e: {file: tiny-rerank.gguf, kind: embedding}}",
            &[][..],
            ["models.e.kind: embedding", "--pooling mean"],
        ),
        ("models: {e: {file: tiny-rerank.gguf}}", &[embeddings], ["EXTRA_ARGS", "has a ranking head"]),
        ("models: {e: {file: tiny-rerank.gguf, args: --embedding}}", &[], ["args of the model \"e\"", "ranking head"]),
        ("models: {e: {file: tiny-embedding.gguf, kind: chat}}", &[], ["models.e.kind: chat", "set kind: embedding"]),
        ("models: {e: {file: tiny-rerank.gguf, kind: chat}}", &[], ["is an encoder", "set kind: rerank"]),
        (
            "models: {e: {file: tiny-qwen3-reranker.gguf, args: --reranking}}",
            &[],
            ["scored by completions", "take them out of args and EXTRA_ARGS"],
        ),
    ] {
        let (status, output) = check(text, variables);
        assert_eq!(status, Some(78), "{text}: {output}");
        assert!(parts.iter().all(|part| output.contains(part)), "{text}: {output}");
    }
    for (text, warning) in [
        ("models: {e: {file: tiny-rerank.gguf, kind: embedding, args: --pooling mean}}", ""),
        ("models: {e: {file: tiny-embedding.gguf, kind: embedding}}", ""),
        ("models: {e: {file: tiny-chat.gguf, kind: embedding}}", "has no pooling"),
        ("models: {e: {file: tiny-chat.gguf, kind: embedding, args: --pooling last}}", ""),
        ("models: {e: {file: tiny-chat.gguf, kind: rerank}}", "has no ranking head"),
        ("models: {e: {file: tiny-embedding.gguf, kind: rerank}}", "has no ranking head"),
    ] {
        let (status, output) = check(text, &[]);
        assert_eq!(status, Some(0), "{text}: {output}");
        assert!(
            output.contains(warning) && (!warning.is_empty() || !output.contains("warning: the model")),
            "{output}"
        );
    }
    let (status, output) = check("", &[embeddings, ("SERVE_MODELS_DIR", "true")]);
    assert_eq!(status, Some(0), "{output}");
    assert!(output.contains("the model \"tiny-rerank\" is for embedding, but its file has a ranking head"), "{output}");
}

#[test]
fn check_prints_every_model_with_the_data_of_its_file_and_no_keys() {
    let folder = tempfile::tempdir().unwrap();
    let models = super::support::gateway::test_models();
    let file = folder.path().join("fleet.yaml");
    let text = "server: {auth_enabled: no, llama_server: /bin/sh}\n\
                models:\n  small: {file: tiny-chat.gguf, tier: light, aliases: [any], parallel: 2, ttl: 10m, preload: true}\n\
                \x20 vectors: {file: tiny-embedding.gguf}\n\
                model_list: [{model_name: far, litellm_params: {api_base: 'http://server1:8000/base', api_key: sk-sesame}}]\n";
    std::fs::write(&file, text).unwrap();
    let check = |arguments: &[&str]| {
        let common = ["check", "--config", file.to_str().unwrap(), "--models-dir", models.to_str().unwrap()];
        llamagate(&[&common[..], arguments].concat(), &[("DATA_DIR", "/nonexistent")])
    };
    let output = check(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (settings, tables) = text.split_once("\nmodels:\n").expect("the table has a heading");
    let (table, remotes) = tables.split_once("\nremote backends are asked at:\n").expect("so has the other");
    assert_eq!(remotes, "far  POST http://server1:8000/base/chat/completions\n");
    assert!(settings.contains("INSTANCE_ID"), "all settings come before the table");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1], "small chat light tiny-chat.gguf 1 2 16384 yes no 10m any".split(' ').collect::<Vec<_>>());
    assert_eq!(rows[2][..4], ["vectors", "embedding", "-", "tiny-embedding.gguf"]);
    assert_eq!(rows[3][..4], ["far", "chat", "-", "server1:8000"]);
    assert_eq!(rows.len(), 4);
    assert!(!text.contains("sesame") && !table.contains("base") && !table.contains(models.to_str().unwrap()));

    // With another problem in the settings, models are shown as configured, without the data of their files.
    let output = check(&["--llama-server", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.lines().any(|line| line.starts_with("vectors  -  ")), "{text}");
}

/// Runs `check` with a configuration of models in the test folder, and a shell as LLAMA_SERVER.
fn check_of(models: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("server: {{host: 127.0.0.1, auth_enabled: no, llama_server: /bin/sh}}\n{models}");
    std::fs::write(folder.path().join("llamagate.yaml"), text).unwrap();
    let files = super::support::gateway::test_models();
    let variables = [("DATA_DIR", folder.path()), ("MODELS_DIR", files.as_path())];
    let variables = variables.map(|(name, path)| (name, path.to_str().unwrap()));
    llamagate(&["check"], &[&variables[..], &[("PATH", "/usr/bin:/bin")]].concat())
}

#[test]
fn a_command_whose_program_does_not_exist_is_a_problem_with_its_key() {
    for (program, fault) in [("no-such-server", "on PATH"), ("/nonexistent/server", "no executable file")] {
        let output = check_of(&format!("models: {{own: {{command: [{program}, '{{port}}']}}}}\n"));
        assert_eq!(output.status.code(), Some(78));
        let text = stderr(&output);
        assert!(text.contains(&format!("models.own.command: {program:?}")) && text.contains(fault), "{text}");
    }
    for program in ["sh", "/bin/sh"] {
        let output = check_of(&format!("models: {{own: {{command: [{program}, '{{port}}']}}}}\n"));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
}

#[test]
fn a_command_without_memory_causes_a_warning() {
    let warning =
        "models.own: a `command` without `memory` counts as 0 in MEMORY_BUDGET until a load of it has been measured";
    for (memory, is_warned) in [("", true), (", memory: 1GiB", false)] {
        let output = check_of(&format!("models: {{own: {{command: [sh, '{{port}}']{memory}}}}}\n"));
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(stderr(&output).contains(warning), is_warned, "{}", stderr(&output));
    }
}

#[test]
fn names_that_clash_with_routes_and_fallbacks_of_another_kind_cause_warnings() {
    let output = check_of(
        "models:\n  chat: {file: tiny-chat.gguf, tier: light, aliases: [a/load, embeddings]}\n\
         \x20 b/unload: {file: tiny-chat.gguf}\n  vectors: {file: tiny-embedding.gguf}\n\
         fallbacks: {light: [b/unload, vectors], vectors: [chat]}\n",
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stderr(&output);
    for part in [
        "\"chat\" cannot be looked up",
        "\"embeddings\" cannot be looked up",
        "\"a/load\" has a name that is a command",
        "\"b/unload\" has a name that is a command",
        "fallbacks.light: vectors never takes over: its kind is embedding, not chat",
        "fallbacks.vectors: chat never takes over: its kind is chat, not embedding",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(text.matches("warning: ").count(), 6, "{text}");
    // Two models may be the fallbacks of each other.
    let output = check_of(
        "models: {a: {file: tiny-chat.gguf}, loaded: {file: tiny-chat.gguf}}\nfallbacks: {a: [loaded], loaded: [a]}\n",
    );
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn a_port_in_use_is_named_in_the_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (status, output) = Gateway::builder().set("PORT", port).run_to_exit();
    assert_eq!(status.code(), Some(1));
    assert!(output.contains(&format!("gateway cannot listen on 127.0.0.1:{port}")), "{output}");
    assert!(output.contains("second llamagate: set PORT,"), "{output}");
}

#[test]
fn both_ports_answer_before_the_model_is_loaded() {
    let gateway = Gateway::builder().script(json!({"load": {"until_released": true}})).start();
    assert_eq!(gateway.health().get("/ping").status(), 204);
    assert_eq!(gateway.health().get("/livez").status(), 200);
    assert_eq!(gateway.health().get("/readyz").status(), 503);
    assert_eq!(gateway.anonymous().get("/ping").status(), 200);
    eventually("/health says loading", SOON, || {
        let health = gateway.anonymous().get("/health");
        health.status() == 503
            && health.json()["models"][0]["state"] == "loading"
            && health.json()["status"] == "loading"
    });
    gateway.control().release_load();
    gateway.wait_ready();
    assert_eq!(gateway.health().get("/readyz").status(), 200);
    assert_eq!(gateway.anonymous().get("/health").json()["models"][0]["id"], "dummy");
}

#[test]
fn a_mock_backend_needs_no_model_and_refuses_inference() {
    let gateway = Gateway::builder().set("MOCK_BACKEND", true).set("MODEL_PATH", "").start();
    let answer = gateway.client().post_json("/v1/chat/completions", &json!({}));
    assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (503, Some("backend_unavailable")));
    assert_eq!(gateway.health().get("/ping").status(), 200);
}

#[test]
fn metrics_are_served_as_json_and_as_text() {
    let gateway = Gateway::builder().start();
    gateway.wait_ready();
    let body = json!({"messages": [{"role": "user", "content": "x"}]});
    assert_eq!(gateway.client().post_json("/v1/chat/completions", &body).status(), 200);
    eventually("the request is counted", SOON, || {
        gateway.anonymous().get("/metrics").json()["gateway"]["requests_success"] == 1
    });
    let text = gateway.anonymous().get("/metrics?format=prometheus").text();
    assert!(
        text.contains("llamagate_requests_total{model=\"dummy\",route=\"/v1/chat/completions\",status=\"200\"} 1"),
        "{text}"
    );
    assert!(text.contains("llamagate_worker_state{model=\"dummy\",worker=\"0\",state=\"ready\"} 1"), "{text}");
    assert!(text.contains("# TYPE gateway_requests_total counter"), "{text}");
    assert!(
        gateway.health().header("Accept", "application/openmetrics-text").get("/metrics").text().ends_with("# EOF\n")
    );
}

#[test]
fn llamagate_health_probes_the_health_port() {
    let gateway = Gateway::builder().start();
    gateway.wait_ready();
    let port = gateway.health_url().rsplit(':').next().unwrap().to_owned();
    let output = llamagate(&["health", "--host", "127.0.0.1", "--port-health", &port], &[]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"serving\n"[..]));
    drop(gateway);
    assert_eq!(llamagate(&["health", "--host", "127.0.0.1", "--port-health", &port], &[]).status.code(), Some(1));
}

#[test]
fn the_subcommands_health_and_models_work_despite_unrelated_mistakes() {
    let gateway = Gateway::builder().start();
    gateway.wait_ready();
    let port = gateway.health_url().rsplit(':').next().unwrap().to_owned();
    let (folder, models) = (tempfile::tempdir().unwrap(), super::support::gateway::test_models());
    let models = models.to_str().unwrap();
    let write = |text: &str| std::fs::write(folder.path().join("llamagate.yaml"), text).unwrap();
    let server = format!("server: {{host: 127.0.0.1, port_health: {port}, models_dir: {models}}}\n");
    let data = ("DATA_DIR", folder.path().to_str().unwrap());
    for mistake in [
        "models: {a: {fil: a.gguf}}\n",
        "model_list: [{model_name: a, litellm_params: {api_base: 'http://a', api_key: ''}}]\n",
        "serve: {}\n",
    ] {
        write(&format!("{server}{mistake}"));
        assert_eq!(llamagate(&["check"], &[data]).status.code(), Some(78), "{mistake}");
        let output = llamagate(&["health"], &[data, ("CTX", "lots")]);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"serving\n"[..]), "{mistake}");
        let output = llamagate(&["models"], &[data, ("CTX", "lots")]);
        assert_eq!(output.status.code(), Some(0), "{mistake}: {}", stderr(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains("tiny-chat"));
        assert!(stderr(&output).contains("warning: "), "the mistake is reported as a warning");
    }
    // If the file cannot be parsed, the settings from the environment are used.
    write("models: [");
    let output = llamagate(&["health"], &[data, ("HOST", "127.0.0.1"), ("PORT_HEALTH", &port)]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for (command, wrong) in [("health", "port_health: x"), ("health", "host: [{}]"), ("models", "models_dir: {a: 1}")] {
        write(&format!("server: {{{wrong}}}\n"));
        assert_eq!(llamagate(&[command], &[data]).status.code(), Some(78), "{wrong}");
    }
}

/// Regression: `llamagate --env-file FILE check` took `check` for a model, opened the ports and then ended.
#[test]
fn flags_before_a_subcommand_made_it_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.env");
    std::fs::write(&file, "CTX=4711\n").unwrap();
    let file = file.to_str().unwrap();
    let variables = [("DATA_DIR", "/nonexistent"), ("AUTH_ENABLED", "false"), ("MOCK_BACKEND", "true")];
    for arguments in [
        &["--env-file", file, "check"][..],
        &["--env-file", file, "check", "--port", "0"],
        &["--port", "0", "check", "--env-file", file],
        &["--list-aliases=true", "--env-file", file, "check"],
    ] {
        let output = llamagate(arguments, &variables);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {text}{}", stderr(&output));
        assert!(text.lines().any(|line| line.starts_with("CTX ") && line.contains("4711")), "{arguments:?}: {text}");
    }
    let output = llamagate(&["--models-dir", folder.path().to_str().unwrap(), "models"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for (arguments, part) in [
        (&["m.gguf", "check"][..], "MODEL comes after the subcommand: m.gguf"),
        (&["--port", "1", "check", "--port", "2"], "--port is given twice"),
        (&["serve", "--port", "0", "check"], "did you mean: llamagate check"),
        (&["check", "check"], "did you mean: llamagate check"),
    ] {
        let output = llamagate(arguments, &variables);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(part), "{arguments:?}: {}", stderr(&output));
    }
}

/// Regression: a mistyped subcommand opened both ports as if it were a model.
#[test]
fn a_mistyped_subcommand_started_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().to_str().unwrap();
    let variables = [("DATA_DIR", models), ("AUTH_ENABLED", "false"), ("MODELS_DIR", models)];
    for (word, meant) in [("chekc", "check"), ("Helth", "health"), ("model", "models"), ("sevre", "serve")] {
        for arguments in [&[word][..], &["--port", "0", "--port-health", "0", word]] {
            let output = llamagate(arguments, &variables);
            let text = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{text}");
            assert!(text.contains(&format!("did you mean: llamagate {meant}")), "{text}");
            assert!(!text.contains("listens"), "{text}");
        }
    }
    // What may be a model is one: a name with an ending, and a file that is there.
    std::fs::write(folder.path().join("chekc.gguf"), "").unwrap();
    for word in ["chekc", "chekc.gguf", "modles.gguf", "tiny"] {
        let output = llamagate(&["--port", "0", "--port-health", "0", word], &variables);
        assert_eq!(output.status.code(), Some(78), "{word}: {}", stderr(&output));
    }
}

#[test]
fn llamagate_models_lists_the_files_in_models_dir() {
    let folder = super::support::gateway::test_models();
    let output = llamagate(&["models", "--models-dir", folder.to_str().unwrap()], &[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for (name, kind) in [("tiny-chat", "chat"), ("tiny-embedding", "embedding"), ("tiny-rerank", "rerank")] {
        assert!(text.lines().any(|line| line.contains(name) && line.contains(kind)), "{text}");
    }
}

#[test]
fn one_listener_serves_both_ports_if_they_are_equal() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_llamagate"));
    let port = free.to_string();
    let data = tempfile::tempdir().unwrap();
    process.env_clear().envs([
        ("MOCK_BACKEND", "1"),
        ("AUTH_ENABLED", "0"),
        ("HOST", "127.0.0.1"),
        ("PORT", &port),
        ("PORT_HEALTH", &port),
    ]);
    let mut child = process.env("DATA_DIR", data.path()).spawn().unwrap();
    let client = super::support::client::Client::new(&format!("http://127.0.0.1:{port}"));
    eventually("the listener answers", SOON, || {
        client.try_send("GET", "/readyz", b"").is_ok_and(|answer| answer.status() == 200)
    });
    assert_eq!(client.get("/ping").status(), 200);
    assert_eq!(client.get("/livez").status(), 200);
    child.kill().unwrap();
    child.wait().unwrap();
}
