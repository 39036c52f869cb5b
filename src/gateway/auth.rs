//! Who is calling, and may they.
//!
//! Takes the key out of a request and asks the key store about it. [`Caller`] is the proof; only this file makes one.

use super::route::{Access, Route};
use crate::keys::{Denied, Key, Scope, Store};
use crate::refusal::Refusal;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::sync::Arc;

/// Decides who may pass.
pub struct Gatekeeper {
    keys: Option<Store>,
    asks_for_metrics: bool,
    asks_for_inference: bool,
    /// Whose turn it is where no key is asked for.
    nobody: Arc<str>,
}

/// Whoever sent a request, as far as it matters: a key, or nobody in particular where none is asked for.
pub(super) struct Caller {
    key: Option<Arc<Key>>,
    turn: Arc<str>,
}

impl Gatekeeper {
    /// With the key store, unless no route asks for a key.
    pub fn new(keys: Option<Store>, auth_enabled: bool, metrics_auth_enabled: bool) -> Self {
        Self { keys, asks_for_metrics: metrics_auth_enabled, asks_for_inference: auth_enabled, nobody: Arc::from("") }
    }

    /// The caller of a route, if they may use it.
    pub(super) fn admit(&self, headers: &HeaderMap, route: &Route) -> Result<Caller, Refusal> {
        let scope = match route.access {
            Access::Key(scope) if self.asks_for_inference => scope,
            Access::Metrics if self.asks_for_metrics => Scope::Metrics,
            _ => return Ok(Caller { key: None, turn: Arc::clone(&self.nobody) }),
        };
        self.admit_with(headers, scope)
    }

    /// The caller of `/metrics` on the health port, which has no route table.
    pub(super) fn admit_to_metrics(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.asks_for_metrics { self.admit_with(headers, Scope::Metrics).map(drop) } else { Ok(()) }
    }

    fn admit_with(&self, headers: &HeaderMap, scope: Scope) -> Result<Caller, Refusal> {
        let secret = secret(headers)?;
        let store = self.keys.as_ref().ok_or(Refusal::InvalidKey)?;
        let key = store.lookup(secret, jiff::Timestamp::now()).map_err(|denied| match denied {
            Denied::Malformed | Denied::Unknown => Refusal::InvalidKey,
            Denied::Expired => Refusal::ExpiredKey,
        })?;
        let turn = Arc::from(key.id.as_str());
        if key.has(scope) { Ok(Caller { key: Some(key), turn }) } else { Err(Refusal::ScopeRequired(scope.as_str())) }
    }
}

impl Caller {
    /// The id of the key.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.key.as_deref().map(|key| key.id.as_str())
    }

    /// In whose turn this caller waits: its key's, whichever of the key's secrets it has.
    pub(super) fn turn(&self) -> &Arc<str> {
        &self.turn
    }

    /// Whether this caller may use a model.
    pub(super) fn may_use(&self, model: &str) -> Result<(), Refusal> {
        match &self.key {
            Some(key) if !key.may_use(model) => Err(Refusal::ModelNotAllowed(model.to_owned())),
            _ => Ok(()),
        }
    }
}

/// The key that a request carries: `Authorization: Bearer K`, `Authorization: K` or `X-API-Key: K`. The latter wins,
/// for a platform's edge may use `Authorization` for a key of its own.
fn secret(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut api_keys = headers.get_all("x-api-key").iter();
    let value = match (api_keys.next(), api_keys.next()) {
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(Refusal::InvalidKey),
        _ => {
            let mut authorizations = headers.get_all(AUTHORIZATION).iter();
            match (authorizations.next(), authorizations.next()) {
                (Some(value), None) => value,
                (None, _) => return Err(Refusal::MissingKey),
                _ => return Err(Refusal::InvalidKey),
            }
        }
    };
    let text = value.to_str().map_err(|_| Refusal::InvalidKey)?.trim();
    let key = match text.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => key.trim(),
        _ => text,
    };
    if key.is_empty() || key.eq_ignore_ascii_case("bearer") { Err(Refusal::MissingKey) } else { Ok(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret_of(pairs: &[(&'static str, &'static str)]) -> Result<String, Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        secret(&headers).map(str::to_owned)
    }

    #[test]
    fn a_key_comes_in_three_ways_and_x_api_key_wins() {
        assert_eq!(secret_of(&[("authorization", "Bearer k1")]), Ok("k1".into()));
        assert_eq!(secret_of(&[("authorization", "bearer  k1")]), Ok("k1".into()));
        assert_eq!(secret_of(&[("authorization", "k1")]), Ok("k1".into()));
        assert_eq!(secret_of(&[("x-api-key", "k2"), ("authorization", "Bearer platform")]), Ok("k2".into()));
    }

    #[test]
    fn no_key_and_two_keys_are_told_apart() {
        for none in [&[][..], &[("authorization", "Bearer ")], &[("authorization", "")]] {
            assert_eq!(secret_of(none), Err(Refusal::MissingKey), "{none:?}");
        }
        assert_eq!(secret_of(&[("authorization", "a"), ("authorization", "b")]), Err(Refusal::InvalidKey));
        assert_eq!(secret_of(&[("x-api-key", "a"), ("x-api-key", "b")]), Err(Refusal::InvalidKey));
    }
}
