//! Authenticates the caller of a request.
//!
//! Extracts the API key from a request and looks it up in the key store. A [`Caller`] proves that this was done. Owns also who
//! may read `/metrics`, and hands out the accounts of keys.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use http::HeaderMap;
use http::request::Parts;
use jiff::Timestamp;

use super::caller::Caller;
use crate::gateway::admission::auth_failures::AuthFailures;
use crate::gateway::admission::budget::accounts::KeyAccounts;
use crate::gateway::admission::keyless::KeylessGuard;
use crate::gateway::admission::rate::Meters;
use crate::gateway::admission::shared::share::RequestShare;
use crate::gateway::admission::ticks::LimitClock;
use crate::gateway::client_address::ClientAddress;
use crate::gateway::credentials::offered_keys;
use crate::gateway::mostly_one::MostlyOne;
use crate::gateway::routes::route::{Route, RouteAccess};
use crate::keys::{Denied, FoundKey, Scope, Store};
use crate::refusal::Refusal;
use crate::settings::options::Access;
use crate::shared_limits::LimitsStore;

/// Authenticates requests.
pub struct Authenticator {
    /// None where no route needs a key.
    keys: Option<Store>,
    /// `METRICS_AUTH_ENABLED`
    metrics_auth_enabled: bool,
    /// None with `AUTH_ENABLED`.
    keyless_guard: Option<KeylessGuard>,
    /// `MAX_REQUESTS_PER_MINUTE`
    default_rate: NonZeroU32,
    meters: Arc<Meters>,
    accounts: KeyAccounts,
    /// `LIMITS_STORE`: where replicas share the limits of keys.
    limits_store: Option<Arc<LimitsStore>>,
    /// None where all clients share one address.
    auth_failures: Option<AuthFailures>,
}

/// The source of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RequestSource {
    /// A client at this address, which authenticates with a key.
    Client(ClientAddress),
    /// The job queue of the platform with this name, which has authenticated the caller. It may use inference only.
    Platform(&'static str),
}

impl Authenticator {
    /// Creates an authenticator. `keys` is `None` where no route needs a key.
    ///
    /// Behind a platform's edge (`is_behind_edge`) wrong keys are not limited by address: all clients share the edge's
    /// address, and the edge has already checked a key of its own.
    ///
    /// `own_hosts` are the names under which clients reach this machine; one that begins with a dot stands for all names
    /// that end so.
    pub fn new(
        keys: Option<Store>,
        access: &Access,
        is_behind_edge: bool,
        own_hosts: &[String],
        limits_store: Option<Arc<LimitsStore>>,
    ) -> Self {
        let meters = Arc::new(Meters::new(LimitClock));
        Self {
            accounts: KeyAccounts::new(Arc::clone(&meters), access.max_people.get(), limits_store.clone()),
            limits_store,
            keys,
            metrics_auth_enabled: access.metrics_auth_enabled,
            keyless_guard: (!access.auth_enabled).then(|| KeylessGuard::new(access.cors_origins.clone(), own_hosts)),
            default_rate: access.max_requests_per_minute,
            meters,
            auth_failures: (!is_behind_edge).then(|| AuthFailures::new(LimitClock)),
        }
    }

    /// Authenticates the caller of a route, for a request that arrived at this time. A route that needs no key gets an
    /// anonymous caller.
    ///
    /// # Errors
    /// 401 when the key is missing, wrong or expired; 429 when the client's address sent too many wrong keys; 403 when
    /// there are no keys and a web page may have sent the request, or an order comes from another machine.
    pub(crate) fn authenticate(
        &self,
        parts: &Parts,
        route: &Route,
        source: RequestSource,
        arrived: Timestamp,
    ) -> Result<Caller, Refusal> {
        let client = match source {
            // The platform has authenticated the caller; the job carries no key of ours.
            RequestSource::Platform(name) => return Ok(Caller::of_platform(name)),
            RequestSource::Client(client) => client,
        };
        match (route.access, &self.keyless_guard) {
            (RouteAccess::Key(scope), None) => {
                return self.authenticate_key(&parts.headers, client.address, scope, arrived);
            }
            // Of several keys the one that sees more.
            (RouteAccess::AnyKey, None) => {
                return self.authenticate_key(&parts.headers, client.address, Scope::Admin, arrived);
            }
            (RouteAccess::Metrics, _) if self.metrics_auth_enabled => {
                return self.authenticate_key(&parts.headers, client.address, Scope::Metrics, arrived);
            }
            (_, Some(guard)) => guard.check(parts, route, client)?,
            _ => {}
        }
        Ok(Caller::without_key())
    }

