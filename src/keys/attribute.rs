//! The attributes of a key's line: the table of their names, what each value must be, and how it is written.

use std::num::{NonZeroU64, NonZeroUsize};
use std::str::FromStr;

use super::amount::Amount;
use super::key::{Key, Scope, Scopes};
use super::priority::Priority;

/// One attribute, `name=value`.
pub(super) struct Attribute {
    pub(super) name: &'static str,
    /// What the value must be.
    pub(super) rule: &'static str,
    /// Sets the value; `None` if it is bad.
    pub(super) set: fn(&mut Key, &str) -> Option<()>,
    /// Returns the value to write; `None` if the key is as without the attribute.
    pub(super) write: fn(&Key) -> Option<String>,
}

const WHOLE_NUMBER: &str = "a whole number above 0";

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
    Attribute {
        name: "tokens_per_minute",
        rule: WHOLE_NUMBER,
        set: |key, value| set(&mut key.tokens_per_minute, whole_number::<NonZeroU64>(value)),
        write: |key| write(key.tokens_per_minute),
    },
    Attribute {
        name: "max_concurrent",
        rule: WHOLE_NUMBER,
        set: |key, value| set(&mut key.max_concurrent, whole_number::<NonZeroUsize>(value)),
        write: |key| write(key.max_concurrent),
    },
    Attribute {
        name: "requests_per_day",
        rule: WHOLE_NUMBER,
        set: |key, value| set(&mut key.budget.requests_per_day, whole_number(value)),
        write: |key| write(key.budget.requests_per_day),
    },
    Attribute {
        name: "tokens_per_day",
        rule: WHOLE_NUMBER,
        set: |key, value| set(&mut key.budget.tokens_per_day, whole_number(value)),
        write: |key| write(key.budget.tokens_per_day),
    },
    Attribute {
        name: "tokens_per_month",
        rule: WHOLE_NUMBER,
        set: |key, value| set(&mut key.budget.tokens_per_month, whole_number(value)),
        write: |key| write(key.budget.tokens_per_month),
    },
    Attribute {
        name: "cost_per_month",
        rule: "an amount above 0, such as 20 or 12.50",
        set: |key, value| {
            set(&mut key.budget.cost_per_month, value.parse().ok().filter(|amount| *amount > Amount::default()))
        },
        write: |key| write(key.budget.cost_per_month),
    },
    Attribute {
        name: "person_tokens_per_day",
        rule: WHOLE_NUMBER,
        set: |key, value| set(&mut key.budget.person_tokens_per_day, whole_number(value)),
        write: |key| write(key.budget.person_tokens_per_day),
    },
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
