//! Tests of the routing strategies: what each prefers, and what none of them may do. Random numbers come from fixed
//! seeds.

use proptest::prelude::{Strategy as _, any, prop_assert, prop_oneof, proptest};

use super::*;
use crate::settings::values::Strategy;

const STRATEGIES: [Strategy; 7] = [
    Strategy::LeastBusy,
    Strategy::RoundRobin,
    Strategy::WeightedRandom,
    Strategy::SimpleShuffle,
    Strategy::LatencyBased,
    Strategy::PriorityFailover,
    Strategy::PrefixAffinity,
];

/// Number of picks of a statistical test, and the tolerance for a share: more than five standard deviations.
const PICKS: usize = 10_000;
const TOLERANCE: f64 = 0.03;

fn idle(index: usize) -> Candidate {
    Candidate { index, in_flight: 0, slots: 4, weight: 1.0, priority: 0, first_byte: None }
}

fn busy(index: usize, in_flight: usize) -> Candidate {
    Candidate { in_flight, ..idle(index) }
}

fn quick(index: usize, millis: u64) -> Candidate {
    Candidate { first_byte: Some(Duration::from_millis(millis)), ..idle(index) }
}

fn picks(strategy: Strategy, candidates: &[Candidate], count: usize) -> Vec<usize> {
    let choice = WorkerChoice::seeded(1);
    (0..count).map(|_| choice.pick(strategy, candidates, &[]).unwrap()).collect()
}

/// Returns the share of many picks that each of the first four indexes gets.
fn shares(strategy: Strategy, candidates: &[Candidate]) -> [f64; 4] {
    let picks = picks(strategy, candidates, PICKS);
    std::array::from_fn(|index| picks.iter().filter(|&&pick| pick == index).count() as f64 / PICKS as f64)
}

fn assert_shares(found: [f64; 4], wanted: [f64; 4]) {
    let is_near = found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() < TOLERANCE);
    assert!(is_near, "{found:?} instead of {wanted:?}");
}

#[test]
fn least_busy_picks_the_worker_with_the_smallest_share_of_slots_in_use() {
    let of_eight = Candidate { slots: 8, ..busy(2, 3) };
    for (candidates, picked) in [
        (vec![busy(0, 2), busy(1, 1), busy(2, 3)], 1),
        (vec![busy(0, 2), of_eight], 2),
        (vec![busy(0, 1), of_eight], 0),
        (vec![Candidate { slots: 1, ..busy(0, 1) }, busy(1, 3)], 1),
    ] {
        assert_eq!(picks(Strategy::LeastBusy, &candidates, 3), [picked; 3], "{candidates:?}");
    }
}

#[test]
fn equally_busy_workers_take_turns() {
    let halves = [busy(0, 2), busy(1, 3), Candidate { slots: 2, ..busy(2, 1) }, busy(3, 2)];
    assert_eq!(picks(Strategy::LeastBusy, &halves, 6), [0, 2, 3, 0, 2, 3]);
}

#[test]
fn round_robin_continues_after_the_last_pick_when_workers_come_and_go() {
    let choice = WorkerChoice::seeded(1);
    let pick = |candidates: &[Candidate]| choice.pick(Strategy::RoundRobin, candidates, &[]).unwrap();
    let all = [busy(0, 3), idle(1), idle(2)];
    assert_eq!([(); 4].map(|()| pick(&all)), [0, 1, 2, 0]);
    assert_eq!(pick(&[idle(0), busy(1, 4), idle(2)]), 2, "a full worker is skipped");
    assert_eq!(pick(&[idle(1), idle(2)]), 1, "and so is a missing worker");
    assert_eq!(pick(&[idle(2), idle(0), idle(1)]), 2, "regardless of the order of the candidates");
}