    /// Authorizes a request for `/metrics` on the health port, which has no route table.
    ///
    /// # Errors
    /// 401 and 429 as [`Authenticator::authenticate`]; 403 when the key lacks the scope `metrics`.
    pub(crate) fn authorize_metrics(&self, headers: &HeaderMap, client: ClientAddress) -> Result<(), Refusal> {
        if self.metrics_auth_enabled {
            let now = Timestamp::now();
            self.authenticate_key(headers, client.address, Scope::Metrics, now)?.require_scope(Scope::Metrics)
        } else {
            Ok(())
        }
    }

    /// Returns the accounts of all keys, and of the people behind them.
    pub fn accounts(&self) -> &KeyAccounts {
        &self.accounts
    }

    /// Returns the keys that clients need; `None` with `AUTH_ENABLED=false`.
    pub(crate) fn keys_of_clients(&self) -> Option<&Store> {
        self.keys.as_ref().filter(|_| self.keyless_guard.is_none())
    }

    /// Sets the person behind a caller with a key. Returns the name under which the person is booked.
    pub(crate) fn set_person(&self, caller: &mut Caller, name: &str, now: Timestamp) -> Option<Arc<str>> {
        let key = caller.meter()?.key_id();
        let person = self.accounts.person(key, name, now);
        let name = Arc::clone(&person.name);
        caller.set_person(person);
        Some(name)
    }

    /// Finds the key of a request. `scope` is what its route needs, which [`Caller::check_scope`] requires.
    fn authenticate_key(
        &self,
        headers: &HeaderMap,
        client: IpAddr,
        scope: Scope,
        now: Timestamp,
    ) -> Result<Caller, Refusal> {
        let offered = offered_keys(headers);
        if offered.is_empty() {
            return Err(Refusal::MissingKey);
        }
        let store = self.keys.as_ref().ok_or(Refusal::InvalidKey)?;
        let address_check = self.auth_failures.as_ref().map_or(Ok(()), |failures| failures.check(client));
        let address_limited = |wait| Refusal::RateLimited("wrong API keys from this address", wait);
        let found = match lookup_any(store, &offered, scope, now) {
            Ok(found) => found,
            // An expired key is not a guess, so it is not counted. While the address has to wait it gets the same refusal as a
            // wrong key, which does not reveal that it was valid once.
            Err(Denied::Expired) => return Err(address_check.map_or_else(address_limited, |()| Refusal::ExpiredKey)),
            Err(Denied::Malformed | Denied::Unknown) => {
                // While the address has to wait, further wrong keys are not counted: the wait does not grow. The wrong
                // keys of one request count as one.
                address_check.map_err(address_limited)?;
                if let Some(failures) = &self.auth_failures {
                    failures.record_failure(client);
                }
                return Err(Refusal::InvalidKey);
            }
        };
        let share = self.limits_store.as_ref().map(|store| RequestShare::new(Arc::clone(store)));
        let meter = self.meters.meter_of(&found.key, self.default_rate).with_share(share);
        // Clients that share an address with a guesser still get in; see `auth_failures.rs` for what that costs.
        if let Err(wait) = address_check
            && !meter.is_known_address(client)
        {
            return Err(address_limited(wait));
        }
        meter.remember_address(client);
        Ok(Caller::of_key(found, meter))
    }
}

/// Looks up the keys that a request offers, and returns the first that is valid and has `scope`, or else the first that is
/// valid: a client behind a platform's edge sends the edge's key too. A proxy in front may have checked another one than
/// this, but the caller owns this one and gets no more than it allows.
///
/// # Errors
/// Without a valid key, [`Denied::Expired`] if one of them was valid once.
fn lookup_any(store: &Store, offered: &MostlyOne<&str>, scope: Scope, now: Timestamp) -> Result<FoundKey, Denied> {
    let mut denied = Denied::Unknown;
    let mut other = None;
    for secret in offered.iter() {
        match store.lookup(secret, now) {
            Ok(key) if key.has(scope) => return Ok(key),
            Ok(key) => _ = other.get_or_insert(key),
            Err(Denied::Expired) => denied = Denied::Expired,
            Err(Denied::Malformed | Denied::Unknown) => {}
        }
    }
    other.ok_or(denied)
}
