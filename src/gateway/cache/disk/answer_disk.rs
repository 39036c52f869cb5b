//! The file of answers as the rest of the cache sees it.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tracing::warn;

use super::answers_file::AnswerToWrite;
use super::disk_writer::DiskWriter;
use super::waiting_answers::WaitingAnswers;
use crate::gateway::bounds::{DISK_LAST_WRITE_WAIT, LARGEST_ON_DISK, WAITING_ANSWER_BYTES, WAITING_ANSWERS};
use crate::gateway::cache::cache_bounds::CacheBounds;
use crate::gateway::cache::kept_answer::KeptAnswer;
use crate::gateway::cache::key::CacheKey;
use crate::telemetry::metrics::Metrics;

/// The file of answers.
pub(in crate::gateway::cache) struct AnswerDisk {
    /// `None` only wakes the writer.
    queue: SyncSender<Option<AnswerToWrite>>,
    waiting: Arc<WaitingAnswers>,
    metrics: Arc<Metrics>,
    /// Closed when the writer has ended.
    ended: Mutex<Receiver<()>>,
}

impl AnswerDisk {
    /// Starts the thread that owns the file. It gives each answer that it finds there to the first
    /// part of `restore`, and calls the second after them. The file is opened in the
    /// background: a fault of it is reported, and ends nothing. `None` if the thread cannot be started.
    pub(in crate::gateway::cache) fn start(
        path: PathBuf,
        bounds: CacheBounds,
        metrics: &Arc<Metrics>,
        restore: (impl FnMut(CacheKey, KeptAnswer) + Send + 'static, impl FnOnce() + Send + 'static),
    ) -> Option<Self> {
        let (queue, orders) = mpsc::sync_channel(WAITING_ANSWERS);
        let (alive, ended) = mpsc::channel::<()>();
        let waiting = Arc::<WaitingAnswers>::default();
        let writer = DiskWriter::new(path, bounds, Arc::clone(metrics), Arc::clone(&waiting), restore);
        let run = move || {
            // Dropped at the end, also after a panic.
            let _alive = alive;
            writer.run(&orders);
        };
        match thread::Builder::new().name("cache".to_owned()).spawn(run) {
            Ok(_) => Some(Self { queue, waiting, metrics: Arc::clone(metrics), ended: Mutex::new(ended) }),
            Err(error) => {
                warn!(%error, "answers are not kept on disk: no thread can be started");
                None
            }
        }
    }

    /// Has an answer written. It is not, and is counted, if too much waits already, or if it is too large for a row. Never
    /// waits.
    pub(in crate::gateway::cache) fn put(&self, key: CacheKey, answer: &Arc<KeptAnswer>) {
        let size = answer.size();
        let before = self.waiting.bytes.fetch_add(size, Ordering::Relaxed);
        let has_room = size <= LARGEST_ON_DISK && before + size <= WAITING_ANSWER_BYTES;
        if !has_room || self.queue.try_send(Some((key, Arc::clone(answer)))).is_err() {
            self.waiting.bytes.fetch_sub(size, Ordering::Relaxed);
            self.metrics.cache_disk_dropped.inc();
        }
    }

    /// Has the writer write what waits and end; waits for that, up to a bound. Blocks.
    pub(in crate::gateway::cache) fn close(&self) {
        self.waiting.is_closed.store(true, Ordering::Release);
        // If the queue is full, the writer is awake.
        let _ = self.queue.try_send(None);
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(DISK_LAST_WRITE_WAIT) == Err(RecvTimeoutError::Timeout) {
            warn!("the last answers could not be kept on disk in time");
        }
    }
}
