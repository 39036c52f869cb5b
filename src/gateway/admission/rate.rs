//! Rate limits of API keys: requests a minute, tokens a minute, and concurrent requests.
//!
//! Owns the usage of each key id, which outlives reloads of the key file: the file sets the limits, [`Meters`] holds what
//! is used of them. Decides when a key is refused with 429. Does not decide which requests need a key.
//!
//! The limits are buckets of `rate_bucket.rs`, which store the used share of a minute. All lines of the key file with the
//! same id share one bucket, so a second secret does not get a second limit. Each request takes the share that its own
//! line defines. The drawback: where the limits of the lines differ, heavy use through the line with the higher limit
//! leaves little for the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use foldhash::fast::RandomState;
use governor::Quota;
use governor::clock::Clock;
use http::HeaderMap;
use jiff::Timestamp;

use super::auth_failures::KnownAddresses;
use super::budget::account::Account;
use super::limit_names::{AT_ONCE, REQUESTS, TOKENS};
use super::rate_headers;
use super::shared::share::{MinuteLimits, RequestShare};
use super::ticks::{LimitClock, Ticks};
use crate::gateway::bounds::METERS_BEFORE_SWEEP;
use crate::keys::Key;
use crate::rate_bucket::{Bucket, DebtBucket, RateStatus, Wait};
use crate::refusal::Refusal;

/// The usage of every key id.
///
/// Ids come from the key file only, so clients cannot fill the table. Ids that were removed from the file are swept when
/// there are many entries: an entry is dropped if it was not used between two sweeps, no request holds it, and its buckets
/// are full again, so that a new entry would be equal.
#[derive(Debug)]
pub(crate) struct Meters<C: Clock = LimitClock> {
    ticks: Ticks<C>,
    table: RwLock<MeterTable<C>>,
}

#[derive(Debug)]
struct MeterTable<C: Clock> {
    by_id: HashMap<Box<str>, Arc<KeyUsage<C>>, RandomState>,
    /// The number of ids at which the next sweep is due.
    sweep_at: usize,
}

/// The usage of one key id.
#[derive(Debug)]
struct KeyUsage<C: Clock> {
    id: Arc<str>,
    ticks: Ticks<C>,
    requests: Bucket,
    tokens: DebtBucket,
    /// What was used of the day and the month.
    account: Arc<Account>,
    /// Requests in flight; each holds a [`ConcurrencyPermit`].
    in_flight: AtomicUsize,
    known_addresses: KnownAddresses,
    /// Whether the entry was looked up since the last sweep.
    used_since_sweep: AtomicBool,
}

/// The limits of one line of the key file, with the usage of its id. Cheap to create and to clone.
#[derive(Debug, Clone)]
pub(crate) struct Meter<C: Clock = LimitClock> {
    usage: Arc<KeyUsage<C>>,
    /// Requests a minute.
    requests: NonZeroU32,
    /// Tokens a minute.
    tokens: Option<NonZeroU64>,
    max_concurrent: Option<NonZeroUsize>,
    /// The request's part in the limits that replicas share.
    share: Option<Arc<RequestShare>>,
}

/// The right of a key to have one more request in flight. Released when it is dropped.
#[derive(Debug)]
pub(crate) struct ConcurrencyPermit<C: Clock = LimitClock>(Arc<KeyUsage<C>>);

impl<C: Clock + Clone> Meters<C> {
    /// Creates an empty table.
    pub(crate) fn new(clock: C) -> Self {
        let table = MeterTable { by_id: HashMap::default(), sweep_at: METERS_BEFORE_SWEEP };
        Self { ticks: Ticks::new(clock), table: RwLock::new(table) }
    }

    /// Returns the meter of a key. `default` is the limit of requests a minute if the key's own line sets none.
    pub(crate) fn meter_of(&self, key: &Key, default: NonZeroU32) -> Meter<C> {
        Meter {
            usage: self.usage_of(&key.id),
            requests: key.rate_limit.unwrap_or(default),
            tokens: key.tokens_per_minute,
            max_concurrent: key.max_concurrent,
            share: None,
        }
    }

    /// Returns what the key with this id has used of its day and its month.
    pub(super) fn account_of(&self, id: &str) -> Arc<Account> {
        Arc::clone(&self.usage_of(id).account)
    }

