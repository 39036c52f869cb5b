//! `llamagate import`: what configurations of other programs become, and that it is served.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

use super::configuration::llamagate;
use super::routing::{answered_by, chat};
use super::support::{
    gateway::{Gateway, real_llama_server, test_models},
    model_file::write_lora,
};

/// A bit more than the largest configuration file, in bytes.
const TOO_LARGE: usize = 1024 * 1024 + 1;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/import_files")
}

/// Runs `llamagate import` with these arguments.
fn import(arguments: &[&str]) -> Output {
    let variables = [("HOME", "/home/me"), ("OPENROUTER_API_KEY", "sk-sesame"), ("API_KEY_1", "sk-sesame")];
    llamagate(&[&["import"], arguments].concat(), &variables)
}

fn import_file(path: &Path, arguments: &[&str]) -> Output {
    import(&[&[path.to_str().unwrap()], arguments].concat())
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

/// Writes a file into a new folder.
fn written(name: &str, text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    (folder, path)
}

/// Compares with the expected file, or writes it if UPDATE_GOLDEN is set.
fn compare(text: &str, expected: &Path) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(expected, text).unwrap();
    }
    let expected_text = fs::read_to_string(expected).unwrap_or_default();
    assert_eq!(text, expected_text, "{}: UPDATE_GOLDEN=1 cargo test --test it import", expected.display());
}

