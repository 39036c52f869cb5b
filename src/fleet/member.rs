//! One of a model's workers, as the fleet sees it: how to reach it, and how much it may be given.

use crate::worker::{Endpoint, Handle};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Who runs a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The gateway runs a llama-server.
    Local,
    /// The gateway runs a command.
    Command,
    /// Somebody else does.
    Remote,
}

/// A worker among those of its model.
pub struct Member {
    handle: Handle,
    /// Who runs it.
    pub place: Place,
    /// Its number among the workers of its model.
    pub number: u32,
    /// How many requests may hold one of its slots.
    slots: usize,
    /// How many do.
    taken: AtomicUsize,
    /// For `weighted-random`.
    pub(super) weight: f64,
    /// For `priority-failover`.
    pub(super) priority: u32,
}

/// One of a worker's slots, until it is dropped.
pub(super) struct Slot(Arc<Member>);

impl Member {
    /// A worker with so many slots.
    pub fn new(handle: Handle, place: Place, number: u32, slots: usize, (weight, priority): (f64, u32)) -> Self {
        Self { handle, place, number, slots, taken: AtomicUsize::new(0), weight, priority }
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Where requests may be sent to now.
    pub(super) fn endpoint(&self) -> Option<Arc<Endpoint>> {
        self.handle.endpoint()
    }

    /// How many of its slots may be used now.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// Takes one of its slots if one is free.
    pub(super) fn take_slot(self: &Arc<Self>) -> Option<Slot> {
        let more = |taken: usize| (taken < self.slots()).then_some(taken + 1);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Slot(Arc::clone(self)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::SeqCst);
    }
}
