//! How much a key may ask for: requests and tokens a minute, and requests at once.
//!
//! Owns what each key id has used, which outlives every reload of the key file: the file says how much is allowed,
//! [`Meters`] knows how much of it is gone. Decides when a key is refused with 429. Does not decide who is asked for a
//! key.
//!
//! The limits are buckets of `rate_bucket.rs`, which keep the share of a minute that is used. So several lines of one id
//! draw on one minute, and each request costs the share that its own line says: two secrets do not get two limits. The
//! drawback: where the lines' limits differ, heavy use through the generous one leaves little for the other.

use super::auth_failures::KnownAddresses;
use super::rate_headers;
use super::ticks::Ticks;
use crate::gateway::bounds::METERS_BEFORE_SWEEP;
use crate::keys::Key;
use crate::rate_bucket::{Bucket, DebtBucket, RateStatus, Wait};
use crate::refusal::Refusal;
use governor::Quota;
use governor::clock::{Clock, DefaultClock};
use http::HeaderMap;
use std::collections::HashMap;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// What every key id has used.
///
/// Ids come from the key file alone, so nobody can fill it from outside. Ids that left the file go when there are many:
/// an entry is dropped once nobody has asked for it between two sweeps, nothing holds it, and it is full again, so that
/// a new one in its place would be the same.
#[derive(Debug)]
pub(crate) struct Meters<C: Clock = DefaultClock> {
    ticks: Ticks<C>,
    table: RwLock<MeterTable<C>>,
}

#[derive(Debug)]
struct MeterTable<C: Clock> {
    by_id: HashMap<Box<str>, Arc<KeyUsage<C>>>,
    /// The number of ids at which the next sweep is due.
    sweep_at: usize,
}

/// What one key id has used.
#[derive(Debug)]
struct KeyUsage<C: Clock> {
    ticks: Ticks<C>,
    requests: Bucket,
    tokens: DebtBucket,
    in_flight: AtomicUsize,
    known_addresses: KnownAddresses,
    /// Whether anybody asked for it since the last sweep.
    used_since_sweep: AtomicBool,
}

/// What one line of the key file allows, and what its id has used. Cheap to make and to clone.
#[derive(Debug, Clone)]
pub(crate) struct Meter<C: Clock = DefaultClock> {
    usage: Arc<KeyUsage<C>>,
    requests: NonZeroU32,
    tokens: Option<NonZeroU64>,
    max_concurrent: Option<NonZeroUsize>,
}

/// One request in flight. Frees its place when it is dropped.
#[derive(Debug)]
pub(crate) struct ConcurrencyPermit<C: Clock = DefaultClock>(Arc<KeyUsage<C>>);

impl<C: Clock + Clone> Meters<C> {
    /// Nothing is used yet.
    pub(crate) fn new(clock: C) -> Self {
        let known = MeterTable { by_id: HashMap::new(), sweep_at: METERS_BEFORE_SWEEP };
        Self { ticks: Ticks::new(clock), table: RwLock::new(known) }
    }

    /// The meter of a key; `default` is the limit of requests where the key's own line sets none.
    pub(crate) fn meter_of(&self, key: &Key, default: NonZeroU32) -> Meter<C> {
        Meter {
            usage: self.find(&key.id).unwrap_or_else(|| self.insert(&key.id)),
            requests: key.rate_limit.unwrap_or(default),
            tokens: key.tokens_per_minute,
            max_concurrent: key.max_concurrent,
        }
    }

    fn find(&self, id: &str) -> Option<Arc<KeyUsage<C>>> {
        let known = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let used = known.by_id.get(id)?;
        // A load first: most of the time there is nothing to write, and other cores keep their copy.
        if !used.used_since_sweep.load(Ordering::Relaxed) {
            used.used_since_sweep.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(used))
    }

    fn insert(&self, id: &str) -> Arc<KeyUsage<C>> {
        let mut known = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if known.by_id.len() >= known.sweep_at {
            let now = self.ticks.now();
            // `get_mut` fails while a request holds the entry.
            known.by_id.retain(|_, used| Arc::get_mut(used).is_none_or(|used| used.keep_at_sweep(now)));
            // Twice what is left: sweeps cost next to nothing for each id that comes.
            known.sweep_at = METERS_BEFORE_SWEEP.max(known.by_id.len() * 2);
        }
        Arc::clone(known.by_id.entry(id.into()).or_insert_with(|| Arc::new(KeyUsage::new(self.ticks.clone()))))
    }
}

