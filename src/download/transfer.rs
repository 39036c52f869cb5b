//! Fetches one file into its part: in ranges over several connections, again where a range breaks, and hashed on the way.
//!
//! Owns the tries and their pauses, the lowest rate, and the highest. Does not own where the part lies or what its name
//! becomes.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::task::{JoinSet, spawn_blocking};
use url::Url;

use super::bounds::{PIECE, SLOW_WINDOW, SLOWEST};
use super::disk::part_file::PartFile;
use super::disk::pieces::count;
use super::error::{DownloadError, TryError};
use super::hub::{Hub, LocatedFile, RangeAnswer, host_of};
use super::progress::Progress;
use super::retry::pause_after;
use crate::hex::hex;
use crate::pause_clock::ActiveInstant;

/// Limits of downloads that settings choose.
#[derive(Debug, Clone, Copy)]
pub struct DownloadLimits {
    /// `DOWNLOAD_CONNECTIONS`
    pub connections: usize,
    /// `DOWNLOAD_RETRIES`: most tries in a row without a piece of the file.
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

/// Keeps a download below a rate. Shared by all of its connections.
#[derive(Debug)]
pub(super) struct Pace {
    max_rate: Option<u64>,
    /// When all bytes so far would have come at that rate.
    due: Mutex<Instant>,
}

/// What the connections of a transfer share.
struct Shared {
    transfer: Transfer,
    /// The address that has answered last. Signed addresses end, so after a failure the first one is asked again.
    address: Mutex<Url>,
    /// Tries in a row of all connections without a piece.
    failures: AtomicU32,
    /// Whether the host knows no ranges.
    is_whole_only: AtomicBool,
    /// Tells the hasher that a piece has arrived.
    arrived: mpsc::Sender<()>,
}

impl Pace {
    pub(super) fn new(max_rate: Option<u64>) -> Self {
        Self { max_rate: max_rate.filter(|rate| *rate > 0), due: Mutex::new(Instant::now()) }
    }

    /// Waits until this many bytes more are allowed.
    async fn wait_for(&self, bytes: u64) {
        let Some(rate) = self.max_rate else { return };
        let due = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let time = Duration::try_from_secs_f64(bytes as f64 / rate as f64).unwrap_or(SLOW_WINDOW);
            *due = (*due).max(Instant::now()) + time;
            *due
        };
        tokio::time::sleep_until(due.into()).await;
    }
}

