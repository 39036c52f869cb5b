//! What people bring along from other servers: their variables, their `.env` files, one key without a file, and the page
//! that compares their words with ours.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use llamagate::platform;
use llamagate::settings::{ALIASES, AliasTarget, Environment, Inputs, OPTIONS, OTHER_PROGRAMS, Sources, resolve};
use nix::sys::signal::Signal;
use serde_json::json;

use super::support::{
    gateway::{Backend, Gateway, test_models},
    resources,
    wait::{SOON, eventually},
};

/// A secret in place of the placeholders of examples.
const SECRET: &str = "s3cr3t-of-a-test-0123";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The servers whose `.env` files are in `tests/brought`, with the variables that stand in for files that are not there and
/// for placeholders. `$DATA` is a folder with models, keys and a configuration.
const SERVERS: &[(&str, &[(&str, &str)])] = &[
    ("qwen3-reranker-gguf-api", &[("MODEL_NAME", "reranker.gguf"), ("API_TOKEN", SECRET)]),
    ("reranker-serve", &[("RERANKER_MODEL_NAME", "reranker.gguf"), ("RERANKER_API_KEY", SECRET)]),
    (
        "llm-server",
        &[("MODEL_PATH", "$DATA/models/light.gguf"), ("MODEL_DIR", "$DATA/models"), ("LLAMAGATE_API_KEY", SECRET)],
    ),
    (
        "llmservice",
        &[
            ("LIGHT_MODEL_PATH", "light.gguf"),
            ("MEDIUM_MODEL_PATH", "medium.gguf"),
            ("HEAVY_MODEL_PATH", "heavy.gguf"),
            ("EMBEDDING_MODEL_PATH", "embedding.gguf"),
            ("RERANKER_MODEL_PATH", "reranker.gguf"),
            ("LLAMAGATE_API_KEY", SECRET),
        ],
    ),
    (
        "llama-gguf-inference",
        &[("MODEL_NAME", "light.gguf"), ("MODELS_DIR", "$DATA/models"), ("AUTH_KEYS_FILE", "$DATA/keys.txt")],
    ),
];

/// The configuration of `reranker-serve`, as its document gives it.
const RERANKER_CONFIG: &str = "model_list:
  - model_name: \"primary-reranker\"
    litellm_params: {api_base: \"http://server1:8000\", api_key: \"optional-key\"}
    weight: 2.0
    priority: 0
  - model_name: \"backup-reranker\"
    litellm_params: {api_base: \"http://server2:8000\"}
    weight: 1.0
    priority: 1
router_settings:
  routing_strategy: \"weighted-random\"
  num_retries: 3
  retry_delay: 1.0
  fallback_to_local: true
  health_check_interval: 60
";

/// Makes the folder that `$DATA` stands for.
fn data_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    fs::create_dir(&models).unwrap();
    for (name, file) in [
        ("light", "tiny-chat.gguf"),
        ("medium", "tiny-chat.gguf"),
        ("heavy", "tiny-chat.gguf"),
        ("embedding", "tiny-embedding.gguf"),
        ("reranker", "tiny-rerank.gguf"),
    ] {
        fs::copy(test_models().join(file), models.join(format!("{name}.gguf"))).unwrap();
    }
    fs::write(folder.path().join("keys.txt"), format!("a:{SECRET}\n")).unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder.path().join("keys.txt"), fs::Permissions::from_mode(0o600)).unwrap();
    folder
}

/// Runs `check` on a copy of a `.env` file that others cannot read; returns what it prints, without the rows of defaults
/// and of this machine.
fn check(env_file: &Path, data: &Path, stand_ins: &[(&str, &str)]) -> String {
    let private = tempfile::NamedTempFile::new().unwrap();
    fs::write(private.path(), fs::read(env_file).unwrap()).unwrap();
    let env_file = private.path();
    let data = data.to_str().unwrap();
    let stand_ins = stand_ins.iter().map(|(name, value)| (*name, value.replace("$DATA", data)));
    let output = Command::new(env!("CARGO_BIN_EXE_llamagate"))
        .args(["check", "--env-file", env_file.to_str().unwrap()])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("DATA_DIR", data)
        .env("LLAMA_SERVER", "/bin/sh")
        .env("INSTANCE_ID", "test")
        .envs(stand_ins)
        .current_dir(data)
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let of_interest = |line: &&str| {
        !line.ends_with("(default)") && !line.contains("  (detected: ") && !line.starts_with("platform: ")
    };
    let rows: String = stdout.lines().filter(of_interest).map(|line| format!("{line}\n")).collect();
    let text =
        format!("{rows}\n{}exit status {}\n", String::from_utf8_lossy(&output.stderr), output.status.code().unwrap());
    text.replace(data, "$DATA").replace(env_file.to_str().unwrap(), "$ENV_FILE")
}

