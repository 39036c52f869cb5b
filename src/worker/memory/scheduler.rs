//! The memory scheduler: a worker reserves memory before its process is started, and keeps it until the process has
//! ended and the memory has been released.
//!
//! Owns the order in which loads get memory. The [`Ledger`] records who waits and who has memory;
//! [`super::eviction`] selects the workers to evict; the owner of an evicted worker stops it.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::warn;

use super::eviction::{EvictionStep, MemoryHolder, is_admissible, is_needed, next_step, pinned_in_the_way};
use super::ledger::{CrowdedOut, Ledger, MemoryRequest, MemoryWaiter, SharedLedger};
use super::reservation::Reservation;
use crate::pause_clock::{self, ActiveInstant};
use crate::telemetry::metrics::{Metrics, bytes};
use crate::worker::change_signal::ChangeSignal;

/// Grants memory to the loads of all workers. Clones share one ledger.
#[derive(Clone)]
pub(crate) struct MemoryScheduler(Arc<SharedLedger>);

/// Why a load gets no memory now.
enum NotGranted {
    /// Try again after a change, or at this time.
    Yet(Option<ActiveInstant>),
    Ever(CrowdedOut),
}

/// A load's entry in the queue; dropping it leaves the queue.
struct WaitingGuard<'a> {
    id: u64,
    shared: &'a SharedLedger,
}

impl MemoryScheduler {
    /// Creates a scheduler of `budget` bytes, all of them free. Workers in use are left alone for `patience`.
    pub(crate) fn new(
        budget: Option<u64>,
        patience: Duration,
        change_signal: Arc<ChangeSignal>,
        metrics: Arc<Metrics>,
    ) -> Self {
        metrics.memory_budget.set(bytes(budget.unwrap_or(0)));
        Self(Arc::new(SharedLedger { budget, patience, change_signal, metrics, ledger: Mutex::default() }))
    }

