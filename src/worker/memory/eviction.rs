//! Selects the workers to evict for a load: pure, so that its properties can be tested.
//!
//! - Idle workers go first, least recently used first.
//! - A worker in use is evicted only for a claim with demand that has waited for `patience`, and only after the worker
//!   itself has served for that long. Two busy models that do not fit together thus take turns, and each serves
//!   requests before it is evicted. It finishes its requests first.
//! - Idle workers keep serving until the workers in use have left.
//! - No worker is evicted whose memory is not needed, or for another worker of the same model. An evicted worker whose
//!   memory is not needed any more is recalled, as long as it has not stopped.
//!
//! Owns no process and no clock.

use std::time::Duration;

use crate::pause_clock::ActiveInstant;

/// A load that waits for memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemoryClaim<'a> {
    /// The id of the model to load.
    pub(crate) model: &'a str,
    /// Bytes.
    pub(crate) need: u64,
    /// Whether a request waits for it; otherwise it is loaded ahead of requests.
    pub(crate) is_wanted: bool,
    /// When the wait began.
    pub(crate) since: ActiveInstant,
}

/// A worker that has memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemoryHolder<'a> {
    pub(crate) id: u64,
    /// The id of the worker's model.
    pub(crate) model: &'a str,
    /// Bytes.
    pub(crate) need: u64,
    /// Never evicted.
    pub(crate) is_pinned: bool,
    /// Loaded ahead of requests, so it is not evicted for another load without demand.
    pub(crate) is_preloaded: bool,
    pub(crate) stage: HolderStage,
}

/// The stage of a worker that has memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HolderStage {
    /// The model is being loaded.
    Loading,
    /// The worker serves requests, or requests wait for it.
    InUse {
        /// When the worker became ready.
        ready: ActiveInstant,
    },
    /// The worker has no requests.
    Idle {
        /// When its last request ended.
        since: ActiveInstant,
    },
    /// The worker is ending.
    Leaving,
}

/// The next step for the first claim in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EvictionStep {
    /// The memory is free: grant it.
    Grant,
    /// Evict these workers, named by id, first.
    Clear(Vec<(u64, EvictionMode)>),
    /// Wait for a change, at most until this time.
    Wait(Option<ActiveInstant>),
    /// Wait for a change and let others go first: the claim has no demand, and nothing is leaving for it.
    Yield,
}

/// How a worker is evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EvictionMode {
    /// At once, if it is still idle.
    Idle,
    /// After its requests in flight have ended.
    Finishing,
}

