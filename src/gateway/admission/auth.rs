//! Who is calling, and may they.
//!
//! Takes the key out of a request and asks the key store about it. [`Caller`] is the proof; only this file makes one.
//! What the key may still use is its [`Meter`]'s to say.

use super::auth_failures::Guesses;
use super::rate::{Meter, Meters, Presence};
use crate::fleet::ModelInfo;
use crate::gateway::route::{Access as Entry, Route};
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
pub struct Gatekeeper {
    keys: Option<Store>,
    asks_for_metrics: bool,
    asks_for_inference: bool,
    /// `MAX_REQUESTS_PER_MINUTE`
    default_rate: NonZeroU32,
    meters: Meters,
    /// None where all clients come from one address.
    guesses: Option<Guesses>,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    /// A client at this address, who shows a key.
    Client(IpAddr),
    /// The queue of the platform with this name, which has made sure who asks. It may ask for inference, and no more.
    Platform(&'static str),
}

/// Whoever sent a request, as far as it matters. Moves into the answer's body, and with it the key's place among its
/// requests in flight.
pub(crate) struct Caller(Who);

enum Who {
    /// Where no key is asked for.
    Nobody,
    Platform(&'static str),
    Key(Known),
}

struct Known {
    key: Arc<Key>,
    meter: Meter,
    presence: Option<Presence>,
}

impl Gatekeeper {
    /// With the key store, unless no route asks for a key. Behind the edge of a platform, which lets nobody through
    /// without a key of its own, no address is slowed down: it is the edge's, and everybody's.
    pub fn new(keys: Option<Store>, access: &Access, is_behind_edge: bool) -> Self {
        Self {
            keys,
            asks_for_metrics: access.metrics_auth_enabled,
            asks_for_inference: access.auth_enabled,
            default_rate: access.max_requests_per_minute,
            meters: Meters::new(DefaultClock::default()),
            guesses: (!is_behind_edge).then(|| Guesses::new(DefaultClock::default())),
        }
    }

    /// The caller of a route: nobody in particular where no key is asked for.
    pub(crate) fn admit(&self, headers: &HeaderMap, route: &Route, source: Source) -> Result<Caller, Refusal> {
        match (source, route.access) {
            (Source::Platform(name), _) => Ok(Caller(Who::Platform(name))),
            (Source::Client(client), Entry::Key(_)) if self.asks_for_inference => self.recognise(headers, client),
            (Source::Client(client), Entry::Metrics) if self.asks_for_metrics => self.recognise(headers, client),
            _ => Ok(Caller(Who::Nobody)),
        }
    }

    /// The caller of `/metrics` on the health port, which has no route table.
    pub(crate) fn admit_to_metrics(&self, headers: &HeaderMap, client: IpAddr) -> Result<(), Refusal> {
        if self.asks_for_metrics { self.recognise(headers, client)?.has(Scope::Metrics) } else { Ok(()) }
    }

    fn recognise(&self, headers: &HeaderMap, client: IpAddr) -> Result<Caller, Refusal> {
        let secret = secret(headers)?;
        let store = self.keys.as_ref().ok_or(Refusal::InvalidKey)?;
        let patience = self.guesses.as_ref().map_or(Ok(()), |guesses| guesses.check(client));
        let guessed = |wait| Refusal::RateLimited("wrong API keys from this address", wait);
        let key = match store.lookup(secret, jiff::Timestamp::now()) {
            Ok(key) => key,
            Err(Denied::Expired) => return Err(patience.map_or_else(guessed, |()| Refusal::ExpiredKey)),
            Err(Denied::Malformed | Denied::Unknown) => {
                // While it has to wait, a further guess is neither counted nor judged.
                patience.map_err(guessed)?;
                if let Some(guesses) = &self.guesses {
                    guesses.failed(client);
                }
                return Err(Refusal::InvalidKey);
            }
        };
        let meter = self.meters.of(&key, self.default_rate);
        if let Err(wait) = patience
            && !meter.is_proven_from(client)
        {
            return Err(guessed(wait));
        }
        meter.prove(client);
        Ok(Caller(Who::Key(Known { key, meter, presence: None })))
    }
}

impl Caller {
    /// Whether the key carries the scope that the route asks for.
    pub(crate) fn has_scope_for(&self, route: &Route) -> Result<(), Refusal> {
        match route.access {
            Entry::Open => Ok(()),
            Entry::Key(scope) => self.has(scope),
            Entry::Metrics => self.has(Scope::Metrics),
        }
    }

    fn has(&self, scope: Scope) -> Result<(), Refusal> {
        let has_it = match &self.0 {
            Who::Nobody => true,
            Who::Platform(_) => scope == Scope::Inference,
            Who::Key(known) => known.key.has(scope),
        };
        if has_it { Ok(()) } else { Err(Refusal::ScopeRequired(scope.as_str())) }
    }

    fn known(&self) -> Option<&Known> {
        match &self.0 {
            Who::Key(known) => Some(known),
            Who::Nobody | Who::Platform(_) => None,
        }
    }

    /// The id of the key, or the platform's name in its place.
    pub(crate) fn key_id(&self) -> Option<&str> {
        match &self.0 {
            Who::Nobody => None,
            Who::Platform(name) => Some(name),
            Who::Key(known) => Some(&known.key.id),
        }
    }

    /// What the key has used.
    pub(crate) fn meter(&self) -> Option<&Meter> {
        self.known().map(|known| &known.meter)
    }

    /// Holds one of the key's places for requests in flight for as long as the caller lives.
    pub(crate) fn hold(&mut self, presence: Option<Presence>) {
        if let Who::Key(known) = &mut self.0 {
            known.presence = presence;
        }
    }

    /// In whose turn this caller waits: its key's, whichever of the key's secrets it has.
    pub(crate) fn turn(&self) -> &str {
        self.key_id().unwrap_or_default()
    }

    /// Whether this caller may use a model, by its id, an alias or its tier.
    pub(crate) fn may_use(&self, model: &ModelInfo) -> Result<(), Refusal> {
        let aliases = model.aliases.iter().chain(&model.tier).map(String::as_str);
        let names = std::iter::once(model.id.as_str()).chain(aliases);
        match self.known() {
            Some(known) if !known.key.may_use(names) => Err(Refusal::ModelNotAllowed(model.id.clone())),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
impl Caller {
    /// Somebody without a key, for the tests of others.
    pub(crate) fn nobody() -> Self {
        Self(Who::Nobody)
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
