use proptest::prelude::*;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
const BUDGET: u64 = 100;

/// Returns the moment `seconds` after the start of the tests.
fn at(seconds: u64) -> ActiveInstant {
    use std::sync::OnceLock;
    static START: OnceLock<ActiveInstant> = OnceLock::new();
    *START.get_or_init(ActiveInstant::now) + Duration::from_secs(seconds)
}

fn holder(id: u64, need: u64, stage: HolderStage) -> MemoryHolder<'static> {
    MemoryHolder { id, model: "other", need, is_pinned: false, is_preloaded: false, stage }
}

fn wanted(need: u64) -> MemoryClaim<'static> {
    MemoryClaim { model: "own", need, is_wanted: true, since: at(100) }
}

fn step(now: u64, claim: MemoryClaim<'_>, holders: &[MemoryHolder<'_>]) -> EvictionStep {
    next_step(BUDGET, PATIENCE, at(now), claim, holders)
}

fn evict_idle(ids: &[u64]) -> EvictionStep {
    EvictionStep::Clear(ids.iter().map(|id| (*id, EvictionMode::Idle)).collect())
}

fn evict_finishing(ids: &[u64]) -> EvictionStep {
    EvictionStep::Clear(ids.iter().map(|id| (*id, EvictionMode::Finishing)).collect())
}

#[test]
fn idle_workers_are_evicted_least_recently_used_first_and_no_more_than_needed() {
    let idle = [
        holder(1, 30, HolderStage::Idle { since: at(9) }),
        holder(2, 30, HolderStage::Idle { since: at(3) }),
        holder(3, 30, HolderStage::Idle { since: at(6) }),
    ];
    assert_eq!(step(100, wanted(10), &idle), EvictionStep::Grant);
    assert_eq!(step(100, wanted(40), &idle), evict_idle(&[2]));
    assert_eq!(step(100, wanted(41), &idle), evict_idle(&[2, 3]));
    assert_eq!(step(100, wanted(5000), &idle), evict_idle(&[2, 3, 1]), "it runs alone");
}

#[test]
fn workers_in_use_are_left_alone_for_the_patience_and_then_finish() {
    let busy =
        [holder(1, 60, HolderStage::InUse { ready: at(0) }), holder(2, 40, HolderStage::InUse { ready: at(90) })];
    assert_eq!(step(100, wanted(50), &busy), EvictionStep::Wait(Some(at(130))));
    assert_eq!(step(130, wanted(50), &busy), evict_finishing(&[1]), "the other has not served as long");
    assert_eq!(step(130, wanted(80), &busy), evict_finishing(&[1, 2]));
    let ready_late = [holder(1, 60, HolderStage::InUse { ready: at(125) })];
    assert_eq!(
        step(130, wanted(50), &ready_late),
        EvictionStep::Wait(Some(at(155))),
        "it has hardly served any request"
    );
    let mixed =
        [holder(1, 60, HolderStage::InUse { ready: at(0) }), holder(2, 40, HolderStage::Idle { since: at(90) })];
    assert_eq!(step(110, wanted(40), &mixed), evict_idle(&[2]));
    assert_eq!(
        step(110, wanted(50), &mixed),
        EvictionStep::Wait(Some(at(130))),
        "evicting one of them would not be enough"
    );
    assert_eq!(step(130, wanted(50), &mixed), evict_finishing(&[1]), "its memory alone is enough");
    assert_eq!(step(130, wanted(70), &mixed), evict_finishing(&[1]), "the other can serve until that has left");
}

#[test]
fn a_worker_whose_memory_is_not_needed_is_not_selected() {
    let pinned = MemoryHolder { is_pinned: true, ..holder(1, 20, HolderStage::Idle { since: at(0) }) };
    let busy = holder(2, 50, HolderStage::InUse { ready: at(0) });
    let idle = [(3, 10), (4, 5), (5, 1)].map(|(id, need)| holder(id, need, HolderStage::Idle { since: at(id) }));
    let all = [&[pinned, busy][..], &idle].concat();
    assert_eq!(step(130, wanted(50), &all), evict_finishing(&[2]));
    assert_eq!(step(130, wanted(16), &all), evict_idle(&[3]), "the least recently used one is enough");
    assert_eq!(step(130, wanted(70), &all), evict_finishing(&[2]));
    let leaves = MemoryHolder { stage: HolderStage::Leaving, ..busy };
    assert_eq!(step(131, wanted(70), &[&[pinned, leaves][..], &idle].concat()), EvictionStep::Wait(None));
    assert_eq!(step(132, wanted(70), &[&[pinned][..], &idle].concat()), evict_idle(&[3]));
    let small_first =
        [holder(1, 10, HolderStage::Idle { since: at(1) }), holder(2, 90, HolderStage::Idle { since: at(2) })];
    assert_eq!(step(100, wanted(85), &small_first), evict_idle(&[2]), "the small one would not help");
}

