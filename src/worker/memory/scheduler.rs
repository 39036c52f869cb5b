//! The memory that all loaded models together may take: a worker asks for room before its process is started, and has it
//! until the process has ended and given it back.
//!
//! Owns whose turn it is. Who waits and who has how much is written in the [`Ledger`]; who has to go for whom is
//! [`super::eviction`]'s; the owner of a worker that has to go ends it.

use super::eviction::{EvictionStep, is_admissible, next_step, pinned_in_the_way};
use super::ledger::{CrowdedOut, Ledger, MemoryRequest, MemoryWaiter, SharedLedger};
use super::reservation::Reservation;
use crate::pause_clock::{self, ActiveInstant};
use crate::telemetry::metrics::{Metrics, bytes};
use crate::worker::change_signal::ChangeSignal;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::warn;

/// Those that have memory, and those that wait for it.
#[derive(Clone)]
pub(crate) struct MemoryScheduler(Arc<SharedLedger>);

/// Why there is no room now.
enum NotGranted {
    /// There may be when something changes, or then.
    Yet(Option<ActiveInstant>),
    Ever(CrowdedOut),
}

/// A place in the line, until it is dropped.
struct WaitingGuard<'a> {
    id: u64,
    shared: &'a SharedLedger,
}

impl MemoryScheduler {
    /// Nobody has anything of so many bytes. What is in use is left alone for `patience`.
    pub(crate) fn new(budget: Option<u64>, patience: Duration, bell: Arc<ChangeSignal>, metrics: Arc<Metrics>) -> Self {
        metrics.memory_budget.set(bytes(budget.unwrap_or(0)));
        Self(Arc::new(SharedLedger { budget, patience, bell, metrics, ledger: Mutex::default() }))
    }

    /// Waits for room, unless there will be none before a pinned model goes. May be cancelled.
    pub(crate) async fn reserve(&self, lodger: MemoryRequest) -> Result<Reservation, CrowdedOut> {
        let shared = &self.0;
        let listener = shared.bell.listen();
        let place = WaitingGuard { id: shared.join(lodger), shared };
        loop {
            let mut rung = pin!(listener.notified());
            rung.as_mut().enable();
            let until = match self.try_grant(place.id) {
                Ok(room) => return Ok(room),
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
                () = rung => {}
                () = due => {}
            }
        }
    }

    /// Waits until the pinned models leave room for one. May be cancelled.
    pub(crate) async fn wait_until_admissible(&self, lodger: &MemoryRequest) {
        let shared = &self.0;
        let listener = shared.bell.listen();
        loop {
            let mut rung = pin!(listener.notified());
            rung.as_mut().enable();
            if shared.pinned_in_the_way(&shared.ledger(), lodger).is_empty() {
                return;
            }
            rung.await;
        }
    }

    /// Does what can be done now for one in line: its room, or until when it waits if nothing changes before.
    fn try_grant(&self, id: u64) -> Result<Reservation, NotGranted> {
        let shared = &self.0;
        let mut book = shared.ledger();
        if !shared.needs_no_shared_memory(&book, id) {
            if let Some(crowded_out) = shared.pinned_crowding_out(&mut book, id) {
                return Err(NotGranted::Ever(crowded_out));
            }
            if shared.first(&book) != Some(id) {
                if shared.step(&book, id) == EvictionStep::Yield {
                    book.log_wait(id);
                }
                return Err(NotGranted::Yet(None));
            }
        }
        loop {
            match shared.step(&book, id) {
                EvictionStep::Grant => {
                    let dismissed = book.grant(id);
                    shared.publish_metrics(&book);
                    return dismissed
                        .map(|dismissed| Reservation { id, shared: Arc::clone(shared), evicted: dismissed })
                        .ok_or(NotGranted::Yet(None));
                }
                EvictionStep::Clear(going) => {
                    // Unless a request was quicker and one of them is not idle any more, which makes another plan.
                    if book.evict(&going).is_ok() {
                        // It is heard of when they have left.
                        return Err(NotGranted::Yet(None));
                    }
                }
                EvictionStep::Wait(until) => {
                    book.log_wait(id);
                    return Err(NotGranted::Yet(until));
                }
                EvictionStep::Yield => return Err(NotGranted::Yet(None)),
            }
        }
    }
}

