//! Reads the members of a JSON object one by one, with errors that name them.
//!
//! The text is checked once, as a whole, and no value is built before it is asked for. A member that is `null` counts as
//! absent, as the clients of these dialects mean it. What a member means is decided by each dialect.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::bounds::{LONGEST_FIELD_NAME, MOST_FIELDS};

/// The members of a JSON object.
#[derive(Debug)]
pub struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// What is wrong with a request: one member of it, or the whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FieldError {
    /// The name of the member, if it is about one.
    pub field: Option<String>,
    /// A sentence that names the member.
    pub message: String,
}

impl FieldError {
    /// Creates the error of a member; `what` continues a sentence that begins with its name, such as "must be a string".
    pub fn of(field: &str, what: impl fmt::Display) -> Self {
        Self { field: Some(field.to_owned()), message: format!("{field} {what}") }
    }

    /// Creates the error of a request as a whole.
    pub fn whole(message: impl Into<String>) -> Self {
        Self { field: None, message: message.into() }
    }
}

impl<'a> Fields<'a> {
    /// Reads the members of the object that `text` is.
    ///
    /// # Errors
    /// `text` is no JSON object, has a member twice, or exceeds [`MOST_FIELDS`] or [`LONGEST_FIELD_NAME`].
    pub fn parse(text: &'a [u8]) -> Result<Self, FieldError> {
        serde_json::from_slice(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => FieldError::whole(error.to_string()),
            _ => FieldError::whole("the body is no JSON object"),
        })
    }

    /// Returns the members of the object that this value is; `field` is its name in errors.
    ///
    /// # Errors
    /// As [`Fields::parse`].
    pub fn within(field: &str, value: &'a RawValue) -> Result<Self, FieldError> {
        Self::parse(value.get().as_bytes()).map_err(|_| FieldError::of(field, "must be an object"))
    }

    /// Returns the value of a member, unless it is `null`.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        (value.get() != "null").then_some(*value)
    }

    /// Returns the members in their order, without those that are `null`.
    pub(super) fn members(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().filter(|(_, value)| value.get() != "null").map(|(name, value)| (&**name, *value))
    }

    /// Returns the names of the members in their order, those that are `null` too.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// Returns whether the object has this member, with a value other than `null`.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Returns a member that is a string.
    ///
    /// # Errors
    /// It is something else.
    pub fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, FieldError> {
        self.get(name).map(|value| text(name, value)).transpose()
    }

    /// Returns a member that is a string, which must be there.
    ///
    /// # Errors
    /// It is missing, or something else.
    pub fn required_text(&self, name: &str) -> Result<Cow<'a, str>, FieldError> {
        self.text(name)?.ok_or_else(|| FieldError::of(name, "is missing"))
    }

    /// Returns a member that is true or false. Some clients send it as a string.
    ///
    /// # Errors
    /// It is something else.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, FieldError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.get().trim_matches('"') {
            "true" | "True" => Ok(Some(true)),
            "false" | "False" => Ok(Some(false)),
            _ => Err(FieldError::of(name, "must be true or false")),
        }
    }

    /// Returns a member that is a whole number of at least `least`.
    ///
    /// # Errors
    /// It is something else.
    pub fn count(&self, name: &str, least: usize) -> Result<Option<usize>, FieldError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match serde_json::from_str::<usize>(value.get()) {
            Ok(count) if count >= least => Ok(Some(count)),
            _ => Err(FieldError::of(name, format_args!("must be a whole number of at least {least}"))),
        }
    }

    /// Returns a member that is an array, whose items are read later.
    ///
    /// # Errors
    /// It is something else.
    pub fn list(&self, name: &str) -> Result<Option<Vec<&'a RawValue>>, FieldError> {
        self.get(name).map(|value| list(name, value)).transpose()
    }

    /// Refuses every member but these, those that are `null` too.
    ///
    /// # Errors
    /// The object has another member; names it.
    pub fn allow_only(&self, known: &[&str]) -> Result<(), FieldError> {
        match self.0.iter().find(|(name, _)| !known.contains(&&**name)) {
            Some((name, _)) => {
                Err(FieldError::of(name, format_args!("is unknown here; known are: {}", known.join(", "))))
            }
            None => Ok(()),
        }
    }

    /// Refuses a member that its dialect defines and that is not served here, with the reason.
    ///
    /// # Errors
    /// The object has the member.
    pub fn refuse(&self, name: &str, why: &str) -> Result<(), FieldError> {
        if self.has(name) { Err(FieldError::of(name, format_args!("is not served here: {why}"))) } else { Ok(()) }
    }
}