/// Asserts that `llamagate check` takes a configuration, with these programs on PATH. Returns what it prints.
#[track_caller]
fn assert_checks(text: &str, programs: &[&str]) -> String {
    let (folder, path) = written("llamagate.yaml", text);
    for program in programs {
        let program = folder.path().join(program);
        fs::write(&program, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (server, models) = (real_llama_server(), test_models());
    let variables = [
        ("DATA_DIR", folder.path().to_str().unwrap()),
        ("PATH", folder.path().to_str().unwrap()),
        ("MODELS_DIR", models.to_str().unwrap()),
        ("LLAMA_SERVER", server.to_str().unwrap()),
        ("OPENROUTER_API_KEY", "sk-sesame"),
        ("AUTH_ENABLED", "no"),
        ("HOST", "127.0.0.1"),
    ];
    let output = llamagate(&["check", "--config", path.to_str().unwrap()], &variables);
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{stderr}\n{text}");
    stdout
}

#[test]
fn a_configuration_with_every_key_of_llama_swap_is_converted_and_nothing_is_lost() {
    let source = folder().join("llama_swap.yaml");
    let output = import_file(&source, &[]);
    let (text, stderr) = texts(&output);
    compare(&text, &folder().join("llama_swap.expected.yaml"));
    // Two models cannot be converted, and the others still are.
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for id in ["no-port", "no-model"] {
        assert!(stderr.contains(&format!("not converted: {id}: ")), "{stderr}");
    }
    assert!(stderr.ends_with("without counterpart, each with a comment\n"), "{stderr}");
    assert!(!text.contains("sesame") && !stderr.contains("sesame"), "{text}");
    // An adapter is looked at before the start, and the one of the source is on no machine.
    let folder_of_adapter = tempfile::tempdir().unwrap();
    let adapter = folder_of_adapter.path().join("adapter.gguf");
    write_lora(&adapter, "bert", 1);
    let with_adapter = text.replace("/home/me/models/adapter.gguf", adapter.to_str().unwrap());
    let shown = assert_checks(&with_adapter, &["docker", "vllm", "env"]);
    // A model that is not on the disk is in a warning, and one whose key is not set too.
    for id in ["chat", "embed", "rank", "docker-llama", "own-port", "elsewhere", "model_a", "z-ai/glm-4.7"] {
        assert!(shown.lines().any(|line| line.starts_with(&format!("{id} "))), "{id}: {shown}");
    }
    // Each key of the source is in the result, in a comment or as a key of ours: those of the top level by name.
    for key in ["logTimeFormat", "captureBuffer", "store", "ui", "performance", "profiles", "selectors", "surprise"] {
        assert!(text.contains(&format!("# left out: {key}: ")), "{key}: {text}");
    }
}

#[test]
fn presets_of_every_kind_are_converted_and_nothing_is_lost() {
    let output = import_file(&folder().join("presets.ini"), &["--output", "-"]);
    let (text, stderr) = texts(&output);
    compare(&text, &folder().join("presets.expected.yaml"));
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.starts_with("5 model(s) converted, 0 not; "), "{stderr}");
    assert!(!text.contains("sesame") && !stderr.contains("sesame"), "{text}");
    assert_checks(&text, &[]);
}

#[test]
fn a_file_that_is_there_is_replaced_only_by_force() {
    let (folder, source) = written("presets.ini", "[a]\nmodel = tiny-chat.gguf\n");
    let target = folder.path().join("llamagate.yaml");
    let target = target.to_str().unwrap();
    fs::write(target, "mine: 1\n").unwrap();
    let refused = import_file(&source, &["--output", target]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(texts(&refused).1.contains("--force"), "{:?}", texts(&refused));
    assert_eq!(fs::read_to_string(target).unwrap(), "mine: 1\n");
    let output = import_file(&source, &["-o", target, "--force"]);
    assert_eq!((output.status.code(), texts(&output).0), (Some(0), String::new()));
    let text = fs::read_to_string(target).unwrap();
    assert!(text.contains("file: tiny-chat.gguf"), "{text}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no other file is left");
    // The folder of a link stays as it is, and so does the mode of a file.
    let link = folder.path().join("link.yaml");
    std::os::unix::fs::symlink(target, &link).unwrap();
    fs::set_permissions(target, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(import_file(&source, &["-o", link.to_str().unwrap(), "--force"]).status.code(), Some(0));
    assert!(link.is_symlink());
    assert_eq!(fs::metadata(target).unwrap().permissions().mode() & 0o777, 0o640);
    let unwritable = import_file(&source, &["-o", "/nonexistent/llamagate.yaml"]);
    assert_eq!(unwritable.status.code(), Some(1));
    assert!(texts(&unwritable).1.contains("/nonexistent/llamagate.yaml cannot be written"), "{:?}", texts(&unwritable));
}

#[test]
fn what_is_no_such_file_ends_with_78_and_says_where() {
    for (name, text, part) in [
        ("a.yaml", "models:\n  a: {cmd: x\nb: sesame: 1\n", "line "),
        ("a.yaml", "models:\n  a: {cmd: x}\n  a: {cmd: y}\n", "a is set twice, the second time at line 3 column 3"),
        ("a.ini", "[a]\nmodel = x\noops sesame\n", "line 3 column 1"),
        ("a.yaml", "models: {a: {file: x.gguf}}\n", "neither"),
        ("a.txt", "hello\n", "neither"),
        ("a.ini", "[*]\nc = 1\n", "no model"),
    ] {
        let (_folder, path) = written(name, text);
        let output = import_file(&path, &[]);
        let (stdout, stderr) = texts(&output);
        assert_eq!((output.status.code(), stdout.as_str()), (Some(78), ""), "{text}: {stderr}");
        assert!(stderr.contains(part) && !stderr.contains("sesame"), "{part}: {stderr}");
    }
    let (_folder, large) = written("large.ini", &"x".repeat(TOO_LARGE));
    for (path, part) in [(large.as_path(), "limit"), (Path::new("/dev/zero"), "limit"), (Path::new("/none"), "No such")]
    {
        let output = import_file(path, &[]);
        assert_eq!(output.status.code(), Some(78));
        assert!(texts(&output).1.contains(part), "{:?}", texts(&output));
    }
}

#[test]
fn the_format_can_be_forced_and_flags_of_settings_are_refused() {
    let (_folder, path) = written("a.ini", "[a/b:Q8_0]\n");
    assert_eq!(import_file(&path, &[]).status.code(), Some(78), "a list of YAML looks the same");
    let output = import_file(&path, &["--from", "presets"]);
    assert_eq!(output.status.code(), Some(0), "{:?}", texts(&output));
    assert!(texts(&output).0.contains("file: \"a/b:Q8_0\""));
    assert_eq!(import_file(&path, &["--from", "llama-swap"]).status.code(), Some(78));
    assert_eq!(import_file(&path, &["--from", "ollama"]).status.code(), Some(2));
    assert_eq!(import_file(&path, &["--port", "1"]).status.code(), Some(2));
    assert_eq!(llamagate(&["--port", "1", "import", path.to_str().unwrap()], &[]).status.code(), Some(2));
    assert_eq!(llamagate(&["import"], &[]).status.code(), Some(2));
}

/// A full disk behind standard output.
#[test]
fn a_result_that_cannot_be_printed_is_an_error() {
    let (_folder, source) = written("presets.ini", "[a]\nmodel = tiny-chat.gguf\n");
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_llamagate"));
    let output = command.arg("import").arg(&source).env_clear().stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(texts(&output).1.contains("standard output cannot be written"), "{:?}", texts(&output));
}

mod real {
    use super::*;

    #[test]
    fn a_configuration_of_llama_swap_serves_its_models_by_id_and_by_alias() {
        let server = real_llama_server();
        let source = format!(
            "macros: {{server: '{} --port ${{PORT}} --host 127.0.0.1'}}\n\
             models:\n\
             \x20 tiny:\n\
             \x20   cmd: |\n\
             \x20     ${{server}}\n\
             \x20     # the smaller one\n\
             \x20     --model {}/tiny-chat.gguf -c 1024 -np 2 -ngl 0\n\
             \x20   aliases: [gpt-4o-mini]\n\
             \x20   filters: {{setParams: {{max_tokens: 2}}}}\n\
             \x20 talk:\n\
             \x20   cmd: ${{server}} -m SmolLM2-135M-Instruct.Q4_1.gguf --ctx-size 2048 --alias gpt-4o --no-warmup\n",
            server.display(),
            test_models().display()
        );
        let (_folder, path) = written("config.yaml", &source);
        let output = import_file(&path, &[]);
        let (config, stderr) = texts(&output);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        let gateway = Gateway::builder().reals(&config).start();
        let client = gateway.client();
        for (name, id) in [("tiny", "tiny"), ("gpt-4o-mini", "tiny"), ("talk", "talk"), ("gpt-4o", "talk")] {
            let mut body = chat(name);
            body["max_tokens"] = 4.into();
            let answer = client.post_json("/v1/chat/completions", &body);
            assert_eq!(answered_by(&answer), id);
            let tokens = answer.json()["usage"]["completion_tokens"].as_u64().unwrap();
            assert!(id != "tiny" || tokens <= 2, "setParams wins over the request: {tokens}");
        }
    }
}
