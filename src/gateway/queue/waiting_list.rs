//! A look at the queue of a model: how full it is, and who waits. Changes nothing.

use std::time::Duration;

use super::Queue;
use super::order::in_order;
use crate::gateway::admission::turn::{OwnedTurn, Turn};
use crate::pause_clock::ActiveInstant;

/// The queue of a model at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct QueueLook {
    /// Requests that hold a slot.
    pub(crate) active: usize,
    /// Slots of the workers that can serve now.
    pub(crate) slots: usize,
    /// Requests that wait for a slot.
    pub(crate) waiting: usize,
    /// Those of them that were asked for.
    pub(crate) listed: Vec<ListedWaiter>,
    /// How long a slot is held on average, once that is known.
    mean_service: Option<Duration>,
}

/// A request that waits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ListedWaiter {
    /// Its place in the order in which slots are granted, from 1.
    pub(crate) position: usize,
    /// Who waits.
    pub(crate) turn: OwnedTurn,
    /// How long it has waited.
    pub(crate) waited: Duration,
}

impl Queue {
    /// Looks at the first `most` waiting requests, and lists those for which `is_listed` returns true.
    pub(crate) fn look(&self, most: usize, is_listed: impl Fn(Turn<'_>) -> bool) -> QueueLook {
        let slots = (self.0.slots)();
        let state = self.lock();
        let now = ActiveInstant::now();
        let in_line = in_order(&state.fair_queue).take(most).enumerate();
        let listed = in_line.filter(|(_, (turn, _))| is_listed(*turn)).map(|(at, (turn, waiter))| ListedWaiter {
            position: at + 1,
            turn: turn.to_owned(),
            waited: waiter.arrival.waited_at(now),
        });
        let listed = listed.collect();
        let (active, waiting) = (state.fair_queue.active(), state.fair_queue.waiting());
        QueueLook { active, slots, waiting, listed, mean_service: state.service_time.mean }
    }
}

impl QueueLook {
    /// Estimates how long the request at this position still waits for a slot; `None` without a measure, or while no slot
    /// is to be had.
    pub(crate) fn expected_wait(&self, position: usize) -> Option<Duration> {
        let turns = u32::try_from(position.div_ceil(self.slots.max(1))).unwrap_or(u32::MAX);
        self.mean_service.filter(|_| self.slots > 0).map(|mean| mean.saturating_mul(turns))
    }
}
