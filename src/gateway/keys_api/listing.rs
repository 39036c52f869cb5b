//! Keys as the API shows them: never with a secret or a hash.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::gateway::admission::budget::accounts::{KeyAccounts, KeyUse};
use crate::gateway::bounds::KEYS_PAGE;
use crate::keys::list::{limits_as_json, scopes_as_json};
use crate::keys::{Key, SERVICE_KEY_ID};

/// What is shown beside the keys themselves.
pub(super) struct Standing<'a> {
    pub(super) now: Timestamp,
    /// Whether `LLAMAGATE_API_KEY` is a key.
    pub(super) has_service_key: bool,
    /// The keys that are suspended, and for how long.
    pub(super) suspended: HashMap<Arc<str>, Duration>,
    /// What each key has used.
    pub(super) accounts: &'a KeyAccounts,
}

/// Returns the page of the keys whose names come after this one, in the order of their names. The secrets of one name are
/// one key.
pub(super) fn list(keys: Vec<Arc<Key>>, after: &str, standing: &Standing<'_>) -> Value {
    let mut by_name: BTreeMap<String, Vec<Arc<Key>>> = BTreeMap::new();
    for key in keys.into_iter().filter(|key| key.id.as_str() > after) {
        by_name.entry(key.id.clone()).or_default().push(key);
    }
    let has_more = by_name.len() > KEYS_PAGE;
    let next = by_name.keys().nth(KEYS_PAGE - 1).filter(|_| has_more).cloned();
    let page = by_name.into_values().take(KEYS_PAGE);
    let data: Vec<Value> = page.filter_map(|secrets| describe(&secrets, standing)).map(Value::Object).collect();
    json!({"object": "list", "data": data, "has_more": has_more, "next": next})
}

/// Returns the members of the key that has these secrets; `None` without any.
pub(super) fn describe(secrets: &[Arc<Key>], standing: &Standing<'_>) -> Option<Map<String, Value>> {
    let end = |key: &Key| key.expires.unwrap_or(Timestamp::MAX);
    let mut secrets: Vec<&Arc<Key>> = secrets.iter().collect();
    secrets.sort_by_key(|key| end(key));
    // As a rotation sees it: of several lines of one name, the one that ends last is the current one.
    let current = secrets.last()?;
    let suspended = standing.suspended.get(current.id.as_str());
    let state = |key: &Key| if key.has_expired(standing.now) { "expired" } else { "valid" };
    let is_of_environment = standing.has_service_key && current.id == SERVICE_KEY_ID;
    let mut members = limits_as_json(current);
    let more = [
        ("object", json!("key")),
        ("id", json!(current.id)),
        ("name", json!(current.id)),
        ("source", json!(if is_of_environment { "environment" } else { "file" })),
        ("standing", json!(if suspended.is_some() { "suspended" } else { state(current) })),
        ("suspended_seconds", json!(suspended.map(Duration::as_secs))),
        ("scope", scopes_as_json(current)),
        (
            "secrets",
            secrets
                .iter()
                .map(|key| json!({"expires": key.expires.map(|end| end.to_string()), "standing": state(key)}))
                .collect(),
        ),
        ("used", used_as_json(&standing.accounts.used_by(current, standing.now))),
    ];
    members.extend(more.map(|(name, value)| (name.to_owned(), value)));
    Some(members)
}

fn used_as_json(used: &KeyUse) -> Value {
    let [day, month] = [used.day, used.month]
        .map(|used| json!({"requests": used.requests, "tokens": used.tokens, "cost": used.cost.to_string()}));
    json!({"day": day, "month": month})
}
