//! `llamagate check` on configuration files of LiteLLM: which models are served, and what is said about the rest.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::configuration::llamagate;

/// Returns the folder with the files, each beside the expected output.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/litellm_files")
}

/// Returns the table of models and the warnings that `llamagate check` prints for a file.
fn check(path: &Path) -> String {
    let keys = [("GATE", "sk-sesame"), ("OPENAI_API_KEY", "sk-sesame"), ("SERVER_KEY", "sk-sesame")];
    let variables = [("DATA_DIR", "/nonexistent"), ("AUTH_ENABLED", "no"), ("HOST", "127.0.0.1")];
    let output = llamagate(&["check", "--config", path.to_str().unwrap()], &[&variables[..], &keys[..]].concat());
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let (_, models) = stdout.split_once("\nmodels:\n").expect("there is a table of models");
    let text = format!("{models}\n{stderr}");
    assert!(!text.contains("sesame"), "{text}");
    text.replace(path.to_str().unwrap(), path.file_name().unwrap().to_str().unwrap())
}

/// With UPDATE_DOCS=1 the expected outputs are written again.
#[test]
fn check_says_for_each_file_of_litellm_what_is_served_and_what_is_not() {
    for name in ["providers", "servers", "wildcard", "include", "routing", "retrieval"] {
        let path = folder().join(format!("{name}.yaml"));
        compare(&check(&path), &folder().join(format!("{name}.txt")));
    }
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/rerank-pool.yaml");
    compare(&check(&example), &folder().join("rerank-pool.txt"));
}

fn compare(text: &str, expected: &Path) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(expected, text).unwrap();
    }
    let expected_text = fs::read_to_string(expected).unwrap_or_default();
    assert_eq!(text, expected_text, "{} is out of date: run with UPDATE_DOCS=1", expected.display());
}
