//! The thread that owns the file.
//!
//! What cannot be written waits in memory as far as there is room for it, and the service goes on.

use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use tracing::{info, warn};

use super::answers_file::{AnswerToWrite, AnswersFile};
use super::waiting_answers::WaitingAnswers;
use crate::gateway::bounds::{DISK_BATCH, DISK_RETRY, LEAST_PRUNE_WAIT};
use crate::gateway::cache::cache_bounds::CacheBounds;
use crate::gateway::cache::kept_answer::KeptAnswer;
use crate::gateway::cache::key::CacheKey;
use crate::sqlite_file::SqliteFileError;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::throttled_warning::ThrottledWarning;

/// The topic of the warning on `/health`.
const DISK_TOPIC: &str = "cache";

/// Writes the answers of a queue into the file.
pub(super) struct DiskWriter<R, F> {
    path: PathBuf,
    bounds: CacheBounds,
    metrics: Arc<Metrics>,
    waiting: Arc<WaitingAnswers>,
    /// Takes each answer that is found in the file, once; and what is to be done after all of them.
    restore: Option<(R, F)>,
    file: Option<AnswersFile>,
    pending: Vec<AnswerToWrite>,
    failure: ThrottledWarning,
    is_failing: bool,
    /// When the file is tried again after a failure.
    retry_at: Option<Instant>,
    /// When rows of the file are too old.
    prune_at: Option<Instant>,
}

impl<R: FnMut(CacheKey, KeptAnswer), F: FnOnce()> DiskWriter<R, F> {
    /// Creates the writer of this file; [`DiskWriter::run`] opens it.
    pub(super) fn new(
        path: PathBuf,
        bounds: CacheBounds,
        metrics: Arc<Metrics>,
        waiting: Arc<WaitingAnswers>,
        restore: (R, F),
    ) -> Self {
        Self {
            path,
            bounds,
            metrics,
            waiting,
            restore: Some(restore),
            file: None,
            pending: Vec::new(),
            failure: ThrottledWarning::default(),
            is_failing: false,
            retry_at: None,
            prune_at: None,
        }
    }

    /// Reads the file, and writes what comes until the queue is closed.
    pub(super) fn run(mut self, queue: &Receiver<Option<AnswerToWrite>>) {
        self.try_write();
        loop {
            let is_last = self.take(queue);
            if is_last || self.retry_at.is_none_or(|at| at <= Instant::now()) {
                self.try_write();
            }
            if is_last {
                break;
            }
        }
        if !self.pending.is_empty() {
            self.metrics.cache_disk_dropped.inc_by(self.pending.len() as u64);
            warn!(path = %self.path.display(), answers = self.pending.len(), "answers could not be kept on disk");
        }
    }

    /// Takes what has come, once something has or it is time for the file. Returns whether nothing more will come.
    fn take(&mut self, queue: &Receiver<Option<AnswerToWrite>>) -> bool {
        let due = match self.is_failing {
            _ if self.waiting.is_closed.load(Ordering::Acquire) => Some(Instant::now()),
            true => self.retry_at,
            false => self.prune_at,
        };
        let first = match due {
            Some(due) => queue.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => queue.recv().map_err(RecvTimeoutError::from),
        };
        let mut next = match first {
            Ok(first) => Some(first),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return true,
        };
        let mut size = 0;
        while let Some(order) = next {
            size += order.as_ref().map_or(0, |(_, answer)| answer.size());
            self.pending.extend(order);
            if size >= DISK_BATCH {
                return false;
            }
            next = queue.try_recv().ok();
        }
        self.waiting.is_closed.load(Ordering::Acquire)
    }

    /// Writes what is pending, and opens the file if it is not open.
    fn try_write(&mut self) {
        let outcome = self.write();
        self.retry_at = outcome.is_err().then(|| Instant::now() + DISK_RETRY);
        match outcome {
            Ok(()) => {
                if mem::take(&mut self.is_failing) {
                    self.metrics.warnings.replace(DISK_TOPIC, &[]);
                    info!(path = %self.path.display(), "answers are kept on disk again");
                }
            }
            Err(error) => self.report(&error),
        }
        let totals = self.file.as_ref().map(AnswersFile::totals).unwrap_or_default();
        self.metrics.cache_disk_entries.set(totals.rows);
    }

    fn write(&mut self) -> Result<(), SqliteFileError> {
        // A file that was moved away or deleted would take all further answers with it.
        if self.file.as_ref().is_some_and(|file| !file.is_in_place()) {
            self.file = None;
        }
        // After a failure the file is opened again: it may be another one by then.
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        if !self.pending.is_empty() {
            file.write(&self.pending, self.bounds)?;
            let written: usize = self.pending.drain(..).map(|(_, answer)| answer.size()).sum();
            self.waiting.bytes.fetch_sub(written, Ordering::Relaxed);
        }
        let now = Instant::now();
        if self.prune_at.is_none_or(|at| at <= now) {
            let left = file.prune(self.bounds)?.unwrap_or(self.bounds.ttl);
            self.prune_at = now.checked_add(left.max(LEAST_PRUNE_WAIT)).filter(|_| file.totals().rows > 0);
        }
        self.file = Some(file);
        Ok(())
    }

    /// Opens the file. What is in it is given to the cache the first time.
    fn open(&mut self) -> Result<AnswersFile, SqliteFileError> {
        let file = AnswersFile::open(&self.path, self.bounds)?;
        if let Some((restore, _)) = &mut self.restore {
            let (mut found, begun) = (0_u64, Instant::now());
            file.read(|key, answer| {
                found += 1;
                restore(key, answer);
            })?;
            if let Some((_, finish)) = self.restore.take() {
                finish();
            }
            let took = begun.elapsed();
            info!(path = %self.path.display(), answers = found, ?took, "answers that were kept on disk are found again");
        }
        Ok(file)
    }

    /// Counts a failure, shows it on `/health`, and logs it at most once a minute.
    fn report(&mut self, error: &SqliteFileError) {
        let warning = format!("answers are not kept on disk ({error}): the cache goes on in memory");
        if let Some(failures) = self.failure.report_due() {
            warn!(failures, "{warning}");
        }
        if !mem::replace(&mut self.is_failing, true) {
            self.metrics.warnings.show(DISK_TOPIC, &warning);
        }
        // Last: a reader that sees the count finds the warning too.
        self.metrics.cache_disk_failures.inc();
    }
}
