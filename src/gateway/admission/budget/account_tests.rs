//! Tests of budgets, against a plain list of what was used and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::super::reservation::{BudgetReservation, CallerBudgets};
use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn accounts(budget: &Budget) -> CallerBudgets {
    CallerBudgets::new(Arc::default(), None, budget)
}

fn budget(requests_per_day: u64, tokens_per_day: u64, tokens_per_month: u64) -> Budget {
    let some = |limit| std::num::NonZeroU64::new(limit);
    Budget {
        requests_per_day: some(requests_per_day),
        tokens_per_day: some(tokens_per_day),
        tokens_per_month: some(tokens_per_month),
        ..Budget::default()
    }
}

/// Ends a request that has used this many tokens.
fn end(reservation: BudgetReservation, tokens: u64) {
    reservation.settle(Use { requests: 1, tokens, cost: Amount::from_nanos(tokens) });
}

fn refusal(result: Result<BudgetReservation, Refusal>) -> (&'static str, String, Duration) {
    match result.map(drop) {
        Err(Refusal::BudgetExceeded { budget, left, wait, .. }) => (budget, left, wait),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_request_may_use_is_held_until_it_ends_and_then_replaced_by_what_it_used() {
    let (accounts, now) = (accounts(&budget(0, 100, 0)), at("2026-11-30T23:59:00Z"));
    let first = accounts.clone().reserve(20, 40, now).unwrap();
    assert_eq!(accounts.tokens_left(now), Some(40));
    let (name, left, wait) = refusal(accounts.clone().reserve(1, 40, now));
    assert_eq!((name, &*left), ("tokens_per_day", "40 tokens are left, and it may take 41"));
    assert_eq!(wait, Duration::from_secs(60), "until the day ends");
    end(first, 30);
    assert_eq!(accounts.tokens_left(now), Some(70));
    drop(accounts.clone().reserve(0, 70, now).unwrap());
    assert_eq!(accounts.tokens_left(now), Some(70), "a request that was refused later has used nothing");
    assert_eq!(accounts.tokens_left(at("2026-12-01T00:00:00Z")), Some(100));
}

#[test]
fn a_request_over_midnight_belongs_to_the_day_in_which_it_was_admitted() {
    let accounts = accounts(&budget(0, 100, 150));
    let request = accounts.clone().reserve(0, 90, at("2026-11-28T23:59:59Z")).unwrap();
    let next_day = at("2026-11-29T00:00:01Z");
    assert_eq!(accounts.tokens_left(next_day), Some(10), "it may still take from the new day, for all that is known");
    end(request, 80);
    assert_eq!(accounts.tokens_left(next_day), Some(70), "of the month");
    end(accounts.clone().reserve(0, 70, next_day).unwrap(), 70);
    assert_eq!(refusal(accounts.clone().reserve(0, 1, next_day)).0, "tokens_per_month");
    assert_eq!(accounts.tokens_left(at("2026-12-01T00:00:00Z")), Some(100));
}

#[test]
fn a_clock_that_is_set_back_gives_nothing_twice() {
    let (accounts, now) = (accounts(&budget(1, 0, 0)), at("2026-11-30T12:00:00Z"));
    end(accounts.clone().reserve(0, 0, now).unwrap(), 0);
    assert_eq!(refusal(accounts.clone().reserve(0, 0, at("2026-11-29T12:00:00Z"))).0, "requests_per_day");
}

#[test]
fn sixty_four_clients_share_exactly_a_hundred_requests() {
    let (accounts, now) = (accounts(&budget(100, 0, 0)), at("2026-11-30T12:00:00Z"));
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                while let Ok(reservation) = accounts.clone().reserve(0, 0, now) {
                    end(reservation, 1);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    // A client gives up at its first refusal, which another one's request in flight may cause only if that one counts.
    assert_eq!(served.into_inner(), 100);
}

#[test]
fn the_person_is_refused_while_the_key_has_much_left_and_the_key_gets_back_what_it_reserved() {
    let now = at("2026-11-30T12:00:00Z");
    let limits = Budget { person_tokens_per_day: std::num::NonZeroU64::new(10), ..budget(0, 100, 0) };
    let key = Arc::<Account>::default();
    let accounts = CallerBudgets::new(Arc::clone(&key), Some(Arc::default()), &limits);
    assert_eq!(refusal(accounts.clone().reserve(0, 11, now)).0, "person_tokens_per_day");
    assert_eq!(key.tokens_left(&AccountLimits::of_key(&limits), now), Some(100));
    assert_eq!(accounts.tokens_left(now), Some(10));
}

#[test]
fn cost_is_refused_once_it_is_used_up() {
    let now = at("2026-11-30T12:00:00Z");
    let limits = Budget { cost_per_month: Some(Amount::from_nanos(50)), ..Budget::default() };
    let accounts = accounts(&limits);
    end(accounts.clone().reserve(0, 0, now).unwrap(), 60);
    assert_eq!(refusal(accounts.clone().reserve(0, 0, now)).0, "cost_per_month");
    assert!(accounts.clone().reserve(0, 0, at("2026-12-01T00:00:00Z")).is_ok());
}

#[test]
fn the_length_of_a_token_is_learned_within_bounds() {
    let account = Account::default();
    assert_eq!(account.prompt_tokens(400), 100);
    for _ in 0..50 {
        account.learn(800, 100);
    }
    assert_eq!(account.prompt_tokens(400), 50);
    for _ in 0..50 {
        account.learn(10_000_000, 100);
    }
    assert!((100..=101).contains(&account.prompt_tokens(1_600)), "a picture does not count as text");
}

/// What happens to a key's requests.
#[derive(Debug, Clone)]
enum Step {
    Begin {
        prompt: u64,
        answer: u64,
    },
    End {
        nth: usize,
        tokens: u64,
    },
    Refuse {
        nth: usize,
    },
    /// The clock goes on, or is set back.
    Move {
        seconds: i64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..50u64, 0..50u64).prop_map(|(prompt, answer)| Step::Begin { prompt, answer }),
        3 => (0..9usize, 0..100u64).prop_map(|(nth, tokens)| Step::End { nth, tokens }),
        1 => (0..9usize).prop_map(|nth| Step::Refuse { nth }),
        2 => prop_oneof![0..86_400i64, -7_200..0i64, 0..2_700_000i64].prop_map(|seconds| Step::Move { seconds }),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    /// What is left equals the limit without what the requests of the period have used and those in flight have reserved,
    /// as a plain list says it; so no request is admitted that could exceed the budget.
    #[test]
    fn what_is_left_is_what_a_plain_list_says(steps in steps()) {
        let limits = budget(0, 300, 700);
        let accounts = accounts(&limits);
        // 2028-02-27, so that a leap day is near.
        let mut now = at("2028-02-27T22:00:00Z");
        // The latest time that a request was admitted or looked at: periods follow it.
        let mut latest = now;
        let mut in_flight: Vec<(BudgetReservation, Timestamp, u64)> = Vec::new();
        let mut used: Vec<(Timestamp, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Move { seconds } => now = now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap(),
                Step::Begin { prompt, answer } => {
                    latest = latest.max(now);
                    let left = accounts.tokens_left(now).unwrap();
                    let outcome = accounts.clone().reserve(prompt, answer, now);
                    prop_assert_eq!(outcome.is_ok(), left > 0 && prompt + answer <= left);
                    in_flight.extend(outcome.ok().map(|reservation| (reservation, latest, prompt + answer)));
                }
                Step::End { nth, tokens } if !in_flight.is_empty() => {
                    let (reservation, admitted, _) = in_flight.remove(nth % in_flight.len());
                    end(reservation, tokens);
                    used.push((admitted, tokens));
                }
                Step::Refuse { nth } if !in_flight.is_empty() => {
                    drop(in_flight.remove(nth % in_flight.len()));
                }
                _ => {}
            }
            latest = latest.max(now);
            let taken = |period: BudgetPeriod| -> u64 {
                let start = period.start(latest);
                let used: u64 = used.iter().filter(|(time, _)| *time >= start).map(|(_, tokens)| tokens).sum();
                used + in_flight.iter().map(|(.., reserved)| reserved).sum::<u64>()
            };
            let expected = 300u64.saturating_sub(taken(BudgetPeriod::Day)).min(700u64.saturating_sub(taken(BudgetPeriod::Month)));
            prop_assert_eq!(accounts.tokens_left(now), Some(expected));
        }
    }
}

#[test]
fn a_sweep_by_a_clock_that_is_ahead_begins_no_period() {
    let (account, now) = (Account::default(), at("2026-11-30T23:59:00Z"));
    for period in [BudgetPeriod::Day, BudgetPeriod::Month] {
        account.restore(period, Use { requests: 1, tokens: 10, cost: Amount::default() }, now);
    }
    assert!(!account.is_blank(now));
    assert!(account.is_blank(at("2026-12-01T00:00:30Z")));
    let (day, month) = account.used(now);
    assert_eq!((day.tokens, month.tokens), (10, 10));
}