#[test]
fn check_says_what_it_makes_of_the_env_files_of_five_servers() {
    let data = data_folder();
    for (server, stand_ins) in SERVERS {
        let folder = root().join("tests/brought");
        let text = check(&folder.join(format!("{server}.env")), data.path(), stand_ins);
        assert!(!text.contains("s3cr3t"), "{text}");
        let golden = folder.join(format!("{server}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &text).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(text, expected, "tests/brought/{server}.txt: UPDATE_GOLDEN=1 cargo test --test it brought_names");
    }
}

#[test]
fn a_load_balancer_that_is_on_reads_the_file_of_its_server() {
    let data = data_folder();
    fs::write(data.path().join("reranker_config.yaml"), RERANKER_CONFIG).unwrap();
    let stand_ins = [
        ("RERANKER_MODEL_NAME", "reranker.gguf"),
        ("RERANKER_API_KEY", SECRET),
        ("RERANKER_LOAD_BALANCER_ENABLED", "true"),
    ];
    let text = check(&root().join("tests/brought/reranker-serve.env"), data.path(), &stand_ins);
    assert!(text.contains("primary-reranker") && text.contains("backup-reranker"), "{text}");
    assert!(text.ends_with("exit status 0\n"), "{text}");
}

#[test]
fn one_problem_with_a_setting_hid_the_configuration_and_all_others() {
    let data = tempfile::tempdir().unwrap();
    let env_file = root().join("tests/brought/qwen3-reranker-gguf-api.env");
    let text = check(&env_file, data.path(), &[]);
    for part in [
        "CTX                      8192  (variable N_CTX of ENV_FILE)",
        "LLAMAGATE_API_KEY        ***  (variable API_TOKEN of ENV_FILE)",
        "N_BATCH read as BATCH",
        "HF_MODEL_REPO read as MODEL_NAME=Qwen/",
        "error: 1 problem(s) with the configuration",
        "API_TOKEN=\"***\" (read as LLAMAGATE_API_KEY): expected a secret of your own",
        "exit status 78",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("AUTH_KEYS_FILE="), "the key of the placeholder is not missed once more: {text}");
    // The same at a start, with a file that cannot be read.
    let with = |name: &str, value: &str| {
        let (status, output) = Gateway::builder().set(name, value).set("LLAMA_SERVER", "/nope").run_to_exit();
        assert_eq!(status.code(), Some(78), "{output}");
        assert!(output.contains("2 problem(s)") && output.contains("LLAMA_SERVER=\"/nope\""), "{name}: {output}");
        output
    };
    with("N_THREADS", "four");
    let output = with("CONFIG_FILE", "/nope/llamagate.yaml");
    assert!(output.contains("CONFIG_FILE=\"/nope/llamagate.yaml\": cannot be read"), "{output}");
}

#[test]
fn a_key_file_that_is_missing_or_has_bad_lines_was_not_mentioned_by_check() {
    let data = data_folder();
    let (keys, missing) = (data.path().join("keys.txt"), data.path().join("none.txt"));
    let empty = tempfile::NamedTempFile::new().unwrap();
    let check_with = |keys: &Path, own: &[(&str, &str)]| {
        let named = [("MODEL_NAME", "light.gguf"), ("AUTH_KEYS_FILE", keys.to_str().unwrap())];
        check(empty.path(), data.path(), &[&named[..], own].concat())
    };
    let text = check_with(&missing, &[("LLAMAGATE_API_KEY", SECRET)]);
    assert!(text.contains("warning: AUTH_KEYS_FILE=\"$DATA/none.txt\": there is no such file"), "{text}");
    assert!(text.ends_with("exit status 0\n"), "{text}");
    fs::write(&keys, format!("a:{SECRET}\nshort:your-api-key\n")).unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o644)).unwrap();
    let text = check_with(&keys, &[]);
    assert!(text.contains("warning: $DATA/keys.txt: line 2 is skipped: "), "{text}");
    assert!(text.contains("warning: other users can read or write the key file"), "{text}");
    assert!(!text.contains("your-api-key") && text.ends_with("exit status 0\n"), "{text}");
    let text = check_with(&missing, &[("AUTH_ENABLED", "false")]);
    assert!(!text.contains("there is no such file") && text.ends_with("exit status 0\n"), "{text}");
}