#[test]
fn a_claim_without_demand_evicts_only_idle_workers_that_are_not_preloaded() {
    let ahead = MemoryClaim { is_wanted: false, ..wanted(60) };
    let mut other = holder(1, 60, HolderStage::Idle { since: at(0) });
    assert_eq!(step(500, ahead, &[other]), evict_idle(&[1]));
    other.is_preloaded = true;
    assert_eq!(step(500, ahead, &[other]), EvictionStep::Yield, "both are loaded ahead; the first one stays");
    assert_eq!(step(500, wanted(60), &[other]), evict_idle(&[1]));
    assert_eq!(step(500, ahead, &[holder(1, 60, HolderStage::InUse { ready: at(0) })]), EvictionStep::Yield);
    assert_eq!(
        step(500, ahead, &[holder(1, 60, HolderStage::Leaving)]),
        EvictionStep::Wait(None),
        "its memory is about to be free"
    );
}

#[test]
fn a_claim_waits_for_workers_that_leave() {
    let leaving = [holder(1, 60, HolderStage::Leaving), holder(2, 40, HolderStage::Idle { since: at(0) })];
    assert_eq!(step(100, wanted(60), &leaving), EvictionStep::Wait(None));
    assert_eq!(step(100, wanted(70), &leaving), EvictionStep::Wait(None), "the idle one can serve until then");
    assert_eq!(step(100, wanted(70), &leaving[1..]), evict_idle(&[2]));
    assert_eq!(step(100, wanted(60), &leaving[1..]), EvictionStep::Grant);
}

#[test]
fn a_pinned_worker_limits_which_claims_fit_until_it_leaves() {
    let mut pinned = MemoryHolder { is_pinned: true, ..holder(1, 60, HolderStage::Loading) };
    let busy = holder(2, 40, HolderStage::InUse { ready: at(0) });
    assert!(is_admissible(BUDGET, wanted(40), &[pinned, busy]));
    assert!(!is_admissible(BUDGET, wanted(41), &[pinned, busy]));
    assert!(!is_admissible(BUDGET, wanted(5000), &[pinned]));
    assert!(is_admissible(BUDGET, wanted(5000), &[busy]), "it runs alone");
    assert_eq!(pinned_in_the_way(BUDGET, wanted(41), &[pinned, busy]), ["other"]);
    assert!(pinned_in_the_way(BUDGET, wanted(40), &[pinned, busy]).is_empty());
    let replica = MemoryHolder { model: "own", ..pinned };
    assert!(pinned_in_the_way(BUDGET, wanted(60), &[replica]).is_empty(), "it is its own model");
    pinned.stage = HolderStage::Leaving;
    assert!(is_admissible(BUDGET, wanted(41), &[pinned, busy]));
}

#[test]
fn a_worker_is_not_evicted_for_another_of_the_same_model() {
    let own = |stage| MemoryHolder { model: "own", ..holder(1, 60, stage) };
    for stage in [HolderStage::InUse { ready: at(0) }, HolderStage::Idle { since: at(0) }] {
        assert_eq!(step(500, wanted(60), &[own(stage)]), EvictionStep::Wait(None));
        assert!(!is_admissible(BUDGET, wanted(60), &[own(stage)]));
        assert!(is_admissible(BUDGET, wanted(40), &[own(stage)]));
        let other = holder(2, 40, HolderStage::InUse { ready: at(0) });
        assert_eq!(step(500, wanted(40), &[own(stage), other]), evict_finishing(&[2]), "both workers of the model fit");
    }
    assert!(is_admissible(BUDGET, wanted(60), &[own(HolderStage::Leaving)]));
}

fn stage() -> impl Strategy<Value = HolderStage> {
    prop_oneof![
        Just(HolderStage::Loading),
        (0u64..200).prop_map(|ready| HolderStage::InUse { ready: at(ready) }),
        (0u64..200).prop_map(|since| HolderStage::Idle { since: at(since) }),
        Just(HolderStage::Leaving),
    ]
}

fn holders() -> impl Strategy<Value = Vec<MemoryHolder<'static>>> {
    let fields =
        (0u64..=BUDGET, any::<bool>(), prop_oneof![3 => Just("other"), 1 => Just("own")], any::<bool>(), stage());
    proptest::collection::vec(fields, 0..8).prop_map(|list| {
        let build = |(id, (need, is_pinned, model, is_preloaded, stage))| MemoryHolder {
            id: id as u64,
            model,
            need,
            is_pinned,
            is_preloaded,
            stage,
        };
        list.into_iter().enumerate().map(build).collect()
    })
}

