//! How much a key may ask for: requests and tokens a minute, and requests at once.
//!
//! Owns what each key id has used, which outlives every reload of the key file: the file says how much is allowed,
//! [`Meters`] knows how much of it is gone. Decides when a key is refused with 429. Does not decide who is asked for a
//! key.
//!
//! The limits are buckets of `rate_bucket.rs`, which keep the share of a minute that is used. So several lines of one id
//! draw on one minute, and each request costs the share that its own line says: two secrets do not get two limits. The
//! drawback: where the lines' limits differ, heavy use through the generous one leaves little for the other.

use super::auth_failures::Proven;
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
    known: RwLock<Known<C>>,
}

#[derive(Debug)]
struct Known<C: Clock> {
    by_id: HashMap<Box<str>, Arc<Used<C>>>,
    /// The number of ids at which the next sweep is due.
    sweep_at: usize,
}

/// What one key id has used.
#[derive(Debug)]
struct Used<C: Clock> {
    ticks: Ticks<C>,
    requests: Bucket,
    tokens: DebtBucket,
    present: AtomicUsize,
    proven: Proven,
    /// Whether anybody asked for it since the last sweep.
    asked: AtomicBool,
}

/// What one line of the key file allows, and what its id has used. Cheap to make and to clone.
#[derive(Debug, Clone)]
pub(crate) struct Meter<C: Clock = DefaultClock> {
    used: Arc<Used<C>>,
    requests: NonZeroU32,
    tokens: Option<NonZeroU64>,
    max_concurrent: Option<NonZeroUsize>,
}

/// One request in flight. Frees its place when it is dropped.
#[derive(Debug)]
pub(crate) struct Presence<C: Clock = DefaultClock>(Arc<Used<C>>);

impl<C: Clock + Clone> Meters<C> {
    /// Nothing is used yet.
    pub(crate) fn new(clock: C) -> Self {
        let known = Known { by_id: HashMap::new(), sweep_at: METERS_BEFORE_SWEEP };
        Self { ticks: Ticks::new(clock), known: RwLock::new(known) }
    }

    /// The meter of a key; `default` is the limit of requests where the key's own line sets none.
    pub(crate) fn of(&self, key: &Key, default: NonZeroU32) -> Meter<C> {
        Meter {
            used: self.find(&key.id).unwrap_or_else(|| self.introduce(&key.id)),
            requests: key.rate_limit.unwrap_or(default),
            tokens: key.tokens_per_minute,
            max_concurrent: key.max_concurrent,
        }
    }

    fn find(&self, id: &str) -> Option<Arc<Used<C>>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let used = known.by_id.get(id)?;
        // A load first: most of the time there is nothing to write, and other cores keep their copy.
        if !used.asked.load(Ordering::Relaxed) {
            used.asked.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(used))
    }

    fn introduce(&self, id: &str) -> Arc<Used<C>> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.by_id.len() >= known.sweep_at {
            let now = self.ticks.now();
            // `get_mut` fails while a request holds the entry.
            known.by_id.retain(|_, used| Arc::get_mut(used).is_none_or(|used| used.is_wanted(now)));
            // Twice what is left: sweeps cost next to nothing for each id that comes.
            known.sweep_at = METERS_BEFORE_SWEEP.max(known.by_id.len() * 2);
        }
        Arc::clone(known.by_id.entry(id.into()).or_insert_with(|| Arc::new(Used::new(self.ticks.clone()))))
    }
}

impl<C: Clock> Used<C> {
    fn new(ticks: Ticks<C>) -> Self {
        Self {
            ticks,
            requests: Bucket::default(),
            tokens: DebtBucket::default(),
            present: AtomicUsize::new(0),
            proven: Proven::default(),
            asked: AtomicBool::new(true),
        }
    }

    /// Whether it has been asked for since the last sweep, or holds anything that a new one would not.
    fn is_wanted(&mut self, now: u64) -> bool {
        std::mem::take(self.asked.get_mut()) || self.requests.full_at() > now || self.tokens.full_at() > now
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
) -> Result<Option<Presence>, Refusal> {
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
        self.look().map_err(|wait| Refusal::RateLimited(REQUESTS, wait.time))?;
        self.look_tokens().map_err(|wait| Refusal::RateLimited("the tokens of this API key", wait.time))?;
        Ok(())
    }

    /// Charges the key for one request.
    ///
    /// # Errors
    /// 429 when no request is left, with the time until one is. Nothing is charged then.
    pub(super) fn charge(&self) -> Result<(), Refusal> {
        self.take().map(drop).map_err(|wait| Refusal::RateLimited(REQUESTS, wait.time))
    }

    /// Takes one of the key's places for requests in flight.
    ///
    /// # Errors
    /// 429 when all that this key may have are taken; `retry_after` estimates when one is free.
    pub(super) fn enter(&self, retry_after: impl FnOnce() -> Duration) -> Result<Presence<C>, Refusal> {
        let most = self.max_concurrent.map_or(usize::MAX, NonZeroUsize::get);
        let entered = self.used.present.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |present| {
            (present < most).then_some(present.saturating_add(1))
        });
        match entered {
            Ok(_) => Ok(Presence(Arc::clone(&self.used))),
            Err(_) => Err(Refusal::RateLimited("this API key's requests at once", retry_after())),
        }
    }

    /// Counts the tokens of a response. They are known only after it, so the key can go into debt.
    pub(crate) fn spend(&self, tokens: u64) {
        if let Some(limit) = self.tokens {
            self.used.tokens.charge(tokens, limit, Duration::MAX, self.used.ticks.now());
        }
    }

    fn look(&self) -> Result<RateStatus, Wait> {
        self.used.requests.check(Quota::per_minute(self.requests), self.used.ticks.now())
    }

    fn take(&self) -> Result<RateStatus, Wait> {
        self.used.requests.take(Quota::per_minute(self.requests), self.used.ticks.now())
    }

    /// Returns `None` for a key without a limit of tokens.
    fn look_tokens(&self) -> Result<Option<RateStatus>, Wait> {
        self.tokens.map(|limit| self.used.tokens.check(limit, self.used.ticks.now())).transpose()
    }

    /// Remembers that the key was used from this address.
    pub(super) fn prove(&self, address: IpAddr) {
        self.used.proven.note(address, self.used.ticks.now());
    }

    /// Whether the key was used from this address lately.
    pub(super) fn is_proven_from(&self, address: IpAddr) -> bool {
        self.used.proven.knows(address, self.used.ticks.now())
    }
}

impl<C: Clock> Meter<C> {
    /// Tells the client how its key stands.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        let requests = self.look().unwrap_or_else(|wait| wait.status);
        let tokens = self.look_tokens().unwrap_or_else(|wait| Some(wait.status));
        rate_headers::tell(headers, requests, tokens);
    }
}

impl<C: Clock> Drop for Presence<C> {
    fn drop(&mut self) {
        self.0.present.fetch_sub(1, Ordering::Relaxed);
    }
}

const REQUESTS: &str = "the requests of this API key";

#[cfg(test)]
#[path = "rate_tests.rs"]
mod tests;
