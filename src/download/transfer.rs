//! Fetches one file into its part: in ranges over several connections, again where a range breaks, and hashed on the way.
//!
//! Owns the tries and their pauses. Does not own where the part lies or what its name becomes.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::task::{JoinSet, spawn_blocking};
use url::Url;

use super::body_writer::{BodyWriter, Pace, Sink};
use super::bounds::{PAUSE_AFTER_PROGRESS, PIECE};
use super::disk::part_file::PartFile;
use super::disk::pieces::count;
use super::error::{DownloadError, TryError};
use super::hub::{Hub, LocatedFile, RangeAnswer, host_of};
use super::progress::Progress;
use super::retry::pause_after;
use crate::hex::hex;

/// Limits of downloads that settings choose.
#[derive(Debug, Clone, Copy)]
pub struct DownloadLimits {
    /// `DOWNLOAD_CONNECTIONS`
    pub connections: usize,
    /// `DOWNLOAD_RETRIES`: most tries in a row that bring nothing.
    pub retries: u32,
    /// `DOWNLOAD_MAX_RATE` in bytes a second; `None`: as fast as it goes.
    pub max_rate: Option<u64>,
}

/// One file on its way.
pub(super) struct Transfer {
    pub(super) hub: Hub,
    pub(super) file: LocatedFile,
    pub(super) part: Arc<PartFile>,
    pub(super) progress: Arc<Progress>,
    pub(super) limits: DownloadLimits,
    pub(super) pace: Arc<Pace>,
}

/// What the connections of a transfer share.
struct Shared {
    transfer: Transfer,
    /// The address that has answered last. Signed addresses end, so after a failure the first one is asked again.
    address: Mutex<Url>,
    /// Tries in a row of all connections that brought nothing.
    failures: AtomicU32,
    /// Whether the host knows no ranges.
    is_whole_only: AtomicBool,
    sink: Sink,
}

impl Transfer {
    /// Fetches what is missing. Returns the SHA-256 of the whole file.
    ///
    /// # Errors
    /// No progress in [`DownloadLimits::retries`] tries, an answer that cannot be right, or a disk that fails.
    pub(super) async fn run(self) -> Result<String, DownloadError> {
        let (arrived, arrivals) = mpsc::sync_channel(1);
        let part = Arc::clone(&self.part);
        let hashing = spawn_blocking(move || hash_arriving(&part, &arrivals));
        let sink = Sink {
            part: Arc::clone(&self.part),
            pace: Arc::clone(&self.pace),
            progress: Arc::clone(&self.progress),
            arrived,
            label: self.file.label.clone(),
        };
        let shared = Arc::new(Shared {
            address: Mutex::new(self.file.address.clone()),
            failures: AtomicU32::new(0),
            is_whole_only: AtomicBool::new(false),
            sink,
            transfer: self,
        });
        let fetched = shared.fetch().await;
        // The hasher ends when the last sender is gone, or when it has all.
        let label = shared.transfer.file.label.clone();
        drop(shared);
        let hash = hashing.await.unwrap_or(Ok(None));
        fetched?;
        let hash = hash.map_err(|source| DownloadError::disk(&label, "read", source))?;
        hash.ok_or(DownloadError::Stopped)
    }
}

impl Shared {
    async fn fetch(self: &Arc<Self>) -> Result<(), DownloadError> {
        while !self.transfer.part.lock().is_complete() {
            if self.is_whole_only.load(Ordering::Relaxed) {
                self.fetch_whole_with_retries().await?;
                continue;
            }
            // Dropped with this future, which ends the connections.
            let mut connections = JoinSet::new();
            for _ in 0..self.transfer.limits.connections.max(1) {
                let shared = Arc::clone(self);
                connections.spawn(async move { shared.fetch_ranges().await });
            }
            while let Some(ended) = connections.join_next().await {
                ended.unwrap_or(Err(DownloadError::Stopped))?;
            }
        }
        Ok(())
    }

