//! Who waits for memory and who has it, as it is written down.
//!
//! Keeps the order of the line and since when each has waited. It decides nothing and wakes no task: the
//! scheduler does.

use super::eviction::{EvictionMode, HolderStage, MemoryClaim, MemoryHolder};
use crate::pause_clock::ActiveInstant;
use crate::telemetry::metrics::{Metrics, bytes};
use crate::worker::bounds::CLAIM_GRACE;
use crate::worker::change_signal::ChangeSignal;
use crate::worker::demand::Demand;
use crate::worker::endpoint::Endpoint;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// The book behind its lock, with the metrics that show it and the bell that tells of its changes.
pub(super) struct SharedLedger {
    /// In bytes; without one there is room for all.
    pub(super) budget: Option<u64>,
    /// How long a load that waits leaves alone what is in use.
    pub(super) patience: Duration,
    pub(super) bell: Arc<ChangeSignal>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) ledger: Mutex<Ledger>,
}

/// Who asks for room.
#[derive(Clone)]
pub(crate) struct MemoryRequest {
    /// The id of its model. Its other workers do not make room for this one.
    pub(crate) model: String,
    /// Bytes.
    pub(crate) need: u64,
    /// Never stopped for another.
    pub(crate) is_pinned: bool,
    /// Started ahead of requests.
    pub(crate) is_preloaded: bool,
    /// Who wants it.
    pub(crate) demand: Arc<Demand>,
}

/// There is no room for a load, whatever goes, beside these models, which are pinned.
#[derive(Debug)]
pub(crate) struct CrowdedOut(pub(crate) Vec<String>);

/// Who stands in line, and who has a seat: nobody both.
#[derive(Default)]
pub(super) struct Ledger {
    next: u64,
    pub(super) grants: Vec<Grant>,
    pub(super) waiting: Vec<MemoryWaiter>,
    ages: WaitAges,
    /// The models of which it has been logged that there is no room for them, until there is.
    pub(super) reported_crowded_out: BTreeSet<String>,
}

/// A load that waits.
pub(super) struct MemoryWaiter {
    pub(super) id: u64,
    pub(super) request: MemoryRequest,
    /// When it began to wait, be it with pauses, or its model had to make room for another.
    pub(super) since: ActiveInstant,
    is_logged: bool,
}

/// One that has room.
pub(super) struct Grant {
    pub(super) id: u64,
    pub(super) request: MemoryRequest,
    /// When it had begun to wait for this.
    since: ActiveInstant,
    stage: GrantStage,
    /// Cancelled when it has to go.
    evicted: CancellationToken,
}

/// Where one that has room stands.
pub(super) enum GrantStage {
    Loading,
    Ready { endpoint: Arc<Endpoint>, since: ActiveInstant },
    Leaving,
}

/// Since when workers waited that have left the line without being loaded; each is kept for [`CLAIM_GRACE`]. Requests may
/// give up before a busy worker has to make room, and a worker that is wanted again must not wait from the start.
#[derive(Default)]
struct WaitAges(Vec<WaitAge>);

struct WaitAge {
    lodger: MemoryRequest,
    since: ActiveInstant,
    until: ActiveInstant,
}

/// A request came before the worker could be closed.
pub(super) struct NoLongerIdle;

impl SharedLedger {
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows how much is taken.
    pub(super) fn publish_metrics(&self, book: &Ledger) {
        self.metrics.memory_used.set(bytes(book.used()));
    }
}

impl MemoryRequest {
    pub(super) fn claim(&self, since: ActiveInstant) -> MemoryClaim<'_> {
        MemoryClaim { model: &self.model, need: self.need, is_wanted: !self.demand.is_empty(), since }
    }
}

impl Ledger {
    pub(super) fn waiter(&self, id: u64) -> Option<&MemoryWaiter> {
        self.waiting.iter().find(|waiter| waiter.id == id)
    }

