//! Who makes room for a model that is to be loaded: pure, so that properties can be tested.
//!
//! What is idle goes, least recently used first. What is in use goes only for a claim that is wanted and has waited for
//! its patience, and only after it has been left to serve for as long itself: two busy models that do not fit together
//! take turns, and neither is stopped before it has served anybody. It is let finish first. What is idle stays until that
//! has left, and nobody goes whose memory is not needed. No worker of a model goes for another of the same model. Owns no process and no clock.

use crate::pause_clock::ActiveInstant;
use std::time::Duration;

/// A load that waits for memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemoryClaim<'a> {
    /// Whose load it is.
    pub(crate) model: &'a str,
    /// Bytes.
    pub(crate) need: u64,
    /// Whether a request waits for it; else it is loaded ahead of them.
    pub(crate) is_wanted: bool,
    /// When it began to wait.
    pub(crate) since: ActiveInstant,
}

/// A worker that has memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemoryHolder<'a> {
    pub(crate) id: u64,
    /// Whose worker it is.
    pub(crate) model: &'a str,
    /// Bytes.
    pub(crate) need: u64,
    /// Never stopped for another.
    pub(crate) is_pinned: bool,
    /// Loaded ahead of requests, and so not to be stopped for another that is.
    pub(crate) is_preloaded: bool,
    pub(crate) stage: HolderStage,
}

/// Where a worker that has memory stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HolderStage {
    /// It is being loaded.
    Loading,
    /// It serves, or requests wait for it.
    InUse {
        /// When it was ready.
        ready: ActiveInstant,
    },
    /// It has nothing to do.
    Idle {
        /// Since when.
        since: ActiveInstant,
    },
    /// It is on its way out.
    Leaving,
}

/// What is to be done for the first claim in line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EvictionStep {
    /// There is room.
    Grant,
    /// These must go first.
    Clear(Vec<(u64, EvictionMode)>),
    /// Nothing, until something changes, or until then.
    Wait(Option<ActiveInstant>),
    /// Nothing, until something changes. Nobody waits for it and nothing leaves for it, so that others need not stand behind.
    Yield,
}

/// How a worker goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EvictionMode {
    /// At once, if it is still idle.
    Idle,
    /// When it has finished what it serves, whatever that is by then.
    Finishing,
}

