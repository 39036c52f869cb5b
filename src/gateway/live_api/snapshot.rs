//! All that listeners are told of, as one event.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::throughput::{Throughput, ThroughputHistory};
use super::view::{MemoryView, ModelView, QueueView, ShownFailure, View};
use crate::download::DownloadStatus;
use crate::fleet::ServiceStatus;
use crate::gateway::accounting::recent_acts::ShownAct;
use crate::gateway::response::local_answer::event_text;

/// What there is to tell at one moment. Written only when it is sent, because that takes a while with many models.
pub(super) struct FeedSnapshot {
    pub(super) view: Arc<View>,
    pub(super) throughput: Throughput,
    /// The last failures, the oldest first.
    pub(super) failures: Vec<ShownFailure>,
}

/// Its form on the wire.
#[derive(Serialize)]
struct SnapshotData<'a> {
    at: Timestamp,
    status: ServiceStatus,
    version: &'static str,
    uptime_seconds: f64,
    models: &'a [ModelView],
    queues: &'a [QueueView],
    downloads: Vec<&'a DownloadStatus>,
    memory: &'a MemoryView,
    throughput: &'a Throughput,
    throughput_history: &'a ThroughputHistory,
    failures: Vec<&'a ShownFailure>,
    acts: Vec<&'a ShownAct>,
}

impl FeedSnapshot {
    /// Returns the event, as of the one with this number, with what was done before.
    pub(super) fn text(&self, as_of: u64, uptime_seconds: f64, history: &ThroughputHistory) -> String {
        let Self { view, throughput, failures } = self;
        let data = SnapshotData {
            at: Timestamp::now(),
            status: view.status,
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds,
            models: &view.models,
            queues: &view.queues,
            downloads: view.downloads.iter().map(|(_, download)| download).collect(),
            memory: &view.memory,
            throughput,
            throughput_history: history,
            failures: failures.iter().rev().collect(),
            acts: view.acts.iter().rev().map(|(_, act)| act).collect(),
        };
        event_text(Some(as_of), "snapshot", &data)
    }
}
