//! Rate buckets: a limit of `n` a minute allows `n` at once, then one every `1/n` of a minute (GCRA, the generic cell
//! rate algorithm).
//!
//! Owns how much of a limit is used, how much remains and when more comes back. Does not own the limit itself or the
//! clock: every call passes both. Time is a number of nanoseconds since a start that the owner of the bucket chooses.
//!
//! A bucket stores one number, the time at which it is full again. So the used part is a share of a minute, not a
//! count. When a limit changes, the same share stays used: half of 60 becomes half of 120.
//!
//! [`Bucket`] counts requests one by one, with `governor`. [`DebtBucket`] counts amounts that are known only after they
//! were used, such as the tokens of a response. `governor` cannot do that: it refuses an amount that exceeds what is
//! left, takes at most a `u32` at once, and rounds the price of one unit to a nanosecond, which is coarse for a limit
//! of many millions.

use std::cell::Cell;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};

/// A minute in nanoseconds, the period of every limit.
pub const MINUTE: u64 = 60_000_000_000;

/// The state of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateStatus {
    /// How much may be used at once when nothing is used.
    pub limit: u64,
    /// How much of that is left.
    pub remaining: u64,
    /// Time until nothing is used, if nothing more is taken.
    pub reset: Duration,
}

/// The error when a limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Shortest time after which the same call succeeds, to the nanosecond, if no other call takes from the bucket.
    pub time: Duration,
    /// The state of the limit until then.
    pub status: RateStatus,
}

/// Requests, counted one by one. A new bucket is full.
#[derive(Debug, Default)]
pub struct Bucket {
    full_at: AtomicU64,
}

impl Bucket {
    /// Returns a bucket that takes this many nanoseconds to be full, at the start of its time.
    pub fn with_used(nanos: u64) -> Self {
        Self { full_at: AtomicU64::new(nanos) }
    }

    /// Returns what one of `limit` requests a minute takes of a bucket, in nanoseconds; the bucket holds `limit` times that.
    pub fn price(limit: NonZeroU32) -> u64 {
        MINUTE / u64::from(limit.get())
    }

    /// Checks that one request could be taken at `now`. Takes nothing.
    ///
    /// # Errors
    /// When none could, with the time until one can.
    #[inline]
    pub fn check(&self, quota: Quota, now: u64) -> Result<RateStatus, Wait> {
        self.ask(quota, now, Call::Check)
    }

    /// Takes one request at `now`. Returns the state after it.
    ///
    /// # Errors
    /// When none is left, with the time until one is. Nothing is taken then.
    #[inline]
    pub fn take(&self, quota: Quota, now: u64) -> Result<RateStatus, Wait> {
        self.ask(quota, now, Call::Take)
    }

    /// Returns the time at which the bucket is full again. It is in the past for a bucket that is full.
    pub fn full_at(&self) -> u64 {
        self.full_at.load(Ordering::Relaxed)
    }

    // Inlined, a quota made by the caller costs one division and no conversions.
    #[inline]
    fn ask(&self, quota: Quota, now: u64, call: Call) -> Result<RateStatus, Wait> {
        let state = CallState { full_at: &self.full_at, now, until_full: Cell::new(Nanos::new(0)) };
        let limiter: RateLimiter<_, _, _, StateInformationMiddleware> = RateLimiter::new(quota, state, StoppedClock);
        let outcome = limiter.check_key(&call);
        let reset = limiter.into_state_store().until_full.get().into();
        let status =
            |remaining: u32| RateStatus { limit: quota.burst_size().get().into(), remaining: remaining.into(), reset };
        match outcome {
            // `governor` counts the request as taken, which a check does not do.
            Ok(after) => Ok(status(after.remaining_burst_capacity() + u32::from(call == Call::Check))),
            Err(until) => Err(Wait { time: until.wait_time_from(StoppedClock.now()), status: status(0) }),
        }
    }
}

/// A call to a bucket. It is the key of the limiter, which tells [`CallState`] whether to store the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Call {
    Check,
    Take,
}

/// The state of one bucket as `governor` sees it during one call: times are relative to `now`. So a limiter can be
/// made for each call, and limiters of different quotas can share one bucket.
struct CallState<'a> {
    full_at: &'a AtomicU64,
    now: u64,
    /// The time that was read or, after a take, written.
    until_full: Cell<Nanos>,
}

impl StateStore for CallState<'_> {
    type Key = Call;

    fn measure_and_replace<T, F, E>(&self, call: &Call, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // Relaxed suffices: the number itself is all the state, and the exchange below detects a concurrent change.
        let mut found = self.full_at.load(Ordering::Relaxed);
        loop {
            let until_full = Nanos::new(found.saturating_sub(self.now));
            self.until_full.set(until_full);
            let (outcome, next) = measure(Some(until_full))?;
            // `governor` has no check that takes nothing: it computes a take, which is not stored here.
            if *call == Call::Check {
                return Ok(outcome);
            }
            let full_at = self.now.saturating_add(next.as_u64());
            match self.full_at.compare_exchange_weak(found, full_at, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    self.until_full.set(next);
                    return Ok(outcome);
                }
                Err(changed) => found = changed,
            }
        }
    }
}

/// The clock that belongs to a [`CallState`]: it stands at zero, because times there are relative to now.
struct StoppedClock;

impl Clock for StoppedClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(0)
    }
}

/// Amounts that are counted after they were used, so a bucket can go into debt. A new bucket is full.
#[derive(Debug, Default)]
pub struct DebtBucket {
    full_at: AtomicU64,
}

impl DebtBucket {
    /// Returns a bucket that takes this many nanoseconds to be full, at the start of its time.
    pub fn with_used(nanos: u64) -> Self {
        Self { full_at: AtomicU64::new(nanos) }
    }

