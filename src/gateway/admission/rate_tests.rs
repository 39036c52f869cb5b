//! Tests of the limits under any order of requests, on a clock that moves only when told to.

use governor::clock::FakeRelativeClock;
use proptest::prelude::*;

use super::*;
use crate::rate_bucket::MINUTE;

const NANO: Duration = Duration::from_nanos(1);

fn limit(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn key(id: &str, requests: Option<u32>, tokens: Option<u64>, max_concurrent: Option<usize>) -> Key {
    Key {
        rate_limit: requests.map(limit),
        tokens_per_minute: tokens.map(|n| NonZeroU64::new(n).unwrap()),
        max_concurrent: max_concurrent.map(|n| NonZeroUsize::new(n).unwrap()),
        ..Key::named(id)
    }
}

fn retry_after() -> Duration {
    Duration::from_secs(3)
}

fn concurrency_refusal() -> Refusal {
    Refusal::RateLimited("this API key's requests at once", retry_after())
}

fn meter(key: &Key) -> (FakeRelativeClock, Meter<FakeRelativeClock>) {
    let clock = FakeRelativeClock::default();
    let meter = Meters::new(clock.clone()).meter_of(key, limit(100));
    (clock, meter)
}

#[test]
fn a_limit_is_a_bucket_that_holds_it_and_fills_in_a_minute() {
    let (clock, meter) = meter(&key("a", Some(6), None, None));
    for remaining in (0..6).rev() {
        let status = meter.take_request().unwrap();
        let reset = Duration::from_secs(10) * (6 - remaining);
        assert_eq!(status, RateStatus { limit: 6, remaining: remaining.into(), reset });
    }
    let status = RateStatus { limit: 6, remaining: 0, reset: Duration::from_secs(60) };
    assert_eq!(meter.take_request(), Err(Wait { time: Duration::from_secs(10), status }));
    clock.advance(Duration::from_secs(25));
    assert_eq!(meter.check_requests().unwrap().remaining, 2);
    clock.advance(Duration::from_secs(3600));
    assert_eq!(meter.check_requests(), Ok(RateStatus { limit: 6, remaining: 6, reset: Duration::ZERO }));
}

#[test]
fn the_keys_own_limit_comes_before_the_default() {
    let meters = Meters::new(FakeRelativeClock::default());
    assert_eq!(meters.meter_of(&key("a", None, None, None), limit(7)).check_requests().unwrap().limit, 7);
    assert_eq!(meters.meter_of(&key("b", Some(3), None, None), limit(7)).check_requests().unwrap().limit, 3);
}

#[test]
fn lines_of_one_id_share_a_limit_and_other_ids_do_not() {
    let meters = Meters::new(FakeRelativeClock::default());
    let of = |id, requests| meters.meter_of(&key(id, Some(requests), None, None), limit(1));
    of("a", 1).take_request().unwrap();
    of("b", 1).take_request().unwrap();
    assert!(of("a", 1).take_request().is_err());
    // Half of 60 is half of 120.
    for _ in 0..30 {
        of("c", 60).take_request().unwrap();
    }
    assert_eq!(of("c", 120).check_requests().unwrap().remaining, 60);
    for _ in 0..60 {
        of("c", 120).take_request().unwrap();
    }
    assert!(of("c", 60).take_request().is_err() && of("c", 120).take_request().is_err());
}

#[test]
fn a_changed_limit_leaves_the_other_limits_unchanged() {
    let meters = Meters::new(FakeRelativeClock::default());
    let before = meters.meter_of(&key("a", Some(10), Some(1000), Some(1)), limit(1));
    before.take_request().unwrap();
    before.charge_tokens(400);
    let permit = before.enter(retry_after).unwrap();
    let after = meters.meter_of(&key("a", Some(20), Some(1000), Some(1)), limit(1));
    assert_eq!(after.check_tokens().unwrap().unwrap().remaining, 600);
    assert_eq!(after.check_requests().unwrap().remaining, 18);
    assert_eq!(after.enter(retry_after).unwrap_err(), concurrency_refusal());
    drop(permit);
    assert!(after.enter(retry_after).is_ok());
}

#[test]
fn a_key_goes_into_debt_for_tokens_and_recovers() {
    let (clock, meter) = meter(&key("a", None, Some(60), None));
    meter.charge_tokens(59);
    assert_eq!(meter.check_tokens().unwrap().unwrap().remaining, 1);
    meter.charge_tokens(61);
    let wait = meter.check_tokens().unwrap_err();
    assert_eq!(wait.time, Duration::from_secs(61), "60 s to pay the debt, one for a token");
    assert_eq!(wait.status, RateStatus { limit: 60, remaining: 0, reset: Duration::from_secs(120) });
    clock.advance(wait.time);
    assert_eq!(meter.check_tokens().unwrap().unwrap().remaining, 1);
}

#[test]
fn a_key_without_a_limit_of_tokens_may_use_any_number() {
    let (_, meter) = meter(&key("a", None, None, None));
    meter.charge_tokens(u64::MAX);
    assert_eq!(meter.check_tokens(), Ok(None));
}

#[test]
fn no_number_of_tokens_overflows() {
    for tokens_per_minute in [1, 7, u64::MAX] {
        let (clock, meter) = meter(&key("a", None, Some(tokens_per_minute), None));
        clock.advance(Duration::from_secs(1));
        for _ in 0..3 {
            meter.charge_tokens(u64::MAX);
        }
        assert!(meter.check_tokens().is_err());
    }
}

#[test]
fn an_address_is_known_for_every_line_of_an_id() {
    let meters = Meters::new(FakeRelativeClock::default());
    let address = IpAddr::from([203, 0, 113, 7]);
    meters.meter_of(&key("a", Some(1), None, None), limit(1)).remember_address(address);
    assert!(meters.meter_of(&key("a", Some(2), None, None), limit(1)).is_known_address(address));
    assert!(!meters.meter_of(&key("b", None, None, None), limit(1)).is_known_address(address));
}

#[test]
fn a_concurrency_permit_is_released_however_it_ends() {
    let (_, meter) = meter(&key("a", None, None, Some(2)));
    let first = meter.enter(retry_after).unwrap();
    let second = meter.enter(retry_after).unwrap();
    assert_eq!(meter.enter(retry_after).unwrap_err(), concurrency_refusal());
    drop(first);
    let third = meter.enter(retry_after).unwrap();
    assert_eq!(meter.enter(retry_after).unwrap_err(), concurrency_refusal());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _permit = second;
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(panicked.is_err() && meter.enter(retry_after).is_ok());
    drop(third);
}

#[test]
fn unused_ids_are_swept_once_their_buckets_are_full() {
    let clock = FakeRelativeClock::default();
    let meters = Meters::new(clock.clone());
    let of = |id: &str| meters.meter_of(&key(id, Some(60), Some(60), Some(1)), limit(1));
    let held = of("held").enter(retry_after).unwrap();
    of("indebted").charge_tokens(1_000_000);
    for round in 0..10 {
        for i in 0..METERS_BEFORE_SWEEP {
            of(&format!("{round}-{i}")).take_request().unwrap();
        }
        clock.advance(Duration::from_secs(60));
        let known = meters.table.read().unwrap().by_id.len();
        assert!(known <= 3 * METERS_BEFORE_SWEEP, "{known} in round {round}");
    }
    assert_eq!(of("held").enter(retry_after).unwrap_err(), concurrency_refusal());
    assert!(of("indebted").check_tokens().is_err());
    drop(held);
}

#[test]
fn concurrent_threads_together_get_exactly_the_limit() {
    let meters = Meters::new(FakeRelativeClock::default());
    let line = key("a", Some(1000), Some(1_000_000), Some(3));
    let taken: usize = std::thread::scope(|scope| {
        let taking = || {
            (0..1000)
                .filter(|_| {
                    let meter = meters.meter_of(&line, limit(1));
                    let _permit = meter.enter(retry_after);
                    meter.charge_tokens(10);
                    assert!(meter.usage.in_flight.load(Ordering::Relaxed) <= 3);
                    meter.take_request().is_ok()
                })
                .count()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(taking)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, 1000);
    let meter = meters.meter_of(&line, limit(1));
    assert_eq!(meter.usage.in_flight.load(Ordering::Relaxed), 0);
    assert_eq!(meter.check_tokens().unwrap().unwrap().remaining, 1_000_000 - 40_000);
}

/// An operation on a meter, or a pause.
#[derive(Debug, Clone)]
enum MeterEvent {
    Pause(u64),
    Check,
    Take,
    Spend(u64),
}

fn events() -> impl Strategy<Value = Vec<MeterEvent>> {
    let event = prop_oneof![
        (0..20 * MINUTE / 10).prop_map(MeterEvent::Pause),
        (0..MINUTE / 1000).prop_map(MeterEvent::Pause),
        Just(MeterEvent::Check),
        Just(MeterEvent::Take),
        Just(MeterEvent::Take),
        Just(MeterEvent::Take),
        (0..1000_u64).prop_map(MeterEvent::Spend),
    ];
    proptest::collection::vec(event, 0..200)
}

proptest! {
    #[test]
    fn no_window_holds_more_requests_than_the_limit_and_its_refill(per_minute in 1..50_u32, events in events()) {
        let (clock, meter) = meter(&key("a", Some(per_minute), None, None));
        let interval = MINUTE / u64::from(per_minute);
        let (mut now, mut taken) = (0, Vec::new());
        for event in events {
            match event {
                MeterEvent::Pause(nanos) => {
                    clock.advance(Duration::from_nanos(nanos));
                    now += nanos;
                }
                MeterEvent::Take if meter.take_request().is_ok() => taken.push(now),
                _ => {}
            }
        }
        for (first, start) in taken.iter().enumerate() {
            for (last, end) in taken.iter().enumerate().skip(first) {
                let limit_of_window = u64::from(per_minute) + (end - start) / interval;
                prop_assert!((last - first + 1) as u64 <= limit_of_window, "{start} to {end}");
            }
        }
    }

    #[test]
    fn the_reported_wait_is_exact(per_minute in 1..10_000_u32, tokens in 1..1_000_000_u64, spent in 0..10_000_000_u64) {
        let (clock, meter) = meter(&key("a", Some(per_minute), Some(tokens), None));
        for _ in 0..per_minute {
            meter.take_request().unwrap();
        }
        let wait = meter.take_request().unwrap_err();
        prop_assert_eq!(meter.check_requests(), Err(wait));
        clock.advance(wait.time - NANO);
        prop_assert_eq!(meter.check_requests().unwrap_err().time, NANO);
        clock.advance(NANO);
        prop_assert_eq!(meter.take_request().unwrap().remaining, 0);

        meter.charge_tokens(spent);
        match meter.check_tokens() {
            Ok(status) => prop_assert_eq!(status.unwrap().remaining, tokens - spent),
            Err(wait) => {
                prop_assert!(spent >= tokens);
                clock.advance(wait.time - NANO);
                prop_assert_eq!(meter.check_tokens().unwrap_err().time, NANO);
                clock.advance(NANO);
                prop_assert!(meter.check_tokens().is_ok());
            }
        }
    }

    #[test]
    fn a_check_takes_nothing_and_a_take_takes_one(per_minute in 1..100_u32, events in events()) {
        let (clock, meter) = meter(&key("a", Some(per_minute), Some(500), None));
        for event in events {
            let before = meter.check_requests();
            let tokens = meter.check_tokens();
            prop_assert_eq!((before, tokens), (meter.check_requests(), meter.check_tokens()));
            match event {
                MeterEvent::Pause(nanos) => {
                    clock.advance(Duration::from_nanos(nanos));
                    let remaining = |outcome: Result<RateStatus, Wait>| outcome.map_or(0, |status| status.remaining);
                    prop_assert!(remaining(meter.check_requests()) >= remaining(before));
                }
                MeterEvent::Check => {}
                MeterEvent::Take => match (before, meter.take_request()) {
                    (Ok(before), Ok(after)) => prop_assert_eq!(before.remaining, after.remaining + 1),
                    (before, after) => prop_assert_eq!(before, after),
                },
                MeterEvent::Spend(n) => {
                    meter.charge_tokens(n);
                    prop_assert_eq!(meter.check_requests(), before);
                }
            }
        }
    }

    #[test]
    fn two_charges_equal_a_charge_of_their_sum(
        per_minute in 1..=u64::MAX, first in 0..=u64::MAX, second in 0..=u64::MAX, pause in 0..MINUTE,
    ) {
        let line = key("a", None, Some(per_minute), None);
        let reset = |amounts: &[u64]| {
            let (clock, meter) = meter(&line);
            clock.advance(Duration::from_nanos(pause));
            amounts.iter().for_each(|amount| meter.charge_tokens(*amount));
            meter.check_tokens().map_or_else(|wait| wait.status, Option::unwrap).reset
        };
        let (twice, once) = (reset(&[first, second]), reset(&[first.saturating_add(second)]));
        // Each is rounded down to a nanosecond.
        prop_assert!(
            twice == once || twice + NANO == once || first.checked_add(second).is_none(), "{twice:?} {once:?}"
        );
        prop_assert_eq!(twice, reset(&[second, first]));
        prop_assert!(twice >= reset(&[first]));
    }
}
