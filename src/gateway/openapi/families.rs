//! The families of routes that the document knows, each a file of its own in `schemas/`.
//!
//! Such a file has `tag` and `about`, the `schemas` that its routes use, and `operations`: each route by method and path,
//! either with what it takes and gives, or as the name of another route that means the same. The words of an operation:
//!
//! - `request`: the schema of the body, by name; `form`: of a form. `optional`: a request may have no body.
//! - `answer`: the schema of a 200, by name; `text`: the content type of one that is no JSON; `empty`: it has no body.
//! - `events`: the schema of each event of a stream; `lines`: of each line of one.
//! - `status`: the status of the answer, if it is another than 200; `more`: other answers, by status.
//! - `parameters`: those of the query, and headers. `example`: a body, or a query, that works as it stands.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// The texts of all families, in the order of the document.
const TEXTS: &[(&str, &str)] = &[
    ("chat", include_str!("schemas/chat.json")),
    ("completions", include_str!("schemas/completions.json")),
    ("responses", include_str!("schemas/responses.json")),
    ("anthropic", include_str!("schemas/anthropic.json")),
    ("embeddings", include_str!("schemas/embeddings.json")),
    ("tei", include_str!("schemas/tei.json")),
    ("rerank", include_str!("schemas/rerank.json")),
    ("audio", include_str!("schemas/audio.json")),
    ("tokens", include_str!("schemas/tokens.json")),
    ("ollama", include_str!("schemas/ollama.json")),
    ("models", include_str!("schemas/models.json")),
    ("downloads", include_str!("schemas/downloads.json")),
    ("hub", include_str!("schemas/hub.json")),
    ("keys", include_str!("schemas/keys.json")),
    ("usage", include_str!("schemas/usage.json")),
    ("live", include_str!("schemas/live.json")),
    ("workers", include_str!("schemas/workers.json")),
    ("service", include_str!("schemas/service.json")),
    ("pages", include_str!("schemas/pages.json")),
];

/// One family.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Family {
    pub(super) tag: String,
    pub(super) about: String,
    pub(super) operations: BTreeMap<String, Described>,
    #[serde(default)]
    pub(super) schemas: Map<String, Value>,
}

/// What a family says about a route.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Described {
    /// The same as the route with this method and path.
    As(String),
    Own(Box<OperationText>),
}

/// What a route takes and gives.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OperationText {
    pub(super) request: Option<String>,
    pub(super) form: Option<String>,
    pub(super) optional: bool,
    pub(super) answer: Option<String>,
    pub(super) text: Option<String>,
    pub(super) empty: bool,
    pub(super) events: Option<String>,
    pub(super) lines: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) more: BTreeMap<String, String>,
    pub(super) parameters: Vec<Value>,
    pub(super) example: Option<Value>,
}

/// Reads all families.
///
/// # Errors
/// A file is not right; names it. A test reads them all.
pub(super) fn read_all() -> Result<Vec<Family>, String> {
    let read =
        |(name, text): &(&str, &str)| serde_json::from_str(text).map_err(|error| format!("{name}.json: {error}"));
    TEXTS.iter().map(read).collect()
}

/// Finds what is said about a route, by method and path. Returns the family that says it, and what it says.
pub(super) fn find<'a>(families: &'a [Family], route: &str) -> Option<(&'a Family, &'a OperationText)> {
    let (family, described) = families.iter().find_map(|family| Some((family, family.operations.get(route)?)))?;
    match described {
        Described::Own(text) => Some((family, text)),
        // One step: what is named must say it itself.
        Described::As(other) => match families.iter().find_map(|family| family.operations.get(other))? {
            Described::Own(text) => Some((family, text)),
            Described::As(_) => None,
        },
    }
}
