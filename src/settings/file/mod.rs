//! The configuration file: YAML in, texts by key and drafts of models out.
//!
//! Owns the file's sections and its complaints. `server:` holds any setting of the table in lower case;
//! `router_settings:` those of the group "Many models and workers". One model's keys are in `file/models.rs`, LiteLLM's
//! `model_list` in `file/litellm.rs`. What is known of LiteLLM but means nothing here is ignored with a warning; what is
//! known to nobody is a problem.
//!
//! - `address.rs`: the address of a remote backend
//! - `fields.rs`: the entries of one mapping, asked for by name
//! - `known.rs`: names of LiteLLM's configuration that mean nothing here
//! - `litellm.rs`: `model_list:`
//! - `models.rs`: `models:` and `defaults:`
//! - `node.rs`: a YAML value whose mappings keep their order

mod address;
mod fields;
mod known;
mod litellm;
mod models;
mod node;

use super::catalogue::draft::ModelDraft;
use super::environment::Environment;
use super::notes::{FileNotes, did_you_mean};
use super::options::{OPTIONS, OptionRow, row};
use super::problem::SettingProblem;
use crate::settings::bounds::CONFIG_FILE_SIZE;
use fields::{NodeFields, texts};
use node::YamlNode;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

pub(super) use address::api_base;
pub(super) use litellm::{Backend, HEALTH as REMOTE_HEALTH, ModelListEntry, Provider};
pub(super) use models::{check_name, start_of};

/// What the file gives.
#[derive(Default)]
pub(super) struct ConfigFile {
    /// The file.
    pub(super) path: PathBuf,
    texts: BTreeMap<&'static str, String>,
    /// What it says of models.
    pub(super) shelf: FileModels,
    /// What is wrong with it.
    pub(super) notes: FileNotes,
}

/// What the file says of models, before it is put together.
#[derive(Default)]
pub(super) struct FileModels {
    /// What holds for every local model.
    pub(super) defaults: ModelDraft,
    /// `models:`, by id.
    pub(super) models: Vec<(String, ModelDraft)>,
    /// `model_list:`.
    pub(super) entries: Vec<ModelListEntry>,
    /// Places, other names, and what they mean.
    pub(super) aliases: Vec<(String, String, String)>,
    /// Places, names, and who takes over.
    pub(super) fallbacks: Vec<(String, String, Vec<String>)>,
}

impl ConfigFile {
    pub(super) fn get(&self, key: &str) -> Option<&String> {
        self.texts.get(key)
    }

    pub(super) fn was_read(&self) -> bool {
        !self.path.as_os_str().is_empty()
    }

    /// Reads the file; what it cannot use becomes problems.
    pub(super) fn read(path: &Path, environment: &Environment) -> Self {
        match read_text(path) {
            Ok(text) => Self::parse(path, &text, environment),
            Err(fault) => Self { path: path.to_owned(), notes: notes_on(path, Some(fault)), ..Self::default() },
        }
    }

    /// Reads the text of a file.
    pub(super) fn parse(path: &Path, text: &str, environment: &Environment) -> Self {
        let mut file = Self { path: path.to_owned(), notes: notes_on(path, None), ..Self::default() };
        match YamlNode::parse(text) {
            Ok(YamlNode::Null) => {}
            Ok(YamlNode::Map(sections)) => file.sections(&sections, environment),
            Ok(_) => file.notes = notes_on(path, Some("expected a mapping at the top level, such as server:".into())),
            Err(fault) => file.notes = notes_on(path, Some(fault)),
        }
        file
    }

