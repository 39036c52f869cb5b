//! Authenticates the caller of a request and checks what it is authorized to do.
//!
//! Extracts the API key from a request and looks it up in the key store. A [`Caller`] proves that this was done; only this
//! file creates one. The key's rate limits are enforced by its [`Meter`], in `rate.rs`.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::clock::DefaultClock;
use http::HeaderMap;
use http::request::Parts;
use jiff::Timestamp;

use crate::amount::Amount;
use crate::fleet::ModelInfo;
use crate::gateway::admission::auth_failures::AuthFailures;
use crate::gateway::admission::budget::account::{AccountLimits, Use};
use crate::gateway::admission::budget::reservation::CallerBudgets;
use crate::gateway::admission::keyless::KeylessGuard;
use crate::gateway::admission::people::{People, Person};
use crate::gateway::admission::rate::{ConcurrencyPermit, Meter, Meters};
use crate::gateway::admission::shared::share::RequestShare;
use crate::gateway::admission::turn::Turn;
use crate::gateway::client_address::ClientAddress;
use crate::gateway::credentials::offered_keys;
use crate::gateway::routes::route::{Route, RouteAccess};
use crate::keys::secret::Digest;
use crate::keys::{Budget, Denied, FoundKey, Key, Priority, Scope, Store};
use crate::ledger::BudgetUse;
use crate::models::shown_name;
use crate::refusal::Refusal;
use crate::settings::options::Access;
use crate::shared_limits::LimitsStore;
use crate::telemetry::metrics::BudgetLabels;

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
    people: People,
    /// `LIMITS_STORE`: where replicas share the limits of keys.
    limits_store: Option<Arc<LimitsStore>>,
    /// None where all clients share one address.
    auth_failures: Option<AuthFailures>,
}

/// What a key has used of its day and its month.
pub(crate) struct KeyUse {
    pub(crate) day: Use,
    pub(crate) month: Use,
}

/// The source of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RequestSource {
    /// A client at this address, which authenticates with a key.
    Client(ClientAddress),
    /// The job queue of the platform with this name, which has authenticated the caller. It may use inference only.
    Platform(&'static str),
}

/// The authenticated sender of a request. Moves into the response body, so that the key's concurrency permit is held to
/// the end of the response.
pub(crate) struct Caller(CallerIdentity);

