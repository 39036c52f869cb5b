//! Changes of a key, by the names that its members have in the key file: `rate_limit`, `expires` and the attributes.
//!
//! Owns what a name and a value do to a key. Does not edit the file: `edit.rs` does.

use jiff::Timestamp;

use super::attribute::{ATTRIBUTES, Attribute, whole_number};
use super::expiry::Expiry;
use super::key::Key;

/// The members of a key that are no attributes.
const RATE_LIMIT: &str = "rate_limit";
const EXPIRES: &str = "expires";

/// How similar a name must be to be suggested, from 0 to 1.
const SIMILAR: f64 = 0.8;

/// Why a member cannot be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMember {
    /// No member has this name.
    #[error("{name} is unknown here; {}", suggestion(name))]
    Unknown {
        /// The name that was given.
        name: String,
    },
    /// The value is not allowed.
    #[error("{name} is not {rule}")]
    Value {
        /// The name of the member.
        name: &'static str,
        /// What the value must be.
        rule: &'static str,
    },
    /// The member is given twice.
    #[error("{name} is given twice")]
    Twice {
        /// The name of the member.
        name: &'static str,
    },
}

impl BadMember {
    /// Returns the name of the member.
    pub fn name(&self) -> &str {
        match self {
            Self::Unknown { name } => name,
            Self::Value { name, .. } | Self::Twice { name } => name,
        }
    }
}

/// Members of a key, and their new values.
#[derive(Debug, Clone, Default)]
pub struct KeyChange {
    /// When the key ends, if that changes; `Some(None)`: never.
    expires: Option<Option<Timestamp>>,
    /// The other members, each with the text that the file has for it; `None` puts it back to its default.
    members: Vec<(&'static str, Option<String>)>,
}

/// Returns the names of all members that can be changed.
pub fn member_names() -> impl Iterator<Item = &'static str> {
    [RATE_LIMIT, EXPIRES].into_iter().chain(ATTRIBUTES.iter().map(|attribute| attribute.name))
}

/// Returns what the value of the member with this name must be; `None` if there is none.
pub fn rule_of(name: &str) -> Option<&'static str> {
    match name {
        RATE_LIMIT => Some("a whole number from 1 to 4294967295"),
        EXPIRES => Some("a date such as 2027-01-01, a time from now such as 30d, 12h or 45m, or never"),
        _ => find(name).map(|attribute| attribute.rule),
    }
}

impl KeyChange {
    /// Adds a member and its value, in the words of the key file; `None` puts it back to its default. Times from now are
    /// counted from `now`.
    ///
    /// # Errors
    /// There is no such member, it has been added before, or the value is not allowed.
    pub fn set(&mut self, name: &str, value: Option<&str>, now: Timestamp) -> Result<(), BadMember> {
        let known = member_names().find(|known| *known == name);
        let name = known.ok_or_else(|| BadMember::Unknown { name: name.to_owned() })?;
        if self.has(name) {
            return Err(BadMember::Twice { name });
        }
        let bad = || BadMember::Value { name, rule: rule_of(name).unwrap_or_default() };
        if name == EXPIRES {
            let end = value.map(|value| value.parse::<Expiry>().map_err(|_| bad())).transpose()?;
            self.expires = Some(end.and_then(|end| end.resolve(now)));
            return Ok(());
        }
        // A value must leave its line as it is: words of a line stand between blanks.
        if value.is_some_and(|value| value.contains(char::is_whitespace)) {
            return Err(bad());
        }
        set_member(&mut Key::named(""), name, value).ok_or_else(bad)?;
        self.members.push((name, value.map(str::to_owned)));
        Ok(())
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.expires.is_none() && self.members.is_empty()
    }

    /// Returns when the key ends, if that changes.
    pub fn expires(&self) -> Option<Option<Timestamp>> {
        self.expires
    }

    /// Changes every member but the end.
    pub(super) fn apply_limits(&self, key: &mut Key) {
        for (name, value) in &self.members {
            // It was allowed when it was added.
            let _ = set_member(key, name, value.as_deref());
        }
    }

    /// Returns a new key of this name.
    pub fn new_key(&self, name: &str) -> Key {
        let mut key = Key::named(name);
        self.apply_limits(&mut key);
        key.expires = self.expires.flatten();
        key
    }

    fn has(&self, name: &str) -> bool {
        if name == EXPIRES { self.expires.is_some() } else { self.members.iter().any(|(known, _)| *known == name) }
    }
}

fn find(name: &str) -> Option<&'static Attribute> {
    ATTRIBUTES.iter().find(|attribute| attribute.name == name)
}

