//! Reads a model once from beginning to end, so that llama-server finds it in the page cache (`PREFETCH`).
//!
//! llama-server reads a mapped file in random order, which is slow on a network volume. A failed prefetch neither
//! rejects the model nor prevents the start.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::models;
use crate::os::here;
use crate::pause_clock::ActiveInstant;
use crate::worker::bounds::{PREFETCH_BUFFER, PREFETCH_LOOK, PREFETCH_REPORT};

/// How a prefetch ended. llama-server is started next in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PrefetchOutcome {
    /// The whole model was read.
    Read,
    /// The model is larger than the available memory, so the page cache could not keep it.
    TooLarge,
    /// A file could not be read.
    Failed,
    /// No byte was read for `LOAD_TIMEOUT`.
    Stalled,
}

/// Reads the model at `file` with all its parts, unless no byte is read for `patience`. May be dropped at any time: the
/// reading thread ends at its next buffer, or when its read returns from the kernel.
pub(crate) async fn prefetch(model: &str, file: &Path, patience: Duration) -> PrefetchOutcome {
    follow(Arc::default(), model, file, patience, here::memory_available()).await
}

async fn follow(
    reader: Arc<ModelReader>,
    model: &str,
    file: &Path,
    patience: Duration,
    available: Option<u64>,
) -> PrefetchOutcome {
    let started = ActiveInstant::now();
    let _stop = StopOnDrop(Arc::clone(&reader));
    let files = models::split::parts_of(file);
    info!(model, files = files.len(), "the model is read once before the start (PREFETCH)");
    // A read of a lost network volume can block in the kernel without end, and no signal or drop interrupts it. So the
    // thread is only watched, and left behind if it makes no progress.
    let mut read = spawn_blocking({
        let reader = Arc::clone(&reader);
        move || reader.read_all(&files, available)
    });
    let (mut bytes, mut last_progress, mut last_report) = (0, started, started);
    let mut ticks = tokio::time::interval(PREFETCH_LOOK);
    let ended = loop {
        tokio::select! {
            ended = &mut read => break ended,
            _ = ticks.tick() => {}
        }
        let before = std::mem::replace(&mut bytes, reader.bytes());
        if bytes != before {
            last_progress = ActiveInstant::now();
        } else if last_progress.elapsed() >= patience {
            let seconds = patience.as_secs_f64();
            warn!(
                model,
                bytes, seconds, "no byte of the model was read for LOAD_TIMEOUT, the start goes on without prefetch"
            );
            return PrefetchOutcome::Stalled;
        }
        if last_report.elapsed() >= PREFETCH_REPORT {
            last_report = ActiveInstant::now();
            reader.report(model, started.elapsed(), "the model is being read");
        }
    };
    match ended {
        Ok(Ok(None)) => {
            reader.report(model, started.elapsed(), "the model has been read");
            PrefetchOutcome::Read
        }
        Ok(Ok(Some(available))) => {
            let bytes = reader.total();
            info!(
                model,
                bytes, available, "the model is not read before the start: it is larger than the available memory"
            );
            PrefetchOutcome::TooLarge
        }
        Ok(Err(error)) => {
            let bytes = reader.bytes();
            warn!(model, %error, bytes, "the model could not be read, the start goes on without prefetch");
            PrefetchOutcome::Failed
        }
        Err(_) => {
            warn!(model, "the prefetch was interrupted, the start goes on without it");
            PrefetchOutcome::Failed
        }
    }
}

/// The reader of one model, shared by the reading thread and the task that watches it. Sizes are in bytes.
#[derive(Default)]
struct ModelReader {
    total: AtomicU64,
    bytes: AtomicU64,
    is_stopped: AtomicBool,
}

/// Stops the reading thread on drop.
struct StopOnDrop(Arc<ModelReader>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        // Relaxed: the flag publishes no other data, and a buffer more does no harm.
        self.0.is_stopped.store(true, Ordering::Relaxed);
    }
}

impl ModelReader {
    fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Reads all files to the end, or until it is stopped. If they are larger than `available` bytes, reads nothing and
    /// returns `available`.
    ///
    /// # Errors
    ///
    /// The error of a file that cannot be opened or read.
    fn read_all(&self, files: &[PathBuf], available: Option<u64>) -> io::Result<Option<u64>> {
        let sizes: Vec<u64> =
            files.iter().map(|path| path.metadata().map(|file| file.len())).collect::<io::Result<_>>()?;
        let total = sizes.iter().copied().fold(0, u64::saturating_add);
        self.total.store(total, Ordering::Relaxed);
        if let Some(available) = available.filter(|available| total > *available) {
            return Ok(Some(available));
        }
        let mut buffer = vec![0; PREFETCH_BUFFER];
        for (path, size) in files.iter().zip(sizes) {
            let file = File::open(path)?;
            here::advise_sequential(&file);
            // Without the limit, a file that keeps growing would be read without end.
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
