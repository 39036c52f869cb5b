//! How much a remote backend may be asked for: requests and tokens a minute.
//!
//! A limit of `n` a minute is a bucket that holds `n` and takes a minute to fill, as it is for keys: `n` at once, then
//! one every `1/n` of a minute. Tokens are known only after the answer, so that theirs may run into debt.
//!
//! Owns what is used and tells when there is more. Goes by the kernel's clock, for the backend's minutes go on while this
//! program is paused; the caller says what time it is.

use crate::fleet::bounds::LONGEST_DEBT;
use std::num::NonZeroU32;
use std::time::Duration;
use tokio::time::Instant;

/// The period of every limit.
const MINUTE: Duration = Duration::from_secs(60);

/// What one remote backend may be asked for, and what of it is used.
#[derive(Debug)]
pub struct Quota {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
}

/// One limit, kept as the instant at which the bucket is full again (GCRA).
#[derive(Debug)]
struct Bucket {
    limit: NonZeroU32,
    /// None while nothing was ever taken.
    full_at: Option<Instant>,
}

impl Quota {
    /// So many requests and tokens a minute, none of which are used; any number where there is no limit.
    pub fn new(rpm: Option<NonZeroU32>, tpm: Option<NonZeroU32>) -> Self {
        let bucket = |limit| Bucket { limit, full_at: None };
        Self { requests: rpm.map(bucket), tokens: tpm.map(bucket) }
    }

    /// Whether a request may be sent now.
    pub fn allows(&self, now: Instant) -> bool {
        self.opens_at(now).is_none()
    }

    /// Counts a request, if one may be sent now. Whether it may.
    #[must_use = "the request may not be sent unless this says so"]
    pub fn take(&mut self, now: Instant) -> bool {
        let is_allowed = self.allows(now);
        if is_allowed && let Some(requests) = &mut self.requests {
            requests.spend(1, now);
        }
        is_allowed
    }

    /// Counts the tokens of an answer.
    pub fn spend(&mut self, tokens: u64, now: Instant) {
        if let Some(bucket) = &mut self.tokens {
            bucket.spend(tokens, now);
        }
    }

    /// When the next request may be sent, if nobody else comes first; none if it may now.
    pub fn opens_at(&self, now: Instant) -> Option<Instant> {
        let buckets = [&self.requests, &self.tokens];
        buckets.into_iter().flatten().filter_map(|bucket| bucket.opens_at(now)).max()
    }
}

