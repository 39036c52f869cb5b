//! What requests about keys say, in their bodies and queries: pure.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::dialect::{FieldError, Fields};
use crate::gateway::bounds::KEY_ORDER_SIZE;
use crate::gateway::request::envelope::query_pairs;
use crate::gateway::translation::shared;
use crate::keys::changes::{BadMember, KeyChange, member_names, rule_of};
use crate::keys::{Key, MAX_KEY_ID, expiry, parse};
use crate::refusal::{REPEATED_TEXT, Refusal};

/// Says how long the old secret of a rotated key stays valid.
const OVERLAP: &str = "overlap";

/// A rotation that a request orders.
#[derive(Debug)]
pub(super) struct RotationOrder {
    /// When the old secrets end.
    pub(super) old_ends: Timestamp,
    /// When the new one does, if the request says it; `Some(None)`: never.
    pub(super) expires: Option<Option<Timestamp>>,
}

/// Reads the order of a new key.
///
/// # Errors
/// The body is not right; says what is wrong.
pub(super) fn read_new_key(body: &[u8], now: Timestamp) -> Result<Key, Refusal> {
    let fields = parse_order(body)?;
    let name = fields.required_text("name").map_err(shared::refusal_of)?;
    if !parse::is_key_id(&name) {
        return Err(refused("name", "name is not 1 to 64 of A-Z a-z 0-9 _ -"));
    }
    let is_member = |member: &str| member != "name";
    Ok(read_change(&fields, is_member, now)?.new_key(&name))
}

/// Reads the order of a change. A member that is `null` goes back to its default.
///
/// # Errors
/// The body is not right; says what is wrong.
pub(super) fn read_key_change(body: &[u8], now: Timestamp) -> Result<KeyChange, Refusal> {
    let fields = parse_order(body)?;
    if fields.names().any(|name| name == "name") {
        return Err(refused("name", "name cannot change: make another key, and remove this one"));
    }
    let change = read_change(&fields, |_| true, now)?;
    if change.is_empty() {
        let known = member_names().collect::<Vec<_>>().join(", ");
        return Err(Refusal::bad_request(format!("the body changes nothing: name at least one of {known}")));
    }
    Ok(change)
}

/// Reads the order of a rotation, whose body may be empty.
///
/// # Errors
/// The body is not right; says what is wrong.
pub(super) fn read_rotation(body: &[u8], now: Timestamp) -> Result<RotationOrder, Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(RotationOrder { old_ends: now, expires: None });
    }
    let fields = parse_order(body)?;
    fields.allow_only(&[OVERLAP, "expires"]).map_err(shared::refusal_of)?;
    let overlap = fields.text(OVERLAP).map_err(shared::refusal_of)?;
    let overlap = overlap.map(|text| expiry::parse_span(&text)).transpose();
    let overlap = overlap.map_err(|_| refused(OVERLAP, "overlap is not a time span such as 24h, 45m, 7d or 0"))?;
    let expires = read_change(&fields, |name| name == "expires", now)?.expires();
    Ok(RotationOrder { old_ends: expiry::after(now, overlap.unwrap_or(Duration::ZERO)), expires })
}

/// Reads the query of a change: whether it has `force=true`.
///
/// # Errors
/// The query has anything else; names it.
pub(super) fn read_force(query: Option<&str>) -> Result<bool, Refusal> {
    match read_parameter(query, "force")?.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(refused("force", "force must be true or false")),
    }
}

/// Reads the query of the list: the name after which it begins.
///
/// # Errors
/// The query has anything else; names it.
pub(super) fn read_after(query: Option<&str>) -> Result<String, Refusal> {
    match read_parameter(query, "after")? {
        None => Ok(String::new()),
        Some(name) if parse::is_key_id(&name) => Ok(name),
        Some(_) => Err(refused("after", "after must be the name of a key, such as the next of the page before")),
    }
}