impl<C: Clock> KeyUsage<C> {
    fn new(ticks: Ticks<C>) -> Self {
        Self {
            ticks,
            requests: Bucket::default(),
            tokens: DebtBucket::default(),
            in_flight: AtomicUsize::new(0),
            known_addresses: KnownAddresses::default(),
            used_since_sweep: AtomicBool::new(true),
        }
    }

    /// Whether it has been asked for since the last sweep, or holds anything that a new one would not.
    fn keep_at_sweep(&mut self, now: u64) -> bool {
        std::mem::take(self.used_since_sweep.get_mut()) || self.requests.full_at() > now || self.tokens.full_at() > now
    }
}

/// Checks that a caller's limits allow one more request now. Takes nothing. A caller without a key has no limits.
///
/// # Errors
/// 429, as [`Meter::check`].
pub(crate) fn check(meter: Option<&Meter>) -> Result<(), Refusal> {
    meter.map_or(Ok(()), Meter::check)
}

/// Takes one of the key's places for requests in flight, if the caller has a key.
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
    /// Checks that the key's limits allow one more request now. Takes nothing.
    ///
    /// # Errors
    /// 429 when no request or no token is left, with the time until one is.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        self.check_requests().map_err(|wait| Refusal::RateLimited(REQUESTS, wait.time))?;
        self.check_tokens().map_err(|wait| Refusal::RateLimited("the tokens of this API key", wait.time))?;
        Ok(())
    }

    /// Charges the key for one request.
    ///
    /// # Errors
    /// 429 when no request is left, with the time until one is. Nothing is charged then.
    pub(super) fn charge(&self) -> Result<(), Refusal> {
        self.take_request().map(drop).map_err(|wait| Refusal::RateLimited(REQUESTS, wait.time))
    }

    /// Takes one of the key's places for requests in flight.
    ///
    /// # Errors
    /// 429 when all that this key may have are taken; `retry_after` estimates when one is free.
    pub(super) fn enter(&self, retry_after: impl FnOnce() -> Duration) -> Result<ConcurrencyPermit<C>, Refusal> {
        let most = self.max_concurrent.map_or(usize::MAX, NonZeroUsize::get);
        let entered = self.usage.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |present| {
            (present < most).then_some(present.saturating_add(1))
        });
        match entered {
            Ok(_) => Ok(ConcurrencyPermit(Arc::clone(&self.usage))),
            Err(_) => Err(Refusal::RateLimited("this API key's requests at once", retry_after())),
        }
    }

    /// Counts the tokens of a response. They are known only after it, so the key can go into debt.
    pub(crate) fn charge_tokens(&self, tokens: u64) {
        if let Some(limit) = self.tokens {
            self.usage.tokens.charge(tokens, limit, Duration::MAX, self.usage.ticks.now());
        }
    }

    fn check_requests(&self) -> Result<RateStatus, Wait> {
        self.usage.requests.check(Quota::per_minute(self.requests), self.usage.ticks.now())
    }

    fn take_request(&self) -> Result<RateStatus, Wait> {
        self.usage.requests.take(Quota::per_minute(self.requests), self.usage.ticks.now())
    }

    /// Returns `None` for a key without a limit of tokens.
    fn check_tokens(&self) -> Result<Option<RateStatus>, Wait> {
        self.tokens.map(|limit| self.usage.tokens.check(limit, self.usage.ticks.now())).transpose()
    }

    /// Remembers that the key was used from this address.
    pub(super) fn remember_address(&self, address: IpAddr) {
        self.usage.known_addresses.remember(address, self.usage.ticks.now());
    }

    /// Whether the key was used from this address lately.
    pub(super) fn is_known_address(&self, address: IpAddr) -> bool {
        self.usage.known_addresses.contains(address, self.usage.ticks.now())
    }
}

impl<C: Clock> Meter<C> {
    /// Tells the client how its key stands.
    pub(crate) fn insert_headers(&self, headers: &mut HeaderMap) {
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

const REQUESTS: &str = "the requests of this API key";

#[cfg(test)]
#[path = "rate_tests.rs"]
mod tests;
