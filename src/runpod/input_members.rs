//! The members of a JSON object in their original order, with each value as it was written.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of one object.
pub(super) struct InputMembers<'a>(Vec<(String, &'a RawValue)>);

impl<'a> InputMembers<'a> {
    /// Reads the members of `value`; `None` if it is not an object.
    pub(super) fn read(value: &'a RawValue) -> Option<Self> {
        serde_json::from_str(value.get()).ok()
    }

    /// Returns the value of a member. If a name occurs more than once, the last one counts.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// Returns the value of a member that is a string.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the object with the members of `sampling_params` merged into it; its own members win.
    ///
    /// # Errors
    ///
    /// Returns an error if `sampling_params` is neither an object nor `null`.
    pub(super) fn with_sampling_params(&self) -> Result<String, String> {
        const NAME: &str = "sampling_params";
        let params = match self.get(NAME) {
            None => Self(Vec::new()),
            Some(value) if value.get() == "null" => Self(Vec::new()),
            Some(value) => Self::read(value).ok_or_else(|| format!("{NAME} is not an object"))?,
        };
        let own = self.0.iter().filter(|(name, _)| name != NAME);
        let more = params.0.iter().filter(|(name, _)| !self.has(name));
        let written: Result<Vec<String>, _> = own
            .chain(more)
            .map(|(name, value)| Ok(format!("{}:{value}", serde_json::to_string(name)?)))
            .collect::<Result<_, serde_json::Error>>();
        Ok(format!("{{{}}}", written.map_err(|error| error.to_string())?.join(",")))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for InputMembers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = InputMembers<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(InputMembers(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}
