//! The LoRA adapters of a model as requests see them: their names, and the members that select them.
//!
//! llama-server has all adapters of a model loaded. A request says with `lora` which of them count; what no list names
//! has no effect on it.

use serde_json::json;

use crate::settings::catalogue::AdapterSetting;

/// The tag that Ollama's clients add to a name without one.
const DEFAULT_TAG: &str = "latest";

/// Names and JSON values of members of a request.
type Members = Vec<(String, String)>;

/// The adapters of one model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelAdapters {
    /// Those that requests ask for by name, each with the members that select it.
    named: Vec<(String, Members)>,
    /// The members that select the adapters without a name; empty if the model has no adapters at all.
    unnamed: Members,
}

impl ModelAdapters {
    /// Describes adapters in the order of their numbers.
    pub fn of(adapters: &[AdapterSetting]) -> Self {
        if adapters.is_empty() {
            return Self::default();
        }
        let numbered = || adapters.iter().enumerate();
        let named = numbered().filter_map(|(at, adapter)| {
            let scale = |other: usize| if other == at { adapter.scale } else { 0.0 };
            Some((adapter.name.clone()?, members(numbered().map(|(other, _)| (other, scale(other))))))
        });
        let scale = |adapter: &AdapterSetting| if adapter.name.is_some() { 0.0 } else { adapter.scale };
        let unnamed = members(numbered().map(|(at, adapter)| (at, scale(adapter))));
        Self { named: named.collect(), unnamed }
    }

    /// Returns the names of the adapters that requests can ask for.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.iter().map(|(name, _)| name.as_str())
    }

    /// Returns whether requests can ask for adapters by name.
    pub fn has_names(&self) -> bool {
        !self.named.is_empty()
    }

    /// Returns whether requests can ask for an adapter of this name.
    pub fn has(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    /// Returns whether a request that asks for this adapter asks for one that is not there. Ollama's tag is none.
    pub fn lacks(&self, name: &str) -> bool {
        self.has_names() && !self.has(name) && name != DEFAULT_TAG
    }

    /// Returns a number that requests with the same adapters share, which llama-server computes together. `None` if the model
    /// has no adapters.
    pub fn batch(&self, adapter: Option<&str>) -> Option<u32> {
        if self.unnamed.is_empty() {
            return None;
        }
        let number = adapter.and_then(|name| self.names().position(|known| known == name)).map_or(0, |at| at + 1);
        u32::try_from(number).ok()
    }

    /// Returns the members that a request gets for this adapter, or without one.
    pub fn members(&self, adapter: Option<&str>) -> &[(String, String)] {
        let named = adapter.and_then(|name| self.named.iter().find(|(known, _)| known == name));
        named.map_or(&self.unnamed, |(_, members)| members)
    }
}

/// Returns the members for adapters with these scales. llama-server keeps no prompt for requests that do not say so
/// (`worker/arguments/companions.rs`).
fn members(scales: impl Iterator<Item = (usize, f32)>) -> Members {
    let list: Vec<_> = scales.map(|(id, scale)| json!({"id": id, "scale": scale})).collect();
    vec![("lora".to_owned(), json!(list).to_string()), ("cache_prompt".to_owned(), "true".to_owned())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(scale: f32, name: Option<&str>) -> AdapterSetting {
        AdapterSetting { file: "a.gguf".to_owned(), scale, name: name.map(str::to_owned) }
    }

    #[test]
    fn a_request_selects_one_named_adapter_or_those_without_a_name() {
        let adapters =
            ModelAdapters::of(&[adapter(0.5, None), adapter(1.0, Some("formal")), adapter(2.0, Some("rude"))]);
        let list = |adapter| adapters.members(adapter)[0].1.clone();
        let scales = |scales: [f32; 3]| {
            let entry = |(id, scale): (usize, f32)| json!({"id": id, "scale": scale});
            json!(scales.into_iter().enumerate().map(entry).collect::<Vec<_>>()).to_string()
        };
        assert_eq!(list(None), scales([0.5, 0.0, 0.0]));
        assert_eq!(list(Some("formal")), scales([0.0, 1.0, 0.0]));
        assert_eq!(list(Some("rude")), scales([0.0, 0.0, 2.0]));
        assert_eq!(adapters.names().collect::<Vec<_>>(), ["formal", "rude"]);
        assert_eq!(
            [None, Some("formal"), Some("rude")].map(|adapter| adapters.batch(adapter)),
            [Some(0), Some(1), Some(2)]
        );
        assert!(adapters.lacks("formel") && !adapters.lacks("formal") && !adapters.lacks("latest"));
        let none = ModelAdapters::of(&[]);
        assert_eq!(none.batch(None), None);
        assert!(none.members(None).is_empty() && !none.lacks("x"));
        assert!(!ModelAdapters::of(&[adapter(1.0, None)]).lacks("x"), "a colon means nothing without named adapters");
    }
}
