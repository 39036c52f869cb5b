//! What no order of requests may do to a limit, by a clock that stands still until it is told.

use super::*;
use crate::rate_bucket::MINUTE;
use governor::clock::FakeRelativeClock;
use proptest::prelude::*;

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

fn soon() -> Duration {
    Duration::from_secs(3)
}

fn crowded() -> Refusal {
    Refusal::RateLimited("this API key's requests at once", soon())
}

fn meter(key: &Key) -> (FakeRelativeClock, Meter<FakeRelativeClock>) {
    let clock = FakeRelativeClock::default();
    let meter = Meters::new(clock.clone()).of(key, limit(100));
    (clock, meter)
}

#[test]
fn a_limit_is_a_bucket_that_holds_it_and_fills_in_a_minute() {
    let (clock, meter) = meter(&key("a", Some(6), None, None));
    for remaining in (0..6).rev() {
        let standing = meter.take().unwrap();
        let reset = Duration::from_secs(10) * (6 - remaining);
        assert_eq!(standing, RateStatus { limit: 6, remaining: remaining.into(), reset });
    }
    let standing = RateStatus { limit: 6, remaining: 0, reset: Duration::from_secs(60) };
    assert_eq!(meter.take(), Err(Wait { time: Duration::from_secs(10), status: standing }));
    clock.advance(Duration::from_secs(25));
    assert_eq!(meter.look().unwrap().remaining, 2);
    clock.advance(Duration::from_secs(3600));
    assert_eq!(meter.look(), Ok(RateStatus { limit: 6, remaining: 6, reset: Duration::ZERO }));
}

#[test]
fn the_keys_own_limit_comes_before_the_default() {
    let meters = Meters::new(FakeRelativeClock::default());
    assert_eq!(meters.of(&key("a", None, None, None), limit(7)).look().unwrap().limit, 7);
    assert_eq!(meters.of(&key("b", Some(3), None, None), limit(7)).look().unwrap().limit, 3);
}

#[test]
fn ids_do_not_share_and_lines_of_one_id_do() {
    let meters = Meters::new(FakeRelativeClock::default());
    let of = |id, requests| meters.of(&key(id, Some(requests), None, None), limit(1));
    of("a", 1).take().unwrap();
    of("b", 1).take().unwrap();
    assert!(of("a", 1).take().is_err());
    // Half of 60 is half of 120.
    for _ in 0..30 {
        of("c", 60).take().unwrap();
    }
    assert_eq!(of("c", 120).look().unwrap().remaining, 60);
    for _ in 0..60 {
        of("c", 120).take().unwrap();
    }
    assert!(of("c", 60).take().is_err() && of("c", 120).take().is_err());
}

#[test]
fn a_changed_limit_leaves_the_others_as_they_stand() {
    let meters = Meters::new(FakeRelativeClock::default());
    let before = meters.of(&key("a", Some(10), Some(1000), Some(1)), limit(1));
    before.take().unwrap();
    before.spend(400);
    let presence = before.enter(soon).unwrap();
    let after = meters.of(&key("a", Some(20), Some(1000), Some(1)), limit(1));
    assert_eq!(after.look_tokens().unwrap().unwrap().remaining, 600);
    assert_eq!(after.look().unwrap().remaining, 18);
    assert_eq!(after.enter(soon).unwrap_err(), crowded());
    drop(presence);
    assert!(after.enter(soon).is_ok());
}

#[test]
fn tokens_go_into_debt_and_come_back() {
    let (clock, meter) = meter(&key("a", None, Some(60), None));
    meter.spend(59);
    assert_eq!(meter.look_tokens().unwrap().unwrap().remaining, 1);
    meter.spend(61);
    let wait = meter.look_tokens().unwrap_err();
    assert_eq!(wait.time, Duration::from_secs(61), "60 to pay the debt, one for a token");
    assert_eq!(wait.status, RateStatus { limit: 60, remaining: 0, reset: Duration::from_secs(120) });
    clock.advance(wait.time);
    assert_eq!(meter.look_tokens().unwrap().unwrap().remaining, 1);
}