    fn usage_of(&self, id: &str) -> Arc<KeyUsage<C>> {
        self.find(id).unwrap_or_else(|| self.insert(id))
    }

    fn find(&self, id: &str) -> Option<Arc<KeyUsage<C>>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let usage = table.by_id.get(id)?;
        // Load before store: the flag is mostly set already, and a store would take the cache line from other cores.
        if !usage.used_since_sweep.load(Ordering::Relaxed) {
            usage.used_since_sweep.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(usage))
    }

    fn insert(&self, id: &str) -> Arc<KeyUsage<C>> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if table.by_id.len() >= table.sweep_at {
            let now = self.ticks.now();
            // `get_mut` returns `None` while a request holds the entry; such an entry stays.
            table.by_id.retain(|_, usage| Arc::get_mut(usage).is_none_or(|usage| usage.keep_at_sweep(now)));
            // Twice the remaining size, so that the amortized cost of a sweep for each insert is constant.
            table.sweep_at = METERS_BEFORE_SWEEP.max(table.by_id.len() * 2);
        }
        // Another thread may have inserted the id between `find` and the write lock.
        Arc::clone(table.by_id.entry(id.into()).or_insert_with(|| Arc::new(KeyUsage::new(id, self.ticks.clone()))))
    }
}

impl<C: Clock> KeyUsage<C> {
    fn new(id: &str, ticks: Ticks<C>) -> Self {
        Self {
            id: id.into(),
            ticks,
            requests: Bucket::default(),
            tokens: DebtBucket::default(),
            account: Arc::default(),
            in_flight: AtomicUsize::new(0),
            known_addresses: KnownAddresses::default(),
            // Set, so that a new entry outlives the next sweep.
            used_since_sweep: AtomicBool::new(true),
        }
    }

    /// Clears the mark of use. Returns whether the entry stays: it was used since the last sweep, or its buckets are not
    /// full, or its budget was used this month.
    fn keep_at_sweep(&mut self, now: u64) -> bool {
        std::mem::take(self.used_since_sweep.get_mut())
            || self.requests.full_at() > now
            || self.tokens.full_at() > now
            || !self.account.is_blank(Timestamp::now())
    }
}

/// Checks that a caller's limits allow one more request now. Takes nothing. A caller without a key has no limits.
///
/// # Errors
/// 429, as [`Meter::check`].
pub(crate) fn check(meter: Option<&Meter>) -> Result<(), Refusal> {
    meter.map_or(Ok(()), Meter::check)
}

/// Takes one of the key's concurrency permits, if the caller has a key.
///
/// # Errors
/// 429, as [`Meter::enter`].
pub(crate) fn enter(
    meter: Option<&Meter>,
    retry_after: impl FnOnce() -> Duration,
) -> Result<Option<ConcurrencyPermit>, Refusal> {
    meter.map(|meter| meter.enter(retry_after)).transpose()
}

/// Charges the caller's key for one request, if the caller has one.
///
/// # Errors
/// 429, as [`Meter::charge`].
pub(crate) fn charge(meter: Option<&Meter>) -> Result<(), Refusal> {
    meter.map_or(Ok(()), Meter::charge)
}

impl<C: Clock> Meter<C> {
    /// Returns the id of the key.
    pub(crate) fn key_id(&self) -> &Arc<str> {
        &self.usage.id
    }

    /// Returns the meter for one request, which has this part in the limits that replicas share.
    pub(super) fn with_share(mut self, share: Option<RequestShare>) -> Self {
        self.share = share.map(Arc::new);
        self
    }

    /// Returns the request's part in the limits that replicas share.
    pub(crate) fn share(&self) -> Option<&Arc<RequestShare>> {
        self.share.as_ref()
    }

    /// Returns the limits a minute, and what this replica has used of them.
    pub(crate) fn minute_limits(&self) -> MinuteLimits {
        let now = self.usage.ticks.now();
        MinuteLimits {
            requests: self.requests,
            requests_used: self.usage.requests.full_at().saturating_sub(now),
            tokens: self.tokens,
            tokens_used: self.usage.tokens.full_at().saturating_sub(now),
            most_at_once: self.max_concurrent.map(|most| most.get() as u64),
        }
    }