fn claim() -> impl Strategy<Value = MemoryClaim<'static>> {
    (1u64..2 * BUDGET, any::<bool>(), 0u64..200).prop_map(|(need, is_wanted, since)| MemoryClaim {
        model: "own",
        need,
        is_wanted,
        since: at(since),
    })
}

proptest! {
    #[test]
    fn only_workers_that_may_be_evicted_are_selected(holders in holders(), claim in claim(), now in 0u64..300) {
        let now = at(now);
        let EvictionStep::Clear(selected) = next_step(BUDGET, PATIENCE, now, claim, &holders) else { return Ok(()) };
        prop_assert!(!selected.is_empty());
        for (id, mode) in selected {
            let holder = holders.iter().find(|holder| holder.id == id).unwrap();
            prop_assert!(!holder.is_pinned && holder.need > 0 && holder.model != claim.model);
            match holder.stage {
                HolderStage::Idle { .. } => prop_assert!(mode == EvictionMode::Idle && (claim.is_wanted || !holder.is_preloaded)),
                HolderStage::InUse { ready } => {
                    prop_assert_eq!(mode, EvictionMode::Finishing);
                    prop_assert!(claim.is_wanted && now >= ready + PATIENCE && now >= claim.since + PATIENCE);
                }
                HolderStage::Loading | HolderStage::Leaving => prop_assert!(false, "{holder:?}"),
            }
        }
    }

    #[test]
    fn memory_is_granted_exactly_when_it_fits_the_budget(holders in holders(), claim in claim(), now in 0u64..300) {
        let in_use: u64 = holders.iter().map(|holder| holder.need).sum();
        let fits = in_use + claim.need.min(BUDGET) <= BUDGET;
        let granted = next_step(BUDGET, PATIENCE, at(now), claim, &holders) == EvictionStep::Grant;
        prop_assert_eq!(granted, fits);
    }

    #[test]
    fn a_claim_is_granted_in_the_end_if_enough_workers_are_idle_or_may_finish(mut holders in holders(), claim in claim()) {
        // Late enough for every load to have ended and all patience to have passed.
        let now = at(1000);
        for holder in &mut holders {
            if holder.stage == HolderStage::Loading {
                holder.stage = HolderStage::Idle { since: at(900) };
            }
        }
        let stays = |holder: &&MemoryHolder| {
            let is_kept = match holder.stage {
                HolderStage::Idle { .. } => holder.is_preloaded && !claim.is_wanted,
                HolderStage::InUse { .. } => !claim.is_wanted,
                _ => false,
            };
            holder.stage != HolderStage::Leaving && (holder.is_pinned || holder.model == claim.model || is_kept)
        };
        let staying: u64 = holders.iter().filter(stays).map(|holder| holder.need).sum();
        let should_be_granted = staying + claim.need.min(BUDGET) <= BUDGET;
        let mut granted = false;
        for _ in 0..=2 * holders.len() {
            match next_step(BUDGET, PATIENCE, now, claim, &holders) {
                EvictionStep::Grant => {
                    granted = true;
                    break;
                }
                EvictionStep::Clear(selected) => holders.retain(|holder| selected.iter().all(|(id, _)| *id != holder.id)),
                EvictionStep::Wait(_) | EvictionStep::Yield => {
                    // Workers that leave have left at some time.
                    holders.retain(|holder| holder.stage != HolderStage::Leaving);
                }
            }
        }
        prop_assert_eq!(granted, should_be_granted);
    }

    #[test]
    fn a_worker_whose_memory_is_not_needed_is_never_evicted(holders in holders(), claim in claim(), now in 0u64..300) {
        let (mut left, mut evicted) = (holders.clone(), Vec::new());
        for _ in 0..=2 * holders.len() {
            match next_step(BUDGET, PATIENCE, at(now), claim, &left) {
                EvictionStep::Grant => {
                    let used: u64 = left.iter().map(|holder| holder.need).sum();
                    for (id, need) in &evicted {
                        prop_assert!(used + need + claim.need.min(BUDGET) > BUDGET, "{id} could have stayed");
                    }
                    return Ok(());
                }
                EvictionStep::Clear(selected) => {
                    let is_leaving = left.iter().any(|holder| holder.stage == HolderStage::Leaving && holder.need > 0);
                    for (id, mode) in selected {
                        let holder = left.iter_mut().find(|holder| holder.id == id).unwrap();
                        prop_assert!(mode == EvictionMode::Finishing || !is_leaving, "{id} could have served until that has left");
                        evicted.push((id, holder.need));
                        holder.stage = HolderStage::Leaving;
                    }
                }
                EvictionStep::Wait(_) if left.iter().any(|holder| holder.stage == HolderStage::Leaving) => {
                    left.retain(|holder| holder.stage != HolderStage::Leaving);
                }
                EvictionStep::Wait(_) | EvictionStep::Yield => return Ok(()),
            }
        }
    }
}
