//! How much a key may ask for: requests and tokens a minute, and requests at once.
//!
//! Owns what each key id has used, which outlives every reload of the key file: the file says how much is allowed,
//! [`Meters`] knows how much of it is gone. Does not decide what a refusal looks like, nor who is asked for a key.
//!
//! A limit of `n` a minute is a bucket that holds `n` and takes a minute to fill: `n` at once, then one every `1/n` of
//! a minute, and never more than `n` and what has come back since in any stretch of time. Both limits are kept as the
//! instant at which the bucket is full again (GCRA), in one atomic each.
//!
//! What an id has used is kept as its share of a minute, not as a number. So when a limit changes at reload, the share
//! that is gone stays gone: a key that had used half of 60 has used half of 120. And several lines of one id draw on
//! one minute, each request costing the share that its own line says: with two secrets nobody gets two limits. The
//! other side of it: where the lines' limits differ, heavy use through the generous one leaves little for the other.

use super::auth_failures::Proven;
use super::rate_headers::{self, Standing};
use super::ticks::{MINUTE, Ticks};
use crate::gateway::bounds::METERS_BEFORE_SWEEP;
use crate::keys::Key;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use http::HeaderMap;
use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
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
    /// When all requests are back.
    requests: AtomicU64,
    /// When all tokens are back; more than a minute ahead means debt.
    tokens: AtomicU64,
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

/// A limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    /// The shortest time after which the same would pass, to the nanosecond, if nobody else comes first.
    pub(super) time: Duration,
    /// How the key stands until then.
    pub(super) standing: Standing,
}

/// The key has as many requests in flight as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crowded;

/// One request in flight. Frees its place when it is dropped.
#[derive(Debug)]
pub(super) struct Presence<C: Clock = DefaultClock>(Arc<Used<C>>);

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
            requests: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            present: AtomicUsize::new(0),
            proven: Proven::default(),
            asked: AtomicBool::new(true),
        }
    }

    /// Whether it has been asked for since the last sweep, or holds anything that a new one would not.
    fn is_wanted(&mut self, now: u64) -> bool {
        std::mem::take(self.asked.get_mut()) || *self.requests.get_mut() > now || *self.tokens.get_mut() > now
    }
}

impl<C: Clock> Meter<C> {
    /// Whether a request would pass now. Takes nothing.
    ///
    /// # Errors
    /// When none would, with the time until one does.
    pub(super) fn look(&self) -> Result<Standing, Wait> {
        self.ask(Mode::Look)
    }

    /// Counts one request, if it passes.
    ///
    /// # Errors
    /// When it does not; nothing is counted then.
    pub(super) fn take(&self) -> Result<Standing, Wait> {
        self.ask(Mode::Take)
    }

    fn ask(&self, mode: Mode) -> Result<Standing, Wait> {
        let moment =
            Moment { full_at: &self.used.requests, now: self.used.ticks.now(), until_full: Cell::new(Nanos::new(0)) };
        let limiter: RateLimiter<_, _, _, StateInformationMiddleware> =
            RateLimiter::new(Quota::per_minute(self.requests), moment, Still);
        let outcome = limiter.check_key(&mode);
        let reset = limiter.into_state_store().until_full.get().into();
        let standing =
            |remaining: u32| Standing { limit: self.requests.get().into(), remaining: remaining.into(), reset };
        match outcome {
            Ok(after) => {
                let not_taken = u32::from(mode == Mode::Look);
                Ok(standing(after.remaining_burst_capacity() + not_taken))
            }
            Err(until) => Err(Wait { time: until.wait_time_from(Still.now()), standing: standing(0) }),
        }
    }

    /// Counts the tokens of an answer. They are known only after it, so this may run into debt.
    pub(crate) fn spend(&self, tokens: u64) {
        let Some(limit) = self.tokens else { return };
        let now = self.used.ticks.now();
        // Rounded down, for then `remaining` comes out as the limit less what was spent.
        let time = saturate(u128::from(tokens) * u128::from(MINUTE) / u128::from(limit.get()));
        // Never fails: the closure always has a value.
        let _ = self
            .used
            .tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| Some(full_at.max(now).saturating_add(time)));
    }

    /// Whether the key has a token left; `None` where it may use any number.
    ///
    /// # Errors
    /// When none is left or the key is in debt, with the time until it has one again.
    pub(super) fn look_tokens(&self) -> Result<Option<Standing>, Wait> {
        let Some(limit) = self.tokens else { return Ok(None) };
        let until_full = self.used.tokens.load(Ordering::Relaxed).saturating_sub(self.used.ticks.now());
        let remaining = u128::from(MINUTE.saturating_sub(until_full)) * u128::from(limit.get()) / u128::from(MINUTE);
        let remaining = saturate(remaining);
        let standing = Standing { limit: limit.get(), remaining, reset: Duration::from_nanos(until_full) };
        if remaining > 0 {
            return Ok(Some(standing));
        }
        // From when on `remaining` is 1.
        let time = until_full.saturating_add(MINUTE.div_ceil(limit.get())).saturating_sub(MINUTE);
        let time = Duration::from_nanos(time);
        Err(Wait { time, standing })
    }

    /// Takes one of the places for requests in flight.
    ///
    /// # Errors
    /// When all that this key may have are taken.
    pub(super) fn enter(&self) -> Result<Presence<C>, Crowded> {
        let most = self.max_concurrent.map_or(usize::MAX, NonZeroUsize::get);
        let entered = self.used.present.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |present| {
            (present < most).then_some(present.saturating_add(1))
        });
        entered.map(|_| Presence(Arc::clone(&self.used))).map_err(|_| Crowded)
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
        let requests = self.look().unwrap_or_else(|wait| wait.standing);
        let tokens = self.look_tokens().unwrap_or_else(|wait| Some(wait.standing));
        rate_headers::tell(headers, requests, tokens);
    }
}

impl<C: Clock> Drop for Presence<C> {
    fn drop(&mut self) {
        self.0.present.fetch_sub(1, Ordering::Relaxed);
    }
}

fn saturate(wide: u128) -> u64 {
    u64::try_from(wide).unwrap_or(u64::MAX)
}

/// Whether governor's arithmetic is to leave a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Mode {
    Look,
    Take,
}

/// What a key id has used, as governor sees it for the length of one question. Time is told from now on, so the clock
/// is read once, the start of a limiter does not matter, and limiters of different limits agree on what is used.
struct Moment<'a> {
    full_at: &'a AtomicU64,
    now: u64,
    /// What it was found or left at.
    until_full: Cell<Nanos>,
}

impl StateStore for Moment<'_> {
    type Key = Mode;

    fn measure_and_replace<T, F, E>(&self, mode: &Mode, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut found = self.full_at.load(Ordering::Relaxed);
        loop {
            let until_full = Nanos::new(found.saturating_sub(self.now));
            self.until_full.set(until_full);
            let (answer, next) = measure(Some(until_full))?;
            if *mode == Mode::Look {
                return Ok(answer);
            }
            let full_at = self.now.saturating_add(next.as_u64());
            match self.full_at.compare_exchange_weak(found, full_at, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    self.until_full.set(next);
                    return Ok(answer);
                }
                Err(other) => found = other,
            }
        }
    }
}

/// The clock of a [`Moment`]: it is always now.
struct Still;

impl Clock for Still {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(0)
    }
}

#[cfg(test)]
#[path = "rate_tests.rs"]
mod tests;
