//! The keys of a mapping in llama-swap's file.

use crate::settings::YamlNode;

/// The keys of a mapping.
pub(super) struct SwapFields<'a> {
    pub(super) entries: &'a [(String, YamlNode)],
}

impl<'a> SwapFields<'a> {
    /// Returns the value of a key, unless it is null.
    pub(super) fn get(&self, key: &str) -> Option<&'a YamlNode> {
        let found = self.entries.iter().find(|(name, _)| name == key).map(|(_, node)| node);
        found.filter(|node| **node != YamlNode::Null)
    }

    /// Returns the value of a key as a text; empty if it has none.
    pub(super) fn text(&self, key: &str) -> String {
        self.get(key).and_then(YamlNode::scalar).unwrap_or_default()
    }
}
