//! Who is calling, and may they.
//!
//! Takes the key out of a request and asks the key store about it. [`Caller`] is the proof; only this file makes one.
//! What the key may still use is its [`Meter`]'s to say.

use super::auth_failures::AuthFailures;
use super::rate::{ConcurrencyPermit, Meter, Meters};
use crate::fleet::ModelInfo;
use crate::gateway::route::{Route, RouteAccess as SweepEntry};
use crate::keys::{Denied, Key, Scope, Store};
use crate::refusal::Refusal;
use crate::settings::options::Access;
use governor::clock::DefaultClock;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

/// Decides who may pass.
pub struct Authenticator {
    keys: Option<Store>,
    metrics_auth_enabled: bool,
    auth_enabled: bool,
    /// `MAX_REQUESTS_PER_MINUTE`
    default_rate: NonZeroU32,
    meters: Meters,
    /// None where all clients come from one address.
    auth_failures: Option<AuthFailures>,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RequestSource {
    /// A client at this address, who shows a key.
    Client(IpAddr),
    /// The queue of the platform with this name, which has made sure who asks. It may ask for inference, and no more.
    Platform(&'static str),
}

/// Whoever sent a request, as far as it matters. Moves into the answer's body, and with it the key's place among its
/// requests in flight.
pub(crate) struct Caller(CallerIdentity);

enum CallerIdentity {
    /// Where no key is asked for.
    Anonymous,
    Platform(&'static str),
    Key(AuthenticatedKey),
}

struct AuthenticatedKey {
    key: Arc<Key>,
    meter: Meter,
    permit: Option<ConcurrencyPermit>,
}

impl Authenticator {
    /// With the key store, unless no route asks for a key. Behind the edge of a platform, which lets nobody through
    /// without a key of its own, no address is slowed down: it is the edge's, and everybody's.
    pub fn new(keys: Option<Store>, access: &Access, is_behind_edge: bool) -> Self {
        Self {
            keys,
            metrics_auth_enabled: access.metrics_auth_enabled,
            auth_enabled: access.auth_enabled,
            default_rate: access.max_requests_per_minute,
            meters: Meters::new(DefaultClock::default()),
            auth_failures: (!is_behind_edge).then(|| AuthFailures::new(DefaultClock::default())),
        }
    }

    /// The caller of a route: nobody in particular where no key is asked for.
    pub(crate) fn authenticate(
        &self,
        headers: &HeaderMap,
        route: &Route,
        source: RequestSource,
    ) -> Result<Caller, Refusal> {
        match (source, route.access) {
            (RequestSource::Platform(name), _) => Ok(Caller(CallerIdentity::Platform(name))),
            (RequestSource::Client(client), SweepEntry::Key(_)) if self.auth_enabled => {
                self.authenticate_key(headers, client)
            }
            (RequestSource::Client(client), SweepEntry::Metrics) if self.metrics_auth_enabled => {
                self.authenticate_key(headers, client)
            }
            _ => Ok(Caller(CallerIdentity::Anonymous)),
        }
    }

    /// The caller of `/metrics` on the health port, which has no route table.
    pub(crate) fn authorize_metrics(&self, headers: &HeaderMap, client: IpAddr) -> Result<(), Refusal> {
        if self.metrics_auth_enabled {
            self.authenticate_key(headers, client)?.require_scope(Scope::Metrics)
        } else {
            Ok(())
        }
    }

    fn authenticate_key(&self, headers: &HeaderMap, client: IpAddr) -> Result<Caller, Refusal> {
        let secret = key_secret(headers)?;
        let store = self.keys.as_ref().ok_or(Refusal::InvalidKey)?;
        let patience = self.auth_failures.as_ref().map_or(Ok(()), |guesses| guesses.check(client));
        let guessed = |wait| Refusal::RateLimited("wrong API keys from this address", wait);
        let key = match store.lookup(secret, jiff::Timestamp::now()) {
            Ok(key) => key,
            Err(Denied::Expired) => return Err(patience.map_or_else(guessed, |()| Refusal::ExpiredKey)),
            Err(Denied::Malformed | Denied::Unknown) => {
                // While it has to wait, a further guess is neither counted nor judged.
                patience.map_err(guessed)?;
                if let Some(guesses) = &self.auth_failures {
                    guesses.record_failure(client);
                }
                return Err(Refusal::InvalidKey);
            }
        };
        let meter = self.meters.meter_of(&key, self.default_rate);
        if let Err(wait) = patience
            && !meter.is_known_address(client)
        {
            return Err(guessed(wait));
        }
        meter.remember_address(client);
        Ok(Caller(CallerIdentity::Key(AuthenticatedKey { key, meter, permit: None })))
    }
}

impl Caller {
    /// Whether the key carries the scope that the route asks for.
    pub(crate) fn check_scope(&self, route: &Route) -> Result<(), Refusal> {
        match route.access {
            SweepEntry::Open => Ok(()),
            SweepEntry::Key(scope) => self.require_scope(scope),
            SweepEntry::Metrics => self.require_scope(Scope::Metrics),
        }
    }

    fn require_scope(&self, scope: Scope) -> Result<(), Refusal> {
        let has_it = match &self.0 {
            CallerIdentity::Anonymous => true,
            CallerIdentity::Platform(_) => scope == Scope::Inference,
            CallerIdentity::Key(known) => known.key.has(scope),
        };
        if has_it { Ok(()) } else { Err(Refusal::ScopeRequired(scope.as_str())) }
    }

    fn authenticated_key(&self) -> Option<&AuthenticatedKey> {
        match &self.0 {
            CallerIdentity::Key(known) => Some(known),
            CallerIdentity::Anonymous | CallerIdentity::Platform(_) => None,
        }
    }

    /// The id of the key, or the platform's name in its place.
    pub(crate) fn key_id(&self) -> Option<&str> {
        match &self.0 {
            CallerIdentity::Anonymous => None,
            CallerIdentity::Platform(name) => Some(name),
            CallerIdentity::Key(known) => Some(&known.key.id),
        }
    }

    /// What the key has used.
    pub(crate) fn meter(&self) -> Option<&Meter> {
        self.authenticated_key().map(|known| &known.meter)
    }

    /// Holds one of the key's places for requests in flight for as long as the caller lives.
    pub(crate) fn hold_permit(&mut self, presence: Option<ConcurrencyPermit>) {
        if let CallerIdentity::Key(known) = &mut self.0 {
            known.permit = presence;
        }
    }

    /// In whose turn this caller waits: its key's, whichever of the key's secrets it has.
    pub(crate) fn queue_key(&self) -> &str {
        self.key_id().unwrap_or_default()
    }

    /// Whether this caller may use a model, by its id, an alias or its tier.
    pub(crate) fn check_model(&self, model: &ModelInfo) -> Result<(), Refusal> {
        let aliases = model.aliases.iter().chain(&model.tier).map(String::as_str);
        let names = std::iter::once(model.id.as_str()).chain(aliases);
        match self.authenticated_key() {
            Some(known) if !known.key.may_use(names) => Err(Refusal::ModelNotAllowed(model.id.clone())),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
impl Caller {
    /// Somebody without a key, for the tests of others.
    pub(crate) fn anonymous() -> Self {
        Self(CallerIdentity::Anonymous)
    }
}

/// The key that a request carries: `Authorization: Bearer K`, `Authorization: K` or `X-API-Key: K`. The latter wins,
/// for a platform's edge may use `Authorization` for a key of its own.
fn key_secret(headers: &HeaderMap) -> Result<&str, Refusal> {
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
        key_secret(&headers).map(str::to_owned)
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