#[test]
fn a_key_without_a_limit_of_tokens_may_use_any_number() {
    let (_, meter) = meter(&key("a", None, None, None));
    meter.spend(u64::MAX);
    assert_eq!(meter.look_tokens(), Ok(None));
}

#[test]
fn no_number_of_tokens_overflows() {
    for tokens_per_minute in [1, 7, u64::MAX] {
        let (clock, meter) = meter(&key("a", None, Some(tokens_per_minute), None));
        clock.advance(Duration::from_secs(1));
        for _ in 0..3 {
            meter.spend(u64::MAX);
        }
        assert!(meter.look_tokens().is_err());
    }
}

#[test]
fn an_address_is_proven_for_every_line_of_an_id() {
    let meters = Meters::new(FakeRelativeClock::default());
    let address = IpAddr::from([203, 0, 113, 7]);
    meters.of(&key("a", Some(1), None, None), limit(1)).prove(address);
    assert!(meters.of(&key("a", Some(2), None, None), limit(1)).is_proven_from(address));
    assert!(!meters.of(&key("b", None, None, None), limit(1)).is_proven_from(address));
}

#[test]
fn a_presence_frees_its_place_however_it_ends() {
    let (_, meter) = meter(&key("a", None, None, Some(2)));
    let first = meter.enter(soon).unwrap();
    let second = meter.enter(soon).unwrap();
    assert_eq!(meter.enter(soon).unwrap_err(), crowded());
    drop(first);
    let third = meter.enter(soon).unwrap();
    assert_eq!(meter.enter(soon).unwrap_err(), crowded());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _presence = second;
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(panicked.is_err() && meter.enter(soon).is_ok());
    drop(third);
}

#[test]
fn ids_no_longer_asked_for_go_once_they_are_full_again() {
    let clock = FakeRelativeClock::default();
    let meters = Meters::new(clock.clone());
    let of = |id: &str| meters.of(&key(id, Some(60), Some(60), Some(1)), limit(1));
    let held = of("held").enter(soon).unwrap();
    of("indebted").spend(1_000_000);
    for round in 0..10 {
        for i in 0..METERS_BEFORE_SWEEP {
            of(&format!("{round}-{i}")).take().unwrap();
        }
        clock.advance(Duration::from_secs(60));
        let known = meters.known.read().unwrap().by_id.len();
        assert!(known <= 3 * METERS_BEFORE_SWEEP, "{known} in round {round}");
    }
    assert_eq!(of("held").enter(soon).unwrap_err(), crowded());
    assert!(of("indebted").look_tokens().is_err());
    drop(held);
}

