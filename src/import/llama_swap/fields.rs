//! The keys of a mapping in llama-swap's file.

use crate::import::section::DraftSection;
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

    /// Leaves out those of these keys that hold a list or a mapping in place of a single value.
    pub(super) fn leave_out_unlike_scalars(&self, keys: &[&str], section: &mut DraftSection) {
        for key in keys {
            if self.get(key).is_some_and(|node| node.scalar().is_none()) {
                section.left_out(*key, "it is no single value");
            }
        }
    }

    /// Returns the value of a key as a text; empty if it has none.
    pub(super) fn text(&self, key: &str) -> String {
        self.get(key).and_then(YamlNode::scalar).unwrap_or_default()
    }
}