impl Transfer {
    /// Fetches what is missing. Returns the SHA-256 of the whole file.
    ///
    /// # Errors
    /// No progress in [`DownloadLimits::retries`] tries, an answer that cannot be right, or a disk that fails.
    pub(super) async fn run(self) -> Result<String, DownloadError> {
        let (arrived, arrivals) = mpsc::channel();
        let part = Arc::clone(&self.part);
        let hashing = spawn_blocking(move || hash_arriving(&part, &arrivals));
        let shared = Arc::new(Shared {
            address: Mutex::new(self.file.address.clone()),
            failures: AtomicU32::new(0),
            is_whole_only: AtomicBool::new(false),
            arrived,
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
            if self.is_whole_only.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.after_try(outcome).await?;
        }
    }

    async fn fetch_whole_with_retries(&self) -> Result<(), DownloadError> {
        loop {
            let outcome = self.fetch_whole().await;
            let is_done = outcome.is_ok();
            self.after_try(outcome).await?;
            if is_done {
                return Ok(());
            }
        }
    }

    /// Decides whether there is another try, and waits for it.
    async fn after_try(&self, outcome: Result<(), TryError>) -> Result<(), DownloadError> {
        let (reason, wait) = match outcome {
            Ok(()) => return Ok(()),
            Err(TryError::Final(error)) => return Err(error),
            Err(TryError::Again { reason, wait }) => (reason, wait),
        };
        let origin = self.transfer.file.address.clone();
        let host = host_of(&std::mem::replace(&mut *self.address(), origin));
        let tries = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let limits = &self.transfer.limits;
        // Each connection may fail once for the same cause.
        let most = limits.retries.saturating_mul(u32::try_from(limits.connections).unwrap_or(u32::MAX).max(1));
        if tries > most {
            return Err(DownloadError::GivenUp { host, tries, reason });
        }
        let pause = wait.unwrap_or_else(|| pause_after(tries));
        tracing::debug!(
            file = self.transfer.file.label,
            reason,
            pause_ms = pause.as_millis(),
            "a range is asked for again"
        );
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Fetches one run of pieces.
    async fn fetch_run(&self, run: &Range<usize>) -> Result<(), TryError> {
        let bytes = self.transfer.part.lock().bytes_of(run);
        let address = self.address().clone();
        let RangeAnswer { response, address, is_range } =
            self.transfer.hub.range(&address, self.transfer.file.size, Some(&bytes)).await?;
        if !is_range && bytes != (0..self.transfer.file.size) {
            tracing::info!(
                file = self.transfer.file.label,
                "the host knows no ranges: the file comes over one connection"
            );
            self.is_whole_only.store(true, Ordering::Relaxed);
            return Ok(());
        }
        *self.address() = address.clone();
        let mut pieces = PieceWriter::new(self, run.clone(), host_of(&address));
        pieces.write_all_of(response).await
    }

    /// Fetches the whole file over one connection. What has arrived before is passed over.
    async fn fetch_whole(&self) -> Result<(), TryError> {
        let size = self.transfer.file.size;
        let answer = self.transfer.hub.range(&self.transfer.file.address, size, None).await?;
        let mut pieces = PieceWriter::new(self, 0..count(size), host_of(&answer.address));
        pieces.write_all_of(answer.response).await
    }

    fn address(&self) -> std::sync::MutexGuard<'_, Url> {
        self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cuts the body of an answer into pieces and writes them.
struct PieceWriter<'a> {
    shared: &'a Shared,
    run: Range<usize>,
    host: String,
    /// The beginning of the first piece of `run`.
    piece: Vec<u8>,
}

impl<'a> PieceWriter<'a> {
    fn new(shared: &'a Shared, run: Range<usize>, host: String) -> Self {
        Self { shared, run, host, piece: Vec::with_capacity(PIECE as usize) }
    }

    /// Reads the body as far as it belongs to the run.
    async fn write_all_of(&mut self, mut response: crate::http_client::Response) -> Result<(), TryError> {
        let again = |reason: String| TryError::Again { reason, wait: None };
        let mut window = Window::new();
        while !self.run.is_empty() {
            let chunk = match response.next_chunk(window.end).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Err(again(format!("{} ended before all had come", self.host))),
                Err(_) if window.is_over() => {
                    let seconds = SLOW_WINDOW.as_secs();
                    return Err(again(format!(
                        "{} sent less than {SLOWEST} bytes a second for {seconds} s",
                        self.host
                    )));
                }
                Err(error) => return Err(again(error.explain(&self.host))),
            };
            window.count(chunk.len());
            self.shared.transfer.pace.wait_for(chunk.len() as u64).await;
            self.take(&chunk).await?;
        }
        Ok(())
    }

    async fn take(&mut self, mut chunk: &[u8]) -> Result<(), TryError> {
        while !chunk.is_empty() && !self.run.is_empty() {
            let bytes = self.shared.transfer.part.lock().bytes_of(&(self.run.start..self.run.start + 1));
            let missing = usize::try_from(bytes.end - bytes.start).unwrap_or_default() - self.piece.len();
            let (now, rest) = chunk.split_at(missing.min(chunk.len()));
            self.piece.extend_from_slice(now);
            chunk = rest;
            if now.len() == missing {
                self.write().await?;
            }
        }
        Ok(())
    }

    /// Writes the piece that has become whole, unless it was there already.
    async fn write(&mut self) -> Result<(), TryError> {
        let at = self.run.start;
        self.run.start += 1;
        let data = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE as usize));
        if self.shared.transfer.part.lock().has(at) {
            return Ok(());
        }
        let (part, length) = (Arc::clone(&self.shared.transfer.part), data.len() as u64);
        let written = spawn_blocking(move || part.write_piece(at, &data)).await;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        written.map_err(|source| DownloadError::disk(&self.shared.transfer.file.label, "written", source))?;
        self.shared.failures.store(0, Ordering::Relaxed);
        self.shared.transfer.progress.add_arrived(length);
        // The hasher ends before the last piece only if it failed, which `run` tells.
        let _ = self.shared.arrived.send(());
        Ok(())
    }
}

/// A time in which at least [`SLOWEST`] bytes a second have to come.
struct Window {
    end: ActiveInstant,
    bytes: u64,
}

impl Window {
    fn new() -> Self {
        Self { end: ActiveInstant::now() + SLOW_WINDOW, bytes: 0 }
    }

    fn count(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.bytes >= SLOWEST * SLOW_WINDOW.as_secs() {
            *self = Self::new();
        }
    }

    fn is_over(&self) -> bool {
        ActiveInstant::now() >= self.end
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