    /// Returns what the key has used of its day and its month.
    pub(super) fn account(&self) -> &Arc<Account> {
        &self.usage.account
    }

    /// Checks that the key's limits allow one more request now. Takes nothing.
    ///
    /// # Errors
    /// 429 when no request or no token is left, with the time until one is.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        self.check_requests().map_err(|wait| Refusal::RateLimited(REQUESTS, wait.time))?;
        self.check_tokens().map_err(|wait| Refusal::RateLimited(TOKENS, wait.time))?;
        Ok(())
    }

    /// Charges the key for one request.
    ///
    /// # Errors
    /// 429 when no request is left, with the time until one is. Nothing is charged then.
    pub(super) fn charge(&self) -> Result<(), Refusal> {
        self.take_request().map_err(|wait| Refusal::RateLimited(REQUESTS, wait.time))?;
        if let Some(share) = &self.share {
            share.record_charge();
        }
        Ok(())
    }

    /// Takes one of the key's concurrency permits.
    ///
    /// # Errors
    /// 429 when the key has `max_concurrent` requests in flight; `retry_after` estimates when one of them ends.
    pub(super) fn enter(&self, retry_after: impl FnOnce() -> Duration) -> Result<ConcurrencyPermit<C>, Refusal> {
        let limit = self.max_concurrent.map_or(usize::MAX, NonZeroUsize::get);
        // Relaxed: the counter guards no other data.
        let entered = self.usage.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |in_flight| {
            (in_flight < limit).then_some(in_flight.saturating_add(1))
        });
        match entered {
            Ok(_) => Ok(ConcurrencyPermit(Arc::clone(&self.usage))),
            Err(_) => Err(Refusal::RateLimited(AT_ONCE, retry_after())),
        }
    }

    /// Returns whether the key has a limit on tokens.
    pub(crate) fn limits_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Charges the key for the tokens of a response. They are known only afterwards, so the key can go into debt.
    pub(crate) fn charge_tokens(&self, tokens: u64) {
        if let Some(limit) = self.tokens {
            // `Duration::MAX`: the debt is not bounded.
            self.usage.tokens.charge(tokens, limit, Duration::MAX, self.usage.ticks.now());
            if let Some(share) = &self.share {
                share.record_tokens(DebtBucket::price(tokens, limit));
            }
        }
    }

    fn check_requests(&self) -> Result<RateStatus, Wait> {
        self.usage.requests.check(Quota::per_minute(self.requests), self.usage.ticks.now())
    }

    fn take_request(&self) -> Result<RateStatus, Wait> {
        self.usage.requests.take(Quota::per_minute(self.requests), self.usage.ticks.now())
    }

    /// Returns the state of the limit of tokens, or `None` for a key without one.
    fn check_tokens(&self) -> Result<Option<RateStatus>, Wait> {
        self.tokens.map(|limit| self.usage.tokens.check(limit, self.usage.ticks.now())).transpose()
    }

    /// Remembers that the key was used from this address.
    pub(super) fn remember_address(&self, address: IpAddr) {
        self.usage.known_addresses.remember(address, self.usage.ticks.now());
    }

    /// Whether the key was recently used from this address.
    pub(super) fn is_known_address(&self, address: IpAddr) -> bool {
        self.usage.known_addresses.contains(address, self.usage.ticks.now())
    }
}

impl<C: Clock> Meter<C> {
    /// Inserts the `x-ratelimit-*` headers with what remains of the key's limits.
    pub(crate) fn insert_headers(&self, headers: &mut HeaderMap) {
        if let Some((requests, tokens)) = self.share.as_ref().and_then(|share| share.rates()) {
            return rate_headers::insert_headers(headers, requests, tokens);
        }
        // Checks only: the state after this request's own charge.
        let requests = self.check_requests().unwrap_or_else(|wait| wait.status);
        let tokens = self.check_tokens().unwrap_or_else(|wait| Some(wait.status));
        rate_headers::insert_headers(headers, requests, tokens);
    }
}

impl<C: Clock> Drop for ConcurrencyPermit<C> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "rate_tests.rs"]
mod tests;
