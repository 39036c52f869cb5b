//! Records which loads have memory and which wait for it, in order of arrival, and since when each has waited.
//!
//! It decides nothing and wakes no task: the scheduler does.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::eviction::{EvictionMode, HolderStage, MemoryClaim, MemoryHolder};
use crate::pause_clock::ActiveInstant;
use crate::telemetry::metrics::{Metrics, bytes};
use crate::worker::bounds::CLAIM_GRACE;
use crate::worker::change_signal::ChangeSignal;
use crate::worker::demand::Demand;
use crate::worker::endpoint::Endpoint;

/// The ledger behind its lock, with what its users share: the budget, the metrics and the signal for waiting loads.
pub(super) struct SharedLedger {
    /// In bytes; `None` means unlimited.
    pub(super) budget: Option<u64>,
    /// How long a load waits before workers in use are evicted for it (`MAX_WAIT_BEFORE_DRAIN`).
    pub(super) patience: Duration,
    pub(super) change_signal: Arc<ChangeSignal>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) ledger: Mutex<Ledger>,
}

/// A worker's request for memory.
#[derive(Clone)]
pub(crate) struct MemoryRequest {
    /// The id of the worker's model. Other workers of this model are not evicted for it.
    pub(crate) model: String,
    /// Bytes.
    pub(crate) need: u64,
    /// Whether the worker is never evicted.
    pub(crate) is_pinned: bool,
    /// Whether the worker is started ahead of requests.
    pub(crate) is_preloaded: bool,
    /// The demand for the worker.
    pub(crate) demand: Arc<Demand>,
}

/// The load cannot fit beside these pinned models, even if everything else is evicted.
#[derive(Debug)]
pub(crate) struct CrowdedOut(pub(crate) Vec<String>);

/// The loads that wait for memory and the workers that have it. A worker is never in both lists.
#[derive(Default)]
pub(super) struct Ledger {
    next: u64,
    pub(super) grants: Vec<Grant>,
    pub(super) waiting: Vec<MemoryWaiter>,
    ages: WaitAges,
    /// The models that were logged as crowded out; a model is removed when it gets memory.
    pub(super) reported_crowded_out: BTreeSet<String>,
}

/// A load that waits for memory.
pub(super) struct MemoryWaiter {
    pub(super) id: u64,
    pub(super) request: MemoryRequest,
    /// When the wait began, short interruptions included. Reset when a worker of the same model is evicted.
    pub(super) since: ActiveInstant,
    is_logged: bool,
}

/// A worker that has memory.
pub(super) struct Grant {
    pub(super) id: u64,
    pub(super) request: MemoryRequest,
    /// When the wait for this memory had begun.
    since: ActiveInstant,
    stage: GrantStage,
    /// Cancelled when the worker is evicted.
    evicted: CancellationToken,
}

/// The stage of a worker that has memory.
pub(super) enum GrantStage {
    Loading,
    Ready { endpoint: Arc<Endpoint>, since: ActiveInstant },
    Leaving,
}

/// When the waits began of loads that gave up before they were ready. Each entry is kept for [`CLAIM_GRACE`]: requests
/// may give up before a busy worker is evicted for them, and a retry must not wait from the start.
#[derive(Default)]
struct WaitAges(Vec<WaitAge>);

struct WaitAge {
    request: MemoryRequest,
    since: ActiveInstant,
    until: ActiveInstant,
}

/// A request arrived before the worker could be closed as idle.
pub(super) struct NoLongerIdle;