/// Sets a member other than the end, or puts it back to its default. Returns `None` if the value is not allowed.
fn set_member(key: &mut Key, name: &str, value: Option<&str>) -> Option<()> {
    match (name, value) {
        (RATE_LIMIT, None) => key.rate_limit = None,
        (RATE_LIMIT, Some(value)) => key.rate_limit = Some(whole_number(value)?),
        (_, None) => *key = without(key, name),
        (_, Some(value)) => (find(name)?.set)(key, value)?,
    }
    Some(())
}

/// Returns the key without an attribute.
fn without(key: &Key, name: &str) -> Key {
    let mut other = Key { rate_limit: key.rate_limit, expires: key.expires, ..Key::named(key.id.clone()) };
    for attribute in ATTRIBUTES.iter().filter(|attribute| attribute.name != name) {
        if let Some(value) = (attribute.write)(key) {
            // What a key has can be set.
            let _ = (attribute.set)(&mut other, &value);
        }
    }
    other
}

/// Returns the second half of the sentence about an unknown name.
fn suggestion(name: &str) -> String {
    let similarity = |known: &str| strsim::jaro_winkler(&name.to_ascii_lowercase(), known);
    let best = member_names().map(|known| (similarity(known), known)).max_by(|a, b| a.0.total_cmp(&b.0));
    match best.filter(|(score, _)| *score > SIMILAR) {
        Some((_, known)) => format!("did you mean {known}?"),
        None => format!("known are: {}", member_names().collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::parse::parse;

    fn now() -> Timestamp {
        Timestamp::from_second(1_000).unwrap()
    }

    fn change(members: &[(&str, Option<&str>)]) -> Result<KeyChange, BadMember> {
        let mut change = KeyChange::default();
        members.iter().try_for_each(|(name, value)| change.set(name, *value, now()))?;
        Ok(change)
    }

    #[test]
    fn members_are_those_of_the_key_file() {
        let file = parse("a:0123456789abcdef:60 scope=admin models=m,n tokens_per_minute=9 trust_user_headers=true\n");
        let (_, entry) = file.entries().next().unwrap();
        let members = [
            ("rate_limit", Some("60")),
            ("scope", Some("admin")),
            ("models", Some("m,n")),
            ("tokens_per_minute", Some("9")),
            ("trust_user_headers", Some("true")),
        ];
        assert_eq!(change(&members).unwrap().new_key("a"), entry.key);
    }

    #[test]
    fn each_member_can_be_put_back_to_its_default() {
        for (name, value) in [
            ("rate_limit", "5"),
            ("scope", "admin,metrics"),
            ("models", "m"),
            ("tokens_per_minute", "5"),
            ("max_concurrent", "5"),
            ("requests_per_day", "5"),
            ("tokens_per_day", "5"),
            ("tokens_per_month", "5"),
            ("cost_per_month", "0.5"),
            ("person_tokens_per_day", "5"),
            ("priority", "low"),
            ("trust_user_headers", "true"),
        ] {
            let mut key = change(&[(name, Some(value)), ("expires", Some("5m"))]).unwrap().new_key("a");
            assert_ne!(key, Key { expires: key.expires, ..Key::named("a") }, "{name}");
            change(&[(name, None)]).unwrap().apply_limits(&mut key);
            assert_eq!(key, Key { expires: Some(Timestamp::from_second(1_300).unwrap()), ..Key::named("a") }, "{name}");
        }
        assert_eq!(change(&[("expires", Some("never"))]).unwrap().expires(), Some(None));
        assert!(change(&[]).unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        for (members, words) in [
            ([("rate_limt", Some("5"))].as_slice(), "rate_limt is unknown here; did you mean rate_limit?"),
            (&[("colour", Some("red"))], "known are: rate_limit, expires, scope"),
            (&[("rate_limit", Some("0"))], "rate_limit is not a whole number from 1"),
            (&[("expires", Some("soon"))], "expires is not a date"),
            (&[("scope", Some("root"))], "scope is not a comma list of inference, admin, metrics"),
            (&[("models", Some("a b"))], "models is not a comma list"),
            (&[("priority", Some("low\npriority=high"))], "priority is not one of"),
            (&[("models", None), ("models", None)], "models is given twice"),
        ] {
            let error = change(members).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    proptest! {
        /// What a change makes of a key can be written to the file and read again.
        #[test]
        fn no_value_breaks_its_line(index in 0_usize..13, value in "\\PC{0,20}|[a-z0-9,.=:#\\s]{0,20}") {
            let name = member_names().nth(index).unwrap();
            if let Ok(change) = change(&[(name, Some(&value))]) {
                let key = change.new_key("a");
                let mut file = parse("");
                let secret = crate::keys::secret::Stored::Plain("0123456789abcdef".into());
                let added = crate::keys::edit::add(&mut file, key.clone(), secret, Timestamp::MIN);
                prop_assert!(added.is_ok());
                let read = parse(&file.render());
                prop_assert_eq!(read.entries().map(|(_, entry)| entry.key.clone()).collect::<Vec<_>>(), [key]);
            }
        }
    }
}
