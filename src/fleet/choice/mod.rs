//! The routing strategies: which of a model's workers gets a request, and which model of a pool.
//!
//! Owns what the strategies remember between choices. Sees workers only as [`Candidate`]s: the caller decides whether a
//! worker can serve at all, and other files count what it does with the request.

use std::cmp::Ordering;
use std::cmp::Ordering::Equal;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering as Atomic};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::affinity::Affinity;
use crate::fleet::bounds::{AFFINITY_MARGIN, EXPLORED_PART};
use crate::settings::values::Strategy;

/// The increment of splitmix64: 2^64 divided by the golden ratio, as an odd number.
const GOLDEN_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// A snapshot of a worker that can serve requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// The index among the model's workers; unique.
    pub index: usize,
    /// Requests in flight.
    pub in_flight: usize,
    /// Maximum number of requests in flight.
    pub slots: usize,
    /// For `weighted-random`. Everything except a finite number above 0 counts as 0.
    pub weight: f64,
    /// For `priority-failover`: the lowest is preferred.
    pub priority: u32,
    /// The moving average of the time to first byte; `None` before the first response.
    pub first_byte: Option<Duration>,
}

/// Chooses among the workers of one model.
#[derive(Debug)]
pub(super) struct WorkerChoice {
    /// The index of the worker whose turn it is if nothing else decides.
    turn: AtomicUsize,
    /// The state of the splitmix64 generator. It is a counter, so threads can share it without a lock.
    random_state: AtomicU64,
    affinity: Mutex<Affinity>,
}

impl Default for WorkerChoice {
    fn default() -> Self {
        Self::seeded(RandomState::new().build_hasher().finish())
    }
}

impl WorkerChoice {
    /// Creates a choice whose random numbers follow from `seed`.
    pub(super) fn seeded(seed: u64) -> Self {
        Self { turn: AtomicUsize::new(0), random_state: AtomicU64::new(seed), affinity: Mutex::default() }
    }

    /// Returns the index of a candidate with a free slot, or `None` if there is none. `prefixes` are hashes of the
    /// prompt's prefixes, the longest last; only `prefix-affinity` uses them.
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

    /// Records which worker got a request with these prefixes, whether or not it was picked here.
    pub(super) fn remember_served_by(&self, prefixes: &[u64], index: usize) {
        if !prefixes.is_empty() {
            self.affinity().remember(prefixes, index);
        }
    }

    /// Returns the first candidate in this order. Among equals they take turns: it is the next one after the last pick.
    fn best<'a, I: Iterator<Item = &'a Candidate>>(
        &self,
        free: impl Fn() -> I,
        order: impl Fn(&Candidate, &Candidate) -> Ordering,
    ) -> Option<usize> {
        let find_best = |turn: usize| {
            let by_turn = |candidate: &Candidate| (candidate.index < turn, candidate.index);
            free().min_by(|one, other| order(one, other).then_with(|| by_turn(one).cmp(&by_turn(other))))
        };
        // Load and store in one step: otherwise two concurrent picks could see the same turn and choose the same
        // worker.
        let mut picked = None;
        let _ = self.turn.fetch_update(Atomic::Relaxed, Atomic::Relaxed, |turn| {
            picked = find_best(turn).map(|candidate| candidate.index);
            picked.map(|index| index.saturating_add(1))
        });
        picked
    }

    /// Returns a random candidate, with a probability in proportion to its weight. If no candidate has a weight, all
    /// are equally likely.
    fn by_weight<'a, I: Iterator<Item = &'a Candidate>>(
        &self,
        free: impl Fn() -> I,
        weight: impl Fn(&Candidate) -> f64,
    ) -> Option<usize> {
        // Divided by the greatest weight, so that the sum cannot become infinite.
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
        // Rounding may leave a small remainder; then the last candidate is picked.
        picked
    }

    /// Returns the worker that served the longest of these prefixes, unless it is clearly busier than another worker.
    fn by_affinity<'a, I: Iterator<Item = &'a Candidate>>(
        &self,
        free: impl Fn() -> I,
        prefixes: &[u64],
    ) -> Option<usize> {
        let least = free().map(Candidate::load).min_by(f64::total_cmp)?;
        let affinity = self.affinity();
        let known = prefixes.iter().rev().filter_map(|&prefix| affinity.find(prefix));
        let mut known_workers = known.filter_map(|index| free().find(|candidate| candidate.index == index));
        known_workers.find(|candidate| candidate.load() - least <= AFFINITY_MARGIN).map(|candidate| candidate.index)
    }

    /// Returns a random number from 0 up to but not including 1 (splitmix64).
    fn draw(&self) -> f64 {
        let mut mixed = self.random_state.fetch_add(GOLDEN_STEP, Atomic::Relaxed).wrapping_add(GOLDEN_STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        // The 53 bits that an `f64` holds exactly.
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn affinity(&self) -> MutexGuard<'_, Affinity> {
        self.affinity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Candidate {
    /// Whether the worker has a free slot.
    pub(super) fn has_free_slot(&self) -> bool {
        self.in_flight < self.slots
    }

    /// Returns the load: the fraction of slots in use.
    pub(super) fn load(&self) -> f64 {
        self.in_flight as f64 / self.slots as f64
    }

    fn sound_weight(&self) -> f64 {
        if self.weight.is_finite() { self.weight.max(0.0) } else { 0.0 }
    }

    /// Returns the expected time to first byte in seconds, which grows with the load. `None` before the first response.
    fn expected(&self) -> Option<f64> {
        self.first_byte.map(|time| time.as_secs_f64() * (1.0 + self.load()))
    }
}

/// Orders by load, the least busy first.
fn by_load(one: &Candidate, other: &Candidate) -> Ordering {
    one.load().total_cmp(&other.load())
}

/// Orders by expected time to first byte, the fastest first. A worker without a measurement comes first while it is
/// idle, and last while its first request is in flight, because it might be slow.
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