#[test]
fn a_port_file_that_cannot_be_written_was_found_after_the_ports_were_open() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("file");
    fs::write(&blocked, "").unwrap();
    let below = blocked.join("x/.port");
    for (path, fault) in
        [(folder.path(), "is a folder"), (Path::new("/dev/null"), "is no regular file"), (&below, "is no folder")]
    {
        let (status, output) = Gateway::builder().set("PORT_FILE", path.to_str().unwrap()).run_to_exit();
        assert_eq!(status.code(), Some(78), "{output}");
        assert!(output.contains("PORT_FILE=") && output.contains(fault) && output.contains("hint: "), "{output}");
        assert!(!output.contains("listens on"), "{output}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_placeholder_of_an_example_ends_the_start_with_78() {
    let data = data_folder();
    for (server, name) in [("qwen3-reranker-gguf-api", "API_TOKEN"), ("reranker-serve", "RERANKER_API_KEY")] {
        let stand_ins = [("MODEL_NAME", "reranker.gguf"), ("RERANKER_MODEL_NAME", "")];
        let text = check(&root().join(format!("tests/brought/{server}.env")), data.path(), &stand_ins);
        assert!(
            text.contains(&format!("{name}=\"***\" (read as LLAMAGATE_API_KEY): expected a secret of your own")),
            "{text}"
        );
        assert!(text.ends_with("exit status 78\n") && !text.contains("change-me-please"), "{text}");
    }
}

/// Resolves the variables of a `.env` file, with one of them replaced.
fn outcome(env_file: &Path, replaced: Option<(&str, &str)>) -> (String, String) {
    let mut inputs = Inputs { environment: replaced.into_iter().collect::<Environment>(), ..Inputs::default() };
    inputs.flags.insert("env_file", env_file.to_str().unwrap().to_owned());
    inputs.read_env_file();
    match resolve(&inputs, &platform::detect(|_| None, "/nowhere".as_ref())) {
        Ok(resolved) => (
            format!("{:?} {:?}", resolved.config, resolved.rows),
            format!("{:?} {:?}", resolved.warnings, resolved.brought_names),
        ),
        Err(problems) => (format!("{problems:?}"), String::new()),
    }
}

#[test]
fn no_line_of_their_env_files_is_ignored_in_silence() {
    for (server, _) in SERVERS {
        let text = fs::read_to_string(root().join(format!("tests/brought/{server}.env"))).unwrap();
        let text = text.replace("change-me-please", SECRET).replace("your-api-key", SECRET);
        let file = tempfile::NamedTempFile::new().unwrap();
        // The configuration of this server has nothing to do with its variables.
        fs::write(file.path(), text.replace("RERANKER_CONFIG_PATH=./reranker_config.yaml", "")).unwrap();
        let (effect, words) = outcome(file.path(), None);
        assert!(!words.is_empty(), "{server}: {effect}");
        let names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, _)| name.trim())
            .filter(|name| !name.starts_with('#'))
            .collect();
        assert!(names.len() > 8, "the variables were found");
        for name in names {
            // A value that no setting takes makes a difference, unless the name is only warned about.
            let (other, _) = outcome(file.path(), Some((name, "\u{1}none")));
            let is_named = words.contains(&format!("{name} "));
            assert!(other != effect || is_named, "{server}: {name} has no effect and no warning");
        }
    }
}

