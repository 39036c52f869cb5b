//! The memory that all loaded models together may take: a worker asks for room before its process is started, and has it
//! until the process has ended and given it back.
//!
//! Owns whose turn it is. Who waits and who has how much is written in the [`Book`]; who has to go for whom is
//! [`super::eviction`]'s; the owner of a worker that has to go ends it.

use super::eviction::{Step, is_within_reach, next_step, pinned_in_the_way};
use super::ledger::{Book, CrowdedOut, Lodger, SharedLedger, Waiter};
use super::reservation::Room;
use crate::awake::{self, ActiveInstant};
use crate::telemetry::metrics::{Metrics, bytes};
use crate::worker::change_signal::Bell;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::warn;

/// Those that have memory, and those that wait for it.
#[derive(Clone)]
pub(crate) struct Residents(Arc<SharedLedger>);

/// Why there is no room now.
enum NoRoom {
    /// There may be when something changes, or then.
    Yet(Option<ActiveInstant>),
    Ever(CrowdedOut),
}

/// A place in the line, until it is dropped.
struct InLine<'a> {
    id: u64,
    shared: &'a SharedLedger,
}

impl Residents {
    /// Nobody has anything of so many bytes. What is in use is left alone for `patience`.
    pub(crate) fn new(budget: Option<u64>, patience: Duration, bell: Arc<Bell>, metrics: Arc<Metrics>) -> Self {
        metrics.memory_budget.set(bytes(budget.unwrap_or(0)));
        Self(Arc::new(SharedLedger { budget, patience, bell, metrics, book: Mutex::default() }))
    }

    /// Waits for room, unless there will be none before a pinned model goes. May be cancelled.
    pub(crate) async fn room(&self, lodger: Lodger) -> Result<Room, CrowdedOut> {
        let shared = &self.0;
        let listener = shared.bell.listen();
        let place = InLine { id: shared.join(lodger), shared };
        loop {
            let mut rung = pin!(listener.rung());
            rung.as_mut().enable();
            let until = match self.turn(place.id) {
                Ok(room) => return Ok(room),
                Err(NoRoom::Ever(crowded_out)) => return Err(crowded_out),
                Err(NoRoom::Yet(until)) => until,
            };
            let due = async {
                match until {
                    Some(until) => awake::sleep(until - ActiveInstant::now()).await,
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
    pub(crate) async fn may_have_room(&self, lodger: &Lodger) {
        let shared = &self.0;
        let listener = shared.bell.listen();
        loop {
            let mut rung = pin!(listener.rung());
            rung.as_mut().enable();
            if shared.pinned_in_the_way(&shared.book(), lodger).is_empty() {
                return;
            }
            rung.await;
        }
    }

    /// Does what can be done now for one in line: its room, or until when it waits if nothing changes before.
    fn turn(&self, id: u64) -> Result<Room, NoRoom> {
        let shared = &self.0;
        let mut book = shared.book();
        if !shared.has_room_anyway(&book, id) {
            if let Some(crowded_out) = shared.crowded_out(&mut book, id) {
                return Err(NoRoom::Ever(crowded_out));
            }
            if shared.first(&book) != Some(id) {
                if shared.step(&book, id) == Step::Yield {
                    book.tell(id);
                }
                return Err(NoRoom::Yet(None));
            }
        }
        loop {
            match shared.step(&book, id) {
                Step::Grant => {
                    let dismissed = book.seat(id);
                    shared.show(&book);
                    return dismissed
                        .map(|dismissed| Room { id, shared: Arc::clone(shared), dismissed })
                        .ok_or(NoRoom::Yet(None));
                }
                Step::Clear(going) => {
                    // Unless a request was quicker and one of them is not idle any more, which makes another plan.
                    if book.dismiss(&going).is_ok() {
                        // It is heard of when they have left.
                        return Err(NoRoom::Yet(None));
                    }
                }
                Step::Wait(until) => {
                    book.tell(id);
                    return Err(NoRoom::Yet(until));
                }
                Step::Yield => return Err(NoRoom::Yet(None)),
            }
        }
    }
}

impl SharedLedger {
    /// Puts one at the end of the line.
    fn join(&self, mut lodger: Lodger) -> u64 {
        let mut book = self.book();
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
    fn first(&self, book: &Book) -> Option<u64> {
        let holders = book.holders();
        let is_within_reach =
            |waiter: &Waiter| self.budget.is_none_or(|budget| is_within_reach(budget, waiter.claim(), &holders));
        let mut line: Vec<&Waiter> = book.line.iter().collect();
        line.sort_by_cached_key(|waiter| (waiter.lodger.demand.is_empty(), waiter.since, waiter.id));
        let is_in_turn = |waiter: &&Waiter| is_within_reach(waiter) && self.step(book, waiter.id) != Step::Yield;
        Some(line.into_iter().find(is_in_turn)?.id)
    }

    /// The pinned models for which there is no room for one in line, whatever goes. Logged once until there is.
    fn crowded_out(&self, book: &mut Book, id: u64) -> Option<CrowdedOut> {
        let lodger = &book.waiter(id)?.lodger;
        let pinned = self.pinned_in_the_way(book, lodger);
        if pinned.is_empty() {
            return None;
        }
        let (model, need) = (lodger.model.clone(), lodger.need);
        if book.shut_out.insert(model.clone()) {
            let (budget, pinned) = (self.budget, pinned.join(", "));
            warn!(model, need, budget, pinned, "there is no room for it beside the pinned models (MEMORY_BUDGET)");
        }
        Some(CrowdedOut(pinned))
    }

    fn pinned_in_the_way(&self, book: &Book, lodger: &Lodger) -> Vec<String> {
        let Some(budget) = self.budget.filter(|_| lodger.need > 0) else { return Vec::new() };
        let pinned = pinned_in_the_way(budget, lodger.claim(ActiveInstant::now()), &book.holders());
        pinned.into_iter().map(str::to_owned).collect()
    }

    /// Whether one in line needs none of what is shared.
    fn has_room_anyway(&self, book: &Book, id: u64) -> bool {
        self.budget.is_none() || book.waiter(id).is_none_or(|waiter| waiter.lodger.need == 0)
    }

    fn step(&self, book: &Book, id: u64) -> Step {
        let (Some(budget), Some(waiter)) = (self.budget, book.waiter(id)) else { return Step::Grant };
        if waiter.lodger.need == 0 {
            return Step::Grant;
        }
        next_step(budget, self.patience, ActiveInstant::now(), waiter.claim(), &book.holders())
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut book = self.shared.book();
        book.leave_line(self.id);
        drop(book);
        // It may have stood before others.
        self.shared.bell.ring();
    }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
