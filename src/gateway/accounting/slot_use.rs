//! How long a request holds slots, and what that costs.

use std::time::Duration;

use crate::amount::Amount;
use crate::ledger::slot_cost;
use crate::pause_clock::ActiveInstant;

/// A slot that a request holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeldSlot {
    /// When it was granted.
    pub(crate) since: ActiveInstant,
    /// The slots of its worker.
    pub(crate) of: usize,
    /// What an hour of the worker costs.
    pub(crate) price_per_hour: Amount,
    /// Whether the worker is on this machine.
    pub(crate) is_local: bool,
}

/// The slots that a request has held, and now holds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SlotUse {
    held: Option<HeldSlot>,
    /// The time of the slots that were held before.
    pub(super) time: Duration,
    /// What they cost, in billionths.
    pub(super) cost_nanos: u64,
    /// What of that is for workers on this machine.
    pub(super) machine_cost_nanos: u64,
}

impl SlotUse {
    /// Begins the use of a slot.
    pub(super) fn begin(&mut self, slot: HeldSlot) {
        self.held = Some(slot);
    }

    /// Ends the use of the slot that is held.
    pub(super) fn end(&mut self) {
        if let Some(HeldSlot { since, of, price_per_hour, is_local }) = self.held.take() {
            let time = since.elapsed();
            let cost_nanos = slot_cost(price_per_hour, time, of);
            let machine_cost_nanos = if is_local { cost_nanos } else { 0 };
            self.add(Self { held: None, time, cost_nanos, machine_cost_nanos });
        }
    }

    /// Adds the slots that another request has held.
    pub(super) fn add(&mut self, other: Self) {
        self.time = self.time.saturating_add(other.time);
        self.cost_nanos = self.cost_nanos.saturating_add(other.cost_nanos);
        self.machine_cost_nanos = self.machine_cost_nanos.saturating_add(other.machine_cost_nanos);
    }
}
