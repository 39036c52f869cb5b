//! Which of a model's workers gets a request.
//!
//! Owns what the strategies remember from one choice to the next. Sees workers only as [`Candidate`]s: whether one can
//! serve at all is settled before, and what it then does with the request is counted elsewhere.

use super::affinity::Affinity;
use crate::fleet::bounds::{AFFINITY_MARGIN, EXPLORED_PART};
use crate::settings::values::Strategy;
use std::cmp::Ordering;
use std::cmp::Ordering::Equal;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering as Atomic};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The step of splitmix64: the golden ratio as an odd number of 64 bits.
const GOLDEN_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// A worker that can serve, at this moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// Which of the model's workers it is; no two have the same.
    pub index: usize,
    /// Requests that it is serving.
    pub in_flight: usize,
    /// Requests that it may serve at once.
    pub slots: usize,
    /// For `weighted-random`. Anything but a finite number above 0 counts as 0.
    pub weight: f64,
    /// For `priority-failover`: the lowest comes first.
    pub priority: u32,
    /// Its mean time to the first byte; none before the first.
    pub first_byte: Option<Duration>,
}

/// Chooses workers of one model.
#[derive(Debug)]
pub(super) struct WorkerChoice {
    /// The worker whose turn it is, where nothing else decides; who is not there is passed over.
    turn: AtomicUsize,
    /// The state of splitmix64, which is a counter and so can be shared without a lock.
    chance: AtomicU64,
    affinity: Mutex<Affinity>,
}

impl Default for WorkerChoice {
    fn default() -> Self {
        Self::seeded(RandomState::new().build_hasher().finish())
    }
}

impl WorkerChoice {
    /// One whose chances are those of every other with this seed.
    pub(super) fn seeded(seed: u64) -> Self {
        Self { turn: AtomicUsize::new(0), chance: AtomicU64::new(seed), affinity: Mutex::default() }
    }

    /// The index of a candidate with a free slot; none when none has one. `prefixes` are the beginnings of the prompt,
    /// the longest last, which only `prefix-affinity` looks at.
    pub(super) fn pick(&self, strategy: Strategy, candidates: &[Candidate], prefixes: &[u64]) -> Option<usize> {
        let free = || candidates.iter().filter(|candidate| candidate.has_free_slot());
        match strategy {
            Strategy::LeastBusy => self.best(free, by_load),
            Strategy::RoundRobin => self.best(free, |_, _| Equal),
            Strategy::WeightedRandom => self.by_weight(free, |candidate| candidate.sound_weight()),
            Strategy::SimpleShuffle => self.by_weight(free, |_| 1.0),
            Strategy::LatencyBased if self.draw() < EXPLORED_PART => self.by_weight(free, |_| 1.0),
            Strategy::LatencyBased => self.best(free, by_first_byte),
            Strategy::PriorityFailover => {
                self.best(free, |one, other| one.priority.cmp(&other.priority).then_with(|| by_load(one, other)))
            }
            Strategy::PrefixAffinity if prefixes.is_empty() => self.best(free, by_load),
            Strategy::PrefixAffinity => self.by_affinity(free, prefixes).or_else(|| self.best(free, by_load)),
        }
    }

    /// A request that begins like this has been given to that worker, be it picked here or not.
    pub(super) fn remember_served_by(&self, prefixes: &[u64], index: usize) {
        if !prefixes.is_empty() {
            self.affinity().remember(prefixes, index);
        }
    }

    /// The first in this order. Among equals it is the next after the last that was picked so, that all get their turn.
    fn best<'a, I: Iterator<Item = &'a Candidate>>(
        &self,
        free: impl Fn() -> I,
        order: impl Fn(&Candidate, &Candidate) -> Ordering,
    ) -> Option<usize> {
        let find = |turn: usize| {
            let by_turn = |candidate: &Candidate| (candidate.index < turn, candidate.index);
            free().min_by(|one, other| order(one, other).then_with(|| by_turn(one).cmp(&by_turn(other))))
        };
        // A load and a store in one: two that pick at once do not pick the same for want of each other's turn.
        let mut picked = None;
        let _ = self.turn.fetch_update(Atomic::Relaxed, Atomic::Relaxed, |turn| {
            picked = find(turn).map(|candidate| candidate.index);
            picked.map(|index| index.saturating_add(1))
        });
        picked
    }

