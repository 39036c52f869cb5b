//! The sections of the configuration file, and its JSON Schema, for editors.
//!
//! Every name in it comes from the tables and readers that read the file. Sections in LiteLLM's format are open, because
//! unknown keys there are LiteLLM's or become fields of requests.

use serde_json::{Map, Value as Json, json};

use super::include::INCLUDE;
use super::known::SECTIONS as IGNORED_SECTIONS;
use super::models::{SINGLE_MODEL_KEYS, keys};
use crate::models::ModelKind;
use crate::settings::options::{OPTIONS, OptionRow, Sources, row};

/// The sections that are read.
pub(super) const SECTIONS: &[&str] = &[
    "server",
    "defaults",
    "memory_budget",
    "max_wait_before_drain",
    "models",
    "model_list",
    "router_settings",
    "fallbacks",
    "default_models",
    "environment_variables",
    "credential_list",
    "general_settings",
    "litellm_settings",
];

/// Those that are settings of `server:`, too.
pub(super) const SHARED_WITH_SERVER: &[&str] = &["memory_budget", "max_wait_before_drain"];

/// The dialect that editors know best.
const DIALECT: &str = "http://json-schema.org/draft-07/schema#";

/// Returns the schema.
pub(crate) fn configuration_schema() -> Json {
    let mut sections = Map::new();
    for name in SECTIONS.iter().chain(IGNORED_SECTIONS).chain([&INCLUDE]) {
        sections.insert((*name).to_owned(), section(name));
    }
    json!({
        "$schema": DIALECT,
        "title": "llamagate.yaml",
        "description": format!("The configuration of llamagate {}", env!("CARGO_PKG_VERSION")),
        "type": ["object", "null"],
        "additionalProperties": false,
        "properties": sections,
    })
}

/// Returns the schema of a section.
fn section(name: &str) -> Json {
    let setting = row(name).filter(|_| SHARED_WITH_SERVER.contains(&name));
    if let Some(row) = setting {
        return of_setting(row);
    }
    match name {
        "server" => closed("Settings of the whole service", OPTIONS.iter().filter(is_of_file).map(named)),
        "models" => json!({
            "description": "The models, by the names that clients use",
            "type": ["object", "null"],
            "additionalProperties": model(),
        }),
        "defaults" => {
            let shared = keys().into_iter().filter(|key| !SINGLE_MODEL_KEYS.contains(key));
            closed("What holds for all models", shared.map(of_model))
        }
        "default_models" => {
            let kinds = [ModelKind::Chat, ModelKind::Embedding, ModelKind::Rerank];
            let text = json!({"type": ["string", "null"]});
            closed("The model of requests that name none", kinds.map(|kind| (kind.as_str(), text.clone())).into_iter())
        }
        "router_settings" => {
            let group = row("routing_strategy").map(|row| row.group);
            let rows = OPTIONS.iter().filter(|row| Some(row.group) == group).map(named);
            let properties: Map<String, Json> = rows.map(|(key, schema)| (key.to_owned(), schema)).collect();
            json!({"description": "As in LiteLLM", "type": ["object", "null"], "properties": properties})
        }
        "model_list" => json!({
            "description": "Remote backends, as in LiteLLM",
            "type": ["array", "null"],
            "items": {"type": "object", "required": ["model_name"], "properties": {"model_name": {"type": "string"}}},
        }),
        // Read in several forms, or not at all.
        _ => json!({}),
    }
}

fn model() -> Json {
    closed("One model", keys().into_iter().map(of_model))
}

/// Returns the schema of an object that has these keys and no others.
fn closed(about: &str, properties: impl Iterator<Item = (&'static str, Json)>) -> Json {
    let properties: Map<String, Json> = properties.map(|(key, schema)| (key.to_owned(), schema)).collect();
    json!({
        "description": about,
        "type": ["object", "null"],
        "additionalProperties": false,
        "properties": properties,
    })
}

fn is_of_file(row: &&OptionRow) -> bool {
    row.sources == Sources::All
}

fn named(row: &'static OptionRow) -> (&'static str, Json) {
    (row.key, of_setting(row))
}

/// Returns the schema of a key of a model. One that is a setting of the service too means the same there.
fn of_model(key: &'static str) -> (&'static str, Json) {
    (key, row(key).filter(is_of_file).map_or_else(|| json!({}), of_setting))
}

fn of_setting(row: &OptionRow) -> Json {
    let types: &[&str] = if row.is_bool {
        &["boolean", "string", "integer", "null"]
    } else {
        &["string", "number", "boolean", "array", "null"]
    };
    let default = if row.default.is_empty() { String::new() } else { format!(" Default: {}.", row.default) };
    json!({"description": format!("{}{default}", row.doc.replace('`', "")), "type": types})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_every_setting_of_the_file_and_every_key_of_a_model() {
        let schema = configuration_schema();
        let keys_of = |at: &str| {
            let properties = schema.pointer(at).unwrap().as_object().unwrap();
            properties.keys().cloned().collect::<Vec<String>>()
        };
        let server = keys_of("/properties/server/properties");
        assert_eq!(server.len(), OPTIONS.iter().filter(is_of_file).count());
        assert!(!server.contains(&"llamagate_api_key".to_owned()), "only a variable sets it");
        let model = keys_of("/properties/models/additionalProperties/properties");
        assert!(model.contains(&"file".to_owned()) && model.contains(&"ttl".to_owned()), "{model:?}");
        assert!(!keys_of("/properties/defaults/properties").contains(&"file".to_owned()));
    }
}
