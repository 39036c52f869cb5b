//! Reads the keys of a model for embeddings: `dimensions`, `prompts` and `heads`.

use std::num::NonZeroU32;
use std::path::PathBuf;

use super::fields::{NodeFields, read};
use super::node::YamlNode;
use crate::settings::bounds::{MOST_DIMENSIONS, MOST_PROMPTS, PROMPT_LENGTH};
use crate::settings::catalogue::HeadFiles;
use crate::settings::notes::FileNotes;
use crate::settings::values::Dimensions;

/// Reads `dimensions`: one length is the default, several are those that requests may name.
pub(super) fn dimensions(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> Option<Dimensions> {
    let location = fields.at("dimensions");
    match fields.node("dimensions")? {
        YamlNode::List(items) if (1..=MOST_DIMENSIONS).contains(&items.len()) => {
            let lengths: Option<Vec<NonZeroU32>> = items.iter().map(|item| read(&location, item, notes)).collect();
            lengths.map(Dimensions::Only)
        }
        YamlNode::List(_) => {
            let fault = format!("expected 1 to {MOST_DIMENSIONS} lengths");
            notes.problem(&location, fault, Some("leave it out, and requests may name any length".to_owned()));
            None
        }
        single => read(&location, single, notes).map(Dimensions::Default),
    }
}

/// Reads `prompts`: a text for each name.
pub(super) fn prompts(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> Option<Vec<(String, String)>> {
    let location = fields.at("prompts");
    let YamlNode::Map(entries) = fields.node("prompts")? else {
        let hint = Some("for no prompts, write {}".to_owned());
        notes.problem(&location, "expected a mapping such as {query: \"query: \", document: \"passage: \"}", hint);
        return None;
    };
    if entries.len() > MOST_PROMPTS {
        notes.problem(&location, format!("expected {MOST_PROMPTS} prompts at most"), None);
        return None;
    }
    let mut prompts = Vec::with_capacity(entries.len());
    for (name, text) in entries {
        match text {
            YamlNode::Text(text) if text.len() <= PROMPT_LENGTH && !name.is_empty() => {
                prompts.push((name.clone(), text.clone()));
            }
            _ => {
                let fault = format!("expected a text of at most {PROMPT_LENGTH} bytes");
                notes.problem(&format!("{location}.{name}"), fault, Some("put it into quotes".to_owned()));
            }
        }
    }
    Some(prompts)
}

/// Reads `heads`: the file of each head.
pub(super) fn heads(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> Option<HeadFiles> {
    let location = fields.at("heads");
    let wanted = "expected a mapping such as {sparse: sparse_linear.safetensors, colbert: colbert_linear.safetensors}";
    let entries = match fields.node("heads")? {
        YamlNode::Map(entries) if !entries.is_empty() => entries,
        _ => {
            notes.problem(&location, wanted, Some("leave it out for a model without heads".to_owned()));
            return None;
        }
    };
    let mut heads = HeadFiles::default();
    for (name, file) in entries {
        let place = match name.as_str() {
            "sparse" => &mut heads.sparse,
            "colbert" => &mut heads.colbert,
            _ => {
                let hint = Some("there are sparse and colbert".to_owned());
                notes.problem(&format!("{location}.{name}"), "there is no such head", hint);
                continue;
            }
        };
        match file {
            YamlNode::Text(file) if !file.is_empty() => *place = Some(PathBuf::from(file)),
            _ => notes.problem(&format!("{location}.{name}"), "expected the name of a safetensors file", None),
        }
    }
    Some(heads)
}