    /// Waits until memory is granted. May be cancelled.
    ///
    /// # Errors
    ///
    /// [`CrowdedOut`] if the load cannot fit before a pinned model leaves.
    pub(crate) async fn reserve(&self, request: MemoryRequest) -> Result<Reservation, CrowdedOut> {
        let shared = &self.0;
        // `notify` skips the wake-up while there are no listeners, so listen before joining the queue.
        let listener = shared.change_signal.listen();
        let waiting = WaitingGuard { id: shared.join(request), shared };
        loop {
            let mut changed = pin!(listener.notified());
            // Enabled before the ledger is read: a change between the two wakes this task.
            changed.as_mut().enable();
            let until = match self.try_grant(waiting.id) {
                Ok(reservation) => return Ok(reservation),
                Err(NotGranted::Ever(crowded_out)) => return Err(crowded_out),
                Err(NotGranted::Yet(until)) => until,
            };
            let due = async {
                match until {
                    Some(until) => pause_clock::sleep(until - ActiveInstant::now()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {}
                () = due => {}
            }
        }
    }

    /// Waits until the pinned models leave enough memory for `request`. May be cancelled.
    pub(crate) async fn wait_until_admissible(&self, request: &MemoryRequest) {
        let shared = &self.0;
        let listener = shared.change_signal.listen();
        loop {
            let mut changed = pin!(listener.notified());
            changed.as_mut().enable();
            if shared.pinned_in_the_way(&shared.ledger(), request).is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// Takes the next step for a waiting load: grants memory, evicts workers for it, or says how long to wait.
    fn try_grant(&self, id: u64) -> Result<Reservation, NotGranted> {
        let shared = &self.0;
        let mut ledger = shared.ledger();
        if !shared.needs_no_shared_memory(&ledger, id) {
            if let Some(crowded_out) = shared.pinned_crowding_out(&mut ledger, id) {
                return Err(NotGranted::Ever(crowded_out));
            }
            // Another load is first. It notifies this one when it becomes ready or leaves.
            if shared.first(&ledger) != Some(id) {
                if shared.step(&ledger, id) == EvictionStep::Yield {
                    ledger.log_wait(id);
                }
                return Err(NotGranted::Yet(None));
            }
        }
        loop {
            match shared.step(&ledger, id) {
                EvictionStep::Grant => {
                    let evicted = ledger.grant(id);
                    // The memory may have come from elsewhere than from the workers that were evicted for it.
                    shared.recall_unneeded(&mut ledger);
                    shared.publish_metrics(&ledger);
                    return evicted
                        .map(|evicted| Reservation { id, shared: Arc::clone(shared), evicted })
                        .ok_or(NotGranted::Yet(None));
                }
                EvictionStep::Clear(selected) => {
                    if ledger.evict(&selected).is_ok() {
                        // They may release what was to come from smaller ones that were evicted earlier.
                        shared.recall_unneeded(&mut ledger);
                        // Their reservations notify this load when they are dropped.
                        return Err(NotGranted::Yet(None));
                    }
                    // A request has reached one of the idle workers in between: select again.
                }
                EvictionStep::Wait(until) => {
                    ledger.log_wait(id);
                    return Err(NotGranted::Yet(until));
                }
                EvictionStep::Yield => return Err(NotGranted::Yet(None)),
            }
        }
    }
}

impl SharedLedger {
    /// Adds a load to the queue and returns its id. A need above the budget is cut to the budget, so that the load runs
    /// alone.
    fn join(&self, mut request: MemoryRequest) -> u64 {
        let mut ledger = self.ledger();
        if let Some(budget) = self.budget.filter(|budget| *budget < request.need) {
            if self.pinned_in_the_way(&ledger, &request).is_empty() {
                warn!(
                    model = request.model,
                    need = request.need,
                    budget,
                    "it needs more than MEMORY_BUDGET, it runs alone"
                );
            }
            request.need = budget;
        }
        ledger.join(request)
    }

    /// Returns the load that is next: loads with demand first, then the longest wait. Skips loads that cannot fit
    /// beside what stays, and loads without demand for which nothing can be evicted now, so that they block no other.
    fn first(&self, ledger: &Ledger) -> Option<u64> {
        let holders = ledger.holders();
        let can_fit =
            |waiter: &MemoryWaiter| self.budget.is_none_or(|budget| is_admissible(budget, waiter.claim(), &holders));
        let mut queue: Vec<&MemoryWaiter> = ledger.waiting.iter().collect();
        // Cached: the demand is an atomic that may change while the sort runs.
        queue.sort_by_cached_key(|waiter| (waiter.request.demand.is_empty(), waiter.since, waiter.id));
        let is_next = |waiter: &&MemoryWaiter| can_fit(waiter) && self.step(ledger, waiter.id) != EvictionStep::Yield;
        Some(queue.into_iter().find(is_next)?.id)
    }

    /// Returns the pinned models beside which a waiting load cannot fit, if there are any. Logs it once until the model
    /// gets memory.
    fn pinned_crowding_out(&self, ledger: &mut Ledger, id: u64) -> Option<CrowdedOut> {
        let request = &ledger.waiter(id)?.request;
        let pinned = self.pinned_in_the_way(ledger, request);
        if pinned.is_empty() {
            return None;
        }
        let (model, need) = (request.model.clone(), request.need);
        if ledger.reported_crowded_out.insert(model.clone()) {
            let (budget, pinned) = (self.budget, pinned.join(", "));
            warn!(model, need, budget, pinned, "there is no room for it beside the pinned models (MEMORY_BUDGET)");
        }
        Some(CrowdedOut(pinned))
    }

    fn pinned_in_the_way(&self, ledger: &Ledger, request: &MemoryRequest) -> Vec<String> {
        let Some(budget) = self.budget.filter(|_| request.need > 0) else { return Vec::new() };
        let pinned = pinned_in_the_way(budget, request.claim(ActiveInstant::now()), &ledger.holders());
        pinned.into_iter().map(str::to_owned).collect()
    }

    /// Recalls the evicted workers whose memory no waiting load needs: the load that they were evicted for has gone, has
    /// lost its demand, or finds enough memory elsewhere.
    pub(super) fn recall_unneeded(&self, ledger: &mut Ledger) {
        let Some(budget) = self.budget else { return };
        // One after the other: with one of them back, another may be needed.
        while let Some(id) = {
            let holders = ledger.holders();
            let claims: Vec<_> = ledger.waiting.iter().map(MemoryWaiter::claim).collect();
            let now = ActiveInstant::now();
            let is_unneeded = |evicted: &MemoryHolder<'_>| {
                !claims.iter().any(|claim| is_needed(budget, self.patience, now, *claim, evicted, &holders))
            };
            ledger.evicted().into_iter().find(is_unneeded).map(|evicted| evicted.id)
        } {
            ledger.recall(id);
        }
    }

    /// Whether a waiting load uses none of the shared budget.
    fn needs_no_shared_memory(&self, ledger: &Ledger, id: u64) -> bool {
        self.budget.is_none() || ledger.waiter(id).is_none_or(|waiter| waiter.request.need == 0)
    }

    fn step(&self, ledger: &Ledger, id: u64) -> EvictionStep {
        let (Some(budget), Some(waiter)) = (self.budget, ledger.waiter(id)) else { return EvictionStep::Grant };
        if waiter.request.need == 0 {
            return EvictionStep::Grant;
        }
        next_step(budget, self.patience, ActiveInstant::now(), waiter.claim(), &ledger.holders())
    }
}

impl Drop for WaitingGuard<'_> {
    fn drop(&mut self) {
        let mut ledger = self.shared.ledger();
        ledger.leave(self.id);
        self.shared.recall_unneeded(&mut ledger);
        drop(ledger);
        // It may have been ahead of others.
        self.shared.change_signal.notify();
    }
}

#[cfg(test)]
#[path = "recall_tests.rs"]
mod recall_tests;

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