    /// One by chance, in proportion to these weights; each as likely as the other where nobody has any.
    fn by_weight<'a, I: Iterator<Item = &'a Candidate>>(
        &self,
        free: impl Fn() -> I,
        weight: impl Fn(&Candidate) -> f64,
    ) -> Option<usize> {
        // Divided by the greatest, so that no sum of them is infinite.
        let greatest = free().map(&weight).fold(0.0, f64::max);
        let share = |candidate: &Candidate| if greatest > 0.0 { weight(candidate) / greatest } else { 1.0 };
        let mut left = self.draw() * free().map(share).sum::<f64>();
        let mut picked = None;
        for candidate in free().filter(|candidate| share(candidate) > 0.0) {
            picked = Some(candidate.index);
            left -= share(candidate);
            if left < 0.0 {
                break;
            }
        }
        // Rounding may leave a little: then it is the last.
        picked
    }

    /// The worker that has served the longest of these beginnings, unless it is clearly busier than another.
    fn by_affinity<'a, I: Iterator<Item = &'a Candidate>>(
        &self,
        free: impl Fn() -> I,
        prefixes: &[u64],
    ) -> Option<usize> {
        let least = free().map(Candidate::load).min_by(f64::total_cmp)?;
        let affinity = self.affinity();
        let known = prefixes.iter().rev().filter_map(|&prefix| affinity.find(prefix));
        let mut near = known.filter_map(|index| free().find(|candidate| candidate.index == index));
        near.find(|candidate| candidate.load() - least <= AFFINITY_MARGIN).map(|candidate| candidate.index)
    }

    /// A number from 0 up to but not including 1 (splitmix64).
    fn draw(&self) -> f64 {
        let mut mixed = self.chance.fetch_add(GOLDEN_STEP, Atomic::Relaxed).wrapping_add(GOLDEN_STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        // As many bits as a f64 holds without rounding.
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn affinity(&self) -> MutexGuard<'_, Affinity> {
        self.affinity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Candidate {
    /// Whether it has a free slot.
    pub(super) fn has_free_slot(&self) -> bool {
        self.in_flight < self.slots
    }

    /// The part of its slots that is in use.
    fn load(&self) -> f64 {
        self.in_flight as f64 / self.slots as f64
    }

    fn sound_weight(&self) -> f64 {
        if self.weight.is_finite() { self.weight.max(0.0) } else { 0.0 }
    }

    /// The time to the first byte that is to be expected: the more of it is in use, the longer. None before the first.
    fn expected(&self) -> Option<f64> {
        self.first_byte.map(|time| time.as_secs_f64() * (1.0 + self.load()))
    }
}

/// Fewest in flight relative to slots first.
fn by_load(one: &Candidate, other: &Candidate) -> Ordering {
    one.load().total_cmp(&other.load())
}

/// Quickest first. One that has never been measured comes before all others while it is idle, and after them while its
/// first request is on its way: it might be slow.
fn by_first_byte(one: &Candidate, other: &Candidate) -> Ordering {
    let rank = |candidate: &Candidate| match (candidate.expected(), candidate.in_flight) {
        (None, 0) => 0,
        (Some(_), _) => 1,
        (None, _) => 2,
    };
    let expected = |candidate: &Candidate| candidate.expected().unwrap_or_else(|| candidate.load());
    rank(one).cmp(&rank(other)).then_with(|| expected(one).total_cmp(&expected(other)))
}

#[cfg(test)]
mod tests;