    /// Returns what an amount takes of a bucket, in nanoseconds. Rounded down, so that `remaining` is exactly the limit less
    /// the amount.
    pub fn price(amount: u64, limit: NonZeroU64) -> u64 {
        saturate(u128::from(amount) * u128::from(MINUTE) / u128::from(limit.get()))
    }

    /// Returns what must be left of a bucket for one unit, in nanoseconds.
    pub fn least_left(limit: NonZeroU64) -> u64 {
        MINUTE.div_ceil(limit.get())
    }

    /// Checks that at least one unit is left at `now`.
    ///
    /// # Errors
    /// When none is left, with the time until one is.
    pub fn check(&self, limit: NonZeroU64, now: u64) -> Result<RateStatus, Wait> {
        let until_full = self.full_at().saturating_sub(now);
        let remaining = u128::from(MINUTE.saturating_sub(until_full)) * u128::from(limit.get()) / u128::from(MINUTE);
        let remaining = saturate(remaining);
        let status = RateStatus { limit: limit.get(), remaining, reset: Duration::from_nanos(until_full) };
        if remaining > 0 {
            return Ok(status);
        }
        // From then on `remaining` is 1.
        let time = until_full.saturating_add(Self::least_left(limit)).saturating_sub(MINUTE);
        Err(Wait { time: Duration::from_nanos(time), status })
    }

    /// Counts an amount that was used, even if less is left. The debt grows to `longest_debt` at most, the time that it
    /// takes to pay it back.
    pub fn charge(&self, amount: u64, limit: NonZeroU64, longest_debt: Duration, now: u64) {
        let price = Self::price(amount, limit);
        let longest = saturate(longest_debt.as_nanos()).saturating_add(MINUTE);
        let latest = now.saturating_add(longest);
        let add = |full_at: u64| Some(full_at.max(now).saturating_add(price).min(latest));
        // Never fails: the closure always returns a value.
        let _ = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Returns the time at which the bucket is full again. It is in the past for a bucket that is full.
    pub fn full_at(&self) -> u64 {
        self.full_at.load(Ordering::Relaxed)
    }
}

fn saturate(wide: u128) -> u64 {
    u64::try_from(wide).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn per_minute(n: u32) -> Quota {
        Quota::per_minute(NonZeroU32::new(n).unwrap())
    }

    /// A plain leaky bucket: `used` nanoseconds' worth is in it and drains as time passes.
    #[derive(Default)]
    struct LeakyBucket {
        used: u64,
    }

    impl LeakyBucket {
        fn advance(&mut self, nanos: u64) {
            self.used = self.used.saturating_sub(nanos);
        }

        /// Returns how many units are left if one costs `price` nanoseconds and the bucket holds `limit` of them.
        fn remaining(&self, limit: u64, price: u64) -> u64 {
            (limit * price).saturating_sub(self.used) / price
        }
    }

    proptest! {
        #[test]
        fn a_bucket_matches_a_leaky_bucket(
            limits in proptest::collection::vec(1..100_u32, 1..4),
            steps in proptest::collection::vec((0..MINUTE / 20, any::<prop::sample::Index>(), any::<bool>()), 0..300),
        ) {
            let (bucket, mut model, mut now) = (Bucket::default(), LeakyBucket::default(), 0);
            for (pause, index, is_take) in steps {
                now += pause;
                model.advance(pause);
                let limit = *index.get(&limits);
                let (quota, price) = (per_minute(limit), MINUTE / u64::from(limit));
                let is_allowed = model.remaining(limit.into(), price) > 0;
                if is_allowed && is_take {
                    model.used += price;
                }
                let status = RateStatus {
                    limit: limit.into(),
                    remaining: model.remaining(limit.into(), price),
                    reset: Duration::from_nanos(model.used),
                };
                let time = (model.used + price).saturating_sub(u64::from(limit) * price);
                let expected =
                    if is_allowed { Ok(status) } else { Err(Wait { time: Duration::from_nanos(time), status }) };
                let outcome = if is_take { bucket.take(quota, now) } else { bucket.check(quota, now) };
                prop_assert_eq!(outcome, expected);
                prop_assert_eq!(bucket.full_at().saturating_sub(now), model.used);
            }
        }

        #[test]
        fn a_debt_bucket_matches_a_leaky_bucket_that_may_overflow(
            limit in 1..1_000_000_u64,
            longest_debt in 0..10 * MINUTE,
            steps in proptest::collection::vec((0..MINUTE / 4, 0..400_000_u64), 0..100),
        ) {
            let (bucket, mut model, mut now) = (DebtBucket::default(), LeakyBucket::default(), 0);
            let per_minute = NonZeroU64::new(limit).unwrap();
            for (pause, amount) in steps {
                now += pause;
                model.advance(pause);
                model.used = (model.used + amount * MINUTE / limit).min(MINUTE + longest_debt);
                bucket.charge(amount, per_minute, Duration::from_nanos(longest_debt), now);

                let left = u128::from(MINUTE.saturating_sub(model.used));
                let remaining = (left * u128::from(limit) / u128::from(MINUTE)) as u64;
                let status = RateStatus { limit, remaining, reset: Duration::from_nanos(model.used) };
                let outcome = bucket.check(per_minute, now);
                match outcome {
                    Ok(found) => prop_assert!(found == status && remaining > 0),
                    Err(wait) => {
                        prop_assert!(wait.status == status && remaining == 0);
                        let opens_at = now + wait.time.as_nanos() as u64;
                        prop_assert!(bucket.check(per_minute, opens_at - 1).is_err());
                        prop_assert_eq!(bucket.check(per_minute, opens_at).unwrap().remaining, 1);
                    }
                }
            }
        }
    }
}
