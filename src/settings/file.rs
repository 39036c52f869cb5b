//! The configuration file: YAML in, texts by key out.
//!
//! Owns the file's shape and its complaints. `server:` holds any setting of the table in lower case; the other
//! sections describe several models, which this version does not serve yet, and are refused rather than ignored.

use super::bounds::CONFIG_FILE_SIZE;
use super::options::{OPTIONS, row};
use super::resolve::Problem;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Texts of settings as the file gives them.
#[derive(Default)]
pub(super) struct FileTexts {
    /// The file.
    pub(super) path: PathBuf,
    texts: BTreeMap<&'static str, String>,
}

impl FileTexts {
    pub(super) fn get(&self, key: &str) -> Option<&String> {
        self.texts.get(key)
    }

    pub(super) fn was_read(&self) -> bool {
        !self.path.as_os_str().is_empty()
    }
}

/// Sections of the documented shape that need more than one model.
const LATER_SECTIONS: &[&str] = &["defaults", "memory_budget", "models", "model_list", "router_settings", "fallbacks"];

/// Reads the file; what it cannot use becomes problems.
pub(super) fn read(path: &Path) -> (FileTexts, Vec<Problem>) {
    let mut file = FileTexts { path: path.to_owned(), texts: BTreeMap::new() };
    let problem = |fault: String, hint: Option<String>| Problem { subject: path.display().to_string(), fault, hint };
    match read_text(path).and_then(|text| serde_saphyr::from_str::<Json>(&text).map_err(|error| error.to_string())) {
        Ok(Json::Null) => (file, Vec::new()),
        Ok(Json::Object(sections)) => {
            let mut problems = Vec::new();
            for (name, section) in &sections {
                match (name.as_str(), section) {
                    ("server", Json::Object(server)) => {
                        for (key, value) in server {
                            match setting(key, value) {
                                Ok((key, text)) => drop(file.texts.insert(key, text)),
                                Err((fault, hint)) => problems.push(problem(fault, hint)),
                            }
                        }
                    }
                    ("server", Json::Null) => {}
                    ("server", _) => problems.push(problem("server: expected a mapping of settings".into(), None)),
                    (later, _) if LATER_SECTIONS.contains(&later) => problems.push(problem(
                        format!("{later}: this version serves one model and does not read this section"),
                        Some("set model_path or model_name under server:".to_owned()),
                    )),
                    (unknown, _) => {
                        let known = LATER_SECTIONS.iter().copied().chain(["server"]);
                        problems.push(problem(format!("unknown section {unknown:?}"), did_you_mean(unknown, known)));
                    }
                }
            }
            (file, problems)
        }
        Ok(_) => (file, vec![problem("expected a mapping at the top level, such as server:".into(), None)]),
        Err(fault) => (file, vec![problem(fault, None)]),
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let size = path.metadata().map_err(|error| error.to_string())?.len();
    if size > CONFIG_FILE_SIZE {
        return Err(format!("{size} bytes are more than a configuration file may have ({CONFIG_FILE_SIZE})"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

type Complaint = (String, Option<String>);

fn setting(key: &str, value: &Json) -> Result<(&'static str, String), Complaint> {
    let Some(row) = row(key).filter(|row| row.key != "config_file") else {
        return Err((format!("unknown setting server.{key}"), did_you_mean(key, OPTIONS.iter().map(|row| row.key))));
    };
    let text = match value {
        Json::Array(items) => items.iter().map(scalar).collect::<Option<Vec<_>>>().map(|items| items.join(",")),
        other => scalar(other),
    };
    let text = text.ok_or_else(|| (format!("server.{key}: expected a single value or a list of them"), None))?;
    Ok((row.key, text))
}

fn scalar(value: &Json) -> Option<String> {
    match value {
        Json::Null => Some(String::new()),
        Json::Bool(value) => Some(value.to_string()),
        Json::Number(value) => Some(value.to_string()),
        Json::String(value) => Some(value.clone()),
        Json::Array(_) | Json::Object(_) => None,
    }
}

fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let similarity = |candidate: &str| strsim::jaro_winkler(&word.to_ascii_lowercase(), candidate);
    let best = known.map(|candidate| (similarity(candidate), candidate)).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(score, _)| *score > 0.8).map(|(_, candidate)| format!("did you mean {candidate}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_str(text: &str) -> (FileTexts, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("llamagate.yaml");
        std::fs::write(&path, text).unwrap();
        let (texts, problems) = read(&path);
        (texts, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn scalars_and_lists_become_the_texts_of_settings() {
        let (texts, problems) = read_str(
            "server:\n  port: 8123\n  auth_enabled: false\n  request_timeout: 5m\n  cors_origins: [https://a.example, https://b.example]\n",
        );
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(texts.get("port").unwrap(), "8123");
        assert_eq!(texts.get("auth_enabled").unwrap(), "false");
        assert_eq!(texts.get("request_timeout").unwrap(), "5m");
        assert_eq!(texts.get("cors_origins").unwrap(), "https://a.example,https://b.example");
    }

    #[test]
    fn an_unknown_key_is_an_error_with_a_suggestion() {
        let (_, problems) = read_str("server:\n  max_queue_sze: 5\nserve: {}\n");
        assert!(problems.iter().any(|problem| problem.contains("did you mean max_queue_size?")), "{problems:?}");
        assert!(problems.iter().any(|problem| problem.contains("did you mean server?")), "{problems:?}");
    }

    #[test]
    fn a_section_for_many_models_is_refused_rather_than_ignored() {
        let (_, problems) = read_str("models:\n  a: {file: a.gguf}\n");
        assert!(problems[0].contains("models: this version serves one model"), "{problems:?}");
    }

    #[test]
    fn broken_yaml_and_wrong_shapes_are_problems() {
        for text in ["server: [", "- a\n- b\n", "server: 5\n", "server:\n  port: {a: 1}\n"] {
            assert_eq!(read_str(text).1.len(), 1, "{text:?}");
        }
        assert!(read_str("").1.is_empty());
    }
}
