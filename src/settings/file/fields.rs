//! Reads the entries of one mapping by key, and reports invalid values and unknown keys.

use super::node::YamlNode;
use crate::settings::notes::{FileNotes, did_you_mean};
use crate::settings::values::Value;

/// The entries of a mapping that have not been read yet.
pub(super) struct NodeFields<'a> {
    /// The location of the mapping, such as `models.qwen3-4b`.
    pub(super) location: String,
    entries: Vec<(&'a str, &'a YamlNode)>,
    /// The keys that were read, for suggestions.
    known: Vec<&'static str>,
}

impl<'a> NodeFields<'a> {
    /// Takes the entries of the mapping at `location`. Null has no entries; any other value is a problem.
    pub(super) fn new(location: impl Into<String>, node: &'a YamlNode, notes: &mut FileNotes) -> Self {
        let location = location.into();
        let entries = match node {
            YamlNode::Map(entries) => entries.iter().map(|(key, value)| (key.as_str(), value)).collect(),
            YamlNode::Null => Vec::new(),
            _ => {
                notes.problem(&location, "expected a mapping", None);
                Vec::new()
            }
        };
        Self { location, entries, known: Vec::new() }
    }

    /// Takes the value of a key; null counts as absent.
    pub(super) fn node(&mut self, key: &'static str) -> Option<&'a YamlNode> {
        self.known.push(key);
        let at = self.entries.iter().position(|(name, _)| *name == key)?;
        Some(self.entries.remove(at).1).filter(|node| **node != YamlNode::Null)
    }

    /// Returns whether the key is there and has not been read.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _)| *name == key)
    }

    /// Takes and parses the value of a key.
    pub(super) fn value<T: Value>(&mut self, key: &'static str, notes: &mut FileNotes) -> Option<T> {
        let node = self.node(key)?;
        read(&self.at(key), node, notes)
    }

    /// Takes a list of strings; a single string is a list of one.
    pub(super) fn texts(&mut self, key: &'static str, notes: &mut FileNotes) -> Option<Vec<String>> {
        let node = self.node(key)?;
        texts(&self.at(key), node, notes)
    }

    /// Takes a string. Numbers must be quoted, because YAML does not keep their spelling (`3.10` becomes `3.1`).
    pub(super) fn text(&mut self, key: &'static str, notes: &mut FileNotes) -> Option<String> {
        match self.node(key)? {
            YamlNode::Text(text) => Some(text.clone()),
            _ => {
                notes.problem(&self.at(key), "expected a string", Some("put it into quotes".to_owned()));
                None
            }
        }
    }

    /// Returns the location of a key.
    pub(super) fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.location)
    }

    /// Takes the entries that were not read, and returns the keys that were.
    pub(super) fn take_unread(&mut self) -> (Vec<(&'a str, &'a YamlNode)>, Vec<&'static str>) {
        (std::mem::take(&mut self.entries), self.known.clone())
    }

    /// Takes the entries whose keys have a hint in `hints`, and adds one piece of advice for each to the notes.
    pub(super) fn advise(&mut self, hints: &[(&'static str, &'static str)], location: &str, notes: &mut FileNotes) {
        for (key, hint) in hints {
            if self.node(key).is_some() {
                notes.advice.insert(format!("{location}.{key}"), (*hint).to_owned());
            }
        }
    }

    /// Reports the entries that were not read: keys in `ignored` are ignored with a warning, all others are problems.
    /// `location` names the mapping in the warning, which merges all entries of a list.
    pub(super) fn finish(self, ignored: &[&'static str], location: &str, notes: &mut FileNotes) {
        for (key, _) in &self.entries {
            if ignored.contains(key) {
                notes.ignored.insert(format!("{location}.{key}"));
                continue;
            }
            let hint = did_you_mean(key, self.known.iter().chain(ignored).copied());
            notes.problem(&self.at(key), "unknown key", hint);
        }
    }
}

/// Parses a scalar, or records a problem.
pub(super) fn read<T: Value>(location: &str, node: &YamlNode, notes: &mut FileNotes) -> Option<T> {
    let Some(text) = node.scalar() else {
        notes.problem(location, "expected a single value", None);
        return None;
    };
    match T::parse(&text) {
        Ok(value) => Some(value),
        Err(rejected) => {
            // The text may contain a secret, such as the value of `--hf-token`.
            let fault = format!("expected {}, found {:?}", rejected.allowed, T::masked(&text));
            notes.problem(location, fault, rejected.hint);
            None
        }
    }
}

/// Returns a list of strings, or records a problem; a single string is a list of one.
pub(super) fn texts(location: &str, node: &YamlNode, notes: &mut FileNotes) -> Option<Vec<String>> {
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
        notes.problem(location, "expected a list of strings", Some("put numbers into quotes".to_owned()));
    }
    list
}
