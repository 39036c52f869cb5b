//! One download: its state, its rate, and its revisions, which are the ids of its events.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bounds::EVENT_INTERVAL;
use super::status::{DownloadFailure, DownloadReport, DownloadState, DownloadStatus};
use crate::download::downloader::DownloadedModel;
use crate::download::progress::Progress;
use crate::models::RemoteName;

/// One download, from its order until it is forgotten.
#[derive(Debug)]
pub struct Download {
    id: String,
    name: RemoteName,
    created: Timestamp,
    progress: Arc<Progress>,
    stage: watch::Sender<DownloadStage>,
    cancel: CancellationToken,
    /// Whether the start of the service waits for it.
    is_needed: AtomicBool,
    rate: Mutex<RateWindow>,
    revision: Mutex<Revision>,
}

/// Where a download is between its order and its end.
#[derive(Debug, Clone)]
pub(super) enum DownloadStage {
    Queued,
    Running,
    Ended(Outcome),
}

/// How a download ended.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Done(DownloadedModel),
    Failed(DownloadFailure),
    Cancelled,
}

/// Since when the rate is counted, and what had arrived then.
#[derive(Debug)]
struct RateWindow {
    since: Instant,
    arrived: u64,
}

/// What was told last, and when.
#[derive(Debug)]
struct Revision {
    number: u64,
    at: Instant,
    told: Option<DownloadStatus>,
}

impl Download {
    pub(super) fn new(id: String, name: RemoteName, progress: Progress, is_needed: bool) -> Self {
        Self {
            id,
            name,
            created: Timestamp::now(),
            progress: Arc::new(progress),
            stage: watch::Sender::new(DownloadStage::Queued),
            cancel: CancellationToken::new(),
            is_needed: AtomicBool::new(is_needed),
            rate: Mutex::new(RateWindow { since: Instant::now(), arrived: 0 }),
            revision: Mutex::new(Revision { number: 0, at: Instant::now(), told: None }),
        }
    }

    /// Returns its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the name of the model.
    #[must_use]
    pub fn name(&self) -> &RemoteName {
        &self.name
    }

    /// Returns the SHA-256 of the model's first file, once the hub has named it.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.progress.digest()
    }

    /// Returns how far it is.
    #[must_use]
    pub fn report(&self) -> DownloadReport {
        let (bytes, total) = (self.progress.arrived(), self.progress.total());
        let bytes_per_second = if self.is_ended() { 0 } else { self.rate(bytes) };
        let seconds_left = total.saturating_sub(bytes).checked_div(bytes_per_second);
        DownloadReport { model: self.name.to_string(), bytes, total, bytes_per_second, seconds_left }
    }

    /// Returns all that clients see of it.
    #[must_use]
    pub fn status(&self) -> DownloadStatus {
        let error = match &*self.stage.borrow() {
            DownloadStage::Ended(Outcome::Failed(failure)) => Some(failure.clone()),
            _ => None,
        };
        DownloadStatus {
            id: self.id.clone(),
            report: self.report(),
            state: self.state(),
            error,
            created_at: format!("{:.0}", self.created),
        }
    }

    /// Returns what it does now.
    #[must_use]
    pub fn state(&self) -> DownloadState {
        match &*self.stage.borrow() {
            DownloadStage::Queued => DownloadState::Queued,
            DownloadStage::Running => self.progress.phase().into(),
            DownloadStage::Ended(Outcome::Done(_)) => DownloadState::Done,
            DownloadStage::Ended(Outcome::Failed(_)) => DownloadState::Failed,
            DownloadStage::Ended(Outcome::Cancelled) => DownloadState::Cancelled,
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Why the model did not come.
    pub async fn ended(&self) -> Result<DownloadedModel, DownloadFailure> {
        match self.outcome().await {
            Outcome::Done(model) => Ok(model),
            Outcome::Failed(failure) => Err(failure),
            Outcome::Cancelled => {
                let message = "the download was cancelled; what has arrived is kept".to_owned();
                Err(DownloadFailure { message, hint: None, at: Timestamp::now(), is_of_settings: false })
            }
        }
    }

    pub(super) async fn outcome(&self) -> Outcome {
        let mut stage = self.stage.subscribe();
        let ended = stage.wait_for(|stage| matches!(stage, DownloadStage::Ended(_))).await;
        match ended.as_deref() {
            Ok(DownloadStage::Ended(outcome)) => outcome.clone(),
            // The sender lives as long as `self`.
            _ => Outcome::Cancelled,
        }
    }

    /// Returns the present status with its revision, which grows when there is something new to tell: at once at a change
    /// of the state, and otherwise no more often than [`EVENT_INTERVAL`].
    pub(super) fn revision(&self) -> (u64, DownloadStatus) {
        let status = self.status();
        let mut revision = lock(&self.revision);
        let now = Instant::now();
        let known = revision.told.as_ref().filter(|told| {
            let is_same = (told.report.bytes, told.report.total) == (status.report.bytes, status.report.total);
            told.state == status.state && (is_same || now - revision.at < EVENT_INTERVAL)
        });
        if let Some(told) = known {
            return (revision.number, told.clone());
        }
        *revision = Revision { number: revision.number + 1, at: now, told: Some(status.clone()) };
        (revision.number, status)
    }

    pub(super) fn stages(&self) -> watch::Receiver<DownloadStage> {
        self.stage.subscribe()
    }

    pub(super) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    pub(super) fn enter(&self, stage: DownloadStage) {
        self.renew_rate();
        self.stage.send_replace(stage);
    }

    pub(super) fn is_ended(&self) -> bool {
        matches!(&*self.stage.borrow(), DownloadStage::Ended(_))
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(&*self.stage.borrow(), DownloadStage::Ended(Outcome::Done(_)))
    }

    pub(super) fn is_needed(&self) -> bool {
        self.is_needed.load(Ordering::Relaxed)
    }

    pub(super) fn set_needed(&self) {
        self.is_needed.store(true, Ordering::Relaxed);
    }

    pub(super) fn cancel(&self) {
        self.cancel.cancel();
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    pub(super) async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// Begins to count the rate again, so that it is the present one.
    pub(super) fn renew_rate(&self) {
        *lock(&self.rate) = RateWindow { since: Instant::now(), arrived: self.progress.arrived() };
    }

    /// Returns the bytes a second at present.
    fn rate(&self, bytes: u64) -> u64 {
        let window = lock(&self.rate);
        // What was there before the first bytes came is no rate.
        let arrived = window.arrived.max(self.progress.found());
        let seconds = window.since.elapsed().as_secs_f64().max(0.001);
        (bytes.saturating_sub(arrived) as f64 / seconds) as u64
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