impl SharedLedger {
    /// Puts one at the end of the line.
    fn join(&self, mut lodger: MemoryRequest) -> u64 {
        let mut book = self.ledger();
        if let Some(budget) = self.budget.filter(|budget| *budget < lodger.need) {
            if self.pinned_in_the_way(&book, &lodger).is_empty() {
                warn!(
                    model = lodger.model,
                    need = lodger.need,
                    budget,
                    "it needs more than MEMORY_BUDGET, it runs alone"
                );
            }
            lodger.need = budget;
        }
        book.join(lodger)
    }

    /// Whose turn it is: those that are wanted come before those that nobody waits for, and then who has waited for the
    /// longest time. Nobody waits behind one for which there is never room beside what stays, nor behind one that nobody
    /// waits for and for which nothing can go now.
    fn first(&self, book: &Ledger) -> Option<u64> {
        let holders = book.holders();
        let is_within_reach =
            |waiter: &MemoryWaiter| self.budget.is_none_or(|budget| is_admissible(budget, waiter.claim(), &holders));
        let mut line: Vec<&MemoryWaiter> = book.waiting.iter().collect();
        line.sort_by_cached_key(|waiter| (waiter.request.demand.is_empty(), waiter.since, waiter.id));
        let is_in_turn =
            |waiter: &&MemoryWaiter| is_within_reach(waiter) && self.step(book, waiter.id) != EvictionStep::Yield;
        Some(line.into_iter().find(is_in_turn)?.id)
    }

    /// The pinned models for which there is no room for one in line, whatever goes. Logged once until there is.
    fn pinned_crowding_out(&self, book: &mut Ledger, id: u64) -> Option<CrowdedOut> {
        let lodger = &book.waiter(id)?.request;
        let pinned = self.pinned_in_the_way(book, lodger);
        if pinned.is_empty() {
            return None;
        }
        let (model, need) = (lodger.model.clone(), lodger.need);
        if book.reported_crowded_out.insert(model.clone()) {
            let (budget, pinned) = (self.budget, pinned.join(", "));
            warn!(model, need, budget, pinned, "there is no room for it beside the pinned models (MEMORY_BUDGET)");
        }
        Some(CrowdedOut(pinned))
    }

    fn pinned_in_the_way(&self, book: &Ledger, lodger: &MemoryRequest) -> Vec<String> {
        let Some(budget) = self.budget.filter(|_| lodger.need > 0) else { return Vec::new() };
        let pinned = pinned_in_the_way(budget, lodger.claim(ActiveInstant::now()), &book.holders());
        pinned.into_iter().map(str::to_owned).collect()
    }

    /// Whether one in line needs none of what is shared.
    fn needs_no_shared_memory(&self, book: &Ledger, id: u64) -> bool {
        self.budget.is_none() || book.waiter(id).is_none_or(|waiter| waiter.request.need == 0)
    }

    fn step(&self, book: &Ledger, id: u64) -> EvictionStep {
        let (Some(budget), Some(waiter)) = (self.budget, book.waiter(id)) else { return EvictionStep::Grant };
        if waiter.request.need == 0 {
            return EvictionStep::Grant;
        }
        next_step(budget, self.patience, ActiveInstant::now(), waiter.claim(), &book.holders())
    }
}

impl Drop for WaitingGuard<'_> {
    fn drop(&mut self) {
        let mut book = self.shared.ledger();
        book.leave(self.id);
        drop(book);
        // It may have stood before others.
        self.shared.bell.notify();
    }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