/// Refuses a query.
///
/// # Errors
/// It has a parameter; names it.
pub(super) fn check_no_parameters(query: Option<&str>) -> Result<(), Refusal> {
    query_pairs(query).next().map_or(Ok(()), |(name, _)| Err(unknown_parameter(&name, "none")))
}

/// Returns the value of the only parameter that a query may have.
fn read_parameter(query: Option<&str>, known: &str) -> Result<Option<String>, Refusal> {
    let mut found = None;
    for (name, value) in query_pairs(query) {
        if name != known {
            return Err(unknown_parameter(&name, known));
        }
        if found.replace(value).is_some() {
            return Err(refused(known, format!("{known} is given twice")));
        }
    }
    Ok(found)
}

fn unknown_parameter(name: &str, known: &str) -> Refusal {
    let name: String = name.chars().filter(|c| !c.is_control()).take(REPEATED_TEXT).collect();
    let message = format!("the parameter {name} is unknown here; known is: {known}");
    Refusal::InvalidParameter { field: name, message }
}

/// Returns the name of a new key, right or not, if a body has one.
pub(in crate::gateway) fn name_in(body: &[u8]) -> Option<String> {
    let name = parse_order(body).ok()?.text("name").ok()??;
    Some(name.chars().filter(|c| !c.is_control()).take(MAX_KEY_ID).collect())
}

fn parse_order(body: &[u8]) -> Result<Fields<'_>, Refusal> {
    if body.len() > KEY_ORDER_SIZE {
        return Err(Refusal::bad_request(format!("the body is longer than {KEY_ORDER_SIZE} bytes")));
    }
    Fields::parse(body).map_err(shared::refusal_of)
}

fn read_change(fields: &Fields<'_>, is_member: impl Fn(&str) -> bool, now: Timestamp) -> Result<KeyChange, Refusal> {
    let mut change = KeyChange::default();
    for name in fields.names().filter(|name| is_member(name)) {
        let value = fields.get(name).map(|value| text_of(name, value)).transpose()?;
        change.set(name, value.as_deref(), now).map_err(refusal_of)?;
    }
    Ok(change)
}