    /// Fetches runs of pieces until no connection has anything left to begin.
    async fn fetch_ranges(&self) -> Result<(), DownloadError> {
        loop {
            let connections = self.transfer.limits.connections;
            let Some(run) = self.transfer.part.lock().claim(connections) else { return Ok(()) };
            let outcome = self.fetch_run(&run).await;
            self.transfer.part.lock().release(run);
            outcome?;
            if self.is_whole_only.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }

    /// Fetches one run of pieces in as many tries as it takes. Each goes on at the byte at which the one before ended.
    async fn fetch_run(&self, run: &Range<usize>) -> Result<(), DownloadError> {
        let mut rest = self.transfer.part.lock().bytes_of(run);
        while !rest.is_empty() && !self.is_whole_only.load(Ordering::Relaxed) {
            let before = rest.start;
            let outcome = self.fetch_range(&mut rest).await;
            self.after_try(outcome, rest.start - before).await?;
        }
        Ok(())
    }

    async fn fetch_whole_with_retries(&self) -> Result<(), DownloadError> {
        loop {
            let arrived = || self.transfer.part.lock().arrived_bytes();
            let before = arrived();
            let outcome = self.fetch_whole().await;
            let is_done = outcome.is_ok();
            self.after_try(outcome, arrived() - before).await?;
            if is_done {
                return Ok(());
            }
        }
    }

    /// Decides whether there is another try after one that has brought this number of bytes, and waits for it.
    async fn after_try(&self, outcome: Result<(), TryError>, bytes: u64) -> Result<(), DownloadError> {
        if bytes > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        let (reason, wait) = match outcome {
            Ok(()) => return Ok(()),
            Err(TryError::Final(error)) => return Err(error),
            Err(TryError::Again { reason, wait }) => (reason, wait),
        };
        let origin = self.transfer.file.address.clone();
        let host = host_of(&std::mem::replace(&mut *self.address(), origin));
        let pause = match bytes {
            0 => self.pause_after_failure(&host, &reason)?,
            _ => PAUSE_AFTER_PROGRESS,
        };
        let pause = wait.unwrap_or(pause);
        self.transfer.progress.set_failure(Some(&reason));
        tracing::debug!(
            file = self.transfer.file.label,
            reason,
            pause_ms = pause.as_millis(),
            "a range is asked for again"
        );
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Counts a try that has brought nothing, and returns the pause after it.
    fn pause_after_failure(&self, host: &str, reason: &str) -> Result<Duration, DownloadError> {
        let tries = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let limits = &self.transfer.limits;
        // Each connection may fail once for the same cause.
        let most = limits.retries.saturating_mul(u32::try_from(limits.connections).unwrap_or(u32::MAX).max(1));
        if tries > most {
            return Err(DownloadError::GivenUp { host: host.to_owned(), tries, reason: reason.to_owned() });
        }
        Ok(pause_after(tries))
    }

    /// Fetches these bytes of the file, of which those remain that have not come.
    async fn fetch_range(&self, bytes: &mut Range<u64>) -> Result<(), TryError> {
        let address = self.address().clone();
        let size = self.transfer.file.size;
        let RangeAnswer { response, address, is_range } = self.transfer.hub.range(&address, size, Some(bytes)).await?;
        if !is_range && *bytes != (0..size) {
            tracing::info!(
                file = self.transfer.file.label,
                "the host knows no ranges: the file comes over one connection"
            );
            self.is_whole_only.store(true, Ordering::Relaxed);
            return Ok(());
        }
        *self.address() = address.clone();
        BodyWriter::new(&self.sink, bytes, host_of(&address)).write_all_of(response).await
    }

    /// Fetches the whole file over one connection. What has arrived before is passed over.
    async fn fetch_whole(&self) -> Result<(), TryError> {
        let size = self.transfer.file.size;
        let answer = self.transfer.hub.range(&self.transfer.file.address, size, None).await?;
        BodyWriter::new(&self.sink, &mut (0..size), host_of(&answer.address)).write_all_of(answer.response).await
    }

    fn address(&self) -> std::sync::MutexGuard<'_, Url> {
        self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hashes a file while it arrives: the pieces in their order, as soon as each is there. Returns `None` if the download ends
/// before the file does.
fn hash_arriving(part: &PartFile, arrivals: &mpsc::Receiver<()>) -> io::Result<Option<String>> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; PIECE as usize];
    for piece in 0..count(part.size()) {
        while !part.lock().has(piece) {
            if arrivals.recv().is_err() && !part.lock().has(piece) {
                return Ok(None);
            }
        }
        let bytes = part.lock().bytes_of(&(piece..piece + 1));
        let length = usize::try_from(bytes.end - bytes.start).unwrap_or_default();
        let piece = buffer.get_mut(..length).unwrap_or_default();
        part.read_at(piece, bytes.start)?;
        hash.update(piece);
    }
    Ok(Some(hex(&hash.finalize())))
}