/// Returns the string that a value is; `field` is its name in errors.
///
/// # Errors
/// It is something else.
pub(super) fn text<'a>(field: &str, value: &'a RawValue) -> Result<Cow<'a, str>, FieldError> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let read = serde_json::from_str(value.get());
    read.map(|Text(text)| text).map_err(|_| FieldError::of(field, "must be a string"))
}

/// Returns the items of the array that a value is; `field` is its name in errors.
///
/// # Errors
/// It is something else.
pub(super) fn list<'a>(field: &str, value: &'a RawValue) -> Result<Vec<&'a RawValue>, FieldError> {
    serde_json::from_str(value.get()).map_err(|_| FieldError::of(field, "must be an array"))
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Self::Value = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    if members.len() == MOST_FIELDS || name.len() > LONGEST_FIELD_NAME {
                        return Err(de::Error::custom("the body has too many members, or one with too long a name"));
                    }
                    if members.iter().any(|(known, _)| *known == name) {
                        return Err(de::Error::custom(format_args!("the body has the member {name:?} twice")));
                    }
                    let value = map.next_value()?;
                    members.push((name, value));
                }
                Ok(members)
            }
        }
        #[derive(Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
        deserializer.deserialize_map(Members).map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_by_name_and_null_counts_as_absent() {
        let body = br#" {"query":"\u0061b","top_n":null,"k":3,"n":"x","yes":"true","no":false,"list":["a",1]} "#;
        let fields = Fields::parse(body).unwrap();
        assert_eq!(fields.text("query").unwrap().as_deref(), Some("ab"));
        assert_eq!((fields.count("top_n", 1), fields.count("k", 1)), (Ok(None), Ok(Some(3))));
        assert_eq!(
            (fields.flag("yes"), fields.flag("no"), fields.flag("none")),
            (Ok(Some(true)), Ok(Some(false)), Ok(None))
        );
        assert_eq!(fields.list("list").unwrap().unwrap().len(), 2);
        let message = |error: FieldError| error.message;
        assert_eq!(fields.count("n", 1).map_err(message), Err("n must be a whole number of at least 1".to_owned()));
        assert_eq!(fields.count("k", 4).map_err(message), Err("k must be a whole number of at least 4".to_owned()));
        assert_eq!(fields.text("k").map_err(message), Err("k must be a string".to_owned()));
        assert_eq!(fields.required_text("z").map_err(message), Err("z is missing".to_owned()));
        assert_eq!(fields.refuse("k", "no").map_err(message), Err("k is not served here: no".to_owned()));
        assert_eq!(fields.refuse("top_n", "no"), Ok(()));
    }

    #[test]
    fn what_is_no_object_or_ambiguous_is_refused() {
        let too_many =
            format!("{{{}}}", (0..=MOST_FIELDS).map(|at| format!("\"f{at}\":1")).collect::<Vec<_>>().join(","));
        for (text, said) in [
            ("", "the body is no JSON object"),
            ("{", "the body is no JSON object"),
            ("[1]", "a JSON object"),
            ("{\"a\":1,\"a\":2}", "\"a\" twice"),
            (&too_many, "too many members"),
        ] {
            let error = Fields::parse(text.as_bytes()).unwrap_err();
            assert!(error.message.contains(said), "{text}: {error}");
        }
    }
}
