//! The attributes of a key's line: the table of their names, what each value must be, and how it is written.

use std::str::FromStr;

use super::key::{Key, Scope, Scopes};
use super::priority::Priority;
use crate::amount::Amount;

/// Sets a value; `None` if it is bad.
type SetValue = fn(&mut Key, &str) -> Option<()>;

/// Returns the value to write; `None` if the key is as without the attribute.
type WriteValue = fn(&Key) -> Option<String>;

/// One attribute, `name=value`.
pub(super) struct Attribute {
    pub(super) name: &'static str,
    /// What the value must be.
    pub(super) rule: &'static str,
    pub(super) set: SetValue,
    pub(super) write: WriteValue,
}

/// A limit that is a whole number.
const fn number(name: &'static str, set: SetValue, write: WriteValue) -> Attribute {
    Attribute { name, rule: "a whole number above 0", set, write }
}

/// Every attribute, in the order in which they are written.
pub(super) const ATTRIBUTES: &[Attribute] = &[
    Attribute {
        name: "scope",
        rule: "a comma list of inference, admin, metrics",
        set: |key, value| {
            key.scopes = value.split(',').map(Scope::from_str).collect::<Result<Scopes, _>>().ok()?;
            Some(())
        },
        write: |key| (key.scopes != Scopes::default()).then(|| key.scopes.to_string()),
    },
    Attribute {
        name: "models",
        rule: "a comma list of model names (no patterns; leave it out to allow all)",
        set: |key, value| {
            let names: Vec<_> = value.split(',').map(str::to_owned).collect();
            key.models = names.iter().all(|name| is_model_name(name)).then_some(names);
            key.models.is_some().then_some(())
        },
        write: |key| key.models.as_ref().map(|names| names.join(",")),
    },
    number(
        "tokens_per_minute",
        |key, value| set(&mut key.tokens_per_minute, whole_number(value)),
        |key| write(key.tokens_per_minute),
    ),
    number(
        "max_concurrent",
        |key, value| set(&mut key.max_concurrent, whole_number(value)),
        |key| write(key.max_concurrent),
    ),
    number(
        "requests_per_day",
        |key, value| set(&mut key.budget.requests_per_day, whole_number(value)),
        |key| write(key.budget.requests_per_day),
    ),
    number(
        "tokens_per_day",
        |key, value| set(&mut key.budget.tokens_per_day, whole_number(value)),
        |key| write(key.budget.tokens_per_day),
    ),
    number(
        "tokens_per_month",
        |key, value| set(&mut key.budget.tokens_per_month, whole_number(value)),
        |key| write(key.budget.tokens_per_month),
    ),
    Attribute {
        name: "cost_per_month",
        rule: "an amount above 0, such as 20 or 12.50",
        set: |key, value| {
            set(&mut key.budget.cost_per_month, value.parse().ok().filter(|amount| *amount > Amount::default()))
        },
        write: |key| write(key.budget.cost_per_month),
    },
    number(
        "person_tokens_per_day",
        |key, value| set(&mut key.budget.person_tokens_per_day, whole_number(value)),
        |key| write(key.budget.person_tokens_per_day),
    ),
    Attribute {
        name: "priority",
        rule: "one of high, normal, low",
        set: |key, value| {
            key.priority = value.parse().ok()?;
            Some(())
        },
        write: |key| (key.priority != Priority::default()).then(|| key.priority.to_string()),
    },
    Attribute {
        name: "trust_user_headers",
        rule: "true or false",
        set: |key, value| {
            key.trust_user_headers = value.parse().ok()?;
            Some(())
        },
        write: |key| key.trust_user_headers.then(|| "true".to_owned()),
    },
];

fn set<T>(field: &mut Option<T>, value: Option<T>) -> Option<()> {
    *field = value;
    field.is_some().then_some(())
}

fn write<T: ToString>(field: Option<T>) -> Option<String> {
    field.map(|value| value.to_string())
}

/// Whether this may be in a `models=` list. Names are compared exactly, so `*` is refused: it would match no model.
pub fn is_model_name(text: &str) -> bool {
    let forbidden =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '*' | char::REPLACEMENT_CHARACTER);
    !text.is_empty() && !text.contains(forbidden)
}

/// Reads a whole number in digits alone.
pub(super) fn whole_number<N: FromStr>(text: &str) -> Option<N> {
    // `parse` would also accept a sign.
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}