/// The next step for a claim, where `patience` is how long what is in use is left alone.
pub(crate) fn next_step(
    budget: u64,
    patience: Duration,
    now: ActiveInstant,
    claim: MemoryClaim<'_>,
    holders: &[MemoryHolder<'_>],
) -> EvictionStep {
    let sum = |of: &dyn Fn(&MemoryHolder<'_>) -> bool| {
        holders.iter().filter(|holder| of(holder)).fold(0, |sum: u64, holder| sum.saturating_add(holder.need))
    };
    let need = claim.need.min(budget);
    let to_come = sum(&|holder| holder.stage == HolderStage::Leaving);
    let staying = sum(&|holder| holder.stage != HolderStage::Leaving);
    if need <= budget.saturating_sub(staying.saturating_add(to_come)) {
        return EvictionStep::Grant;
    }
    let room = budget.saturating_sub(staying);
    if need <= room {
        return EvictionStep::Wait(None);
    }
    // So much must be given back, be there even more in use than there should be.
    let missing = staying.saturating_sub(budget - need);
    let mut candidates: Vec<(EvictionOrder, &MemoryHolder<'_>)> = holders
        .iter()
        .filter(|holder| holder.need > 0)
        .filter_map(|holder| Some((EvictionOrder::of(holder, claim, patience)?, holder)))
        .collect();
    candidates.sort_by_key(|(turn, _)| *turn);
    let is_due = |turn: &EvictionOrder| match turn {
        EvictionOrder::Idle(_) => true,
        EvictionOrder::InUse { due, .. } => *due <= now,
    };
    let due: Vec<(EvictionOrder, &MemoryHolder<'_>)> =
        candidates.iter().filter(|(turn, _)| is_due(turn)).copied().collect();
    if let Some(going) = select_for(missing, &due) {
        let (idle, in_use): (Vec<_>, Vec<_>) =
            going.into_iter().partition(|(turn, _)| matches!(turn, EvictionOrder::Idle(_)));
        let ids = |of: Vec<(EvictionOrder, &MemoryHolder<'_>)>, way| {
            of.into_iter().map(|(_, holder)| (holder.id, way)).collect()
        };
        return match (in_use.is_empty(), to_come) {
            (false, _) => EvictionStep::Clear(ids(in_use, EvictionMode::Finishing)),
            (true, 0) => EvictionStep::Clear(ids(idle, EvictionMode::Idle)),
            // What is idle can serve until all that leaves has left.
            (true, _) => EvictionStep::Wait(None),
        };
    }
    if !claim.is_wanted {
        return EvictionStep::Yield;
    }
    let next = candidates.iter().filter(|(turn, _)| !is_due(turn)).map(|(turn, _)| match turn {
        EvictionOrder::Idle(since) => *since,
        EvictionOrder::InUse { due, .. } => *due,
    });
    EvictionStep::Wait(next.min())
}

/// Those of `due`, in whose order they go, that give back so many bytes: nobody whose memory is not needed for that, and of
/// what is in use no more than what is idle leaves to give. None if all of them do not suffice.
fn select_for<'a, 'b>(
    missing: u64,
    due: &[(EvictionOrder, &'a MemoryHolder<'b>)],
) -> Option<Vec<(EvictionOrder, &'a MemoryHolder<'b>)>> {
    let (mut freed, mut going) = (0u64, Vec::new());
    for &(turn, holder) in due {
        if freed < missing {
            freed = freed.saturating_add(holder.need);
            going.push((turn, holder));
        }
    }
    if freed < missing {
        return None;
    }
    // The last in line is spared first.
    for at in (0..going.len()).rev() {
        let without = freed.saturating_sub(going[at].1.need);
        if without >= missing {
            freed = without;
            going.remove(at);
        }
    }
    Some(going)
}

/// Whether there is room for it at some time, as things stand: beside what never goes for it.
pub(crate) fn is_admissible(budget: u64, claim: MemoryClaim<'_>, holders: &[MemoryHolder<'_>]) -> bool {
    let need = claim.need;
    let stays = |holder: &&MemoryHolder<'_>| is_exempt_from(claim, holder) && holder.stage != HolderStage::Leaving;
    let staying = holders.iter().filter(stays).fold(0, |sum: u64, holder| sum.saturating_add(holder.need));
    need.min(budget) <= budget.saturating_sub(staying)
}

/// The models of others that are pinned, if it is for them that there is never room.
pub(crate) fn pinned_in_the_way<'a>(budget: u64, claim: MemoryClaim<'_>, holders: &[MemoryHolder<'a>]) -> Vec<&'a str> {
    let of_others = |holder: &&MemoryHolder<'a>| {
        holder.is_pinned && holder.need > 0 && holder.model != claim.model && holder.stage != HolderStage::Leaving
    };
    let pinned: Vec<MemoryHolder<'a>> = holders.iter().filter(of_others).copied().collect();
    match is_admissible(budget, claim, &pinned) {
        true => Vec::new(),
        false => pinned.iter().map(|holder| holder.model).collect(),
    }
}

/// Whether this worker makes no room for that claim, whatever happens. Nothing would be won if it were of the same model.
fn is_exempt_from(claim: MemoryClaim<'_>, holder: &MemoryHolder<'_>) -> bool {
    holder.is_pinned || holder.model == claim.model
}

/// The order in which workers go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum EvictionOrder {
    /// First those that nobody uses, the longest unused before the others.
    Idle(ActiveInstant),
    /// Then those that have served for the longest time, each from some moment on.
    InUse { ready: ActiveInstant, due: ActiveInstant },
}

impl EvictionOrder {
    /// Of this worker, if it may have to go for that claim.
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
