//! Lines gathered for a writer thread, so that it is woken once for many of them.
//!
//! A wake costs more than a line does. Lines wait in memory for a moment ([`LOG_BATCH_TIME`]) or until there are many
//! ([`LOG_BATCH_SIZE`]), then go to the writer's bounded queue at once. What finds the queue full is counted, line by
//! line.

use crate::telemetry::bounds::{LOG_BATCH_SIZE, LOG_BATCH_TIME};
use memchr::memchr_iter;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing_appender::non_blocking::NonBlocking;

/// Lines on their way to one writer. Dropping it hands over what is left.
pub(super) struct LogBatch {
    writer: NonBlocking,
    lines: Mutex<String>,
    begun: Notify,
    dropped: AtomicU64,
}

impl LogBatch {
    pub(super) fn new(writer: NonBlocking) -> Self {
        Self { writer, lines: Mutex::default(), begun: Notify::new(), dropped: AtomicU64::new(0) }
    }

    /// Lines that found the queue full.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Adds what `append` writes, which must be whole lines. Never blocks on the disk.
    pub(super) fn add(&self, append: impl FnOnce(&mut String)) {
        let mut lines = self.lock();
        let begins = lines.is_empty();
        append(&mut lines);
        if lines.len() >= LOG_BATCH_SIZE {
            self.hand_over(&mut lines);
        } else if begins {
            self.begun.notify_one();
        }
    }

    /// Hands batches over in time, until `stop`.
    pub(super) async fn keep_moving(&self, stop: &CancellationToken) {
        let moving = async {
            loop {
                self.begun.notified().await;
                tokio::time::sleep(LOG_BATCH_TIME).await;
                self.flush();
            }
        };
        stop.run_until_cancelled(moving).await;
        self.flush();
    }

    /// Hands over what there is.
    pub(super) fn flush(&self) {
        self.hand_over(&mut self.lock());
    }

    fn hand_over(&self, lines: &mut String) {
        if lines.is_empty() {
            return;
        }
        let mut writer = self.writer.clone();
        let before = writer.error_counter().dropped_lines();
        let _ = writer.write_all(lines.as_bytes());
        // The writer counts a batch as one line. Nobody else uses it, and the lock is held.
        if writer.error_counter().dropped_lines() != before {
            self.dropped.fetch_add(memchr_iter(b'\n', lines.as_bytes()).count() as u64, Ordering::Relaxed);
        }
        lines.clear();
        lines.shrink_to(LOG_BATCH_SIZE * 2);
    }

    fn lock(&self) -> MutexGuard<'_, String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LogBatch {
    fn drop(&mut self) {
        self.flush();
    }
}