#[test]
fn every_setting_of_env_example_is_known_and_resolves() {
    let path = root().join(".env.example");
    let text = fs::read_to_string(&path).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut names = BTreeSet::new();
    let mut uncommented = String::new();
    for line in text.lines() {
        let assigned = line.strip_prefix("# ").and_then(|rest| Some((rest.split_once('=')?.0, rest)));
        match assigned {
            Some((name, rest))
                if name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') && name != "NAME" =>
            {
                assert!(names.insert(name.to_owned()), "{name} stands twice");
                uncommented += &format!("{rest}\n");
            }
            _ => assert!(line.is_empty() || line.starts_with('#'), "{line}"),
        }
    }
    // CONFIG_FILE names a file that is not there.
    fs::write(file.path(), uncommented.replace("CONFIG_FILE=", "IGNORED=")).unwrap();
    let (effect, words) = outcome(file.path(), None);
    assert!(effect.starts_with("Config"), "{effect}");
    assert!(words.starts_with("[] "), "no warnings: {words}");
    assert!(names.len() > 30, "the settings were found");
    for name in &names {
        let is_setting = OPTIONS.iter().any(|row| row.variable() == *name);
        assert!(is_setting || is_known(name), "{name} is no setting");
    }
    assert!(outcome(&path, None).0.starts_with("Config"));
}

/// Whether a variable that is no setting means something: one of a tier, or a name of another server.
fn is_known(name: &str) -> bool {
    let file = tempfile::NamedTempFile::new().unwrap();
    let tier = name.split('_').next().unwrap();
    fs::write(file.path(), format!("{tier}_MODEL_PATH=a.gguf\n")).unwrap();
    outcome(file.path(), Some((name, "\u{1}none"))) != outcome(file.path(), None)
}

#[test]
fn coming_from_names_settings_keys_and_routes_that_exist_and_every_alias() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let page = read("docs/COMING_FROM.md");
    let keys = ["docs/MODELS.md", "docs/ROUTING.md", "docs/AUTHENTICATION.md"].map(read).concat();
    let routes = read("src/gateway/routes/table.rs");
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let mut theirs: Vec<(String, String)> = Vec::new();
    let mut ours = 0;
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| there")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 3, "{row}");
        theirs.extend(quoted(cells[0]).into_iter().map(|name| (name, cells[1].to_owned())));
        for name in quoted(cells[1]) {
            let exists = if let Some(suffix) = name.strip_prefix("{TIER}_") {
                is_known(&format!("LIGHT_{suffix}"))
            } else if name.starts_with('/') {
                routes.contains(&format!("\"{name}\""))
            } else if name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') {
                OPTIONS.iter().any(|row| row.variable() == name)
            } else {
                ["`NAME", "`NAME:", "`NAME=", "NAME: "].iter().any(|form| keys.contains(&form.replace("NAME", &name)))
                    || name == "keyctl"
                    || name == "{port}"
            };
            assert!(exists, "{name} does not exist: {row}");
            ours += 1;
        }
    }
    assert!(ours > 100, "the names were found");
    for alias in ALIASES {
        let cells: Vec<&str> =
            theirs.iter().filter(|(name, _)| name == alias.name).map(|(_, cell)| cell.as_str()).collect();
        assert!(!cells.is_empty(), "{} is not in docs/COMING_FROM.md", alias.name);
        if let AliasTarget::Variable(own) = alias.target {
            let own = own.replace("RERANKER_", "{TIER}_");
            assert!(cells.iter().any(|cell| cell.contains(&format!("`{own}`"))), "{}: {own} in {cells:?}", alias.name);
        }
    }
    // What runs beside is named with what its warning says.
    for (name, advice) in OTHER_PROGRAMS.iter().flat_map(|(_, variables)| *variables) {
        assert!(ALIASES.iter().all(|alias| alias.name != *name), "{name} is not read");
        let (_, cell) = theirs.iter().find(|(theirs, _)| theirs == name).unwrap_or_else(|| panic!("{name}"));
        assert!(quoted(cell).iter().any(|own| advice.contains(own.as_str())), "{name}: {cell}, {advice}");
    }
}

#[test]
fn a_secret_has_no_flag_and_no_key_in_the_configuration_file() {
    assert!(OPTIONS.iter().any(|row| row.key == "llamagate_api_key" && row.sources == Sources::Variable));
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_llamagate")).args(arguments).env_clear().output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout),
        )
    };
    let (status, text) = run(&["check", "--llamagate-api-key", SECRET]);
    assert!(status != Some(0) && text.contains("unexpected argument"), "{text}");
    assert!(!run(&["serve", "--help"]).1.contains("--llamagate-api-key"));
    let folder = tempfile::tempdir().unwrap();
    for (key, hint) in
        [("llamagate_api_key", "LLAMAGATE_API_KEY"), ("env_file", "ENV_FILE"), ("config_file", "CONFIG_FILE")]
    {
        let file = folder.path().join("llamagate.yaml");
        fs::write(&file, format!("server: {{{key}: {SECRET}}}\n")).unwrap();
        let (status, text) = run(&["check", "--config", file.to_str().unwrap()]);
        assert_eq!(status, Some(78));
        assert!(text.contains(&format!("server.{key}: cannot be set in this file")) && text.contains(hint), "{text}");
        assert!(!text.contains("s3cr3t"), "{text}");
    }
}