#[test]
fn random_picks_follow_the_weights_or_are_uniform() {
    let weighed = |weights: [f64; 4]| {
        let candidates: Vec<_> = (0..4).map(|index| Candidate { weight: weights[index], ..idle(index) }).collect();
        shares(Strategy::WeightedRandom, &candidates)
    };
    assert_shares(weighed([1.0, 2.0, 3.0, 4.0]), [0.1, 0.2, 0.3, 0.4]);
    assert_shares(weighed([0.0, f64::NAN, -1.0, 0.0]), [0.25; 4]);
    assert_shares(weighed([f64::MAX, f64::MAX, f64::MIN_POSITIVE, f64::INFINITY]), [0.5, 0.5, 0.0, 0.0]);
    assert_eq!(weighed([0.0, 1e-9, 0.0, f64::NAN]), [0.0, 1.0, 0.0, 0.0], "workers without a weight get no request");
    let uneven = [Candidate { weight: 9.0, ..idle(0) }, idle(1), busy(2, 3), busy(3, 4)];
    assert_shares(shares(Strategy::SimpleShuffle, &uneven), [1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0]);
}

#[test]
fn a_worker_with_zero_weight_is_picked_only_if_no_other_has_a_free_slot() {
    let spare = Candidate { weight: 0.0, ..idle(0) };
    assert_eq!(picks(Strategy::WeightedRandom, &[spare, busy(1, 4)], 5), [0; 5]);
}

#[test]
fn the_fastest_worker_is_picked_except_for_exploration() {
    let explored = EXPLORED_PART / 3.0;
    let found = shares(Strategy::LatencyBased, &[quick(0, 300), quick(1, 100), quick(2, 200)]);
    assert_shares(found, [explored, 1.0 - 2.0 * explored, explored, 0.0]);
    assert!(found[0] > 0.0 && found[2] > 0.0, "the others get some requests: {found:?}");
}

/// Returns the index of the worker that gets most requests.
fn favourite(candidates: &[Candidate]) -> usize {
    shares(Strategy::LatencyBased, candidates).iter().position(|&share| share > 0.9).unwrap()
}

#[test]
fn a_busy_worker_is_expected_to_take_longer() {
    let busy = |index, millis, in_flight| Candidate { in_flight, ..quick(index, millis) };
    assert_eq!(favourite(&[busy(0, 100, 3), quick(1, 150)]), 1);
    assert_eq!(favourite(&[busy(0, 100, 1), quick(1, 150)]), 0);
}

#[test]
fn a_worker_without_a_measurement_is_tried_at_once_but_not_flooded() {
    assert_eq!(favourite(&[quick(0, 1), idle(1)]), 1);
    assert_eq!(favourite(&[quick(0, 1000), busy(1, 1)]), 0, "its first response is outstanding");
    assert_eq!(favourite(&[busy(0, 2), busy(1, 1)]), 1, "no worker has a measurement");
    assert_eq!(
        favourite(&[Candidate { in_flight: 4, ..quick(0, 1) }, busy(1, 3)]),
        1,
        "no other worker has a free slot"
    );
}

#[test]
fn priority_comes_before_load() {
    let of = |priority, candidate| Candidate { priority, ..candidate };
    for (candidates, picked) in [
        (vec![of(2, idle(0)), of(1, busy(1, 3))], 1),
        (vec![of(2, idle(0)), of(1, busy(1, 4))], 0),
        (vec![of(1, busy(0, 2)), of(1, busy(1, 1)), of(2, idle(2))], 1),
    ] {
        assert_eq!(picks(Strategy::PriorityFailover, &candidates, 3), [picked; 3], "{candidates:?}");
    }
    let equal = [of(1, idle(0)), of(1, idle(1)), of(2, idle(2))];
    assert_eq!(picks(Strategy::PriorityFailover, &equal, 4), [0, 1, 0, 1]);
}

#[test]
fn a_prompt_goes_to_the_worker_that_served_its_longest_known_prefix() {
    let choice = WorkerChoice::seeded(1);
    let pick = |candidates: &[Candidate], prefixes: &[u64]| {
        choice.pick(Strategy::PrefixAffinity, candidates, prefixes).unwrap()
    };
    let all = [busy(0, 1), busy(1, 2), busy(2, 2)];
    assert_eq!(pick(&all, &[10, 11]), 0, "unknown: the least busy");
    choice.remember_served_by(&[10, 11], 1);
    assert_eq!(pick(&all, &[10, 11]), 1);
    assert_eq!(pick(&all, &[10, 12]), 1, "the common prefix counts");
    assert_eq!(pick(&all, &[]), 0);
    choice.remember_served_by(&[10, 12, 13], 2);
    assert_eq!(pick(&all, &[10, 11]), 1, "the longest prefix counts");
    assert_eq!(pick(&all, &[10, 14]), 2, "otherwise the worker that served the prefix last");
    assert_eq!(pick(&[all[0], all[2]], &[10, 11]), 2, "a shorter prefix if the worker is gone");
}