enum CallerIdentity {
    /// No key was needed.
    Anonymous,
    /// The job queue of the platform with this name.
    Platform(&'static str),
    /// The owner of a key.
    Key(AuthenticatedKey),
}

struct AuthenticatedKey {
    key: Arc<Key>,
    /// The digest of the secret that the request has.
    secret: Digest,
    meter: Meter,
    permit: Option<ConcurrencyPermit>,
    /// The priority of this request.
    priority: Priority,
    /// The person behind the key, once the request has named one.
    person: Option<Person>,
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
        Self {
            limits_store,
            keys,
            metrics_auth_enabled: access.metrics_auth_enabled,
            keyless_guard: (!access.auth_enabled).then(|| KeylessGuard::new(access.cors_origins.clone(), own_hosts)),
            default_rate: access.max_requests_per_minute,
            meters: Arc::new(Meters::new(DefaultClock::default())),
            people: People::new(access.max_people.get()),
            auth_failures: (!is_behind_edge).then(|| AuthFailures::new(DefaultClock::default())),
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
            RequestSource::Platform(name) => return Ok(Caller(CallerIdentity::Platform(name))),
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
        Ok(Caller(CallerIdentity::Anonymous))
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

    /// Returns a reader of what is left of the budgets of all keys.
    pub fn budgets_left(&self) -> impl Fn() -> Vec<(BudgetLabels, f64)> + Send + Sync + use<> {
        let (keys, meters, default_rate) = (self.keys.clone(), Arc::clone(&self.meters), self.default_rate);
        let store = self.limits_store.clone();
        move || {
            let now = store_time(store.as_ref(), Timestamp::now());
            let keys = keys.as_ref().map(Store::keys).unwrap_or_default().into_iter();
            let of_key = |key: Arc<Key>| {
                let left = meters.meter_of(&key, default_rate).account().left(&AccountLimits::of_key(&key.budget), now);
                left.into_iter().map(move |(budget, left)| (BudgetLabels { key: key.id.clone(), budget }, left))
            };
            keys.filter(|key| key.budget != Budget::default()).flat_map(of_key).collect()
        }
    }

    /// Returns the keys that clients need; `None` with `AUTH_ENABLED=false`.
    pub(crate) fn keys_of_clients(&self) -> Option<&Store> {
        self.keys.as_ref().filter(|_| self.keyless_guard.is_none())
    }

    /// Returns what a key has used of its day and its month.
    pub(crate) fn used_by(&self, key: &Key, now: Timestamp) -> KeyUse {
        let now = store_time(self.limits_store.as_ref(), now);
        let (day, month) = self.meters.meter_of(key, self.default_rate).account().used(now);
        KeyUse { day, month }
    }

    /// Adds what keys, and the people behind them, have used of their budgets before the start.
    pub fn restore(&self, used: Vec<BudgetUse>, now: Timestamp) {
        for BudgetUse { key, person, period, tokens, requests, cost_nanos, .. } in used {
            let meter = self.meters.meter_of(&Key::named(key), self.default_rate);
            let used = Use { requests, tokens, cost: Amount::from_nanos(cost_nanos) };
            match person {
                Some(person) => self.people.find(meter.key_id(), &person, now).account.restore(period, used, now),
                None => meter.account().restore(period, used, now),
            }
        }
    }

    /// Sets the person behind a caller with a key. Returns the name under which the person is booked.
    pub(crate) fn set_person(&self, caller: &mut Caller, name: &str, now: Timestamp) -> Option<Arc<str>> {
        let CallerIdentity::Key(authenticated) = &mut caller.0 else { return None };
        let now = store_time(self.limits_store.as_ref(), now);
        let person = self.people.find(authenticated.meter.key_id(), name, now);
        let name = Arc::clone(&person.name);
        authenticated.person = Some(person);
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
        let FoundKey { key, secret } = match lookup_any(store, &offered, scope, now) {
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
        let meter = self.meters.meter_of(&key, self.default_rate).with_share(share);
        // Clients that share an address with a guesser still get in; see `auth_failures.rs` for what that costs.
        if let Err(wait) = address_check
            && !meter.is_known_address(client)
        {
            return Err(address_limited(wait));
        }
        meter.remember_address(client);
        let priority = key.priority;
        Ok(Caller(CallerIdentity::Key(AuthenticatedKey { key, secret, meter, permit: None, priority, person: None })))
    }
}

/// Returns what the store's clock shows at this time of this machine's, if there is a store.
fn store_time(store: Option<&Arc<LimitsStore>>, time: Timestamp) -> Timestamp {
    store.map_or(time, |store| store.wall_clock(time))
}

/// Looks up the keys that a request offers, and returns the first that is valid and has `scope`, or else the first that is
/// valid: a client behind a platform's edge sends the edge's key too. A proxy in front may have checked another one than
/// this, but the caller owns this one and gets no more than it allows.
///
/// # Errors
/// Without a valid key, [`Denied::Expired`] if one of them was valid once.
fn lookup_any(store: &Store, offered: &[&str], scope: Scope, now: Timestamp) -> Result<FoundKey, Denied> {
    let mut denied = Denied::Unknown;
    let mut other = None;
    for secret in offered {
        match store.lookup(secret, now) {
            Ok(key) if key.has(scope) => return Ok(key),
            Ok(key) => _ = other.get_or_insert(key),
            Err(Denied::Expired) => denied = Denied::Expired,
            Err(Denied::Malformed | Denied::Unknown) => {}
        }
    }
    other.ok_or(denied)
}

impl Caller {
    /// Checks that the caller has the scope that the route needs.
    ///
    /// # Errors
    /// 403 when it has not.
    pub(crate) fn check_scope(&self, route: &Route) -> Result<(), Refusal> {
        match route.access {
            RouteAccess::Open | RouteAccess::AnyKey => Ok(()),
            RouteAccess::Key(scope) => self.require_scope(scope),
            RouteAccess::Metrics => self.require_scope(Scope::Metrics),
        }
    }

    fn require_scope(&self, scope: Scope) -> Result<(), Refusal> {
        if self.has_scope(scope) { Ok(()) } else { Err(Refusal::ScopeRequired(scope.as_str())) }
    }

    /// Returns whether the caller may do what this scope allows.
    pub(crate) fn has_scope(&self, scope: Scope) -> bool {
        match &self.0 {
            CallerIdentity::Anonymous => true,
            CallerIdentity::Platform(_) => scope == Scope::Inference,
            CallerIdentity::Key(authenticated) => authenticated.key.has(scope),
        }
    }

    fn authenticated_key(&self) -> Option<&AuthenticatedKey> {
        match &self.0 {
            CallerIdentity::Key(authenticated) => Some(authenticated),
            CallerIdentity::Anonymous | CallerIdentity::Platform(_) => None,
        }
    }

    /// Returns the id of the key, or the name of the platform.
    pub(crate) fn key_id(&self) -> Option<&str> {
        match &self.0 {
            CallerIdentity::Anonymous => None,
            CallerIdentity::Platform(name) => Some(name),
            CallerIdentity::Key(authenticated) => Some(&authenticated.key.id),
        }
    }

    /// Returns the digest of the secret that the caller has, if it has a key.
    pub(crate) fn secret(&self) -> Option<&Digest> {
        self.authenticated_key().map(|authenticated| &authenticated.secret)
    }

    /// Returns the meter of the key, if the caller has one.
    pub(crate) fn meter(&self) -> Option<&Meter> {
        self.authenticated_key().map(|authenticated| &authenticated.meter)
    }

    /// Returns the id by which workers know the key. A platform has none: its jobs come from many callers.
    pub(crate) fn shared_key_id(&self) -> Option<&Arc<str>> {
        self.meter().map(Meter::key_id)
    }

    /// Returns the same caller for a call to a worker that is made for its request. It holds no permit of its own: the
    /// request does.
    pub(crate) fn for_call(&self) -> Self {
        Self(match &self.0 {
            CallerIdentity::Anonymous => CallerIdentity::Anonymous,
            CallerIdentity::Platform(name) => CallerIdentity::Platform(name),
            CallerIdentity::Key(AuthenticatedKey { key, secret, meter, priority, person, .. }) => {
                CallerIdentity::Key(AuthenticatedKey {
                    key: Arc::clone(key),
                    secret: *secret,
                    meter: meter.clone(),
                    permit: None,
                    priority: *priority,
                    person: person.clone(),
                })
            }
        })
    }

    /// Holds one of the key's concurrency permits for as long as the caller lives.
    pub(crate) fn hold_permit(&mut self, permit: Option<ConcurrencyPermit>) {
        if let CallerIdentity::Key(authenticated) = &mut self.0 {
            authenticated.permit = permit;
        }
    }

    /// Whether the caller's requests may name the person behind them.
    pub(crate) fn trusts_user_headers(&self) -> bool {
        self.authenticated_key().is_some_and(|authenticated| authenticated.key.trust_user_headers)
    }

    /// Lowers the priority of this request to this one, if it is higher.
    pub(crate) fn lower_priority(&mut self, priority: Priority) {
        if let CallerIdentity::Key(authenticated) = &mut self.0 {
            authenticated.priority = authenticated.priority.lower(priority);
        }
    }

    /// Returns what the key, and the person behind it, may use in a day and a month, and have used. A caller without a key
    /// has no budget.
    pub(crate) fn budgets(&self) -> Option<CallerBudgets> {
        self.authenticated_key().map(|AuthenticatedKey { key, meter, person, .. }| {
            let person = person.as_ref().map(|person| Arc::clone(&person.account));
            let clock = meter.share().map(|share| Arc::clone(share.store()));
            CallerBudgets::new(Arc::clone(meter.account()), person, &key.budget).with_clock(clock)
        })
    }

    /// Checks that the budgets of the caller's key have something left.
    ///
    /// # Errors
    /// [`Refusal::BudgetExceeded`].
    pub(crate) fn check_budget(&self, now: Timestamp) -> Result<(), Refusal> {
        match self.authenticated_key() {
            Some(authenticated) if authenticated.key.budget != Budget::default() => {
                self.budgets().map_or(Ok(()), |budgets| budgets.check(now))
            }
            _ => Ok(()),
        }
    }

    /// Returns the name of the person behind the key.
    pub(crate) fn person(&self) -> Option<&str> {
        self.authenticated_key()?.person.as_ref().map(|person| &*person.name)
    }

    /// Returns the lines in which the caller's requests wait.
    pub(crate) fn turn(&self) -> Turn<'_> {
        let priority = self.authenticated_key().map_or(Priority::default(), |authenticated| authenticated.priority);
        let person = self.person().unwrap_or_default();
        Turn { priority, key: self.key_id().unwrap_or_default(), person }
    }

    /// Checks that the caller's key may use a model, by its id, an alias or its tier.
    ///
    /// # Errors
    /// 403 when it may not.
    pub(crate) fn check_model(&self, model: &ModelInfo) -> Result<(), Refusal> {
        self.check_model_as(model, None)
    }

    /// Checks that the caller may use a model of this name that is not served.
    ///
    /// # Errors
    /// 403 when the caller's key names its models, and this is none of them.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), Refusal> {
        match self.authenticated_key() {
            Some(authenticated) if !authenticated.key.may_use(std::iter::once(name)) => {
                Err(Refusal::ModelNotAllowed(shown_name(name)))
            }
            _ => Ok(()),
        }
    }