impl SharedLedger {
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the bytes in use.
    pub(super) fn publish_metrics(&self, ledger: &Ledger) {
        self.metrics.memory_used.set(bytes(ledger.used()));
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

    /// Returns the bytes of all grants.
    pub(super) fn used(&self) -> u64 {
        self.grants.iter().fold(0, |sum: u64, grant| sum.saturating_add(grant.request.need))
    }

    /// Adds a load to the end of the queue and returns its id.
    pub(super) fn join(&mut self, request: MemoryRequest) -> u64 {
        let id = self.next;
        self.next += 1;
        let since = self.ages.take(&request).unwrap_or_else(ActiveInstant::now);
        self.waiting.push(MemoryWaiter { id, request, since, is_logged: false });
        self.assert_consistent();
        id
    }

    /// Removes a load from the queue. Does nothing if it has been granted memory.
    pub(super) fn leave(&mut self, id: u64) {
        if let Some(at) = self.waiting.iter().position(|waiter| waiter.id == id) {
            let MemoryWaiter { request, since, .. } = self.waiting.remove(at);
            self.keep_age(request, since);
        }
        self.assert_consistent();
    }

    /// Grants memory to a waiting load. Returns the token that is cancelled when its worker is evicted.
    pub(super) fn grant(&mut self, id: u64) -> Option<CancellationToken> {
        let at = self.waiting.iter().position(|waiter| waiter.id == id)?;
        let MemoryWaiter { request, since, .. } = self.waiting.remove(at);
        self.reported_crowded_out.remove(&request.model);
        let evicted = CancellationToken::new();
        self.grants.push(Grant { id, request, since, stage: GrantStage::Loading, evicted: evicted.clone() });
        self.assert_consistent();
        Some(evicted)
    }

    /// Sets the stage of a grant, unless its worker is already leaving.
    pub(super) fn set_stage(&mut self, id: u64, stage: GrantStage) {
        // A worker that is leaving stays so: a late `mark_ready` must not make its memory look evictable again.
        if let Some(grant) =
            self.grants.iter_mut().find(|grant| grant.id == id && !matches!(grant.stage, GrantStage::Leaving))
        {
            grant.stage = stage;
        }
    }

    /// Removes a grant: its memory has been released.
    pub(super) fn release(&mut self, id: u64) {
        let Some(at) = self.grants.iter().position(|grant| grant.id == id) else { return };
        let Grant { request, since, stage, .. } = self.grants.remove(at);
        // A worker that was ready has had its turn; a load that failed or was cancelled has not.
        if matches!(stage, GrantStage::Loading) {
            self.keep_age(request, since);
        }
        self.assert_consistent();
    }

    /// Keeps the age of a load that ended before it was ready, unless another worker serves its model.
    fn keep_age(&mut self, request: MemoryRequest, since: ActiveInstant) {
        if !self
            .grants
            .iter()
            .any(|grant| grant.request.model == request.model && !matches!(grant.stage, GrantStage::Leaving))
        {
            self.ages.keep(request, since);
        }
    }

    /// Evicts these workers.
    ///
    /// # Errors
    ///
    /// [`NoLongerIdle`] if a worker that was selected as idle is in use again. Those before it in `selected` have been
    /// evicted.
    pub(super) fn evict(&mut self, selected: &[(u64, EvictionMode)]) -> Result<(), NoLongerIdle> {
        for (id, mode) in selected {
            let Some(grant) = self.grants.iter_mut().find(|grant| grant.id == *id) else { continue };
            let GrantStage::Ready { endpoint, .. } = &grant.stage else { continue };
            match mode {
                // Requests do not take the ledger's lock, so one may have begun since the selection. Closing the
                // endpoint checks that under its own lock.
                EvictionMode::Idle if !grant.request.demand.is_empty() || !endpoint.close_if_idle(Duration::ZERO) => {
                    return Err(NoLongerIdle);
                }
                EvictionMode::Idle => info!(model = grant.request.model, "it makes room for another model"),
                EvictionMode::Finishing => {
                    endpoint.close_to_new();
                    info!(model = grant.request.model, "it finishes what it serves and makes room for another model");
                }
            }
            grant.stage = GrantStage::Leaving;
            grant.evicted.cancel();
            // This model has had its turn: its waiting loads queue behind the load that it is evicted for.
            let model = &grant.request.model;
            for waiter in self.waiting.iter_mut().filter(|waiter| waiter.request.model == *model) {
                waiter.since = ActiveInstant::now();
            }
            self.ages.forget(model);
        }
        Ok(())
    }

    /// Checks the invariants that hold between two calls. Debug builds only.
    fn assert_consistent(&self) {
        debug_assert!(self.waiting.is_sorted_by(|a, b| a.id < b.id), "the queue is in order of arrival");
        debug_assert!(self.waiting.iter().all(|waiter| waiter.id < self.next), "every id in the queue has been issued");
        debug_assert!(self.grants.iter().all(|grant| grant.id < self.next), "every id with memory has been issued");
        debug_assert!(
            self.grants.iter().all(|grant| self.waiter(grant.id).is_none()),
            "a load that has memory no longer waits for it"
        );
        debug_assert!(
            self.grants
                .iter()
                .enumerate()
                .all(|(at, grant)| self.grants[..at].iter().all(|other| other.id != grant.id)),
            "a load has memory once"
        );
    }

    /// Logs that a load waits, once.
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
    /// Keeps the start of a wait for [`CLAIM_GRACE`].
    fn keep(&mut self, request: MemoryRequest, since: ActiveInstant) {
        self.0.push(WaitAge { request, since, until: ActiveInstant::now() + CLAIM_GRACE });
    }

    /// Takes the start of the worker's earlier wait, if it is still kept.
    fn take(&mut self, request: &MemoryRequest) -> Option<ActiveInstant> {
        let now = ActiveInstant::now();
        self.0.retain(|age| age.until > now);
        // The demand identifies the worker: workers of one model share its id, but not their demand.
        let at = self.0.iter().position(|age| Arc::ptr_eq(&age.request.demand, &request.demand))?;
        Some(self.0.swap_remove(at).since)
    }

    /// Drops all ages of a model.
    fn forget(&mut self, model: &str) {
        self.0.retain(|age| age.request.model != model);
    }
}
