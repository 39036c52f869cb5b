//! All downloads: finds, cancels and forgets them, and ends them with the service; what has arrived is kept.
//!
//! How one is begun is in `order.rs`, how it runs in `run.rs`.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bounds::{CANCEL_WAIT, LOOK_WAIT, LOOKS_AT_ONCE, MOST_FOLLOWERS, MOST_RUNNING};
use super::follower::Follower;
use super::one::Download;
use super::order_error::OrderError;
use super::status::{DownloadReport, DownloadState, DownloadStatus};
use crate::blocking_pool::BlockingPool;
use crate::download::downloader::Downloader;
use crate::download::error::DownloadError;
use crate::models::{RemoteName, shown_name};
use crate::settings::Settings;
use crate::settings::bounds::CONNECTION_GRACE;
use crate::telemetry::metrics::{DownloadStateLabels, Metrics};

/// Makes a model that has come usable.
pub type AfterDownload = Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// The downloads of the service.
pub struct DownloadRegistry {
    /// The settings in effect.
    pub(super) settings: Mutex<Arc<Settings>>,
    /// In the order in which they were ordered.
    pub(super) downloads: Mutex<VecDeque<Arc<Download>>>,
    pub(super) running: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    /// Looks for models on the disk.
    pub(super) looks: BlockingPool,
    pub(super) tasks: TaskTracker,
    /// Runs them: not that of a request, which would end before the workers that a download starts.
    pub(super) runtime: Handle,
    pub(super) stop: CancellationToken,
    pub(super) metrics: Arc<Metrics>,
    pub(super) after: OnceLock<AfterDownload>,
}

impl DownloadRegistry {
    /// Creates a registry without downloads.
    pub fn new(settings: Arc<Settings>, metrics: Arc<Metrics>) -> Self {
        Self {
            settings: Mutex::new(settings),
            downloads: Mutex::default(),
            running: Arc::new(Semaphore::new(MOST_RUNNING)),
            followers: Arc::new(Semaphore::new(MOST_FOLLOWERS)),
            looks: BlockingPool::new(LOOKS_AT_ONCE, LOOK_WAIT),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            stop: CancellationToken::new(),
            metrics,
            after: OnceLock::new(),
        }
    }

    /// Sets what makes a model usable that a client has ordered. Only the first call counts.
    pub fn set_after(&self, after: AfterDownload) {
        let _ = self.after.set(after);
    }

    /// Makes these settings those of the downloads that follow.
    pub fn set_settings(&self, settings: Arc<Settings>) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// Returns the settings of the downloads that follow.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns what asks the hub about the model that `name` means.
    ///
    /// # Errors
    /// `HF_HUB_OFFLINE` forbids to ask, or there is no client for the hub.
    pub fn downloader(&self, name: &str) -> Result<Downloader, OrderError> {
        let settings = self.settings();
        if settings.downloads.hf_hub_offline {
            return Err(OrderError::Offline(DownloadError::Offline { name: shown_name(name) }));
        }
        let (downloader, warning) = Downloader::of_settings(&settings).map_err(OrderError::Client)?;
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
        }
        Ok(downloader)
    }

    /// Returns every download, the newest first.
    pub fn statuses(&self) -> Vec<DownloadStatus> {
        self.lock().iter().rev().map(|download| download.status()).collect()
    }

    /// Returns every download with its revision, the newest first. A revision grows when there is something new to tell.
    pub fn revisions(&self) -> Vec<(u64, DownloadStatus)> {
        self.lock().iter().rev().map(|download| download.revision()).collect()
    }

    /// Returns a download.
    ///
    /// # Errors
    /// None has this id.
    pub fn find(&self, id: &str) -> Result<Arc<Download>, OrderError> {
        let found = self.lock().iter().find(|download| download.id() == id).cloned();
        found.ok_or_else(|| OrderError::Unknown(id.to_owned()))
    }

    /// Returns how far the download is that the start of the service waits for, if there is one.
    pub fn needed(&self) -> Option<DownloadReport> {
        let downloads = self.lock();
        let needed = downloads.iter().find(|download| download.is_needed() && !download.is_ended())?;
        Some(needed.report())
    }

    /// Cancels a download that has not ended, and forgets one that has. What has arrived is kept.
    ///
    /// # Errors
    /// None has this id, or the start of the service waits for it.
    pub async fn cancel(&self, id: &str) -> Result<DownloadStatus, OrderError> {
        let download = self.find(id)?;
        if download.is_ended() {
            self.lock().retain(|known| known.id() != id);
            return Ok(download.status());
        }
        if download.is_needed() {
            return Err(OrderError::Needed);
        }
        download.cancel();
        // It stops at its next step; a client that orders it again begins after that.
        let _ = timeout(CANCEL_WAIT, download.outcome()).await;
        Ok(download.status())
    }

    /// Returns a listener for a client that has seen the events up to `last_event_id`; `None` if it has seen the last one.
    ///
    /// # Errors
    /// No download has this id, no event of it has that one, or there are too many listeners.
    pub fn follow(&self, id: &str, last_event_id: Option<&str>) -> Result<Option<Follower>, OrderError> {
        let download = self.find(id)?;
        let (revision, status) = download.revision();
        let seen = match last_event_id.map(str::parse::<u64>) {
            None => 0,
            Some(Ok(seen)) if seen <= revision => seen,
            Some(_) => return Err(OrderError::NoSuchEvent),
        };
        if seen == revision && status.state.is_final() {
            return Ok(None);
        }
        let place = Arc::clone(&self.followers).try_acquire_owned().map_err(|_| OrderError::TooManyFollowers)?;
        Ok(Some(Follower::new(download, seen, self.stop.clone(), place)))
    }

    /// Returns whether a download is under way.
    pub fn is_busy(&self) -> bool {
        self.lock().iter().any(|download| !download.is_ended())
    }

    /// Waits until no download is under way.
    pub async fn idle(&self) {
        loop {
            let unfinished = self.lock().iter().find(|download| !download.is_ended()).cloned();
            match unfinished {
                Some(download) => drop(download.outcome().await),
                None => return,
            }
        }
    }

    /// Sets the metrics of the present states.
    pub fn count_states(&self) {
        let states: Vec<DownloadState> = self.lock().iter().map(|download| download.state()).collect();
        for state in DownloadState::ALL {
            let count = states.iter().filter(|one| **one == state).count();
            let labels = DownloadStateLabels { state: state.as_str() };
            self.metrics.downloads.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Stops all downloads and listeners, and waits for the downloads.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        if timeout(CONNECTION_GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!("a download did not stop in time");
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Download>>> {
        self.downloads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the download of this model that has not ended.
pub(super) fn find_coming(downloads: &VecDeque<Arc<Download>>, name: &RemoteName) -> Option<Arc<Download>> {
    let is_coming =
        |known: &&Arc<Download>| known.name().is_same_model(name) && !known.is_ended() && !known.is_cancelled();
    downloads.iter().find(is_coming).cloned()
}
