//! Reads a model once from beginning to end, so that llama-server finds it in the page cache (`PREFETCH`).
//!
//! llama-server touches a mapped file here and there, which a network volume answers slowly. Nothing here decides
//! whether the model is any good, and nothing here keeps a start from going on.

use super::host;
use super::kernel::KernelRoots;
use crate::models;
use crate::pause_clock::ActiveInstant;
use crate::worker::bounds::{PREFETCH_BUFFER, PREFETCH_LOOK, PREFETCH_REPORT};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

/// How a prefetch ended. In any case llama-server is started next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PrefetchOutcome {
    /// All of it was read.
    Read,
    /// The model is larger than the memory that it would have to stay in.
    TooLarge,
    /// A file could not be read.
    Failed,
    /// No byte came for the longest time that a load may show no progress.
    Stalled,
}

/// Reads the model at `file` with all its parts. It may be dropped at any time: the thread that reads ends at its next
/// buffer, or whenever the kernel lets go of it.
pub(crate) async fn prefetch(model: &str, file: &Path, patience: Duration) -> PrefetchOutcome {
    follow(Arc::default(), model, file, patience, host::available(&KernelRoots::here())).await
}

async fn follow(
    reading: Arc<Reading>,
    model: &str,
    file: &Path,
    patience: Duration,
    room: Option<u64>,
) -> PrefetchOutcome {
    let begun = ActiveInstant::now();
    let _leave = StopOnDrop(Arc::clone(&reading));
    let files = models::split::parts_of(file);
    info!(model, files = files.len(), "the model is read once before the start (PREFETCH)");
    let mut work = spawn_blocking({
        let reading = Arc::clone(&reading);
        move || reading.read_all(&files, room)
    });
    let (mut bytes, mut moved, mut reported) = (0, begun, begun);
    let mut looks = tokio::time::interval(PREFETCH_LOOK);
    let ended = loop {
        tokio::select! {
            ended = &mut work => break ended,
            _ = looks.tick() => {}
        }
        let before = std::mem::replace(&mut bytes, reading.bytes());
        if bytes != before {
            moved = ActiveInstant::now();
        } else if moved.elapsed() >= patience {
            let seconds = patience.as_secs_f64();
            warn!(model, bytes, seconds, "no byte of the model came for LOAD_TIMEOUT, the start goes on without");
            return PrefetchOutcome::Stalled;
        }
        if reported.elapsed() >= PREFETCH_REPORT {
            reported = ActiveInstant::now();
            reading.report(model, begun.elapsed(), "the model is being read");
        }
    };
    match ended {
        Ok(Ok(None)) => {
            reading.report(model, begun.elapsed(), "the model has been read");
            PrefetchOutcome::Read
        }
        Ok(Ok(Some(room))) => {
            let bytes = reading.total();
            info!(
                model,
                bytes,
                available = room,
                "the model is not read first: it is larger than the memory available"
            );
            PrefetchOutcome::TooLarge
        }
        Ok(Err(error)) => {
            warn!(model, %error, bytes = reading.bytes(), "the model could not be read, the start goes on without");
            PrefetchOutcome::Failed
        }
        Err(_) => {
            warn!(model, "reading the model was interrupted, the start goes on without");
            PrefetchOutcome::Failed
        }
    }
}

/// What the thread that reads and the one that follows it share.
#[derive(Default)]
struct Reading {
    total: AtomicU64,
    bytes: AtomicU64,
    is_stopped: AtomicBool,
}

/// Tells the thread, when it is dropped, that nobody needs what it reads.
struct StopOnDrop(Arc<Reading>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.is_stopped.store(true, Ordering::Relaxed);
    }
}

impl Reading {
    fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Reads all files to the end, or until it is left. When they are larger than `room`, reads nothing and gives that.
    fn read_all(&self, files: &[PathBuf], room: Option<u64>) -> io::Result<Option<u64>> {
        let sizes: Vec<u64> =
            files.iter().map(|path| path.metadata().map(|file| file.len())).collect::<io::Result<_>>()?;
        let total = sizes.iter().copied().fold(0, u64::saturating_add);
        self.total.store(total, Ordering::Relaxed);
        if let Some(room) = room.filter(|room| total > *room) {
            return Ok(Some(room));
        }
        let mut buffer = vec![0; PREFETCH_BUFFER];
        for (path, size) in files.iter().zip(sizes) {
            let file = File::open(path)?;
            // Has the kernel read further ahead. Asking for all of it at once (WILLNEED) could not be stopped.
            let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
            // A file that still grows has no end.
            self.read(file.take(size), &mut buffer)?;
        }
        Ok(None)
    }

    fn read(&self, mut file: impl Read, buffer: &mut [u8]) -> io::Result<()> {
        while !self.is_stopped.load(Ordering::Relaxed) {
            match file.read(buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => _ = self.bytes.fetch_add(count as u64, Ordering::Relaxed),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn report(&self, model: &str, time: Duration, message: &str) {
        let (bytes, seconds) = (self.bytes(), time.as_secs_f64());
        let percent = (bytes as f64 / self.total().max(1) as f64 * 100.0).min(100.0) as u64;
        let mib_per_s = (bytes as f64 / 1024.0 / 1024.0 / seconds.max(0.001)) as u64;
        info!(model, bytes, percent, mib_per_s, seconds = (seconds * 1000.0).round() / 1000.0, "{message}");
    }
}

#[cfg(test)]
#[path = "prefetch_tests.rs"]
mod tests;
