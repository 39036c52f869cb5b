//! Parses the configuration file into texts of settings and drafts of models.
//!
//! Owns the sections of the file. `server:` takes any setting of the table in lower case, `router_settings:` those of
//! the group "Many models and workers". Keys of LiteLLM that have no meaning here are ignored with a warning; any other
//! unknown key is a problem.
//!
//! - `address.rs`: normalizes the URL of a remote backend
//! - `fields.rs`: reads the entries of one mapping by key
//! - `known.rs`: names of LiteLLM's configuration that have no meaning here
//! - `litellm.rs`: `model_list:`
//! - `models.rs`: `models:` and `defaults:`
//! - `node.rs`: a YAML value whose mappings keep their order

mod address;
mod fields;
mod known;
mod litellm;
mod models;
mod node;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::catalogue::draft::ModelDraft;
use super::environment::Environment;
use super::notes::{FileNotes, did_you_mean};
use super::options::{OPTIONS, OptionRow, Sources, row};
use super::problem::SettingProblem;
use crate::settings::bounds::CONFIG_FILE_SIZE;
use fields::{NodeFields, texts};
use node::YamlNode;

pub(super) use address::api_base;
pub(super) use litellm::{Backend, ModelListEntry, Provider, REMOTE_HEALTH};
pub(super) use models::{check_name, start_of};

/// The content of the configuration file.
#[derive(Default)]
pub(super) struct ConfigFile {
    /// The path of the file; empty if none was read.
    pub(super) path: PathBuf,
    /// The texts of settings, by key.
    texts: BTreeMap<&'static str, String>,
    /// The sections about models.
    pub(super) model_sections: FileModels,
    /// The problems and warnings of the file.
    pub(super) notes: FileNotes,
}

/// The models of the file, before `merge/` builds the catalogue.
#[derive(Default)]
pub(super) struct FileModels {
    /// `defaults:`, for all local models.
    pub(super) defaults: ModelDraft,
    /// `models:`, by id.
    pub(super) models: Vec<(String, ModelDraft)>,
    /// `model_list:`.
    pub(super) entries: Vec<ModelListEntry>,
    /// `model_group_alias`: the location, the alias and the model's name of each.
    pub(super) aliases: Vec<(String, String, String)>,
    /// `fallbacks`: the location, the name and the fallbacks of each.
    pub(super) fallbacks: Vec<(String, String, Vec<String>)>,
}

impl ConfigFile {
    /// Returns the text of a setting.
    pub(super) fn get(&self, key: &str) -> Option<&String> {
        self.texts.get(key)
    }

    /// Returns whether a configuration file exists.
    pub(super) fn is_present(&self) -> bool {
        !self.path.as_os_str().is_empty()
    }

    /// Reads the file; errors are recorded as problems.
    pub(super) fn read(path: &Path, environment: &Environment) -> Self {
        match read_text(path) {
            Ok(text) => Self::parse(path, &text, environment),
            Err(fault) => Self { path: path.to_owned(), notes: notes_on(path, Some(fault)), ..Self::default() },
        }
    }

    /// Parses the text of a file; errors are recorded as problems.
    pub(super) fn parse(path: &Path, text: &str, environment: &Environment) -> Self {
        let mut file = Self { path: path.to_owned(), notes: notes_on(path, None), ..Self::default() };
        match YamlNode::parse(text) {
            Ok(YamlNode::Null) => {}
            Ok(YamlNode::Map(sections)) => file.read_sections(&sections, environment),
            Ok(_) => file.notes = notes_on(path, Some("expected a mapping at the top level, such as server:".into())),
            Err(fault) => file.notes = notes_on(path, Some(fault)),
        }
        file
    }