    pub(super) fn holders(&self) -> Vec<MemoryHolder<'_>> {
        self.grants.iter().map(Grant::holder).collect()
    }

    /// Bytes that those that have room count for.
    pub(super) fn used(&self) -> u64 {
        self.grants.iter().fold(0, |sum: u64, seat| sum.saturating_add(seat.request.need))
    }

    /// Puts one at the end of the line.
    pub(super) fn join(&mut self, lodger: MemoryRequest) -> u64 {
        let id = self.next;
        self.next += 1;
        let since = self.ages.take(&lodger).unwrap_or_else(ActiveInstant::now);
        self.waiting.push(MemoryWaiter { id, request: lodger, since, is_logged: false });
        self.assert_consistent();
        id
    }

    /// One waits no longer, unless it has been given room.
    pub(super) fn leave(&mut self, id: u64) {
        if let Some(at) = self.waiting.iter().position(|waiter| waiter.id == id) {
            let MemoryWaiter { request: lodger, since, .. } = self.waiting.remove(at);
            self.keep_age(lodger, since);
        }
        self.assert_consistent();
    }

    /// Gives room to one in line.
    pub(super) fn grant(&mut self, id: u64) -> Option<CancellationToken> {
        let at = self.waiting.iter().position(|waiter| waiter.id == id)?;
        let MemoryWaiter { request: lodger, since, .. } = self.waiting.remove(at);
        self.reported_crowded_out.remove(&lodger.model);
        let dismissed = CancellationToken::new();
        self.grants.push(Grant { id, request: lodger, since, stage: GrantStage::Loading, evicted: dismissed.clone() });
        self.assert_consistent();
        Some(dismissed)
    }

    /// One that has room stands there now, unless it is on its way out.
    pub(super) fn set_stage(&mut self, id: u64, place: GrantStage) {
        if let Some(seat) =
            self.grants.iter_mut().find(|seat| seat.id == id && !matches!(seat.stage, GrantStage::Leaving))
        {
            seat.stage = place;
        }
    }

    /// One gives back its room.
    pub(super) fn release(&mut self, id: u64) {
        let Some(at) = self.grants.iter().position(|seat| seat.id == id) else { return };
        let Grant { request: lodger, since, stage: at, .. } = self.grants.remove(at);
        if matches!(at, GrantStage::Loading) {
            self.keep_age(lodger, since);
        }
        self.assert_consistent();
    }

    /// One leaves that has not been loaded. Unless its model is served by another worker, it has waited in vain.
    fn keep_age(&mut self, lodger: MemoryRequest, since: ActiveInstant) {
        if !self
            .grants
            .iter()
            .any(|seat| seat.request.model == lodger.model && !matches!(seat.stage, GrantStage::Leaving))
        {
            self.ages.keep(lodger, since);
        }
    }

    /// Has these go. What was idle when that was decided must still be so.
    pub(super) fn evict(&mut self, going: &[(u64, EvictionMode)]) -> Result<(), NoLongerIdle> {
        for (id, way) in going {
            let Some(seat) = self.grants.iter_mut().find(|seat| seat.id == *id) else { continue };
            let GrantStage::Ready { endpoint, .. } = &seat.stage else { continue };
            match way {
                EvictionMode::Idle if !seat.request.demand.is_empty() || !endpoint.close_if_idle(Duration::ZERO) => {
                    return Err(NoLongerIdle);
                }
                EvictionMode::Idle => info!(model = seat.request.model, "it makes room for another model"),
                EvictionMode::Finishing => {
                    endpoint.close_to_new();
                    info!(model = seat.request.model, "it finishes what it serves and makes room for another model");
                }
            }
            seat.stage = GrantStage::Leaving;
            seat.evicted.cancel();
            // Its model has had its turn: what it still waits for comes after the one for whom it goes.
            let model = &seat.request.model;
            for waiter in self.waiting.iter_mut().filter(|waiter| waiter.request.model == *model) {
                waiter.since = ActiveInstant::now();
            }
            self.ages.forget(model);
        }
        Ok(())
    }

    /// Checks, in debug builds alone, what must be true between two calls.
    fn assert_consistent(&self) {
        debug_assert!(self.waiting.is_sorted_by(|a, b| a.id < b.id), "the line is in the order of arrival");
        debug_assert!(self.waiting.iter().all(|waiter| waiter.id < self.next), "an id in the line has been given out");
        debug_assert!(self.grants.iter().all(|seat| seat.id < self.next), "an id with memory has been given out");
        debug_assert!(
            self.grants.iter().all(|seat| self.waiter(seat.id).is_none()),
            "a load that has memory no longer waits for it"
        );
        debug_assert!(
            self.grants.iter().enumerate().all(|(at, seat)| self.grants[..at].iter().all(|other| other.id != seat.id)),
            "a load has memory once"
        );
    }

    /// Logs once that one waits.
    pub(super) fn log_wait(&mut self, id: u64) {
        let Some(waiter) = self.waiting.iter_mut().find(|waiter| waiter.id == id) else { return };
        if !std::mem::replace(&mut waiter.is_logged, true) {
            info!(
                model = waiter.request.model,
                need = waiter.request.need,
                "its load waits for memory (MEMORY_BUDGET)"
            );
        }
    }
}

impl MemoryWaiter {
    pub(super) fn claim(&self) -> MemoryClaim<'_> {
        self.request.claim(self.since)
    }
}

impl Grant {
    pub(super) fn holder(&self) -> MemoryHolder<'_> {
        let stage = match &self.stage {
            GrantStage::Loading => HolderStage::Loading,
            GrantStage::Leaving => HolderStage::Leaving,
            GrantStage::Ready { endpoint, since } => match endpoint.idle_since() {
                Some(idle) if self.request.demand.is_empty() => HolderStage::Idle { since: idle },
                _ => HolderStage::InUse { ready: *since },
            },
        };
        let MemoryRequest { need, is_pinned, is_preloaded, .. } = self.request;
        MemoryHolder { id: self.id, model: &self.request.model, need, is_pinned, is_preloaded, stage }
    }
}

impl WaitAges {
    /// This one has waited since then, and does not now.
    fn keep(&mut self, lodger: MemoryRequest, since: ActiveInstant) {
        self.0.push(WaitAge { lodger, since, until: ActiveInstant::now() + CLAIM_GRACE });
    }

    /// Since when one has waited that comes back, if it is not too late.
    fn take(&mut self, lodger: &MemoryRequest) -> Option<ActiveInstant> {
        let now = ActiveInstant::now();
        self.0.retain(|age| age.until > now);
        let at = self.0.iter().position(|age| Arc::ptr_eq(&age.lodger.demand, &lodger.demand))?;
        Some(self.0.swap_remove(at).since)
    }

    /// A model has had its turn.
    fn forget(&mut self, model: &str) {
        self.0.retain(|age| age.lodger.model != model);
    }
}
