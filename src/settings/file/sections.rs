//! Reads LiteLLM's sections beside `model_list`: `router_settings`, `litellm_settings`, `general_settings`,
//! `credential_list` and `environment_variables`.
//!
//! Owns which of their keys have a counterpart among llamagate's settings.

use std::num::NonZeroUsize;

use super::fields::{NodeFields, texts};
use super::known::{GENERAL_HINTS, ROUTER, ROUTER_HINTS, SETTINGS_HINTS, STRATEGIES};
use super::node::YamlNode;
use super::{ConfigFile, GroupAlias};
use crate::settings::catalogue::EVERY_MODEL;
use crate::settings::notes::printable;
use crate::settings::options::{OPTIONS, row};

/// Keys of `litellm_settings` that set what the key of that name in `router_settings` sets. That one wins.
const SHARED_SETTINGS: &[&str] = &["num_retries", "allowed_fails"];

impl ConfigFile {
    /// Reads `router_settings`: the settings of its group in the table, and LiteLLM's own keys. Returns the default
    /// number of requests in flight per remote backend, if it is set.
    pub(super) fn read_router_settings(&mut self, node: &YamlNode) -> Option<NonZeroUsize> {
        let group = row("routing_strategy").map(|row| row.group);
        let mut fields = NodeFields::new("router_settings", node, &mut self.notes);
        for row in OPTIONS.iter().filter(|row| Some(row.group) == group) {
            let Some(value) = fields.node(row.key) else { continue };
            let location = fields.at(row.key);
            if let Some(strategy) = value.scalar().filter(|text| STRATEGIES.contains(&text.as_str())) {
                let notice =
                    format!("{}: {location}: this gateway has no {strategy} and uses its default", self.notes.subject);
                self.notes.warnings.push(notice);
                continue;
            }
            self.read_setting(&location, row, &as_here(row.key, value));
        }
        let slots = fields.value("default_max_parallel_requests", &mut self.notes);
        if let Some(node) = fields.node("fallbacks") {
            self.read_fallbacks(&fields.at("fallbacks"), node);
        }
        if let Some(node) = fields.node("default_fallbacks") {
            self.read_default_fallbacks(fields.at("default_fallbacks"), node);
        }
        if let Some(node) = fields.node("model_group_alias") {
            self.read_group_aliases(&fields.at("model_group_alias"), node);
        }
        fields.advise(ROUTER_HINTS, "router_settings", &mut self.notes);
        fields.finish(ROUTER, "router_settings", &mut self.notes);
        slots
    }

    /// Reads `model_group_alias`: a mapping from an alias to a model, or to `{model: NAME, hidden: true}`.
    fn read_group_aliases(&mut self, location: &str, node: &YamlNode) {
        let YamlNode::Map(entries) = node else {
            self.notes.problem(location, "expected a mapping from aliases to models", None);
            return;
        };
        for (alias, target) in entries {
            let location = format!("{location}.{alias}");
            let (model, is_hidden) = match target {
                YamlNode::Text(model) => (Some(model.clone()), false),
                YamlNode::Map(_) => {
                    let mut fields = NodeFields::new(location.clone(), target, &mut self.notes);
                    let model = fields.text("model", &mut self.notes);
                    let is_hidden = fields.value("hidden", &mut self.notes).unwrap_or_default();
                    fields.finish(&[], "router_settings.model_group_alias", &mut self.notes);
                    (model, is_hidden)
                }
                _ => (None, false),
            };
            match model {
                Some(model) => {
                    let alias = GroupAlias { location, alias: alias.clone(), model, is_hidden };
                    self.model_sections.aliases.push(alias);
                }
                None => self.notes.problem(&location, "expected the name of a model", None),
            }
        }
    }