#[test]
fn threads_that_race_get_the_limit_and_no_more() {
    let meters = Meters::new(FakeRelativeClock::default());
    let line = key("a", Some(1000), Some(1_000_000), Some(3));
    let taken: usize = std::thread::scope(|scope| {
        let taking = || {
            (0..1000)
                .filter(|_| {
                    let meter = meters.of(&line, limit(1));
                    let _presence = meter.enter(soon);
                    meter.spend(10);
                    assert!(meter.used.present.load(Ordering::Relaxed) <= 3);
                    meter.take().is_ok()
                })
                .count()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(taking)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, 1000);
    let meter = meters.of(&line, limit(1));
    assert_eq!(meter.used.present.load(Ordering::Relaxed), 0);
    assert_eq!(meter.look_tokens().unwrap().unwrap().remaining, 1_000_000 - 40_000);
}

/// One thing that happens to a meter.
#[derive(Debug, Clone)]
enum Event {
    Pause(u64),
    Look,
    Take,
    Spend(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        (0..20 * MINUTE / 10).prop_map(Event::Pause),
        (0..MINUTE / 1000).prop_map(Event::Pause),
        Just(Event::Look),
        Just(Event::Take),
        Just(Event::Take),
        Just(Event::Take),
        (0..1000_u64).prop_map(Event::Spend),
    ];
    proptest::collection::vec(event, 0..200)
}

proptest! {
    #[test]
    fn no_window_holds_more_than_the_limit_and_what_came_back(per_minute in 1..50_u32, events in events()) {
        let (clock, meter) = meter(&key("a", Some(per_minute), None, None));
        let interval = MINUTE / u64::from(per_minute);
        let (mut now, mut taken) = (0, Vec::new());
        for event in events {
            match event {
                Event::Pause(nanos) => {
                    clock.advance(Duration::from_nanos(nanos));
                    now += nanos;
                }
                Event::Take if meter.take().is_ok() => taken.push(now),
                _ => {}
            }
        }
        for (first, start) in taken.iter().enumerate() {
            for (last, end) in taken.iter().enumerate().skip(first) {
                let most = u64::from(per_minute) + (end - start) / interval;
                prop_assert!((last - first + 1) as u64 <= most, "{start} to {end}");
            }
        }
    }

    #[test]
    fn a_wait_is_exact(per_minute in 1..10_000_u32, tokens in 1..1_000_000_u64, spent in 0..10_000_000_u64) {
        let (clock, meter) = meter(&key("a", Some(per_minute), Some(tokens), None));
        for _ in 0..per_minute {
            meter.take().unwrap();
        }
        let wait = meter.take().unwrap_err();
        prop_assert_eq!(meter.look(), Err(wait));
        clock.advance(wait.time - NANO);
        prop_assert_eq!(meter.look().unwrap_err().time, NANO);
        clock.advance(NANO);
        prop_assert_eq!(meter.take().unwrap().remaining, 0);

        meter.spend(spent);
        match meter.look_tokens() {
            Ok(standing) => prop_assert_eq!(standing.unwrap().remaining, tokens - spent),
            Err(wait) => {
                prop_assert!(spent >= tokens);
                clock.advance(wait.time - NANO);
                prop_assert_eq!(meter.look_tokens().unwrap_err().time, NANO);
                clock.advance(NANO);
                prop_assert!(meter.look_tokens().is_ok());
            }
        }
    }

    #[test]
    fn a_look_changes_nothing_and_a_take_takes_one(per_minute in 1..100_u32, events in events()) {
        let (clock, meter) = meter(&key("a", Some(per_minute), Some(500), None));
        for event in events {
            let before = meter.look();
            let tokens = meter.look_tokens();
            prop_assert_eq!((before, tokens), (meter.look(), meter.look_tokens()));
            match event {
                Event::Pause(nanos) => {
                    clock.advance(Duration::from_nanos(nanos));
                    let remaining = |outcome: Result<RateStatus, Wait>| outcome.map_or(0, |standing| standing.remaining);
                    prop_assert!(remaining(meter.look()) >= remaining(before));
                }
                Event::Look => {}
                Event::Take => match (before, meter.take()) {
                    (Ok(before), Ok(after)) => prop_assert_eq!(before.remaining, after.remaining + 1),
                    (before, after) => prop_assert_eq!(before, after),
                },
                Event::Spend(n) => {
                    meter.spend(n);
                    prop_assert_eq!(meter.look(), before);
                }
            }
        }
    }

    #[test]
    fn spending_twice_is_spending_the_sum(
        per_minute in 1..=u64::MAX, first in 0..=u64::MAX, second in 0..=u64::MAX, pause in 0..MINUTE,
    ) {
        let line = key("a", None, Some(per_minute), None);
        let reset = |amounts: &[u64]| {
            let (clock, meter) = meter(&line);
            clock.advance(Duration::from_nanos(pause));
            amounts.iter().for_each(|amount| meter.spend(*amount));
            meter.look_tokens().map_or_else(|wait| wait.status, Option::unwrap).reset
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