/// Writes a `.env` file into a folder that outlives the gateway.
fn env_file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".env");
    fs::write(&path, text).unwrap();
    (folder, path.to_str().unwrap().to_owned())
}

#[test]
fn a_key_from_an_env_file_is_enough_and_is_shown_nowhere() {
    let (_folder, path) = env_file(&format!("\u{feff}export API_TOKEN = '{SECRET}' # ours\r\nN_THREADS=1\r\n"));
    let builder = || Gateway::builder().backend(Backend::Real { model: "tiny-chat.gguf" }).set("THREADS", "").keys("");
    let mut gateway = builder()
        .set("AUTH_KEYS_FILE", "/nonexistent/keys")
        .set("LOG_LEVEL", "trace")
        .argument("--env-file")
        .argument(&path)
        .start_ready();
    let chat = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2});
    assert_eq!(gateway.client_with(SECRET).post_json("/v1/chat/completions", &chat).status(), 200);
    assert_eq!(gateway.client_with("s3cr3t-of-another").post_json("/v1/chat/completions", &chat).status(), 401);
    assert_eq!(gateway.anonymous().post_json("/v1/chat/completions", &chat).status(), 401);
    // Its scope is inference alone.
    assert_eq!(gateway.client_with(SECRET).post_json("/reload", &json!({})).status(), 403);
    let child = gateway.child_pids().into_iter().next().expect("llama-server runs");
    let (argv, environment) = (resources::cmdline(child), resources::environ(child));
    let own = resources::cmdline(gateway.pid());
    gateway.stop();
    assert!(argv.windows(2).any(|words| words == ["-t", "1"]), "{argv:?}");
    let mut places = vec![argv.join(" "), environment.join(" "), own.join(" "), gateway.output()];
    let logs = gateway.data_dir().join("logs");
    for folder in ["_boot", "access", "llama"] {
        places.extend(
            fs::read_dir(logs.join(folder)).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()),
        );
    }
    assert!(places.len() > 8 && places.iter().all(|text| !text.contains("s3cr3t")));
    assert!(gateway.output().contains("API_TOKEN read as LLAMAGATE_API_KEY"), "{}", gateway.output());

    let (mut process, _folder) = builder().set("DEBUG_SHELL", true).set("RERANKER_API_KEY", SECRET).launch();
    process.wait_for_line("waiting for a signal");
    assert!(
        process.output().contains("LLAMAGATE_API_KEY") && !process.output().contains("s3cr3t"),
        "{}",
        process.output()
    );
    process.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(process.wait_exit().code(), Some(0));
}

#[test]
fn the_batch_of_another_server_made_an_embedding_model_refuse_longer_inputs() {
    let gateway =
        Gateway::builder().backend(Backend::Real { model: "tiny-embedding.gguf" }).set("N_BATCH", 32).start_ready();
    let answer = gateway.client().post_json("/v1/embeddings", &json!({"input": "a word and another one ".repeat(20)}));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(answer.json()["usage"]["prompt_tokens"].as_u64().unwrap() > 32, "{}", answer.text());
}

#[test]
fn a_key_of_the_environment_beside_a_key_file_survives_a_reload() {
    let gateway = Gateway::builder().set("LLAMAGATE_API_KEY", SECRET).start_ready();
    let status = |secret: &str| gateway.client_with(secret).get("/v1/models").status();
    assert_eq!((status(SECRET), status(super::support::gateway::USER)), (200, 200));
    let admin = gateway.client_with(super::support::gateway::ADMIN);
    let loaded = admin.post_json("/reload", &json!({})).json()["keys_loaded"].as_u64().unwrap();
    assert_eq!((status(SECRET), loaded), (200, 5));
    // A file with the same key_id is refused as a whole, and the old keys stay.
    let text = fs::read_to_string(gateway.keys_file()).unwrap();
    fs::write(gateway.keys_file(), text + "env:another-secret-0123456789\n").unwrap();
    let answer = admin.post_json("/reload", &json!({}));
    assert_eq!((answer.status(), status(SECRET)), (500, 200));
    assert!(answer.text().contains("the key_id env, which is that of LLAMAGATE_API_KEY"), "{}", answer.text());
}