#[test]
fn affinity_is_ignored_if_the_worker_is_clearly_busier() {
    let choice = WorkerChoice::seeded(1);
    choice.remember_served_by(&[1], 0);
    let pick = |candidates: &[Candidate]| choice.pick(Strategy::PrefixAffinity, candidates, &[1]).unwrap();
    assert_eq!(pick(&[busy(0, 2), idle(1)]), 0);
    assert_eq!(pick(&[busy(0, 3), idle(1)]), 1);
    assert_eq!(pick(&[busy(0, 3), busy(1, 1)]), 0);
    assert_eq!(pick(&[busy(0, 4), busy(1, 3)]), 1, "the worker has no free slot");
    let load = AFFINITY_MARGIN * 4.0;
    assert_eq!(load, 2.0, "this test assumes this margin");
}

#[test]
fn equal_seeds_make_equal_choices_and_different_seeds_different_ones() {
    let all: Vec<_> = (0..4).map(idle).collect();
    let chosen =
        |choice: WorkerChoice| -> Vec<_> { (0..50).map(|_| choice.pick(Strategy::SimpleShuffle, &all, &[])).collect() };
    assert_eq!(chosen(WorkerChoice::seeded(5)), chosen(WorkerChoice::seeded(5)));
    assert_ne!(chosen(WorkerChoice::seeded(5)), chosen(WorkerChoice::seeded(6)));
    assert_ne!(chosen(WorkerChoice::default()), chosen(WorkerChoice::default()));
}

#[test]
fn threads_that_pick_concurrently_spread_over_all_workers() {
    let all: Vec<_> = (0..4).map(idle).collect();
    for strategy in [Strategy::RoundRobin, Strategy::LeastBusy] {
        let choice = WorkerChoice::seeded(1);
        let mut counts = [0; 4];
        std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| {
                scope.spawn(|| (0..1000).map(|_| choice.pick(strategy, &all, &[]).unwrap()).collect::<Vec<_>>())
            });
            for picks in threads.map(|thread| thread.join().unwrap()) {
                picks.into_iter().for_each(|pick| counts[pick] += 1);
            }
        });
        assert_eq!(counts, [1000; 4], "no turn is lost");
    }
}

fn candidate() -> impl proptest::strategy::Strategy<Value = Candidate> {
    let weight = prop_oneof![0.0..10.0, any::<f64>()];
    let millis = proptest::option::of(any::<u64>());
    (0..4_usize, 0..4_usize, weight, 0..3_u32, millis).prop_map(|(in_flight, slots, weight, priority, millis)| {
        Candidate { index: 0, in_flight, slots, weight, priority, first_byte: millis.map(Duration::from_millis) }
    })
}

proptest! {
    #[test]
    fn every_strategy_picks_a_worker_with_a_free_slot_if_there_is_one(
        mut candidates in proptest::collection::vec(candidate(), 0..6),
        offset in 0..3_usize,
        seed in any::<u64>(),
        prefixes in proptest::collection::vec(0..5_u64, 0..4),
        served in proptest::collection::vec((0..5_u64, 0..9_usize), 0..9),
    ) {
        for (at, candidate) in candidates.iter_mut().enumerate() {
            candidate.index = offset + at;
        }
        for strategy in STRATEGIES {
            let choice = WorkerChoice::seeded(seed);
            for (prefix, index) in &served {
                choice.remember_served_by(&[*prefix], *index);
            }
            for _ in 0..8 {
                match choice.pick(strategy, &candidates, &prefixes) {
                    Some(index) => {
                        let picked = candidates.iter().find(|candidate| candidate.index == index);
                        prop_assert!(picked.is_some_and(|picked| picked.in_flight < picked.slots), "{strategy:?}");
                    }
                    None => prop_assert!(candidates.iter().all(|one| one.in_flight >= one.slots), "{strategy:?}"),
                }
            }
        }
    }
}
