//! Finished spans that wait for their export: as many as there is room for. A request never waits.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_sdk::trace::SpanData;
use tokio::sync::Notify;

use crate::telemetry::metrics::Metrics;

/// The queue in front of the export.
pub(super) struct SpanQueue {
    spans: Mutex<Vec<SpanData>>,
    /// The most spans that wait.
    room: usize,
    /// The spans of one export.
    batch: usize,
    /// Woken by the first span of an empty queue.
    pub(super) filled: Notify,
    /// Woken by the span that makes a batch.
    pub(super) full: Notify,
    metrics: Arc<Metrics>,
}

impl SpanQueue {
    /// Creates an empty queue.
    pub(super) fn new(room: usize, batch: usize, metrics: Arc<Metrics>) -> Self {
        let (filled, full) = (Notify::new(), Notify::new());
        Self { spans: Mutex::default(), room, batch, filled, full, metrics }
    }

    /// Adds the spans of one request, all or none of them. Those that find no room are dropped and counted.
    pub(super) fn add(&self, spans: Vec<SpanData>) {
        let mut waiting = self.lock();
        let (before, added) = (waiting.len(), spans.len());
        if before + added > self.room {
            drop(waiting);
            self.metrics.trace_spans_dropped.inc_by(added as u64);
            return;
        }
        waiting.extend(spans);
        drop(waiting);
        if before == 0 {
            self.filled.notify_one();
        }
        if before < self.batch && before + added >= self.batch {
            self.full.notify_one();
        }
    }

    /// Takes the spans of the next export, the oldest first.
    pub(super) fn take(&self) -> Vec<SpanData> {
        let mut waiting = self.lock();
        let count = waiting.len().min(self.batch);
        waiting.drain(..count).collect()
    }

    /// Drops what waits. Returns how many spans that were.
    pub(super) fn clear(&self) -> u64 {
        std::mem::take(&mut *self.lock()).len() as u64
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SpanData>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
