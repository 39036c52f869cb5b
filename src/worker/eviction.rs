//! Who makes room for a model that is to be loaded: pure, so that properties can be tested.
//!
//! What is idle goes, least recently used first. What is in use goes only for a claim that is wanted and has waited for
//! its patience, and only after it has been left to serve for as long itself: two busy models that do not fit together
//! take turns, and neither is stopped before it has served anybody. It is let finish first. Owns no process and no clock.

use crate::awake::Instant;
use std::time::Duration;

/// A load that waits for memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    /// Bytes.
    pub(super) need: u64,
    /// Whether a request waits for it; else it is loaded ahead of them.
    pub(super) is_wanted: bool,
    /// When it began to wait.
    pub(super) since: Instant,
}

/// A worker that has memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holder {
    pub(super) id: u64,
    /// Bytes.
    pub(super) need: u64,
    /// Never stopped for another.
    pub(super) is_pinned: bool,
    /// Loaded ahead of requests, and so not to be stopped for another that is.
    pub(super) is_preloaded: bool,
    pub(super) stage: Stage,
}

/// Where a worker that has memory stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is being loaded.
    Loading,
    /// It serves, or requests wait for it.
    InUse {
        /// When it was ready.
        ready: Instant,
    },
    /// It has nothing to do.
    Idle {
        /// Since when.
        since: Instant,
    },
    /// It is on its way out.
    Leaving,
}

/// What is to be done for the first claim in line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// There is room.
    Grant,
    /// These must go first.
    Clear(Vec<(u64, Way)>),
    /// Nothing, until something changes, or until then.
    Wait(Option<Instant>),
}

/// How a worker goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// At once, if it is still idle.
    Idle,
    /// When it has finished what it serves, whatever that is by then.
    Finishing,
}

/// The next step for a claim, where `patience` is how long what is in use is left alone.
pub(super) fn next_step(budget: u64, patience: Duration, now: Instant, claim: Claim, holders: &[Holder]) -> Step {
    let sum = |of: &dyn Fn(&Holder) -> bool| {
        holders.iter().filter(|holder| of(holder)).fold(0, |sum: u64, holder| sum.saturating_add(holder.need))
    };
    let need = claim.need.min(budget);
    let to_come = sum(&|holder| holder.stage == Stage::Leaving);
    let staying = sum(&|holder| holder.stage != Stage::Leaving);
    if need <= budget.saturating_sub(staying.saturating_add(to_come)) {
        return Step::Grant;
    }
    let room = budget.saturating_sub(staying);
    if need <= room {
        return Step::Wait(None);
    }
    // So much must be given back, be there even more in use than there should be.
    let missing = staying.saturating_sub(budget - need);
    let mut candidates: Vec<(Turn, &Holder)> = holders
        .iter()
        .filter(|holder| holder.need > 0)
        .filter_map(|holder| Some((Turn::of(holder, claim, patience)?, holder)))
        .collect();
    candidates.sort_by_key(|(turn, _)| *turn);
    let is_due = |turn: &Turn| match turn {
        Turn::Idle(_) => true,
        Turn::InUse { due, .. } => *due <= now,
    };
    let (mut freed, mut going) = (0u64, Vec::new());
    for (turn, holder) in candidates.iter().filter(|(turn, _)| is_due(turn)) {
        if freed < missing {
            freed = freed.saturating_add(holder.need);
            let way = if matches!(turn, Turn::Idle(_)) { Way::Idle } else { Way::Finishing };
            going.push((holder.id, way));
        }
    }
    if freed >= missing {
        return Step::Clear(going);
    }
    let next = candidates.iter().filter(|(turn, _)| !is_due(turn)).map(|(turn, _)| match turn {
        Turn::Idle(since) => *since,
        Turn::InUse { due, .. } => *due,
    });
    Step::Wait(next.min())
}

/// Whether there is room for so many bytes at some time, as things stand: beside what is pinned and stays.
pub(super) fn is_within_reach(budget: u64, need: u64, holders: &[Holder]) -> bool {
    let stays = |holder: &&Holder| holder.is_pinned && holder.stage != Stage::Leaving;
    let staying = holders.iter().filter(stays).fold(0, |sum: u64, holder| sum.saturating_add(holder.need));
    need.min(budget) <= budget.saturating_sub(staying)
}

/// The order in which workers go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// First those that nobody uses, the longest unused before the others.
    Idle(Instant),
    /// Then those that have served for the longest time, each from some moment on.
    InUse { ready: Instant, due: Instant },
}

