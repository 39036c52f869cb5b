//! The download that the service waits for, as `/health` and the log show it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::downloader::{DownloadedModel, Downloader};
use super::error::DownloadError;
use super::progress::Progress;
use crate::models::RemoteName;

/// Time between two lines of the log about a download.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shows one download at a time.
#[derive(Debug, Default)]
pub struct DownloadBoard(Mutex<Option<ShownDownload>>);

#[derive(Debug)]
struct ShownDownload {
    model: String,
    progress: Arc<Progress>,
    /// Since when the rate is counted, and what had arrived then.
    since: Instant,
    arrived: u64,
}

/// How far a download is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DownloadReport {
    /// The name by which the model is configured.
    pub model: String,
    /// Bytes that are on the disk.
    pub bytes: u64,
    /// Bytes of all its files; 0 until the hub has said it.
    pub total: u64,
    /// Bytes a second at present.
    pub bytes_per_second: u64,
    /// Seconds until all is there at this rate; none while nothing comes.
    pub seconds_left: Option<u64>,
}

impl DownloadBoard {
    /// Brings a model, and shows it here and in the log meanwhile.
    ///
    /// # Errors
    /// As [`Downloader::download`].
    pub async fn download(
        &self,
        downloader: &Downloader,
        model: &str,
        name: &RemoteName,
    ) -> Result<DownloadedModel, DownloadError> {
        let progress = Arc::new(Progress::default());
        let shown = ShownDownload {
            model: model.to_owned(),
            progress: Arc::clone(&progress),
            since: Instant::now(),
            arrived: 0,
        };
        *self.lock() = Some(shown);
        // Taken down too if the service stops in the middle.
        let _shown = TakenDown(self);
        tracing::info!(model, "the model is not on the disk: it is downloaded");
        let outcome = tokio::select! {
            outcome = downloader.download(name, &progress) => outcome,
            never = self.log_progress() => match never {},
        }?;
        let DownloadedModel { bytes, fetched, .. } = &outcome;
        tracing::info!(model, bytes, fetched, "the model is downloaded");
        Ok(outcome)
    }

    /// Returns how far the download is, if there is one.
    pub fn report(&self) -> Option<DownloadReport> {
        let shown = self.lock();
        let ShownDownload { model, progress, since, arrived } = shown.as_ref()?;
        let (bytes, total) = (progress.arrived(), progress.total());
        // What was there before the first bytes came is no rate.
        let arrived = (*arrived).max(progress.found());
        let seconds = since.elapsed().as_secs_f64().max(0.001);
        let bytes_per_second = (bytes.saturating_sub(arrived) as f64 / seconds) as u64;
        let seconds_left = total.saturating_sub(bytes).checked_div(bytes_per_second);
        Some(DownloadReport { model: model.clone(), bytes, total, bytes_per_second, seconds_left })
    }

    async fn log_progress(&self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(LINE_INTERVAL).await;
            if let Some(DownloadReport { model, bytes, total, bytes_per_second, seconds_left }) = self.report() {
                tracing::info!(model, bytes, total, bytes_per_second, seconds_left, "downloading");
            }
            if let Some(shown) = &mut *self.lock() {
                (shown.since, shown.arrived) = (Instant::now(), shown.progress.arrived());
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<ShownDownload>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the showing of a download when it is dropped.
struct TakenDown<'a>(&'a DownloadBoard);

impl Drop for TakenDown<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}
