//! What listeners see of the service at one moment. Only data; `look.rs` fills it.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::bounds::SAME_ARRIVAL;
use crate::download::DownloadStatus;
use crate::fleet::{Pin, ServiceStatus, WorkerReport, WorkerState};
use crate::gateway::accounting::recent_acts::ShownAct;
use crate::models::ModelKind;

/// The service at one moment.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// The status, as `/health` shows it.
    pub(super) status: ServiceStatus,
    /// The models, in the order of the lists.
    pub(super) models: Vec<ModelView>,
    /// The queue of each model.
    pub(super) queues: Vec<QueueView>,
    /// The downloads with their revisions, the newest first.
    pub(super) downloads: Vec<(u64, DownloadStatus)>,
    pub(super) memory: MemoryView,
    /// The last acts of administrators with their numbers, the oldest first.
    pub(super) acts: Vec<(u64, ShownAct)>,
}

/// A model and its workers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ModelView {
    pub(super) id: String,
    pub(super) kind: ModelKind,
    /// The state of the worker that is nearest to serving.
    pub(super) state: WorkerState,
    /// Whether, and why, it keeps its memory.
    pub(super) pin: Pin,
    /// Memory of the budget that a loaded worker takes, in bytes.
    pub(super) memory_bytes: Option<u64>,
    pub(super) context_length: Option<u64>,
    /// The bytes of its files.
    pub(super) size_bytes: Option<u64>,
    pub(super) workers: Vec<WorkerReport>,
}

/// The queue of a model.
#[derive(Debug, Clone, Serialize)]
pub(super) struct QueueView {
    pub(super) model: String,
    /// Requests that hold a slot.
    pub(super) active: usize,
    /// Slots of the workers that can serve now.
    pub(super) slots: usize,
    /// Requests that wait for a slot.
    pub(super) waiting: usize,
    /// The first of them.
    pub(super) waiters: Vec<WaiterView>,
}

/// A request that waits.
#[derive(Debug, Clone, Serialize)]
pub(super) struct WaiterView {
    /// Its place in the order in which slots are granted, from 1.
    pub(super) position: usize,
    /// The id of its key.
    pub(super) key: Option<String>,
    /// The person behind the key, as the access log shows it.
    pub(super) person: Option<String>,
    pub(super) since: Timestamp,
    pub(super) waiting_seconds: f64,
}

/// The memory that models share.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct MemoryView {
    /// `None` if it is not limited.
    pub(super) budget_bytes: Option<u64>,
    pub(super) used_bytes: u64,
    pub(super) models: Vec<ModelMemory>,
}

/// The memory of a model that is loaded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ModelMemory {
    pub(super) model: String,
    pub(super) bytes: u64,
}

/// What went wrong, with what to do about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ShownFailure {
    pub(super) at: Timestamp,
    /// `worker` or `download`.
    pub(super) what: &'static str,
    pub(super) model: String,
    pub(super) worker: Option<u32>,
    /// The state that followed.
    pub(super) state: &'static str,
    pub(super) message: Option<String>,
    pub(super) hint: Option<String>,
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
}

impl QueueView {
    /// Returns whether there is nothing new to tell.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.active, self.slots, self.waiting) == (other.active, other.slots, other.waiting)
            && self.waiters.len() == other.waiters.len()
            && self.waiters.iter().zip(&other.waiters).all(|(one, other)| one.is_same(other))
    }
}

impl WaiterView {
    fn is_same(&self, other: &Self) -> bool {
        let apart = self.since.duration_since(other.since);
        let same_arrival = SignedDuration::try_from(SAME_ARRIVAL).unwrap_or(SignedDuration::MAX);
        (self.position, &self.key, &self.person) == (other.position, &other.key, &other.person)
            && apart.abs() < same_arrival
    }
}
