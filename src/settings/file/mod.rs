//! Parses the configuration file into texts of settings and drafts of models.
//!
//! Owns the sections of the file. `server:` takes any setting of the table in lower case, `router_settings:` those of
//! the group "Many models and workers". Keys of LiteLLM that have no meaning here are ignored with a warning; any other
//! unknown key is a problem.
//!
//! - `address.rs`: normalizes the URL of a remote backend
//! - `companions.rs`: the keys of a model for what goes with it
//! - `embedding.rs`: the keys of a model for embeddings
//! - `fields.rs`: reads the entries of one mapping by key
//! - `include.rs`: reads files, and merges those that `include:` names
//! - `known.rs`: names of LiteLLM's configuration that have no meaning here
//! - `litellm.rs`: `model_list:`
//! - `models.rs`: `models:` and `defaults:`
//! - `node.rs`: a YAML value whose mappings keep their order
//! - `params.rs`: `litellm_params` of an entry of `model_list:`
//! - `schema.rs`: the sections of the file, and its JSON Schema, for editors
//! - `sections.rs`: LiteLLM's other sections
//! - `unread_param.rs`: what an unread key of `litellm_params` is

mod address;
mod companions;
mod embedding;
mod fields;
mod include;
mod known;
mod litellm;
mod models;
mod node;
mod params;
mod schema;
mod sections;
mod unread_param;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::catalogue::draft::ModelDraft;
use super::environment::Environment;
use super::notes::{FileNotes, did_you_mean};
use super::options::{OPTIONS, OptionRow, Sources, row};
use super::problem::SettingProblem;
use crate::models::ModelKind;
use fields::NodeFields;
use include::{MergedFile, merge_included};
use params::References;
use schema::{SECTIONS, SHARED_WITH_SERVER};

pub(super) use address::api_base;
pub(crate) use include::read_text as read_config_text;
pub(super) use litellm::ModelListEntry;
pub(super) use models::{check_name, start_of};
pub(crate) use node::YamlNode;
pub(super) use params::Backend;
pub(crate) use schema::configuration_schema;

/// The content of the configuration file.
#[derive(Default)]
pub(super) struct ConfigFile {
    /// The path of the file; empty if none was read.
    pub(super) path: PathBuf,
    /// The paths of the files that it includes.
    pub(super) included: Vec<PathBuf>,
    /// The texts of settings, by key.
    texts: BTreeMap<&'static str, String>,
    /// The sections about models.
    pub(super) model_sections: FileModels,
    /// The problems and warnings of the file.
    pub(super) notes: FileNotes,
    /// Whether it is there and could not be read at all.
    pub(super) is_unread: bool,
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
    /// `model_group_alias`.
    pub(super) aliases: Vec<GroupAlias>,
    /// `fallbacks`: the location, the name and the fallbacks of each.
    pub(super) fallbacks: Vec<(String, String, Vec<String>)>,
    /// `default_models`: the kind and the name of each.
    pub(super) default_models: Vec<(ModelKind, String)>,
    /// Whether the file has `models:`, even if it is empty.
    pub(super) has_models: bool,
    /// Whether the file has `model_list:`, even if none of its models can be served.
    pub(super) has_model_list: bool,
}

/// An entry of `model_group_alias`.
pub(super) struct GroupAlias {
    pub(super) location: String,
    pub(super) alias: String,
    /// The name of the model.
    pub(super) model: String,
    /// Whether no client is shown the alias.
    pub(super) is_hidden: bool,
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
        match read_config_text(path) {
            Ok(text) => Self::parse(path, &text, environment),
            Err(fault) => {
                let notes = notes_on(path, Some(format!("cannot be read: {fault}")));
                Self { path: path.to_owned(), notes, is_unread: true, ..Self::default() }
            }
        }
    }

    /// Parses the text of a file; errors are recorded as problems.
    pub(super) fn parse(path: &Path, text: &str, environment: &Environment) -> Self {
        let mut file = Self { path: path.to_owned(), notes: notes_on(path, None), ..Self::default() };
        match YamlNode::parse(text) {
            Ok(YamlNode::Null) => {}
            Ok(YamlNode::Map(sections)) => {
                let merged = merge_included(path, sections, &mut file.notes);
                file.read_sections(&merged, environment);
                file.included = merged.included;
            }
            Ok(_) => file.notes = notes_on(path, Some("expected a mapping at the top level, such as server:".into())),
            Err(fault) => {
                file.notes = notes_on(path, Some(fault));
                file.is_unread = true;
            }
        }
        file
    }

    fn read_sections(&mut self, merged: &MergedFile, environment: &Environment) {
        let sections = &merged.sections;
        for (name, _) in sections {
            if known::SECTIONS.contains(&name.as_str()) {
                self.notes.ignored.insert(name.clone());
            } else if !SECTIONS.contains(&name.as_str()) {
                let hint = did_you_mean(name, SECTIONS.iter().chain(known::SECTIONS).copied());
                self.notes.problem(name, "unknown section", hint);
            }
        }
        let section =
            |name: &str| sections.iter().find(|(key, _)| key == name).map_or(&YamlNode::Null, |(_, node)| node);
        self.read_server(section("server"));
        for key in SHARED_WITH_SERVER {
            if let Some(row) = row(key) {
                self.read_setting(key, row, section(key));
            }
        }
        let slots = self.read_router_settings(section("router_settings"));
        self.read_fallbacks("fallbacks", section("fallbacks"));
        self.read_litellm_settings(section("litellm_settings"));
        self.read_general_settings(section("general_settings"));
        self.read_default_models(section("default_models"));
        self.model_sections.defaults = models::defaults(section("defaults"), &mut self.notes);
        self.model_sections.models = models::models(section("models"), &mut self.notes);
        self.model_sections.has_models = *section("models") != YamlNode::Null;
        self.model_sections.has_model_list = *section("model_list") != YamlNode::Null;
        let references = References {
            environment,
            from_file: self.read_environment_variables(section("environment_variables")),
            credentials: self.read_credentials(section("credential_list")),
            used: RefCell::default(),
        };
        let list = section("model_list");
        self.model_sections.entries =
            litellm::entries(list, &merged.item_locations, slots, &references, &mut self.notes);
        let used = references.used.borrow();
        let names = references.from_file.iter().map(|(name, _)| name.as_str());
        self.warn_of_unused_variables(names.filter(|name| !used.contains(*name)));
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

    /// Reads `default_models`: the id of a model by its kind.
    fn read_default_models(&mut self, node: &YamlNode) {
        let mut fields = NodeFields::new("default_models", node, &mut self.notes);
        for kind in [ModelKind::Chat, ModelKind::Embedding, ModelKind::Rerank] {
            let id = fields.text(kind.as_str(), &mut self.notes);
            self.model_sections.default_models.extend(id.map(|id| (kind, id)));
        }
        fields.finish(&[], "default_models", &mut self.notes);
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

/// Returns what is wrong with a text as a configuration file, and what is warned about, by the text alone.
pub(crate) fn examine_file_text(text: &str) -> (Vec<SettingProblem>, Vec<String>) {
    let mut notes = ConfigFile::parse("llamagate.yaml".as_ref(), text, &Environment::default()).notes;
    let warnings = notes.take_warnings();
    (notes.problems, warnings)
}

fn notes_on(path: &Path, fault: Option<String>) -> FileNotes {
    let mut notes = FileNotes { subject: path.display().to_string(), ..FileNotes::default() };
    notes.problems.extend(fault.map(|fault| SettingProblem { subject: notes.subject.clone(), fault, hint: None }));
    notes
}

#[cfg(test)]
mod tests;
