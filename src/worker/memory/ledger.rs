//! Who waits for memory and who has it, as it is written down.
//!
//! Keeps the order of the line and since when each has waited. It decides nothing and wakes no task: the
//! scheduler does.

use super::eviction::{Claim, Holder, Stage, Way};
use crate::awake::ActiveInstant;
use crate::telemetry::metrics::{Metrics, bytes};
use crate::worker::bounds::CLAIM_GRACE;
use crate::worker::change_signal::Bell;
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
    pub(super) bell: Arc<Bell>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) book: Mutex<Book>,
}

/// Who asks for room.
#[derive(Clone)]
pub(crate) struct Lodger {
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
pub(super) struct Book {
    next: u64,
    pub(super) seats: Vec<Seat>,
    pub(super) line: Vec<Waiter>,
    ages: Ages,
    /// The models of which it has been logged that there is no room for them, until there is.
    pub(super) shut_out: BTreeSet<String>,
}

/// A load that waits.
pub(super) struct Waiter {
    pub(super) id: u64,
    pub(super) lodger: Lodger,
    /// When it began to wait, be it with pauses, or its model had to make room for another.
    pub(super) since: ActiveInstant,
    is_told: bool,
}

/// One that has room.
pub(super) struct Seat {
    pub(super) id: u64,
    pub(super) lodger: Lodger,
    /// When it had begun to wait for this.
    since: ActiveInstant,
    at: Place,
    /// Cancelled when it has to go.
    dismissed: CancellationToken,
}

/// Where one that has room stands.
pub(super) enum Place {
    Loading,
    Ready { endpoint: Arc<Endpoint>, since: ActiveInstant },
    Leaving,
}

/// Since when workers waited that have left the line without being loaded; each is kept for [`CLAIM_GRACE`]. Requests may
/// give up before a busy worker has to make room, and a worker that is wanted again must not wait from the start.
#[derive(Default)]
struct Ages(Vec<Age>);

struct Age {
    lodger: Lodger,
    since: ActiveInstant,
    until: ActiveInstant,
}

/// A request came before the worker could be closed.
pub(super) struct Taken;

impl SharedLedger {
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows how much is taken.
    pub(super) fn show(&self, book: &Book) {
        self.metrics.memory_used.set(bytes(book.used()));
    }
}

impl Lodger {
    pub(super) fn claim(&self, since: ActiveInstant) -> Claim<'_> {
        Claim { model: &self.model, need: self.need, is_wanted: !self.demand.is_empty(), since }
    }
}

impl Book {
    pub(super) fn waiter(&self, id: u64) -> Option<&Waiter> {
        self.line.iter().find(|waiter| waiter.id == id)
    }