/// Returns the next step for a claim. `budget` is in bytes; `patience` is how long workers in use are left alone.
pub(crate) fn next_step(
    budget: u64,
    patience: Duration,
    now: ActiveInstant,
    claim: MemoryClaim<'_>,
    holders: &[MemoryHolder<'_>],
) -> EvictionStep {
    let sum = |is_counted: &dyn Fn(&MemoryHolder<'_>) -> bool| {
        holders.iter().filter(|holder| is_counted(holder)).fold(0, |sum: u64, holder| sum.saturating_add(holder.need))
    };
    let need = claim.need.min(budget);
    let leaving = sum(&|holder| holder.stage == HolderStage::Leaving);
    let staying = sum(&|holder| holder.stage != HolderStage::Leaving);
    if need <= budget.saturating_sub(staying.saturating_add(leaving)) {
        return EvictionStep::Grant;
    }
    let free_after_leaving = budget.saturating_sub(staying);
    if need <= free_after_leaving {
        return EvictionStep::Wait(None);
    }
    // If more than the budget is in use, the excess must be released as well.
    let missing = staying.saturating_sub(budget - need);
    let mut candidates: Vec<(EvictionOrder, &MemoryHolder<'_>)> = holders
        .iter()
        .filter(|holder| holder.need > 0)
        .filter_map(|holder| Some((EvictionOrder::of(holder, claim, patience)?, holder)))
        .collect();
    candidates.sort_by_key(|(order, _)| *order);
    let is_due = |order: &EvictionOrder| match order {
        EvictionOrder::Idle(_) => true,
        EvictionOrder::InUse { due, .. } => *due <= now,
    };
    let due: Vec<(EvictionOrder, &MemoryHolder<'_>)> =
        candidates.iter().filter(|(order, _)| is_due(order)).copied().collect();
    if let Some(selected) = select_for(missing, &due) {
        let (idle, in_use): (Vec<_>, Vec<_>) =
            selected.into_iter().partition(|(order, _)| matches!(order, EvictionOrder::Idle(_)));
        let ids = |selected: Vec<(EvictionOrder, &MemoryHolder<'_>)>, mode| {
            selected.into_iter().map(|(_, holder)| (holder.id, mode)).collect()
        };
        return match (in_use.is_empty(), leaving) {
            (false, _) => EvictionStep::Clear(ids(in_use, EvictionMode::Finishing)),
            (true, 0) => EvictionStep::Clear(ids(idle, EvictionMode::Idle)),
            // Idle workers can serve until everything that leaves has left.
            (true, _) => EvictionStep::Wait(None),
        };
    }
    if !claim.is_wanted {
        return EvictionStep::Yield;
    }
    let next = candidates.iter().filter(|(order, _)| !is_due(order)).map(|(order, _)| match order {
        EvictionOrder::Idle(since) => *since,
        EvictionOrder::InUse { due, .. } => *due,
    });
    EvictionStep::Wait(next.min())
}

/// Selects from `due`, in that order, workers that together release `missing` bytes. None is selected whose memory is
/// not needed, so workers in use release only what idle ones cannot. Returns `None` if all of them are not enough.
fn select_for<'a, 'b>(
    missing: u64,
    due: &[(EvictionOrder, &'a MemoryHolder<'b>)],
) -> Option<Vec<(EvictionOrder, &'a MemoryHolder<'b>)>> {
    let (mut freed, mut selected) = (0u64, Vec::new());
    for &(order, holder) in due {
        if freed < missing {
            freed = freed.saturating_add(holder.need);
            selected.push((order, holder));
        }
    }
    if freed < missing {
        return None;
    }
    // A large worker late in the order can make earlier ones unnecessary. Workers at the end, those in use, are spared
    // first.
    for at in (0..selected.len()).rev() {
        let without = freed.saturating_sub(selected[at].1.need);
        if without >= missing {
            freed = without;
            selected.remove(at);
        }
    }
    Some(selected)
}

/// Whether the claim needs the memory of this evicted worker, which is given as it was before its eviction: the claim may
/// evict it, and does not fit beside it and the workers that stay.
pub(crate) fn is_needed(
    budget: u64,
    patience: Duration,
    now: ActiveInstant,
    claim: MemoryClaim<'_>,
    evicted: &MemoryHolder<'_>,
    holders: &[MemoryHolder<'_>],
) -> bool {
    let may_evict = match EvictionOrder::of(evicted, claim, patience) {
        Some(EvictionOrder::Idle(_)) => true,
        Some(EvictionOrder::InUse { due, .. }) => due <= now,
        None => false,
    };
    let staying = holders
        .iter()
        .filter(|holder| holder.stage != HolderStage::Leaving)
        .fold(evicted.need, |sum, holder| sum.saturating_add(holder.need));
    may_evict && is_admissible(budget, claim, holders) && claim.need.min(budget) > budget.saturating_sub(staying)
}

/// Whether the claim fits beside the workers that are never evicted for it.
pub(crate) fn is_admissible(budget: u64, claim: MemoryClaim<'_>, holders: &[MemoryHolder<'_>]) -> bool {
    let need = claim.need;
    let stays = |holder: &&MemoryHolder<'_>| is_exempt_from(claim, holder) && holder.stage != HolderStage::Leaving;
    let staying = holders.iter().filter(stays).fold(0, |sum: u64, holder| sum.saturating_add(holder.need));
    need.min(budget) <= budget.saturating_sub(staying)
}

/// Returns the pinned models of other workers if the claim cannot fit beside them; otherwise an empty list.
pub(crate) fn pinned_in_the_way<'a>(budget: u64, claim: MemoryClaim<'_>, holders: &[MemoryHolder<'a>]) -> Vec<&'a str> {
    let is_pinned_other = |holder: &&MemoryHolder<'a>| {
        holder.is_pinned && holder.need > 0 && holder.model != claim.model && holder.stage != HolderStage::Leaving
    };
    let pinned: Vec<MemoryHolder<'a>> = holders.iter().filter(is_pinned_other).copied().collect();
    match is_admissible(budget, claim, &pinned) {
        true => Vec::new(),
        false => pinned.iter().map(|holder| holder.model).collect(),
    }
}

/// Whether the worker is never evicted for this claim. Replacing a worker of the same model would gain nothing.
fn is_exempt_from(claim: MemoryClaim<'_>, holder: &MemoryHolder<'_>) -> bool {
    holder.is_pinned || holder.model == claim.model
}

/// The order in which workers are evicted; the derived `Ord` is that order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum EvictionOrder {
    /// First idle workers, least recently used first.
    Idle(ActiveInstant),
    /// Then workers in use, the longest ready first, each not before `due`.
    InUse { ready: ActiveInstant, due: ActiveInstant },
}

impl EvictionOrder {
    /// Returns the worker's place in the order, or `None` if it is not evicted for this claim in its present stage.
    fn of(holder: &MemoryHolder<'_>, claim: MemoryClaim<'_>, patience: Duration) -> Option<Self> {
        match holder.stage {
            _ if is_exempt_from(claim, holder) => None,
            HolderStage::Loading | HolderStage::Leaving => None,
            HolderStage::Idle { .. } if holder.is_preloaded && !claim.is_wanted => None,
            HolderStage::Idle { since } => Some(Self::Idle(since)),
            HolderStage::InUse { .. } if !claim.is_wanted => None,
            HolderStage::InUse { ready } => Some(Self::InUse { ready, due: ready.max(claim.since) + patience }),
        }
    }
}

#[cfg(test)]
#[path = "eviction_tests.rs"]
mod tests;
