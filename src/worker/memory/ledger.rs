//! Records which loads have memory and which wait for it, in order of arrival, and since when each has waited.
//!
//! It decides nothing and wakes no task: the scheduler does.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
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
    /// Whether the worker is evicted. Its owner follows each change.
    evicted: watch::Sender<bool>,
}

/// The stage of a worker that has memory.
pub(super) enum GrantStage {
    Loading,
    Ready(ReadyWorker),
    /// Evicted; it may finish requests, and is recalled if its memory is not needed any more before it stops.
    Evicted(ReadyWorker, EvictionMode),
    /// It stops, for whatever reason.
    Leaving,
}

/// A worker that is ready: where it serves, and since when.
#[derive(Clone)]
pub(super) struct ReadyWorker {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) since: ActiveInstant,
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

    /// Grants memory to a waiting load. Returns the channel that says whether its worker is evicted.
    pub(super) fn grant(&mut self, id: u64) -> Option<watch::Receiver<bool>> {
        let at = self.waiting.iter().position(|waiter| waiter.id == id)?;
        let MemoryWaiter { request, since, .. } = self.waiting.remove(at);
        self.reported_crowded_out.remove(&request.model);
        let (evicted, receiver) = watch::channel(false);
        self.grants.push(Grant { id, request, since, stage: GrantStage::Loading, evicted });
        self.assert_consistent();
        Some(receiver)
    }

    /// Records that the worker of a grant is ready, if its load is not over.
    pub(super) fn mark_ready(&mut self, id: u64, worker: ReadyWorker) {
        // A worker that is evicted or leaving stays so: its memory must not look evictable again.
        if let Some(grant) =
            self.grants.iter_mut().find(|grant| grant.id == id && matches!(grant.stage, GrantStage::Loading))
        {
            grant.stage = GrantStage::Ready(worker);
        }
    }

    /// Sets the bytes of a grant.
    pub(super) fn set_need(&mut self, id: u64, need: u64) {
        if let Some(grant) = self.grants.iter_mut().find(|grant| grant.id == id) {
            grant.request.need = need;
        }
    }

    /// Records that the worker of a grant has begun to end, for any reason.
    pub(super) fn mark_leaving(&mut self, id: u64) {
        if let Some(grant) = self.grants.iter_mut().find(|grant| grant.id == id) {
            grant.stage = GrantStage::Leaving;
        }
    }

    /// Marks an evicted worker as leaving; it cannot be recalled from then on. Returns whether it leaves: false if it was
    /// recalled before.
    pub(super) fn confirm_leaving(&mut self, id: u64) -> bool {
        let Some(grant) = self.grants.iter_mut().find(|grant| grant.id == id) else { return true };
        if matches!(grant.stage, GrantStage::Evicted(..)) {
            grant.stage = GrantStage::Leaving;
        }
        matches!(grant.stage, GrantStage::Leaving)
    }

    /// Returns the evicted workers that can be recalled, as they were before. Those that were in use come first.
    pub(super) fn evicted(&self) -> Vec<MemoryHolder<'_>> {
        let as_before = |grant| Grant::holder_before_eviction(grant);
        let mut evicted: Vec<MemoryHolder<'_>> = self.grants.iter().filter_map(as_before).collect();
        evicted.sort_by_key(|holder| matches!(holder.stage, HolderStage::Idle { .. }));
        evicted
    }

    /// Recalls an evicted worker: its owner lets it serve again.
    pub(super) fn recall(&mut self, id: u64) {
        let Some(grant) = self.grants.iter_mut().find(|grant| grant.id == id) else { return };
        let GrantStage::Evicted(worker, _) = &grant.stage else { return };
        grant.stage = GrantStage::Ready(worker.clone());
        grant.evicted.send_replace(false);
        info!(model = grant.request.model, "its memory is no longer needed by another model, it stays");
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
        if !self.grants.iter().any(|grant| grant.request.model == request.model && !grant.is_leaving()) {
            self.ages.keep(request, since);
        }
    }

    /// Evicts these workers.
    ///
    /// # Errors
    ///
    /// [`NoLongerIdle`] if a worker that was selected as idle is in use again. None has been evicted then, because the
    /// others alone might not be enough.
    pub(super) fn evict(&mut self, selected: &[(u64, EvictionMode)]) -> Result<(), NoLongerIdle> {
        let is_idle = |grant: &&Grant| selected.contains(&(grant.id, EvictionMode::Idle));
        let idle: Vec<&Grant> = self.grants.iter().filter(is_idle).collect();
        // Requests do not take the ledger's lock, so one may have begun since the selection. Closing the endpoints checks
        // that under their own locks.
        let endpoints: Vec<&Endpoint> = idle.iter().filter_map(|grant| grant.ready_endpoint()).collect();
        if idle.iter().any(|grant| !grant.request.demand.is_empty()) || !Endpoint::close_all_if_idle(&endpoints) {
            return Err(NoLongerIdle);
        }
        for (id, mode) in selected {
            let Some(grant) = self.grants.iter_mut().find(|grant| grant.id == *id) else { continue };
            let GrantStage::Ready(worker) = &grant.stage else { continue };
            match mode {
                EvictionMode::Idle => info!(model = grant.request.model, "it makes room for another model"),
                EvictionMode::Finishing => {
                    worker.endpoint.close_to_new();
                    info!(model = grant.request.model, "it finishes what it serves and makes room for another model");
                }
            }
            grant.stage = GrantStage::Evicted(worker.clone(), *mode);
            grant.evicted.send_replace(true);
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
        self.holder_in(match &self.stage {
            GrantStage::Loading => HolderStage::Loading,
            GrantStage::Evicted(..) | GrantStage::Leaving => HolderStage::Leaving,
            GrantStage::Ready(worker) => match worker.endpoint.idle_since() {
                Some(idle) if self.request.demand.is_empty() => HolderStage::Idle { since: idle },
                _ => HolderStage::InUse { ready: worker.since },
            },
        })
    }

    /// Returns an evicted worker in the stage in which it was evicted; `None` if it is not evicted, or leaves already.
    fn holder_before_eviction(&self) -> Option<MemoryHolder<'_>> {
        let GrantStage::Evicted(worker, mode) = &self.stage else { return None };
        Some(self.holder_in(match mode {
            EvictionMode::Idle => HolderStage::Idle { since: worker.since },
            EvictionMode::Finishing => HolderStage::InUse { ready: worker.since },
        }))
    }

    fn ready_endpoint(&self) -> Option<&Endpoint> {
        match &self.stage {
            GrantStage::Ready(worker) => Some(&worker.endpoint),
            _ => None,
        }
    }

    /// Whether the worker gives its memory back.
    fn is_leaving(&self) -> bool {
        matches!(self.stage, GrantStage::Evicted(..) | GrantStage::Leaving)
    }

    fn holder_in(&self, stage: HolderStage) -> MemoryHolder<'_> {
        let MemoryRequest { need, is_preloaded, ref demand, .. } = self.request;
        let is_pinned = demand.pin().is_on();
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
