//! How long a request holds slots, and what that costs.

use std::time::Duration;

use crate::ledger::Price;
use crate::pause_clock::ActiveInstant;

/// The slots that a request has held, and now holds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SlotUse {
    /// When the slot was granted that is held now, and how many its worker has.
    held: Option<(ActiveInstant, usize)>,
    /// The time of the slots that were held before.
    pub(super) time: Duration,
    /// What they cost, in billionths.
    pub(super) cost_nanos: u64,
}

impl SlotUse {
    /// Begins the use of one of `slots` slots of a worker, which was granted at `since`.
    pub(super) fn begin(&mut self, since: ActiveInstant, slots: usize) {
        self.held = Some((since, slots));
    }

    /// Ends the use of the slot that is held.
    pub(super) fn end(&mut self, price: Price) {
        if let Some((since, slots)) = self.held.take() {
            let time = since.elapsed();
            self.time = self.time.saturating_add(time);
            self.cost_nanos = self.cost_nanos.saturating_add(price.of_slot(time, slots));
        }
    }

    /// Adds the slots that another request has held.
    pub(super) fn add(&mut self, other: Self) {
        self.time = self.time.saturating_add(other.time);
        self.cost_nanos = self.cost_nanos.saturating_add(other.cost_nanos);
    }
}
