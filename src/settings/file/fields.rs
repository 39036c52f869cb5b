//! The entries of one mapping, asked for by name: what is wrong with each, and which nobody asked for.

use super::node::YamlNode;
use crate::settings::notes::{FileNotes, did_you_mean};
use crate::settings::values::Value;

/// The entries of a mapping that have not been asked for yet.
pub(super) struct NodeFields<'a> {
    /// Where the mapping stands, such as `models.qwen3-4b`.
    pub(super) place: String,
    entries: Vec<(&'a str, &'a YamlNode)>,
    known: Vec<&'static str>,
}

impl<'a> NodeFields<'a> {
    /// The entries of the mapping at `place`; none where there is nothing, and a problem where there is something else.
    pub(super) fn of(place: impl Into<String>, node: &'a YamlNode, notes: &mut FileNotes) -> Self {
        let place = place.into();
        let entries = match node {
            YamlNode::Map(entries) => entries.iter().map(|(key, value)| (key.as_str(), value)).collect(),
            YamlNode::Null => Vec::new(),
            _ => {
                notes.problem(&place, "expected a mapping", None);
                Vec::new()
            }
        };
        Self { place, entries, known: Vec::new() }
    }

    /// The value of a key; null counts as not there.
    pub(super) fn node(&mut self, key: &'static str) -> Option<&'a YamlNode> {
        self.known.push(key);
        let at = self.entries.iter().position(|(name, _)| *name == key)?;
        Some(self.entries.remove(at).1).filter(|node| **node != YamlNode::Null)
    }

    /// The value of a key as a setting's type reads it.
    pub(super) fn value<T: Value>(&mut self, key: &'static str, notes: &mut FileNotes) -> Option<T> {
        let node = self.node(key)?;
        read(&self.at(key), node, notes)
    }

    /// A list of texts; a lone text is a list of one.
    pub(super) fn texts(&mut self, key: &'static str, notes: &mut FileNotes) -> Option<Vec<String>> {
        let node = self.node(key)?;
        texts(&self.at(key), node, notes)
    }

    /// A text; numbers and the like must be quoted, for YAML changes how they are written.
    pub(super) fn text(&mut self, key: &'static str, notes: &mut FileNotes) -> Option<String> {
        match self.node(key)? {
            YamlNode::Text(text) => Some(text.clone()),
            _ => {
                notes.problem(&self.at(key), "expected a text", Some("put it into quotes".to_owned()));
                None
            }
        }
    }

    /// The place of a key.
    pub(super) fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.place)
    }

    /// Whatever nobody asked for is ignored if its name is in `ignored`, and a problem if it is not. `place` is how
    /// ignored entries are called.
    pub(super) fn finish(self, ignored: &[&'static str], place: &str, notes: &mut FileNotes) {
        for (key, _) in &self.entries {
            if ignored.contains(key) {
                notes.ignored.insert(format!("{place}.{key}"));
                continue;
            }
            let hint = did_you_mean(key, self.known.iter().chain(ignored).copied());
            notes.problem(&self.at(key), "unknown key", hint);
        }
    }
}

/// A scalar as a setting's type reads it.
pub(super) fn read<T: Value>(place: &str, node: &YamlNode, notes: &mut FileNotes) -> Option<T> {
    let Some(text) = node.scalar() else {
        notes.problem(place, "expected a single value", None);
        return None;
    };
    match T::parse(&text) {
        Ok(value) => Some(value),
        Err(rejected) => {
            let fault = format!("expected {}, found {:?}", rejected.allowed, T::masked(&text));
            notes.problem(place, fault, rejected.hint);
            None
        }
    }
}

/// A list of texts; a lone text is a list of one.
pub(super) fn texts(place: &str, node: &YamlNode, notes: &mut FileNotes) -> Option<Vec<String>> {
    let list = match node {
        YamlNode::Text(text) => Some(vec![text.clone()]),
        YamlNode::List(items) => items
            .iter()
            .map(|item| match item {
                YamlNode::Text(text) => Some(text.clone()),
                _ => None,
            })
            .collect(),
        _ => None,
    };
    if list.is_none() {
        notes.problem(place, "expected a list of texts", Some("put numbers into quotes".to_owned()));
    }
    list
}