#[test]
fn an_env_file_that_is_missing_or_broken_ends_the_start_with_78() {
    let run = |path: &str| Gateway::builder().argument("--env-file").argument(path).run_to_exit();
    let (status, output) = run("/nonexistent/.env");
    assert_eq!(status.code(), Some(78), "{output}");
    assert!(output.contains("ENV_FILE=\"/nonexistent/.env\": cannot be read") && output.contains("fatal:"), "{output}");
    let (_folder, path) = env_file("A=1\nAPI_TOKEN s3cr3t\n");
    let (status, output) = run(&path);
    assert_eq!(status.code(), Some(78), "{output}");
    assert!(output.contains("line 2: there is no NAME= at its start") && !output.contains("s3cr3t"), "{output}");
}

#[test]
fn no_log_file_is_written_if_log_to_file_is_off() {
    let mut gateway = Gateway::builder().set("LOG_TO_FILE", false).set("LOG_FILE", "own.log").start_ready();
    assert_eq!(gateway.client().get("/v1/models").status(), 200);
    gateway.stop();
    assert!(!gateway.data_dir().join("logs").exists() && !gateway.data_dir().join("own.log").exists());
    let output = gateway.output();
    assert!(output.contains("llamagate is ready") && output.contains("LOG_FILE=\"own.log\" has no effect"), "{output}");
    assert!(!output.contains("could not be written"), "{output}");
}

#[test]
fn the_programs_own_log_goes_to_log_file_too_in_json_lines_and_in_parts() {
    let mut gateway = Gateway::builder()
        .set("LOG_FILE", "deep/own.jsonl")
        .set("LOG_LEVEL", "debug")
        .set("LOG_MAX_SIZE", "1KiB")
        .set("LOG_KEEP", "1000")
        .start_ready();
    for _ in 0..20 {
        assert_eq!(gateway.client().get("/v1/models").status(), 200);
    }
    gateway.stop();
    let files = |folder: &str, part: &str| {
        let mut found: Vec<PathBuf> =
            fs::read_dir(gateway.data_dir().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.retain(|path| path.to_str().unwrap().contains(part));
        found.sort();
        found
    };
    let own = files("deep", "own.");
    let lines: Vec<String> = own
        .iter()
        .flat_map(|path| fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(own.len() > 1, "it was split: {own:?}");
    for line in &lines {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|_| panic!("{line}"));
    }
    assert!(lines.iter().any(|line| line.contains("llamagate is ready")));
    // The access log is split too, and every request has its line.
    let access = files("logs/access", "_access_");
    let text: String = access.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    assert!(access.len() > 1 && access.iter().all(|path| path.metadata().unwrap().len() <= 1024), "{access:?}");
    assert_eq!(
        text.lines().filter(|line| line.contains("GET /v1/models ") && line.contains("completion_tokens=")).count(),
        20
    );
    let latest = fs::read_to_string(gateway.data_dir().join("logs/access/latest.txt")).unwrap();
    assert_eq!(Some(latest.trim()), access.last().unwrap().file_name().unwrap().to_str());
}

/// Regression: after logrotate had renamed the file and sent SIGHUP, the log went on in the renamed one.
#[test]
fn a_renamed_log_file_got_the_lines_after_sighup() {
    let gateway = Gateway::builder().set("LOG_FILE", "own.log").start_ready();
    let (path, renamed) = (gateway.data_dir().join("own.log"), gateway.data_dir().join("own.log.1"));
    let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    eventually("the log is written", SOON, || text(&path).contains("llamagate is ready"));
    fs::rename(&path, &renamed).unwrap();
    gateway.signal(Signal::SIGHUP);
    eventually("a new file has the line of the reload", SOON, || text(&path).contains("keys reloaded"));
    assert!(!text(&renamed).contains("keys reloaded"), "{}", text(&renamed));
}

#[test]
fn a_folder_in_place_of_log_file_ends_the_start_with_78() {
    let (status, output) = Gateway::builder().set("LOG_FILE", "models").run_to_exit();
    assert_eq!(status.code(), Some(78), "{output}");
    assert!(output.contains("LOG_FILE=\"models\": is a folder"), "{output}");
}