    /// Checks that the caller's key may use a model, or at least one of its adapters.
    ///
    /// # Errors
    /// 403 when it may not.
    pub(crate) fn check_model_or_adapter(&self, model: &ModelInfo) -> Result<(), Refusal> {
        let refused = self.check_model(model);
        let may_use = |adapter: &str| self.check_model_as(model, Some(&model.id_with(adapter))).is_ok();
        if refused.is_err() && model.adapters.names().any(may_use) { Ok(()) } else { refused }
    }

    /// Checks like [`Caller::check_model`], but for a model that is a pattern the name that the request uses counts too, and
    /// for an adapter only names with it, or the tier.
    ///
    /// # Errors
    /// 403 when the caller's key may not use the model.
    pub(crate) fn check_model_as(&self, model: &ModelInfo, asked: Option<&str>) -> Result<(), Refusal> {
        if let Some(adapter) = asked.and_then(|asked| model.adapter_in(asked)) {
            return self.check_adapter(model, adapter);
        }
        let aliases = model.aliases.iter().chain(&model.hidden_aliases).chain(&model.tier).map(String::as_str);
        let is_match = |asked: &&str| model.pattern.as_ref().is_some_and(|pattern| pattern.has_match(asked));
        let names = std::iter::once(model.id.as_str()).chain(aliases).chain(asked.filter(is_match));
        match self.authenticated_key() {
            Some(authenticated) if !authenticated.key.may_use(names) => Err(Refusal::ModelNotAllowed(model.id.clone())),
            _ => Ok(()),
        }
    }

    fn check_adapter(&self, model: &ModelInfo, adapter: &str) -> Result<(), Refusal> {
        let Some(authenticated) = self.authenticated_key() else { return Ok(()) };
        let names: Vec<String> =
            model.names().map(|name| format!("{name}:{adapter}")).chain(model.tier.clone()).collect();
        match authenticated.key.may_use(names.iter().map(String::as_str)) {
            true => Ok(()),
            false => Err(Refusal::ModelNotAllowed(model.id_with(adapter))),
        }
    }
}

#[cfg(test)]
impl Caller {
    /// Returns a caller without a key, for tests.
    pub(crate) fn anonymous() -> Self {
        Self(CallerIdentity::Anonymous)
    }
}
