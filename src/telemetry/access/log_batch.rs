//! Collects lines for a writer thread, so that it wakes once for many lines.
//!
//! Waking a thread costs more than writing a line. Lines wait in memory for [`LOG_BATCH_TIME`], or until they add up to
//! [`LOG_BATCH_SIZE`], and then go to the writer's bounded queue in one message. If the queue is full, all lines of the
//! message are counted as dropped.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use memchr::memchr_iter;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing_appender::non_blocking::NonBlocking;

use crate::telemetry::bounds::{LOG_BATCH_SIZE, LOG_BATCH_TIME};

/// The lines that wait for one writer. Dropping it flushes them.
pub(super) struct LogBatch {
    writer: NonBlocking,
    lines: Mutex<Vec<u8>>,
    batch_started: Notify,
    dropped: AtomicU64,
}

impl LogBatch {
    pub(super) fn new(writer: NonBlocking) -> Self {
        Self { writer, lines: Mutex::default(), batch_started: Notify::new(), dropped: AtomicU64::new(0) }
    }

    /// Returns the number of lines that were dropped because the queue was full.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Adds the whole lines that `append` writes. Never blocks on the disk.
    pub(super) fn add(&self, append: impl FnOnce(&mut Vec<u8>)) {
        let mut lines = self.lock();
        let is_first = lines.is_empty();
        append(&mut lines);
        if lines.len() >= LOG_BATCH_SIZE {
            self.send(&mut lines);
        } else if is_first {
            self.batch_started.notify_one();
        }
    }

    /// Flushes each batch [`LOG_BATCH_TIME`] after its first line, until `stop` is cancelled.
    pub(super) async fn flush_periodically(&self, stop: &CancellationToken) {
        let flushing = async {
            loop {
                self.batch_started.notified().await;
                tokio::time::sleep(LOG_BATCH_TIME).await;
                self.flush();
            }
        };
        stop.run_until_cancelled(flushing).await;
        self.flush();
    }

    /// Passes all waiting lines to the writer.
    pub(super) fn flush(&self) {
        self.send(&mut self.lock());
    }

    fn send(&self, lines: &mut Vec<u8>) {
        if lines.is_empty() {
            return;
        }
        let mut writer = self.writer.clone();
        let before = writer.error_counter().dropped_lines();
        let _ = writer.write_all(lines);
        // The writer counts a batch as one line. The comparison is safe, because nothing else uses this writer and the
        // lock is held.
        if writer.error_counter().dropped_lines() != before {
            self.dropped.fetch_add(memchr_iter(b'\n', lines).count() as u64, Ordering::Relaxed);
        }
        lines.clear();
        // A burst must not keep its memory for ever.
        lines.shrink_to(LOG_BATCH_SIZE * 2);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LogBatch {
    fn drop(&mut self) {
        self.flush();
    }
}
