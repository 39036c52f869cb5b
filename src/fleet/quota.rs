//! The quota of a remote backend: requests and tokens per minute.
//!
//! Owns what is used and when more is available. The caller passes the time, which must be the kernel's clock, because
//! the backend's minutes go on while this process is paused. `rate_bucket.rs` does the counting.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use tokio::time::Instant;

use crate::fleet::bounds::LONGEST_DEBT;
use crate::rate_bucket::{Bucket, DebtBucket};

/// The limits of one remote backend and their current use.
#[derive(Debug)]
pub struct Quota {
    /// Start of the buckets' time.
    start: Instant,
    requests: Option<(governor::Quota, Bucket)>,
    tokens: Option<(NonZeroU64, DebtBucket)>,
}

impl Quota {
    /// Creates an unused quota of `rpm` requests and `tpm` tokens per minute. `None` means no limit.
    pub fn new(rpm: Option<NonZeroU32>, tpm: Option<NonZeroU32>) -> Self {
        Self {
            start: Instant::now(),
            requests: rpm.map(|rpm| (governor::Quota::per_minute(rpm), Bucket::default())),
            tokens: tpm.map(|tpm| (tpm.into(), DebtBucket::default())),
        }
    }

    /// Whether tokens are limited.
    pub fn limits_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Whether a request may be sent now.
    pub fn has_remaining(&self, now: Instant) -> bool {
        self.opens_at(now).is_none()
    }

    /// Counts a request, if one may be sent now. Returns whether it may.
    #[must_use = "the request may not be sent unless this says so"]
    pub fn take(&mut self, now: Instant) -> bool {
        let nanos = self.nanos(now);
        self.tokens_wait(nanos).is_none()
            && self.requests.as_ref().is_none_or(|(quota, bucket)| bucket.take(*quota, nanos).is_ok())
    }

    /// Counts the tokens of a response. They are known only after it, so the backend can go into debt.
    pub fn spend(&mut self, tokens: u64, now: Instant) {
        if let Some((limit, bucket)) = &self.tokens {
            bucket.charge(tokens, *limit, LONGEST_DEBT, self.nanos(now));
        }
    }

    /// Returns when the next request may be sent if no other comes first; `None` if it may be sent now.
    pub fn opens_at(&self, now: Instant) -> Option<Instant> {
        let nanos = self.nanos(now);
        let requests = self.requests.as_ref().and_then(|(quota, bucket)| bucket.check(*quota, nanos).err());
        requests.map(|wait| wait.time).max(self.tokens_wait(nanos)).map(|time| now + time)
    }

    fn tokens_wait(&self, nanos: u64) -> Option<Duration> {
        self.tokens.as_ref().and_then(|(limit, bucket)| bucket.check(*limit, nanos).err()).map(|wait| wait.time)
    }

    /// Returns the buckets' time in nanoseconds since the start; enough for 584 years.
    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NANO: Duration = Duration::from_nanos(1);
    const MINUTE: Duration = Duration::from_secs(60);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn quota(rpm: u32, tpm: u32) -> (Quota, Instant) {
        (Quota::new(NonZeroU32::new(rpm), NonZeroU32::new(tpm)), Instant::now())
    }

    #[test]
    fn the_request_bucket_refills_within_a_minute() {
        let (mut quota, start) = quota(6, 0);
        assert!((0..6).all(|_| quota.take(start)));
        assert!(!quota.take(start) && !quota.has_remaining(start));
        let next = start + seconds(10);
        assert_eq!(quota.opens_at(start), Some(next), "what was refused is not counted");
        assert!(!quota.has_remaining(next - NANO));
        assert!(quota.take(next) && !quota.take(next));
        assert!((0..3).all(|_| quota.take(next + seconds(30))));
        assert_eq!(quota.opens_at(next + seconds(30)), Some(next + seconds(40)));
        let later = start + seconds(3600);
        assert_eq!((0..9).filter(|_| quota.take(later)).count(), 6, "a bucket holds no more");
    }

    #[test]
    fn tokens_may_go_into_debt_which_is_paid_back_over_time() {
        let (mut quota, start) = quota(0, 60);
        quota.spend(59, start);
        assert!(quota.take(start) && quota.take(start), "requests take none");
        quota.spend(61, start);
        let paid = start + seconds(61);
        assert_eq!(quota.opens_at(start), Some(paid), "60 to pay the debt, one for a token");
        assert!(!quota.has_remaining(paid - NANO) && quota.has_remaining(paid));
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
        assert!(quota.has_remaining(opens_at));
    }

    #[test]
    fn a_quota_without_limits_allows_everything() {
        let (mut quota, start) = quota(0, 0);
        quota.spend(u64::MAX, start);
        assert!((0..100_000).all(|_| quota.take(start)));
    }

    #[test]
    fn a_clock_that_goes_back_refills_nothing() {
        let (mut quota, start) = quota(1, 0);
        assert!(quota.take(start + seconds(100)));
        assert!(!quota.has_remaining(start) && !quota.has_remaining(start + seconds(159)));
        assert!(quota.has_remaining(start + seconds(160)));
    }

    proptest! {
        /// In any period, no more requests than the limit plus what has been refilled, and no more refusals than
        /// necessary.
        #[test]
        fn a_limit_is_never_exceeded_and_fully_usable(
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
                        Some(at) => prop_assert!(at > now && at <= now + MINUTE && quota.has_remaining(at) && !quota.has_remaining(at - NANO)),
                    }
                }
            }
            for (index, first) in taken.iter().enumerate() {
                for (more, last) in taken[index..].iter().enumerate() {
                    let refilled = (*last - *first).as_nanos() * u128::from(rpm) / MINUTE.as_nanos();
                    // One for the rounding down of each price.
                    prop_assert!(more as u128 <= u128::from(rpm) + refilled);
                }
            }
        }
    }
}
