//! What the program writes about itself: a first configuration that can be used as it is, its schema, completions, manual
//! pages.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::configuration::llamagate;
use super::support::{fake_server, gateway::retrieval_python, model_file, terminal::Terminal};

#[track_caller]
fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Runs the program in a folder.
fn run_in(folder: &Path, arguments: &[&str]) -> Output {
    let program = Command::new(env!("CARGO_BIN_EXE_llamagate"))
        .args(arguments)
        .env_clear()
        .envs([("DATA_DIR", folder.as_os_str()), ("HOME", folder.as_os_str())])
        .env("LLAMA_SERVER", fake_server::program())
        .current_dir(folder)
        .output();
    program.unwrap()
}

/// Returns what the validator finds wrong with each text, by the schema that the program prints.
fn faults(texts: &[String]) -> Vec<Option<String>> {
    let folder = tempfile::tempdir().unwrap();
    let schema = folder.path().join("schema.json");
    fs::write(&schema, succeeded(&llamagate(&["schema"], &[]))).unwrap();
    let input = folder.path().join("texts.json");
    fs::write(&input, json!(texts).to_string()).unwrap();
    let output = Command::new(retrieval_python())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/validate_yaml.py"))
        .arg(&schema)
        .stdin(fs::File::open(&input).unwrap())
        .output()
        .unwrap();
    serde_json::from_str(&succeeded(&output)).unwrap()
}

/// Returns the configurations that the documents show: blocks of YAML that begin with one of our sections.
fn examples() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema: Value = serde_json::from_str(&succeeded(&llamagate(&["schema"], &[]))).unwrap();
    let sections = schema["properties"].as_object().unwrap();
    let is_ours = |text: &String| {
        let first = text.lines().find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
        first.split_once(':').is_some_and(|(key, _)| sections.contains_key(key))
    };
    let pages = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut texts: Vec<String> = Vec::new();
    for page in pages.chain([root.join("README.md")]) {
        let text = fs::read_to_string(page).unwrap();
        texts.extend(text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()));
    }
    for name in ["rerank-pool", "mlx"] {
        texts.push(fs::read_to_string(root.join(format!("docs/examples/{name}.yaml"))).unwrap());
    }
    texts.retain(is_ours);
    texts
}

#[test]
fn the_schema_accepts_the_configurations_of_the_documents_and_refuses_mistakes() {
    let examples = examples();
    assert!(examples.len() >= 5, "{}", examples.len());
    for (text, fault) in examples.iter().zip(faults(&examples)) {
        assert_eq!(fault, None, "{text}");
    }
    let wrong = [
        "server:\n  prot: 8000\n",
        "server:\n  llamagate_api_key: x\n",
        "server: [1]\n",
        "models:\n  a:\n    flie: x.gguf\n",
        "modles: {}\n",
        "defaults:\n  file: x.gguf\n",
        "model_list:\n  - litellm_params: {}\n",
    ];
    for (text, fault) in wrong.iter().zip(faults(&wrong.map(str::to_owned))) {
        assert!(fault.is_some(), "{text}");
    }
}

#[test]
fn a_first_configuration_passes_the_check_and_is_never_overwritten_unasked() {
    let folder = tempfile::tempdir().unwrap();
    model_file::write(&folder.path().join("tiny.gguf"), model_file::Kind::Chat);
    let written = succeeded(&run_in(folder.path(), &["init", "--model", "tiny.gguf", "--for", "local"]));
    assert!(written.contains("llamagate serve --config llamagate.yaml"), "{written}");
    let text = fs::read_to_string(folder.path().join("llamagate.yaml")).unwrap();
    assert!(text.starts_with("# yaml-language-server: $schema=llamagate.schema.json\n"), "{text}");
    assert!(text.contains("\"tiny\":") && text.contains("/tiny.gguf\""), "{text}");
    assert_eq!(faults(&[text]), [None]);
    let schema = fs::read_to_string(folder.path().join("llamagate.schema.json")).unwrap();
    assert_eq!(schema, succeeded(&llamagate(&["schema"], &[])));
    let checked = run_in(folder.path(), &["check", "--config", "llamagate.yaml"]);
    assert!(checked.status.success(), "{checked:?}");
    let again = run_in(folder.path(), &["init", "--for", "network"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--force replaces it"), "{again:?}");
    let forced = run_in(folder.path(), &["init", "--for", "network", "--force", "--json"]);
    let forced: Value = serde_json::from_str(&succeeded(&forced)).unwrap();
    assert_eq!(forced["config"], "llamagate.yaml");
    let text = fs::read_to_string(folder.path().join("llamagate.yaml")).unwrap();
    assert!(text.contains("host: 0.0.0.0"), "{text}");
    let unasked = run_in(folder.path(), &["init", "--output", "other.yaml"]);
    assert!(String::from_utf8_lossy(&unasked.stderr).contains("no terminal to ask on"), "{unasked:?}");
    assert!(!folder.path().join("other.yaml").exists());
}

#[test]
fn init_asks_two_questions_on_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_llamagate"));
    command.arg("init").env_clear().current_dir(folder.path());
    let mut terminal = Terminal::start(&mut command);
    terminal.wait_for("Which model?", 1);
    terminal.type_keys("org/name:Q4_K_M\n");
    terminal.wait_for("Who may use it?", 1);
    terminal.type_keys("2\n");
    assert!(terminal.wait_exit().success());
    terminal.wait_for("keyctl generate", 1);
    let text = fs::read_to_string(folder.path().join("llamagate.yaml")).unwrap();
    assert!(text.contains("\"name\":") && text.contains("file: \"org/name:Q4_K_M\""), "{text}");
}

#[test]
fn completions_and_manual_pages_name_every_subcommand() {
    let help = succeeded(&llamagate(&["--help"], &[]));
    let commands = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    // Lines that begin further right go on with the text of the line above.
    let begins = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let named = commands.lines().filter(begins).filter_map(|line| line.split_whitespace().next());
    let named: Vec<&str> = named.filter(|name| *name != "help").collect();
    assert!(named.contains(&"chat") && named.len() > 10, "{named:?}");
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let text = succeeded(&llamagate(&["completions", shell], &[]));
        assert!(named.iter().all(|name| text.contains(name)), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("completions.bash");
    fs::write(&script, succeeded(&llamagate(&["completions", "bash"], &[]))).unwrap();
    assert!(Command::new("bash").arg("-n").arg(script).output().unwrap().status.success());
    assert!(succeeded(&llamagate(&["man"], &[])).contains(".TH llamagate 1"));
    assert!(succeeded(&llamagate(&["man", "chat"], &[])).contains("\\-\\-system"));
    succeeded(&llamagate(&["man", "--output", folder.path().to_str().unwrap()], &[]));
    for name in named {
        assert!(folder.path().join(format!("llamagate-{name}.1")).exists(), "{name}");
    }
}