    fn read_sections(&mut self, sections: &[(String, YamlNode)], environment: &Environment) {
        const KNOWN: &[&str] = &[
            "server",
            "defaults",
            "memory_budget",
            "max_wait_before_drain",
            "models",
            "model_list",
            "router_settings",
            "fallbacks",
            "environment_variables",
            "litellm_settings",
        ];
        for (name, _) in sections {
            if known::SECTIONS.contains(&name.as_str()) {
                self.notes.ignored.insert(name.clone());
            } else if !KNOWN.contains(&name.as_str()) {
                let hint = did_you_mean(name, KNOWN.iter().chain(known::SECTIONS).copied());
                self.notes.problem(name, "unknown section", hint);
            }
        }
        let section =
            |name: &str| sections.iter().find(|(key, _)| key == name).map_or(&YamlNode::Null, |(_, node)| node);
        self.read_server(section("server"));
        for key in ["memory_budget", "max_wait_before_drain"] {
            if let Some(row) = row(key) {
                self.read_setting(key, row, section(key));
            }
        }
        let slots = self.read_router_settings(section("router_settings"));
        self.read_fallbacks("fallbacks", section("fallbacks"));
        self.read_litellm_settings(section("litellm_settings"));
        self.model_sections.defaults = models::defaults(section("defaults"), &mut self.notes);
        self.model_sections.models = models::models(section("models"), &mut self.notes);
        let variables = litellm::Variables {
            environment,
            from_file: self.read_environment_variables(section("environment_variables")),
        };
        self.model_sections.entries = litellm::entries(section("model_list"), slots, &variables, &mut self.notes);
    }

    fn read_server(&mut self, node: &YamlNode) {
        let YamlNode::Map(settings) = node else {
            if *node != YamlNode::Null {
                self.notes.problem("server", "expected a mapping of settings", None);
            }
            return;
        };
        for (key, value) in settings {
            let location = format!("server.{key}");
            match row(key) {
                Some(row) if row.sources == Sources::All => self.read_setting(&location, row, value),
                Some(row) => {
                    let hint = format!("set the environment variable {}", row.variable());
                    self.notes.problem(&location, "cannot be set in this file", Some(hint));
                }
                None => {
                    let rows = OPTIONS.iter().filter(|row| row.sources == Sources::All);
                    let hint = did_you_mean(key, rows.map(|row| row.key));
                    self.notes.problem(&location, "unknown setting", hint);
                }
            }
        }
    }

    /// Reads `router_settings`: the settings of its group in the table, and LiteLLM's own keys. Returns the default
    /// number of requests in flight per remote backend, if it is set.
    fn read_router_settings(&mut self, node: &YamlNode) -> Option<NonZeroUsize> {
        let group = row("routing_strategy").map(|row| row.group);
        let mut fields = NodeFields::new("router_settings", node, &mut self.notes);
        for row in OPTIONS.iter().filter(|row| Some(row.group) == group) {
            let Some(value) = fields.node(row.key) else { continue };
            let location = fields.at(row.key);
            if let Some(strategy) = value.scalar().filter(|text| known::STRATEGIES.contains(&text.as_str())) {
                let notice =
                    format!("{}: {location}: this gateway has no {strategy} and uses its default", self.notes.subject);
                self.notes.warnings.push(notice);
                continue;
            }
            self.read_setting(&location, row, value);
        }
        let slots = fields.value("default_max_parallel_requests", &mut self.notes);
        if let Some(node) = fields.node("fallbacks") {
            self.read_fallbacks(&fields.at("fallbacks"), node);
        }
        if let Some(node) = fields.node("model_group_alias") {
            let location = fields.at("model_group_alias");
            let YamlNode::Map(entries) = node else {
                self.notes.problem(&location, "expected a mapping from aliases to models", None);
                return slots;
            };
            for (alias, target) in entries {
                let location = format!("{location}.{alias}");
                // LiteLLM also accepts {model: NAME, hidden: true}.
                let target = match target {
                    YamlNode::Map(parts) => {
                        parts.iter().find(|(key, _)| key == "model").map_or(&YamlNode::Null, |(_, node)| node)
                    }
                    target => target,
                };
                match target {
                    YamlNode::Text(target) => {
                        self.model_sections.aliases.push((location, alias.clone(), target.clone()))
                    }
                    _ => self.notes.problem(&location, "expected the name of a model", None),
                }
            }
        }
        fields.finish(known::ROUTER, "router_settings", &mut self.notes);
        slots
    }