impl Turn {
    /// Of this worker, if it may have to go for that claim.
    fn of(holder: &Holder, claim: Claim, patience: Duration) -> Option<Self> {
        match holder.stage {
            _ if holder.is_pinned => None,
            Stage::Loading | Stage::Leaving => None,
            Stage::Idle { .. } if holder.is_preloaded && !claim.is_wanted => None,
            Stage::Idle { since } => Some(Self::Idle(since)),
            Stage::InUse { .. } if !claim.is_wanted => None,
            Stage::InUse { ready } => Some(Self::InUse { ready, due: ready.max(claim.since) + patience }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATIENCE: Duration = Duration::from_secs(30);
    const BUDGET: u64 = 100;

    /// The moments of a test, in seconds.
    fn at(seconds: u64) -> Instant {
        use std::sync::OnceLock;
        static START: OnceLock<Instant> = OnceLock::new();
        *START.get_or_init(Instant::now) + Duration::from_secs(seconds)
    }

    fn holder(id: u64, need: u64, stage: Stage) -> Holder {
        Holder { id, need, is_pinned: false, is_preloaded: false, stage }
    }

    fn wanted(need: u64) -> Claim {
        Claim { need, is_wanted: true, since: at(100) }
    }

    fn step(now: u64, claim: Claim, holders: &[Holder]) -> Step {
        next_step(BUDGET, PATIENCE, at(now), claim, holders)
    }

    fn at_once(ids: &[u64]) -> Step {
        Step::Clear(ids.iter().map(|id| (*id, Way::Idle)).collect())
    }

    fn finishing(ids: &[u64]) -> Step {
        Step::Clear(ids.iter().map(|id| (*id, Way::Finishing)).collect())
    }

    #[test]
    fn what_is_idle_goes_the_longest_unused_first_and_no_more_of_it_than_must() {
        let idle = [
            holder(1, 30, Stage::Idle { since: at(9) }),
            holder(2, 30, Stage::Idle { since: at(3) }),
            holder(3, 30, Stage::Idle { since: at(6) }),
        ];
        assert_eq!(step(100, wanted(10), &idle), Step::Grant);
        assert_eq!(step(100, wanted(40), &idle), at_once(&[2]));
        assert_eq!(step(100, wanted(41), &idle), at_once(&[2, 3]));
        assert_eq!(step(100, wanted(5000), &idle), at_once(&[2, 3, 1]), "it runs alone");
    }

    #[test]
    fn what_is_in_use_is_left_alone_for_a_while_and_then_finishes() {
        let busy = [holder(1, 60, Stage::InUse { ready: at(0) }), holder(2, 40, Stage::InUse { ready: at(90) })];
        assert_eq!(step(100, wanted(50), &busy), Step::Wait(Some(at(130))));
        assert_eq!(step(130, wanted(50), &busy), finishing(&[1]), "the other has not served as long");
        assert_eq!(step(130, wanted(80), &busy), finishing(&[1, 2]));
        let ready_late = [holder(1, 60, Stage::InUse { ready: at(125) })];
        assert_eq!(step(130, wanted(50), &ready_late), Step::Wait(Some(at(155))), "it has hardly served anybody");
        let mixed = [holder(1, 60, Stage::InUse { ready: at(0) }), holder(2, 40, Stage::Idle { since: at(90) })];
        assert_eq!(step(110, wanted(40), &mixed), at_once(&[2]));
        assert_eq!(step(110, wanted(50), &mixed), Step::Wait(Some(at(130))), "stopping one of them would not help");
        assert_eq!(step(130, wanted(50), &mixed), Step::Clear(vec![(2, Way::Idle), (1, Way::Finishing)]));
    }

    #[test]
    fn what_nobody_waits_for_takes_what_nobody_else_needs() {
        let ahead = Claim { is_wanted: false, ..wanted(60) };
        let mut other = holder(1, 60, Stage::Idle { since: at(0) });
        assert_eq!(step(500, ahead, &[other]), at_once(&[1]));
        other.is_preloaded = true;
        assert_eq!(step(500, ahead, &[other]), Step::Wait(None), "both are loaded ahead; the first one stays");
        assert_eq!(step(500, wanted(60), &[other]), at_once(&[1]));
        assert_eq!(step(500, ahead, &[holder(1, 60, Stage::InUse { ready: at(0) })]), Step::Wait(None));
    }

    #[test]
    fn what_leaves_is_waited_for() {
        let leaving = [holder(1, 60, Stage::Leaving), holder(2, 40, Stage::Idle { since: at(0) })];
        assert_eq!(step(100, wanted(60), &leaving), Step::Wait(None));
        assert_eq!(step(100, wanted(70), &leaving), at_once(&[2]));
        assert_eq!(step(100, wanted(70), &leaving[1..]), at_once(&[2]));
        assert_eq!(step(100, wanted(60), &leaving[1..]), Step::Grant);
    }

    #[test]
    fn what_is_pinned_puts_the_rest_out_of_reach_until_it_leaves() {
        let mut pinned = Holder { is_pinned: true, ..holder(1, 60, Stage::Loading) };
        let busy = holder(2, 40, Stage::InUse { ready: at(0) });
        assert!(is_within_reach(BUDGET, 40, &[pinned, busy]));
        assert!(!is_within_reach(BUDGET, 41, &[pinned, busy]));
        assert!(!is_within_reach(BUDGET, 5000, &[pinned]));
        assert!(is_within_reach(BUDGET, 5000, &[busy]), "it runs alone");
        pinned.stage = Stage::Leaving;
        assert!(is_within_reach(BUDGET, 41, &[pinned, busy]));
    }

    fn stage() -> impl Strategy<Value = Stage> {
        prop_oneof![
            Just(Stage::Loading),
            (0u64..200).prop_map(|ready| Stage::InUse { ready: at(ready) }),
            (0u64..200).prop_map(|since| Stage::Idle { since: at(since) }),
            Just(Stage::Leaving),
        ]
    }

    fn holders() -> impl Strategy<Value = Vec<Holder>> {
        let one = (0u64..=BUDGET, any::<bool>(), any::<bool>(), stage());
        proptest::collection::vec(one, 0..8).prop_map(|some| {
            let number = |(id, (need, is_pinned, is_preloaded, stage))| Holder {
                id: id as u64,
                need,
                is_pinned,
                is_preloaded,
                stage,
            };
            some.into_iter().enumerate().map(number).collect()
        })
    }

    fn claim() -> impl Strategy<Value = Claim> {
        (1u64..2 * BUDGET, any::<bool>(), 0u64..200).prop_map(|(need, is_wanted, since)| Claim {
            need,
            is_wanted,
            since: at(since),
        })
    }

    proptest! {
        #[test]
        fn nobody_goes_who_may_not(holders in holders(), claim in claim(), now in 0u64..300) {
            let now = at(now);
            let Step::Clear(going) = next_step(BUDGET, PATIENCE, now, claim, &holders) else { return Ok(()) };
            prop_assert!(!going.is_empty());
            for (id, way) in going {
                let one = holders.iter().find(|holder| holder.id == id).unwrap();
                prop_assert!(!one.is_pinned && one.need > 0);
                match one.stage {
                    Stage::Idle { .. } => prop_assert!(way == Way::Idle && (claim.is_wanted || !one.is_preloaded)),
                    Stage::InUse { ready } => {
                        prop_assert_eq!(way, Way::Finishing);
                        prop_assert!(claim.is_wanted && now >= ready + PATIENCE && now >= claim.since + PATIENCE);
                    }
                    Stage::Loading | Stage::Leaving => prop_assert!(false, "{one:?}"),
                }
            }
        }

        #[test]
        fn the_budget_holds(holders in holders(), claim in claim(), now in 0u64..300) {
            let in_use: u64 = holders.iter().map(|holder| holder.need).sum();
            let fits = in_use + claim.need.min(BUDGET) <= BUDGET;
            let granted = next_step(BUDGET, PATIENCE, at(now), claim, &holders) == Step::Grant;
            prop_assert_eq!(granted, fits);
        }

        #[test]
        fn there_is_progress_while_enough_is_idle_or_may_finish(mut holders in holders(), claim in claim()) {
            // Everything that loads comes to an end, and all patience too.
            let now = at(1000);
            for holder in &mut holders {
                if holder.stage == Stage::Loading {
                    holder.stage = Stage::Idle { since: at(900) };
                }
            }
            let stays = |holder: &&Holder| {
                let is_kept = match holder.stage {
                    Stage::Idle { .. } => holder.is_preloaded && !claim.is_wanted,
                    Stage::InUse { .. } => !claim.is_wanted,
                    _ => false,
                };
                holder.stage != Stage::Leaving && (holder.is_pinned || is_kept)
            };
            let staying: u64 = holders.iter().filter(stays).map(|holder| holder.need).sum();
            let can_be = staying + claim.need.min(BUDGET) <= BUDGET;
            let mut granted = false;
            for _ in 0..=2 * holders.len() {
                match next_step(BUDGET, PATIENCE, now, claim, &holders) {
                    Step::Grant => {
                        granted = true;
                        break;
                    }
                    Step::Clear(going) => holders.retain(|holder| going.iter().all(|(id, _)| *id != holder.id)),
                    Step::Wait(_) => {
                        // What leaves is gone at some time.
                        holders.retain(|holder| holder.stage != Stage::Leaving);
                    }
                }
            }
            prop_assert_eq!(granted, can_be);
        }
    }
}