    /// Reads `litellm_settings`, where LiteLLM accepts some keys of `router_settings` too.
    pub(super) fn read_litellm_settings(&mut self, node: &YamlNode) {
        let mut fields = NodeFields::new("litellm_settings", node, &mut self.notes);
        if let Some(node) = fields.node("fallbacks") {
            self.read_fallbacks(&fields.at("fallbacks"), node);
        }
        if let Some(node) = fields.node("default_fallbacks") {
            self.read_default_fallbacks(fields.at("default_fallbacks"), node);
        }
        for key in SHARED_SETTINGS {
            let Some(value) = fields.node(key) else { continue };
            if let Some(row) = row(key).filter(|row| !self.texts.contains_key(row.key)) {
                self.read_setting(&fields.at(key), row, &as_here(key, value));
            }
        }
        fields.advise(SETTINGS_HINTS, "litellm_settings", &mut self.notes);
        self.ignore_unread(fields);
    }

    /// Reads `general_settings`, none of which llamagate obeys.
    pub(super) fn read_general_settings(&mut self, node: &YamlNode) {
        let mut fields = NodeFields::new("general_settings", node, &mut self.notes);
        fields.advise(GENERAL_HINTS, "general_settings", &mut self.notes);
        self.ignore_unread(fields);
    }

    /// Ignores all keys that are left. Both sections have hundreds of keys, and new ones with each version of LiteLLM.
    fn ignore_unread(&mut self, mut fields: NodeFields<'_>) {
        for (key, _) in fields.take_unread().0 {
            self.notes.ignored.insert(printable(&fields.at(key)));
        }
    }

    /// Reads fallbacks: a mapping from names to lists, or LiteLLM's list of such mappings.
    pub(super) fn read_fallbacks<'a>(&mut self, location: &str, node: &'a YamlNode) {
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

    /// Reads `default_fallbacks`, a list of names.
    fn read_default_fallbacks(&mut self, location: String, node: &YamlNode) {
        if let Some(names) = texts(&location, node, &mut self.notes) {
            self.model_sections.fallbacks.push((location, EVERY_MODEL.to_owned(), names));
        }
    }

    /// Returns `environment_variables`: names and values for references `os.environ/NAME`.
    pub(super) fn read_environment_variables(&mut self, node: &YamlNode) -> Vec<(String, String)> {
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

    /// Returns `credential_list`: the names and the values of each credential.
    pub(super) fn read_credentials(&mut self, node: &YamlNode) -> Vec<(String, Vec<(String, YamlNode)>)> {
        let items: &[YamlNode] = match node {
            YamlNode::Null => &[],
            YamlNode::List(items) => items,
            _ => {
                self.notes.problem("credential_list", "expected a list of credentials", None);
                &[]
            }
        };
        let mut credentials = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let mut fields = NodeFields::new(format!("credential_list[{at}]"), item, &mut self.notes);
            let before = self.notes.problems.len();
            let name = fields.text("credential_name", &mut self.notes);
            let values = match fields.node("credential_values") {
                Some(YamlNode::Map(values)) => values.clone(),
                None => Vec::new(),
                Some(_) => {
                    self.notes.problem(&fields.at("credential_values"), "expected a mapping", None);
                    Vec::new()
                }
            };
            if name.is_none() && self.notes.problems.len() == before {
                self.notes.problem(&fields.at("credential_name"), "is missing", None);
            }
            credentials.extend(name.map(|name| (name, values)));
            fields.finish(&["credential_info"], "credential_list[]", &mut self.notes);
        }
        credentials
    }

    /// Warns of names of `environment_variables` that no reference has read: in LiteLLM they would be set for the whole
    /// process.
    pub(super) fn warn_of_unused_variables<'a>(&mut self, unused: impl Iterator<Item = &'a str>) {
        let unused: Vec<String> = unused.map(printable).collect();
        if !unused.is_empty() {
            let notice = format!(
                "{}: environment_variables: nothing reads {}; only os.environ/NAME in model_list does. Set llamagate's own \
                 variables in its environment",
                self.notes.subject,
                unused.join(", ")
            );
            self.notes.warnings.push(notice);
        }
    }
}

/// Returns a value of LiteLLM as the setting of that name has it here.
fn as_here(key: &str, value: &YamlNode) -> YamlNode {
    // LiteLLM counts the failures that it lets pass; llamagate counts those that open the breaker, from 1 on.
    match (key, value.scalar().as_deref()) {
        ("allowed_fails", Some("0")) => YamlNode::Text("1".to_owned()),
        _ => value.clone(),
    }
}
