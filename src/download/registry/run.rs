//! Runs one download, in a task of its own, to its end.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::all::DownloadRegistry;
use super::bounds::{LINE_INTERVAL, SCAN_WAIT};
use super::one::{Download, DownloadStage, Outcome};
use super::status::{DownloadFailure, DownloadReport, DownloadState};
use crate::download::downloader::{DownloadedModel, Downloader};

impl DownloadRegistry {
    /// Runs a download to its end. If the service stops it has none: nothing tells of it any more.
    pub(super) async fn run(&self, download: &Download, downloader: &Downloader, place: Option<OwnedSemaphorePermit>) {
        let outcome = tokio::select! {
            // A stop frees the places of those that run, which must not begin those that wait.
            biased;
            () = self.stop.cancelled() => return,
            () = download.cancelled() => Outcome::Cancelled,
            outcome = self.fetch(download, downloader, place) => outcome,
        };
        let model = download.name().to_string();
        match &outcome {
            Outcome::Done(DownloadedModel { bytes, fetched, .. }) => {
                tracing::info!(model, bytes, fetched, "the model is downloaded");
                self.make_usable(download).await;
            }
            // The start says it itself.
            Outcome::Failed(_) if download.is_needed() => {}
            Outcome::Failed(failure) => tracing::warn!(model, "the model could not be downloaded: {}", failure.message),
            Outcome::Cancelled => tracing::info!(model, "the download is cancelled; what has arrived is kept"),
        }
        download.enter(DownloadStage::Ended(outcome));
    }

    async fn fetch(
        &self,
        download: &Download,
        downloader: &Downloader,
        place: Option<OwnedSemaphorePermit>,
    ) -> Outcome {
        // Held until the end.
        let _place = match place {
            None if download.state() == DownloadState::Queued => {
                let place = Arc::clone(&self.running).acquire_owned().await.ok();
                download.enter(DownloadStage::Running);
                place
            }
            place => place,
        };
        tracing::info!(model = %download.name(), "the model is not on the disk: it is downloaded");
        let outcome = tokio::select! {
            outcome = downloader.download(download.name(), download.progress()) => outcome,
            never = log_progress(download) => match never {},
        };
        match outcome {
            Ok(model) => Outcome::Done(model),
            Err(error) => Outcome::Failed(DownloadFailure::from(&error)),
        }
    }

    /// Has the model served before a client hears that it is there. The start looks for its models itself.
    async fn make_usable(&self, download: &Download) {
        let Some(after) = self.after.get().filter(|_| !download.is_needed()) else { return };
        if timeout(SCAN_WAIT, after()).await.is_err() {
            tracing::warn!("the models could not be scanned in time after a download");
        }
    }
}

async fn log_progress(download: &Download) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(LINE_INTERVAL).await;
        let DownloadReport { model, bytes, total, bytes_per_second, seconds_left } = download.report();
        tracing::info!(model, bytes, total, bytes_per_second, seconds_left, "downloading");
        download.renew_rate();
    }
}
