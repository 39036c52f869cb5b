//! The output of `keyctl list`: every key as a row of a table or as a JSON object, without secrets and hashes.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::key::Key;
use super::parse::{KeyEntry, KeyFile};
use super::secret::Stored;

const HEADINGS: [&str; 6] = ["KEY_ID", "RATE_LIMIT", "EXPIRES", "SCOPE", "MODELS", "STATUS"];

/// Formats the keys as an aligned table with headings, one line a key, without a final newline.
pub fn as_table(file: &KeyFile, now: Timestamp) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(file.entries().map(|(_, entry)| row(&entry.key, now)));
    let widths: [usize; HEADINGS.len()] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut table = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table.trim_end().to_owned()
}

fn row(key: &Key, now: Timestamp) -> [String; HEADINGS.len()] {
    [
        key.id.clone(),
        key.rate_limit.map_or("default".into(), |limit| format!("{limit}/min")),
        key.expires.map_or("-".into(), |end| end.to_string()),
        key.scopes.to_string(),
        key.models.as_ref().map_or("all".into(), |names| names.join(",")),
        status(key, now).into(),
    ]
}

/// Formats the keys as an indented JSON array. A field that a line leaves out is `null`.
pub fn as_json(file: &KeyFile, now: Timestamp) -> String {
    let keys: Vec<Value> = file.entries().map(|(line, entry)| object(line, entry, now)).collect();
    format!("{:#}", Value::from(keys))
}

fn object(line: usize, KeyEntry { key, secret }: &KeyEntry, now: Timestamp) -> Value {
    let mut object = limits_as_json(key);
    object.extend([
        ("key_id".to_owned(), json!(key.id)),
        ("scopes".to_owned(), scopes_as_json(key)),
        ("status".to_owned(), json!(status(key, now))),
        (
            "stored".to_owned(),
            json!(match secret {
                Stored::Plain(_) => "plain",
                Stored::Hashed(_) => "hashed",
            }),
        ),
        ("line".to_owned(), json!(line)),
    ]);
    Value::Object(object)
}

/// Returns the scopes of a key as a JSON array.
pub fn scopes_as_json(key: &Key) -> Value {
    json!(key.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>())
}

/// Returns what limits a key, when it ends and its flags as members of a JSON object. What is not limited is `null`.
pub fn limits_as_json(key: &Key) -> Map<String, Value> {
    let members = json!({
        "rate_limit": key.rate_limit,
        "expires": key.expires.map(|end| end.to_string()),
        "models": key.models,
        "tokens_per_minute": key.tokens_per_minute,
        "max_concurrent": key.max_concurrent,
        "requests_per_day": key.budget.requests_per_day,
        "tokens_per_day": key.budget.tokens_per_day,
        "tokens_per_month": key.budget.tokens_per_month,
        "cost_per_month": key.budget.cost_per_month.map(|amount| amount.to_string()),
        "person_tokens_per_day": key.budget.person_tokens_per_day,
        "priority": key.priority.as_str(),
        "trust_user_headers": key.trust_user_headers,
    });
    match members {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn status(key: &Key, now: Timestamp) -> &'static str {
    if key.has_expired(now) { "expired" } else { "active" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::parse::parse;

    const TEXT: &str = "# keys\nteam-a:0123456789abcdef:60:2027-01-01 scope=inference,admin models=m,bge-m3\n\
                        b:0123456789abcdefg max_concurrent=2\n";

    fn now() -> Timestamp {
        "2028-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_table_is_aligned_and_holds_no_secret() {
        let want = "\
KEY_ID  RATE_LIMIT  EXPIRES               SCOPE            MODELS    STATUS
team-a  60/min      2027-01-01T00:00:00Z  inference,admin  m,bge-m3  expired
b       default     -                     inference        all       active";
        assert_eq!(as_table(&parse(TEXT), now()), want);
    }

    #[test]
    fn json_holds_every_limit_and_no_secret() {
        let text = as_json(&parse(TEXT), now());
        assert!(!text.contains("0123456789"), "{text}");
        let keys: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(keys[0]["scopes"], json!(["inference", "admin"]));
        assert_eq!(keys[0]["status"], "expired");
        assert_eq!((&keys[1]["max_concurrent"], &keys[1]["line"]), (&json!(2), &json!(3)));
        assert_eq!(keys[1]["models"], Value::Null);
    }

    #[test]
    fn a_file_without_keys_results_in_headings_or_an_empty_array() {
        assert_eq!(as_table(&parse("# none\n"), now()), HEADINGS.join("  "));
        assert_eq!(as_json(&parse(""), now()), "[]");
    }
}
