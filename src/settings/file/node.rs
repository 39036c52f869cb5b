//! A YAML value whose mappings keep their order, because models are listed and tried in the order of the file.
//!
//! Owns parsing of YAML texts. The meaning of the values belongs to the other files of this folder.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value as Json};

use crate::settings::bounds::{CONFIG_FILE_ALIASED, CONFIG_FILE_DEPTH};
use crate::settings::notes::printable;

/// One YAML value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum YamlNode {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<YamlNode>),
    Map(Vec<(String, YamlNode)>),
}

impl YamlNode {
    /// Parses a document.
    ///
    /// # Errors
    ///
    /// Returns a message with line and column. It quotes no values, because the file may contain API keys.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let options = serde_saphyr::options! {
            // A snippet would quote values of the file, which may be API keys.
            with_snippet: false,
            // `on` and `y` stay strings, as in YAML 1.2: they are arguments of llama-server, as in `--flash-attn on`.
            strict_booleans: true,
            // Deep nesting could overflow the stack, and nested aliases could expand a small file to gigabytes.
            budget: serde_saphyr::budget! { max_depth: CONFIG_FILE_DEPTH },
            alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: CONFIG_FILE_ALIASED },
        };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| match error.without_snippet() {
            serde_saphyr::Error::DuplicateMappingKey { key, location } => {
                let key = printable(key.as_deref().unwrap_or("a key"));
                format!("{key} is set twice, the second time at line {} column {}", location.line(), location.column())
            }
            error => error.to_string(),
        })
    }

    /// Returns the text of a scalar as a setting takes it; `None` for a list or a mapping.
    pub(crate) fn scalar(&self) -> Option<String> {
        match self {
            Self::Null => Some(String::new()),
            Self::Bool(value) => Some(value.to_string()),
            Self::Number(value) => Some(value.to_string()),
            Self::Text(value) => Some(value.clone()),
            Self::List(_) | Self::Map(_) => None,
        }
    }

    /// Returns the value as JSON.
    pub(crate) fn json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Number(value) => Json::Number(value.clone()),
            Self::Text(value) => Json::String(value.clone()),
            Self::List(items) => Json::Array(items.iter().map(Self::json).collect()),
            Self::Map(entries) => {
                Json::Object(entries.iter().map(|(key, value)| (key.clone(), value.json())).collect())
            }
        }
    }
}

impl<'de> Deserialize<'de> for YamlNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

/// Builds a [`YamlNode`] from the events of the deserializer.
struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = YamlNode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: Error>(self) -> Result<YamlNode, E> {
        Ok(YamlNode::Null)
    }

    fn visit_none<E: Error>(self) -> Result<YamlNode, E> {
        Ok(YamlNode::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<YamlNode, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<YamlNode, E> {
        Ok(YamlNode::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<YamlNode, E> {
        Ok(YamlNode::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<YamlNode, E> {
        Ok(YamlNode::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<YamlNode, E> {
        Number::from_f64(value).map(YamlNode::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<YamlNode, E> {
        Ok(YamlNode::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<YamlNode, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(YamlNode::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<YamlNode, A::Error> {
        let mut map: Vec<(String, YamlNode)> = Vec::new();
        while let Some((key, value)) = entries.next_entry()? {
            map.push((key, value));
        }
        Ok(YamlNode::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_keep_their_order_and_keys_their_spelling() {
        let YamlNode::Map(entries) = YamlNode::parse("zeta: 1\nalpha: 2\n3.10: 3\ntrue: 4\n").unwrap() else {
            panic!()
        };
        let keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["zeta", "alpha", "3.10", "true"]);
    }

    #[test]
    fn unquoted_words_stay_strings() {
        let words = YamlNode::parse("[on, y, no, 'true', true]").unwrap().json();
        assert_eq!(words, serde_json::json!(["on", "y", "no", "true", true]));
    }

    #[test]
    fn a_duplicate_key_is_an_error() {
        let error = YamlNode::parse("models:\n  a: {ctx: 64}\n  a: {ctx: 96}\n").unwrap_err();
        assert_eq!(error, "a is set twice, the second time at line 3 column 3");
    }

    #[test]
    fn anchors_and_merges_work_and_alias_bombs_are_refused() {
        let merged = YamlNode::parse("a: &a {x: 1}\nb: {<<: *a, y: 2}\n").unwrap().json();
        assert_eq!(merged, serde_json::json!({"a": {"x": 1}, "b": {"x": 1, "y": 2}}));
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..10 {
            let of = format!("*a{}", i - 1);
            bomb += &format!("a{i}: &a{i} [{}]\n", vec![of; 10].join(", "));
        }
        assert!(YamlNode::parse(&bomb).is_err());
        assert!(YamlNode::parse(&"[".repeat(5000)).is_err());
        assert!(YamlNode::parse(&format!("{}{}", "[".repeat(5000), "]".repeat(5000))).is_err());
    }

    #[test]
    fn an_error_quotes_no_secret() {
        for text in [
            "a: sk-sesame: x\n",
            "a: [sk-sesame\n",
            "a: \"sk-sesame\nb: 1\n",
            "a: sk-sesame\n  b: c\n",
            "? sk-sesame : [",
        ] {
            let error = YamlNode::parse(text).unwrap_err();
            assert!(!error.contains("sesame"), "{error}");
        }
    }
}