    fn sections(&mut self, sections: &[(String, YamlNode)], environment: &Environment) {
        const READ: &[&str] = &[
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
            } else if !READ.contains(&name.as_str()) {
                let hint = did_you_mean(name, READ.iter().chain(known::SECTIONS).copied());
                self.notes.problem(name, "unknown section", hint);
            }
        }
        let section =
            |name: &str| sections.iter().find(|(key, _)| key == name).map_or(&YamlNode::Null, |(_, node)| node);
        self.server(section("server"));
        for key in ["memory_budget", "max_wait_before_drain"] {
            if let Some(row) = row(key) {
                self.setting(key, row, section(key));
            }
        }
        let slots = self.router(section("router_settings"));
        self.fallbacks("fallbacks", section("fallbacks"));
        self.litellm_settings(section("litellm_settings"));
        self.shelf.defaults = models::defaults(section("defaults"), &mut self.notes);
        self.shelf.models = models::models(section("models"), &mut self.notes);
        let variables = litellm::Variables { environment, of_file: self.variables(section("environment_variables")) };
        self.shelf.entries = litellm::entries(section("model_list"), slots, &variables, &mut self.notes);
    }

    fn server(&mut self, node: &YamlNode) {
        let YamlNode::Map(settings) = node else {
            if *node != YamlNode::Null {
                self.notes.problem("server", "expected a mapping of settings", None);
            }
            return;
        };
        for (key, value) in settings {
            let place = format!("server.{key}");
            match row(key).filter(|row| row.key != "config_file") {
                Some(row) => self.setting(&place, row, value),
                None => {
                    let hint = did_you_mean(key, OPTIONS.iter().map(|row| row.key));
                    self.notes.problem(&place, "unknown setting", hint);
                }
            }
        }
    }

    /// The settings of the group that `router_settings` holds, and LiteLLM's own keys. Returns how many requests in
    /// flight a remote backend takes that says nothing of its own.
    fn router(&mut self, node: &YamlNode) -> Option<NonZeroUsize> {
        let group = row("routing_strategy").map(|row| row.group);
        let mut fields = NodeFields::of("router_settings", node, &mut self.notes);
        for row in OPTIONS.iter().filter(|row| Some(row.group) == group) {
            let Some(value) = fields.node(row.key) else { continue };
            let place = fields.at(row.key);
            if let Some(strategy) = value.scalar().filter(|text| known::STRATEGIES.contains(&text.as_str())) {
                let notice = format!(
                    "{}: {place}: this gateway has no {strategy}; its default takes the place",
                    self.notes.subject
                );
                self.notes.warnings.push(notice);
                continue;
            }
            self.setting(&place, row, value);
        }
        let slots = fields.value("default_max_parallel_requests", &mut self.notes);
        if let Some(node) = fields.node("fallbacks") {
            self.fallbacks(&fields.at("fallbacks"), node);
        }
        if let Some(node) = fields.node("model_group_alias") {
            let place = fields.at("model_group_alias");
            let YamlNode::Map(entries) = node else {
                self.notes.problem(&place, "expected a mapping from other names to names", None);
                return slots;
            };
            for (alias, target) in entries {
                let place = format!("{place}.{alias}");
                // LiteLLM also takes {model: NAME, hidden: true}.
                let target = match target {
                    YamlNode::Map(parts) => {
                        parts.iter().find(|(key, _)| key == "model").map_or(&YamlNode::Null, |(_, node)| node)
                    }
                    target => target,
                };
                match target {
                    YamlNode::Text(target) => self.shelf.aliases.push((place, alias.clone(), target.clone())),
                    _ => self.notes.problem(&place, "expected the name of a model", None),
                }
            }
        }
        fields.finish(known::ROUTER, "router_settings", &mut self.notes);
        slots
    }

    /// LiteLLM takes some settings of the router here too.
    fn litellm_settings(&mut self, node: &YamlNode) {
        let YamlNode::Map(entries) = node else { return };
        for (key, value) in entries {
            if key == "fallbacks" {
                self.fallbacks("litellm_settings.fallbacks", value);
            } else {
                self.notes.ignored.insert("litellm_settings".to_owned());
            }
        }
    }

    /// A mapping from names to lists, or LiteLLM's list of such mappings.
    fn fallbacks<'a>(&mut self, place: &str, node: &'a YamlNode) {
        let maps: Vec<&'a [(String, YamlNode)]> = match node {
            YamlNode::Null => return,
            YamlNode::Map(entries) => vec![entries.as_slice()],
            YamlNode::List(items) => {
                let map = |item: &'a YamlNode| if let YamlNode::Map(entries) = item { entries.as_slice() } else { &[] };
                if items.iter().any(|item| !matches!(item, YamlNode::Map(_))) {
                    self.notes.problem(place, "expected a list of mappings from a name to a list of names", None);
                }
                items.iter().map(map).collect()
            }
            _ => {
                self.notes.problem(place, "expected a mapping from names to lists of names", None);
                return;
            }
        };
        for (name, node) in maps.into_iter().flatten() {
            let place = format!("{place}.{name}");
            if let Some(names) = texts(&place, node, &mut self.notes) {
                self.shelf.fallbacks.push((place, name.clone(), names));
            }
        }
    }

    /// `environment_variables`: texts that `os.environ/NAME` stands for.
    fn variables(&mut self, node: &YamlNode) -> Vec<(String, String)> {
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

    fn setting(&mut self, place: &str, row: &'static OptionRow, node: &YamlNode) {
        if *node == YamlNode::Null && !place.starts_with("server.") {
            return;
        }
        let text = match node {
            YamlNode::List(items) => {
                items.iter().map(YamlNode::scalar).collect::<Option<Vec<_>>>().map(|items| items.join(","))
            }
            other => other.scalar(),
        };
        let Some(text) = text else {
            self.notes.problem(place, "expected a single value or a list of them", None);
            return;
        };
        if self.texts.insert(row.key, text).is_some() {
            self.notes.problem(place, "is said at another place too", Some("keep one of them".to_owned()));
        }
    }
}

fn notes_on(path: &Path, fault: Option<String>) -> FileNotes {
    let mut notes = FileNotes { subject: path.display().to_string(), ..FileNotes::default() };
    notes.problems.extend(fault.map(|fault| SettingProblem { subject: notes.subject.clone(), fault, hint: None }));
    notes
}

fn read_text(path: &Path) -> Result<String, String> {
    let size = path.metadata().map_err(|error| error.to_string())?.len();
    if size > CONFIG_FILE_SIZE {
        return Err(format!("{size} bytes are more than a configuration file may have ({CONFIG_FILE_SIZE})"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