impl Bucket {
    /// How long it takes until it is full.
    fn until_full(&self, now: Instant) -> Duration {
        self.full_at.map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now))
    }

    fn spend(&mut self, amount: u64, now: Instant) {
        // Rounded down, for then what is left comes out as the limit less what was spent.
        let nanos = u128::from(amount) * MINUTE.as_nanos() / u128::from(self.limit.get());
        let time = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let until_full = self.until_full(now).saturating_add(time).min(MINUTE + LONGEST_DEBT);
        self.full_at = Some(now + until_full);
    }

    /// When there is one in it; none if there is now.
    fn opens_at(&self, now: Instant) -> Option<Instant> {
        let left = MINUTE.saturating_sub(self.until_full(now)).as_nanos() * u128::from(self.limit.get());
        if left >= MINUTE.as_nanos() {
            return None;
        }
        let for_one = MINUTE.as_nanos().div_ceil(u128::from(self.limit.get()));
        let for_one = Duration::from_nanos(u64::try_from(for_one).unwrap_or(u64::MAX));
        Some(now + (self.until_full(now) + for_one).saturating_sub(MINUTE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NANO: Duration = Duration::from_nanos(1);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn quota(rpm: u32, tpm: u32) -> (Quota, Instant) {
        (Quota::new(NonZeroU32::new(rpm), NonZeroU32::new(tpm)), Instant::now())
    }

    #[test]
    fn requests_are_a_bucket_that_fills_in_a_minute() {
        let (mut quota, start) = quota(6, 0);
        assert!((0..6).all(|_| quota.take(start)));
        assert!(!quota.take(start) && !quota.allows(start));
        let next = start + seconds(10);
        assert_eq!(quota.opens_at(start), Some(next), "what was refused is not counted");
        assert!(!quota.allows(next - NANO));
        assert!(quota.take(next) && !quota.take(next));
        assert!((0..3).all(|_| quota.take(next + seconds(30))));
        assert_eq!(quota.opens_at(next + seconds(30)), Some(next + seconds(40)));
        let later = start + seconds(3600);
        assert_eq!((0..9).filter(|_| quota.take(later)).count(), 6, "a bucket holds no more");
    }

    #[test]
    fn tokens_go_into_debt_and_come_back() {
        let (mut quota, start) = quota(0, 60);
        quota.spend(59, start);
        assert!(quota.take(start) && quota.take(start), "requests take none");
        quota.spend(61, start);
        let paid = start + seconds(61);
        assert_eq!(quota.opens_at(start), Some(paid), "60 to pay the debt, one for a token");
        assert!(!quota.allows(paid - NANO) && quota.allows(paid));
        quota.spend(0, start);
        assert_eq!(quota.opens_at(start), Some(paid));
    }

    #[test]
    fn the_longer_wait_counts() {
        let (mut quota, start) = quota(1, 60);
        assert!(quota.take(start));
        quota.spend(70, start);
        assert_eq!(quota.opens_at(start), Some(start + seconds(60)), "the requests'");
        quota.spend(60, start);
        assert_eq!(quota.opens_at(start), Some(start + seconds(71)), "the tokens'");
    }

    #[test]
    fn a_backend_that_counts_wrongly_is_not_left_alone_for_ever() {
        let (mut quota, start) = quota(0, 1);
        quota.spend(u64::MAX, start);
        quota.spend(u64::MAX, start);
        let opens_at = quota.opens_at(start).unwrap();
        assert_eq!(opens_at, start + LONGEST_DEBT + MINUTE);
        assert!(quota.allows(opens_at));
    }

    #[test]
    fn without_limits_anything_goes() {
        let (mut quota, start) = quota(0, 0);
        quota.spend(u64::MAX, start);
        assert!((0..100_000).all(|_| quota.take(start)));
    }

    #[test]
    fn time_that_goes_back_gives_nothing() {
        let (mut quota, start) = quota(1, 0);
        assert!(quota.take(start + seconds(100)));
        assert!(!quota.allows(start) && !quota.allows(start + seconds(159)));
        assert!(quota.allows(start + seconds(160)));
    }

    proptest! {
        /// In any stretch of time no more than the limit and what has come back, and no less is refused than must be.
        #[test]
        fn a_limit_is_kept_and_given_in_full(
            rpm in 1..200_u32,
            steps in proptest::collection::vec((0..5_000_u64, 1..50_usize), 1..20),
        ) {
            let (mut quota, start) = quota(rpm, 0);
            let mut now = start;
            let mut taken: Vec<Instant> = Vec::new();
            for (millis, tries) in steps {
                now += Duration::from_millis(millis);
                for _ in 0..tries {
                    let opens_at = quota.opens_at(now);
                    prop_assert_eq!(quota.take(now), opens_at.is_none());
                    match opens_at {
                        None => taken.push(now),
                        Some(at) => prop_assert!(at > now && at <= now + MINUTE && quota.allows(at) && !quota.allows(at - NANO)),
                    }
                }
            }
            for (index, first) in taken.iter().enumerate() {
                for (more, last) in taken[index..].iter().enumerate() {
                    let came_back = (*last - *first).as_nanos() * u128::from(rpm) / MINUTE.as_nanos();
                    // One for the rounding down of each price.
                    prop_assert!(more as u128 <= u128::from(rpm) + came_back);
                }
            }
        }
    }
}
