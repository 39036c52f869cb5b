//! When a certificate is due, and how long to wait after a failure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::settings::bounds::MOST_ACME_RETRY;
use crate::tls::leaf::LeafFacts;

/// Returns when a certificate is renewed if the CA does not say: after two thirds of its lifetime.
pub(super) fn renewal_time(leaf: &LeafFacts) -> Timestamp {
    share_of_life(leaf, 2, 3)
}

/// Returns when a certificate is renewed at the latest, whatever the CA says: after five sixths of its lifetime.
pub(super) fn latest_renewal_time(leaf: &LeafFacts) -> Timestamp {
    share_of_life(leaf, 5, 6)
}

fn share_of_life(leaf: &LeafFacts, part: i32, whole: i32) -> Timestamp {
    let life = leaf.expires.duration_since(leaf.begins).max(SignedDuration::ZERO);
    leaf.begins.checked_add(life / whole * part).unwrap_or(leaf.begins)
}

/// Whether a certificate is for these names and no others.
pub(in crate::tls) fn is_for(leaf: &LeafFacts, domains: &[String]) -> bool {
    leaf.names.len() == domains.len() && domains.iter().all(|domain| leaf.names.contains(domain))
}

/// The waits after orders that failed.
#[derive(Debug)]
pub(super) struct RetryWaits {
    first: Duration,
    failures: u32,
}

impl RetryWaits {
    pub(super) fn new(first: Duration) -> Self {
        Self { first, failures: 0 }
    }

    /// Returns the wait after a further failure: twice as long each time, and at least what the CA asks for.
    pub(super) fn next_wait(&mut self, asked: Option<Duration>) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        jittered(doubled.min(MOST_ACME_RETRY)).max(asked.unwrap_or_default())
    }

    /// Begins again with the first wait.
    pub(super) fn end(&mut self) {
        self.failures = 0;
    }
}

/// Returns a random duration between three quarters and all of `duration`, so that services which failed together do not
/// ask the CA together.
fn jittered(duration: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(0);
    duration.mul_f64(0.75 + 0.25 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(begins: &str, expires: &str, names: &[&str]) -> LeafFacts {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        LeafFacts { begins: begins.parse().unwrap(), expires: expires.parse().unwrap(), fingerprint: [0; 32], names }
    }

    #[test]
    fn a_certificate_is_due_after_two_thirds_of_its_life() {
        for (begins, expires, due, latest) in [
            ("2026-01-01T00:00:00Z", "2026-04-01T00:00:00Z", "2026-03-02T00:00:00Z", "2026-03-17T00:00:00Z"),
            ("2026-01-01T00:00:00Z", "2026-01-07T00:00:00Z", "2026-01-05T00:00:00Z", "2026-01-06T00:00:00Z"),
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
            // One that ends before it begins is due.
            ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-02T00:00:00Z"),
        ] {
            let leaf = leaf(begins, expires, &[]);
            assert_eq!(renewal_time(&leaf), due.parse().unwrap());
            assert_eq!(latest_renewal_time(&leaf), latest.parse().unwrap());
        }
    }

    #[test]
    fn a_certificate_is_for_the_names_that_are_wanted_and_no_others() {
        let leaf = leaf("2026-01-01T00:00:00Z", "2026-04-01T00:00:00Z", &["a.example", "b.example"]);
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert!(is_for(&leaf, &names(&["b.example", "a.example"])));
        for others in [&["a.example"][..], &["a.example", "c.example"], &["a.example", "b.example", "c.example"]] {
            assert!(!is_for(&leaf, &names(others)), "{others:?}");
        }
    }

    #[test]
    fn waits_double_up_to_a_bound_and_are_no_shorter_than_the_ca_asks() {
        let minute = Duration::from_secs(60);
        let mut waits = RetryWaits::new(5 * minute);
        for expected in [5, 10, 20, 40, 80, 160, 320, 360, 360] {
            let wait = waits.next_wait(None);
            assert!(wait <= expected * minute && wait >= expected * minute * 3 / 4, "{expected}: {wait:?}");
        }
        assert_eq!(waits.next_wait(Some(600 * minute)), 600 * minute);
        assert!(waits.next_wait(Some(minute)) >= 270 * minute);
        waits.end();
        assert!(waits.next_wait(None) <= 5 * minute);
        waits.failures = u32::MAX;
        assert!(waits.next_wait(None) <= MOST_ACME_RETRY);
    }
}