    pub(super) fn holders(&self) -> Vec<Holder<'_>> {
        self.seats.iter().map(Seat::seen).collect()
    }

    /// Bytes that those that have room count for.
    pub(super) fn used(&self) -> u64 {
        self.seats.iter().fold(0, |sum: u64, seat| sum.saturating_add(seat.lodger.need))
    }

    /// Puts one at the end of the line.
    pub(super) fn join(&mut self, lodger: Lodger) -> u64 {
        let id = self.next;
        self.next += 1;
        let since = self.ages.take(&lodger).unwrap_or_else(ActiveInstant::now);
        self.line.push(Waiter { id, lodger, since, is_told: false });
        self.assert_consistent();
        id
    }

    /// One waits no longer, unless it has been given room.
    pub(super) fn leave_line(&mut self, id: u64) {
        if let Some(at) = self.line.iter().position(|waiter| waiter.id == id) {
            let Waiter { lodger, since, .. } = self.line.remove(at);
            self.keep_age(lodger, since);
        }
        self.assert_consistent();
    }

    /// Gives room to one in line.
    pub(super) fn seat(&mut self, id: u64) -> Option<CancellationToken> {
        let at = self.line.iter().position(|waiter| waiter.id == id)?;
        let Waiter { lodger, since, .. } = self.line.remove(at);
        self.shut_out.remove(&lodger.model);
        let dismissed = CancellationToken::new();
        self.seats.push(Seat { id, lodger, since, at: Place::Loading, dismissed: dismissed.clone() });
        self.assert_consistent();
        Some(dismissed)
    }

    /// One that has room stands there now, unless it is on its way out.
    pub(super) fn stands(&mut self, id: u64, place: Place) {
        if let Some(seat) = self.seats.iter_mut().find(|seat| seat.id == id && !matches!(seat.at, Place::Leaving)) {
            seat.at = place;
        }
    }

    /// One gives back its room.
    pub(super) fn vacate(&mut self, id: u64) {
        let Some(at) = self.seats.iter().position(|seat| seat.id == id) else { return };
        let Seat { lodger, since, at, .. } = self.seats.remove(at);
        if matches!(at, Place::Loading) {
            self.keep_age(lodger, since);
        }
        self.assert_consistent();
    }

    /// One leaves that has not been loaded. Unless its model is served by another worker, it has waited in vain.
    fn keep_age(&mut self, lodger: Lodger, since: ActiveInstant) {
        if !self.seats.iter().any(|seat| seat.lodger.model == lodger.model && !matches!(seat.at, Place::Leaving)) {
            self.ages.keep(lodger, since);
        }
    }

    /// Has these go. What was idle when that was decided must still be so.
    pub(super) fn dismiss(&mut self, going: &[(u64, Way)]) -> Result<(), Taken> {
        for (id, way) in going {
            let Some(seat) = self.seats.iter_mut().find(|seat| seat.id == *id) else { continue };
            let Place::Ready { endpoint, .. } = &seat.at else { continue };
            match way {
                Way::Idle if !seat.lodger.demand.is_empty() || !endpoint.close_if_idle(Duration::ZERO) => {
                    return Err(Taken);
                }
                Way::Idle => info!(model = seat.lodger.model, "it makes room for another model"),
                Way::Finishing => {
                    endpoint.close_to_new();
                    info!(model = seat.lodger.model, "it finishes what it serves and makes room for another model");
                }
            }
            seat.at = Place::Leaving;
            seat.dismissed.cancel();
            // Its model has had its turn: what it still waits for comes after the one for whom it goes.
            let model = &seat.lodger.model;
            for waiter in self.line.iter_mut().filter(|waiter| waiter.lodger.model == *model) {
                waiter.since = ActiveInstant::now();
            }
            self.ages.forget(model);
        }
        Ok(())
    }

    /// Checks, in debug builds alone, what must be true between two calls.
    fn assert_consistent(&self) {
        debug_assert!(self.line.is_sorted_by(|a, b| a.id < b.id), "the line is in the order of arrival");
        debug_assert!(self.line.iter().all(|waiter| waiter.id < self.next), "an id in the line has been given out");
        debug_assert!(self.seats.iter().all(|seat| seat.id < self.next), "an id with memory has been given out");
        debug_assert!(
            self.seats.iter().all(|seat| self.waiter(seat.id).is_none()),
            "a load that has memory no longer waits for it"
        );
        debug_assert!(
            self.seats.iter().enumerate().all(|(at, seat)| self.seats[..at].iter().all(|other| other.id != seat.id)),
            "a load has memory once"
        );
    }

    /// Logs once that one waits.
    pub(super) fn tell(&mut self, id: u64) {
        let Some(waiter) = self.line.iter_mut().find(|waiter| waiter.id == id) else { return };
        if !std::mem::replace(&mut waiter.is_told, true) {
            info!(model = waiter.lodger.model, need = waiter.lodger.need, "its load waits for memory (MEMORY_BUDGET)");
        }
    }
}

impl Waiter {
    pub(super) fn claim(&self) -> Claim<'_> {
        self.lodger.claim(self.since)
    }
}

impl Seat {
    pub(super) fn seen(&self) -> Holder<'_> {
        let stage = match &self.at {
            Place::Loading => Stage::Loading,
            Place::Leaving => Stage::Leaving,
            Place::Ready { endpoint, since } => match endpoint.idle_since() {
                Some(idle) if self.lodger.demand.is_empty() => Stage::Idle { since: idle },
                _ => Stage::InUse { ready: *since },
            },
        };
        let Lodger { need, is_pinned, is_preloaded, .. } = self.lodger;
        Holder { id: self.id, model: &self.lodger.model, need, is_pinned, is_preloaded, stage }
    }
}

impl Ages {
    /// This one has waited since then, and does not now.
    fn keep(&mut self, lodger: Lodger, since: ActiveInstant) {
        self.0.push(Age { lodger, since, until: ActiveInstant::now() + CLAIM_GRACE });
    }

    /// Since when one has waited that comes back, if it is not too late.
    fn take(&mut self, lodger: &Lodger) -> Option<ActiveInstant> {
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