/// Returns a value as the key file has it: a list becomes words with commas between them.
fn text_of(name: &str, value: &RawValue) -> Result<String, Refusal> {
    let bad = || match rule_of(name) {
        Some(rule) => refused(name, format!("{name} is not {rule}")),
        None => refusal_of(BadMember::Unknown { name: name.to_owned() }),
    };
    let word = |item: &Value| item.as_str().filter(|word| !word.contains(',')).map(str::to_owned);
    match serde_json::from_str(value.get()).map_err(|_| bad())? {
        Value::String(text) => Ok(text),
        // As it is written: 20.50 and no number that is near it.
        Value::Number(_) => Ok(value.get().to_owned()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Array(items) => {
            let words: Option<Vec<String>> = items.iter().map(word).collect();
            words.map(|words| words.join(",")).ok_or_else(bad)
        }
        Value::Null | Value::Object(_) => Err(bad()),
    }
}

fn refusal_of(error: BadMember) -> Refusal {
    shared::refusal_of(FieldError { field: Some(error.name().to_owned()), message: error.to_string() })
}

fn refused(field: &str, message: impl Into<String>) -> Refusal {
    Refusal::InvalidParameter { field: field.to_owned(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_000).unwrap()
    }

    #[test]
    fn values_are_json_or_the_words_of_the_key_file() {
        let by_json = br#"{"name":"a","scope":["inference","admin"],"models":["m","n:x"],"rate_limit":60,
            "cost_per_month":12.50,"trust_user_headers":true,"expires":"1970-01-02","tokens_per_day":null}"#;
        let by_words = br#"{"name":"a","scope":"inference,admin","models":"m,n:x","rate_limit":"60",
            "cost_per_month":"12.5","trust_user_headers":"true","expires":"1970-01-02T00:00:00Z"}"#;
        let key = read_new_key(by_json, now()).unwrap();
        assert_eq!(key, read_new_key(by_words, now()).unwrap());
        assert_eq!(key.models, Some(vec!["m".to_owned(), "n:x".to_owned()]));
        assert_eq!(key.expires, Some(Timestamp::from_second(86_400).unwrap()));
    }

    #[test]
    fn a_body_that_is_not_right_is_refused_by_name() {
        for (body, words) in [
            ("", "no JSON object"),
            ("{}", "name is missing"),
            (r#"{"name":"a b"}"#, "name is not 1 to 64"),
            (r#"{"name":"a","name":"b"}"#, "twice"),
            (r#"{"name":"a","model":["m"]}"#, "did you mean models?"),
            (r#"{"name":"a","secret":"x"}"#, "secret is unknown here; known are: rate_limit"),
            (r#"{"name":"a","models":[]}"#, "models is not a comma list"),
            (r#"{"name":"a","models":["m,n"]}"#, "models is not a comma list"),
            (r#"{"name":"a","models":[1]}"#, "models is not a comma list"),
            (r#"{"name":"a","rate_limit":1.5}"#, "rate_limit is not a whole number"),
            (r#"{"name":"a","rate_limit":{}}"#, "rate_limit is not a whole number"),
            (r#"{"name":"a","trust_user_headers":1}"#, "trust_user_headers is not true or false"),
        ] {
            let refused = read_new_key(body.as_bytes(), now()).unwrap_err().to_string();
            assert!(refused.contains(words), "{body}: {refused}");
        }
        let long = format!("{{\"name\":\"{}\"}}", "x".repeat(KEY_ORDER_SIZE));
        assert!(read_new_key(long.as_bytes(), now()).unwrap_err().to_string().contains("longer"));
    }

    #[test]
    fn a_change_says_something_and_no_name() {
        assert!(read_key_change(b"{}", now()).unwrap_err().to_string().contains("changes nothing"));
        assert!(read_key_change(br#"{"name":"b"}"#, now()).unwrap_err().to_string().contains("cannot change"));
        let change = read_key_change(br#"{"expires":null,"models":null}"#, now()).unwrap();
        assert_eq!(change.expires(), Some(None));
    }

    #[test]
    fn a_rotation_needs_no_body_and_has_no_limits() {
        let ends = |body: &[u8]| read_rotation(body, now()).map(|order| order.old_ends.as_second());
        assert_eq!(ends(b""), Ok(1_000));
        assert_eq!(ends(br#"{"overlap":"1h"}"#), Ok(4_600));
        assert_eq!(ends(br#"{"expires":"never"}"#), Ok(1_000));
        for body in [r#"{"overlap":"soon"}"#, r#"{"overlap":3600}"#, r#"{"rate_limit":5}"#, r#"{"expires":"x"}"#] {
            assert!(matches!(ends(body.as_bytes()), Err(Refusal::InvalidParameter { .. })), "{body}");
        }
    }

    #[test]
    fn each_query_has_one_parameter_at_most() {
        assert_eq!(read_force(None), Ok(false));
        assert_eq!(read_force(Some("force=true")), Ok(true));
        for query in ["force", "force=1", "forc=true", "force=true&x=1", "force=false&force=true"] {
            assert!(matches!(read_force(Some(query)), Err(Refusal::InvalidParameter { .. })), "{query}");
        }
        for query in ["after=team-a", "after=te%61m-a"] {
            assert_eq!(read_after(Some(query)), Ok("team-a".to_owned()));
        }
        assert_eq!(check_no_parameters(None), Ok(()));
        assert!(matches!(check_no_parameters(Some("force=true")), Err(Refusal::InvalidParameter { .. })));
        for query in ["after=", "after=a%20b", "limit=5"] {
            assert!(matches!(read_after(Some(query)), Err(Refusal::InvalidParameter { .. })), "{query}");
        }
    }
}
