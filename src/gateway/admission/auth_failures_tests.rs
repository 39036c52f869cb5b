//! Tests of the limit for wrong keys, on a clock that moves only when told to.

use governor::clock::FakeRelativeClock;
use proptest::prelude::*;

use super::*;

const NANO: Duration = Duration::from_nanos(1);

/// The time in nanoseconds after which one more wrong key is allowed.
const REFILL: u64 = MINUTE / AUTH_FAILURES_PER_MINUTE as u64;

fn auth_failures() -> (FakeRelativeClock, AuthFailures<FakeRelativeClock>) {
    let clock = FakeRelativeClock::default();
    (clock.clone(), AuthFailures::new(clock))
}

fn v4(n: u32) -> IpAddr {
    IpAddr::from(n.to_be_bytes())
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn counted_addresses(failures: &AuthFailures<FakeRelativeClock>) -> usize {
    let is_used = |entry: &FailingAddress| entry.network.is_some();
    failures.buckets.iter().map(|bucket| bucket.lock().unwrap().iter().filter(|s| is_used(s)).count()).sum()
}

#[test]
fn an_address_waits_after_a_minutes_worth_of_wrong_keys_and_others_do_not() {
    let (clock, failures) = auth_failures();
    let (bad, good) = (address("203.0.113.7"), address("203.0.113.8"));
    for _ in 0..AUTH_FAILURES_PER_MINUTE {
        assert_eq!(failures.check(bad), Ok(()));
        failures.record_failure(bad);
    }
    let wait = failures.check(bad).unwrap_err();
    assert_eq!(wait, Duration::from_nanos(REFILL));
    assert_eq!(failures.check(good), Ok(()));
    clock.advance(wait - NANO);
    assert_eq!(failures.check(bad), Err(NANO));
    clock.advance(NANO);
    assert_eq!(failures.check(bad), Ok(()));
    failures.record_failure(bad);
    assert!(failures.check(bad).is_err(), "one more is allowed, not sixty");
    clock.advance(Duration::from_secs(60));
    assert_eq!(failures.check(bad), Ok(()));
    assert_eq!(failures.blocked_until.load(Ordering::Relaxed), 0, "while no address waits the table is not searched");
}

#[test]
fn failures_at_the_same_time_are_all_counted_afterwards() {
    let (clock, failures) = auth_failures();
    let bad = address("203.0.113.7");
    for _ in 0..AUTH_FAILURES_PER_MINUTE + 40 {
        failures.record_failure(bad);
    }
    assert_eq!(failures.check(bad), Err(Duration::from_nanos(41 * REFILL)));
    clock.advance(Duration::from_nanos(41 * REFILL));
    assert_eq!(failures.check(bad), Ok(()));
}

#[test]
fn ipv6_counts_by_the_64_and_mapped_ipv4_by_the_address() {
    let same = |a: &str, b: &str| Network::of(address(a)) == Network::of(address(b));
    assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"));
    assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
    assert!(same("::ffff:203.0.113.7", "203.0.113.7"));
    assert!(!same("::ffff:203.0.113.7", "::ffff:203.0.113.8"));
}

#[test]
fn the_address_zero_is_counted_like_any_other() {
    let (_, failures) = auth_failures();
    for _ in 0..AUTH_FAILURES_PER_MINUTE {
        assert_eq!(failures.check(v4(0)), Ok(()));
        failures.record_failure(v4(0));
    }
    assert!(failures.check(v4(0)).is_err());
    assert_eq!(counted_addresses(&failures), 1);
}

#[test]
fn the_address_with_most_failures_stays_however_many_addresses_follow() {
    let (_, failures) = auth_failures();
    let worst = address("198.51.100.1");
    for _ in 0..AUTH_FAILURES_PER_MINUTE {
        failures.record_failure(worst);
    }
    for n in 0..10 * MAX_FAILING_ADDRESSES as u32 {
        failures.record_failure(v4(n));
    }
    assert!(failures.check(worst).is_err());
    assert!(counted_addresses(&failures) <= MAX_FAILING_ADDRESSES);
    assert_eq!(failures.buckets.len() * FAILING_ADDRESSES_PER_BUCKET, MAX_FAILING_ADDRESSES);
}

#[test]
fn an_address_stays_known_for_a_while_and_only_for_its_key() {
    let (first_key, second_key) = (KnownAddresses::default(), KnownAddresses::default());
    let hour = 60 * MINUTE;
    first_key.remember(address("203.0.113.7"), 0);
    assert!(first_key.contains(address("203.0.113.7"), 0) && first_key.contains(address("203.0.113.7"), 23 * hour));
    assert!(!first_key.contains(address("203.0.113.8"), 0) && !second_key.contains(address("203.0.113.7"), 0));
    assert!(!first_key.contains(address("203.0.113.7"), 24 * hour));
    first_key.remember(address("203.0.113.7"), 23 * hour);
    assert!(first_key.contains(address("203.0.113.7"), 46 * hour));
}

#[test]
fn the_addresses_used_last_stay_known() {
    let known = KnownAddresses::default();
    let times = 0..3 * KNOWN_ADDRESSES_PER_KEY as u32;
    for n in times.clone() {
        known.remember(v4(n), u64::from(n) * MINUTE);
    }
    let now = u64::from(times.end) * MINUTE;
    let kept: Vec<u32> = times.clone().filter(|n| known.contains(v4(*n), now)).collect();
    assert_eq!(kept, (times.end - KNOWN_ADDRESSES_PER_KEY as u32..times.end).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn no_window_holds_more_failures_than_the_limit_and_its_refill(
        steps in proptest::collection::vec((0..4 * REFILL, 0..4_u32), 0..600),
    ) {
        let (clock, failures) = auth_failures();
        let mut now = 0;
        let mut recorded = vec![Vec::new(); 4];
        for (pause, client) in steps {
            // Most failures come at once.
            let pause = if pause < 3 * REFILL { pause / 100 } else { pause };
            clock.advance(Duration::from_nanos(pause));
            now += pause;
            if failures.check(v4(client)).is_ok() {
                failures.record_failure(v4(client));
                recorded[client as usize].push(now);
            }
        }
        for times in recorded {
            for (first, start) in times.iter().enumerate() {
                for (last, end) in times.iter().enumerate().skip(first) {
                    let most = u64::from(AUTH_FAILURES_PER_MINUTE) + (end - start) / REFILL;
                    prop_assert!((last - first + 1) as u64 <= most, "{start} to {end}");
                }
            }
        }
    }

    #[test]
    fn an_address_without_failures_never_waits(
        offenders in proptest::collection::vec(1..1_000_000_u32, 1..300), times in 1..100_u32,
    ) {
        let (_, failures) = auth_failures();
        for offender in offenders {
            for _ in 0..times {
                failures.record_failure(v4(offender));
            }
        }
        prop_assert_eq!(failures.check(v4(0)), Ok(()));
        prop_assert!(counted_addresses(&failures) <= MAX_FAILING_ADDRESSES);
    }

    #[test]
    fn an_address_that_was_just_remembered_is_known(
        uses in proptest::collection::vec((0..20_u32, 0..u64::MAX / 1000), 1..100),
    ) {
        let known = KnownAddresses::default();
        let mut now = 0_u64;
        for (client, pause) in uses {
            now = now.saturating_add(pause % (100 * MINUTE));
            known.remember(v4(client), now);
            prop_assert!(known.contains(v4(client), now));
            prop_assert!(!known.contains(v4(99), now));
        }
    }
}