    /// Reads `litellm_settings`, where LiteLLM also accepts `fallbacks`; all other keys are ignored.
    fn read_litellm_settings(&mut self, node: &YamlNode) {
        let YamlNode::Map(entries) = node else { return };
        for (key, value) in entries {
            if key == "fallbacks" {
                self.read_fallbacks("litellm_settings.fallbacks", value);
            } else {
                self.notes.ignored.insert("litellm_settings".to_owned());
            }
        }
    }

    /// Reads fallbacks: a mapping from names to lists, or LiteLLM's list of such mappings.
    fn read_fallbacks<'a>(&mut self, location: &str, node: &'a YamlNode) {
        let maps: Vec<&'a [(String, YamlNode)]> = match node {
            YamlNode::Null => return,
            YamlNode::Map(entries) => vec![entries.as_slice()],
            YamlNode::List(items) => {
                let map = |item: &'a YamlNode| if let YamlNode::Map(entries) = item { entries.as_slice() } else { &[] };
                if items.iter().any(|item| !matches!(item, YamlNode::Map(_))) {
                    self.notes.problem(location, "expected a list of mappings from a name to a list of names", None);
                }
                items.iter().map(map).collect()
            }
            _ => {
                self.notes.problem(location, "expected a mapping from names to lists of names", None);
                return;
            }
        };
        for (name, node) in maps.into_iter().flatten() {
            let location = format!("{location}.{name}");
            if let Some(names) = texts(&location, node, &mut self.notes) {
                self.model_sections.fallbacks.push((location, name.clone(), names));
            }
        }
    }

    /// Returns `environment_variables`: names and values for references `os.environ/NAME`.
    fn read_environment_variables(&mut self, node: &YamlNode) -> Vec<(String, String)> {
        match node {
            YamlNode::Map(entries) => {
                entries.iter().filter_map(|(name, value)| Some((name.clone(), value.scalar()?))).collect()
            }
            YamlNode::Null => Vec::new(),
            _ => {
                self.notes.problem("environment_variables", "expected a mapping from names to values", None);
                Vec::new()
            }
        }
    }

    /// Records the text of a setting of the table; a list becomes a text with commas.
    fn read_setting(&mut self, location: &str, row: &'static OptionRow, node: &YamlNode) {
        // Callers pass null for an absent section; under `server:` a null is written in the file and means an empty
        // text.
        if *node == YamlNode::Null && !location.starts_with("server.") {
            return;
        }
        let text = match node {
            YamlNode::List(items) => {
                items.iter().map(YamlNode::scalar).collect::<Option<Vec<_>>>().map(|items| items.join(","))
            }
            other => other.scalar(),
        };
        let Some(text) = text else {
            self.notes.problem(location, "expected a single value or a list of them", None);
            return;
        };
        if self.texts.insert(row.key, text).is_some() {
            self.notes.problem(location, "is set in another place too", Some("keep one of them".to_owned()));
        }
    }
}

fn notes_on(path: &Path, fault: Option<String>) -> FileNotes {
    let mut notes = FileNotes { subject: path.display().to_string(), ..FileNotes::default() };
    notes.problems.extend(fault.map(|fault| SettingProblem { subject: notes.subject.clone(), fault, hint: None }));
    notes
}

fn read_text(path: &Path) -> Result<String, String> {
    // The size is checked first, so that a path to a model file does not fill the memory.
    let metadata = path.metadata().map_err(|error| error.to_string())?;
    if metadata.is_dir() {
        return Err("it is a folder, not a file: name the file in it, such as llamagate.yaml".to_owned());
    }
    let size = metadata.len();
    if size > CONFIG_FILE_SIZE {
        return Err(format!("{size} bytes are more than the limit of a configuration file ({CONFIG_FILE_SIZE})"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
