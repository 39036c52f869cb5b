//! Begins, finds, cancels and forgets downloads.
//!
//! Each runs in a task of its own, which ends with the service; what has arrived is kept.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bounds::{
    CANCEL_WAIT, LINE_INTERVAL, LOOK_WAIT, MOST_ENDED, MOST_FOLLOWERS, MOST_RUNNING, MOST_UNFINISHED, SCAN_WAIT,
    SHOWN_NAME,
};
use super::follower::Follower;
use super::one::{Download, Outcome, Stage};
use super::order_error::OrderError;
use super::status::{DownloadFailure, DownloadReport, DownloadState, DownloadStatus};
use crate::download::downloader::{DownloadedModel, Downloader};
use crate::download::error::DownloadError;
use crate::download::progress::Progress;
use crate::models::{self, RemoteName};
use crate::settings::Settings;
use crate::settings::bounds::CONNECTION_GRACE;
use crate::telemetry::metrics::{DownloadStateLabels, Metrics};

/// Makes a model that has come usable.
pub type AfterDownload = Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// The downloads of the service.
pub struct DownloadRegistry {
    /// The settings in effect.
    settings: Mutex<Arc<Settings>>,
    /// In the order in which they were ordered.
    downloads: Mutex<VecDeque<Arc<Download>>>,
    running: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
    metrics: Arc<Metrics>,
    after: OnceLock<AfterDownload>,
}

/// What became of an order.
#[derive(Debug)]
pub enum Ordered {
    /// The model comes, for this order or for an earlier one.
    Comes(Arc<Download>),
    /// The model is on the disk.
    IsThere(Arc<Download>),
}

impl DownloadRegistry {
    /// Creates a registry without downloads.
    pub fn new(settings: Arc<Settings>, metrics: Arc<Metrics>) -> Self {
        Self {
            settings: Mutex::new(settings),
            downloads: Mutex::default(),
            running: Arc::new(Semaphore::new(MOST_RUNNING)),
            followers: Arc::new(Semaphore::new(MOST_FOLLOWERS)),
            tasks: TaskTracker::new(),
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

    /// Begins to bring a model, unless it is there or comes already.
    ///
    /// # Errors
    /// The text names no model, downloads are forbidden, or too many have not ended.
    pub async fn order(self: &Arc<Self>, given: &str) -> Result<Ordered, OrderError> {
        let name = parse(given)?;
        if let Some(coming) = find_coming(&self.lock(), &name) {
            return Ok(Ordered::Comes(coming));
        }
        let settings = Arc::clone(&self.settings.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(model) = look(&settings, given).await {
            return Ok(Ordered::IsThere(self.note_found(name, model)));
        }
        if settings.downloads.hf_hub_offline {
            return Err(OrderError::Offline(DownloadError::Offline { name: name.to_string() }));
        }
        let (downloader, warning) = Downloader::of_settings(&settings).map_err(OrderError::Client)?;
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
        }
        self.begin(downloader, name, false).map(Ordered::Comes)
    }

    /// Brings a model that the start of the service needs, and waits for it. It does not wait for its turn.
    ///
    /// # Errors
    /// Why it did not come.
    pub async fn bring(
        self: &Arc<Self>,
        downloader: Downloader,
        name: &RemoteName,
    ) -> Result<DownloadedModel, DownloadFailure> {
        match self.begin(downloader, name.clone(), true) {
            Ok(download) => download.ended().await,
            Err(error) => Err(DownloadFailure { message: error.to_string(), hint: None, is_of_settings: false }),
        }
    }

    /// Returns every download, the newest first.
    pub fn statuses(&self) -> Vec<DownloadStatus> {
        self.lock().iter().rev().map(|download| download.status()).collect()
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

    /// Returns whether the file that this name means is being brought.
    pub fn is_coming(&self, name: &RemoteName) -> bool {
        find_coming(&self.lock(), name).is_some()
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

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Download>>> {
        self.downloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to bring a model, unless it comes already.
    fn begin(
        self: &Arc<Self>,
        downloader: Downloader,
        name: RemoteName,
        is_needed: bool,
    ) -> Result<Arc<Download>, OrderError> {
        let mut downloads = self.lock();
        if self.stop.is_cancelled() {
            return Err(OrderError::Stopping);
        }
        if let Some(coming) = find_coming(&downloads, &name) {
            if is_needed {
                coming.set_needed();
            }
            return Ok(coming);
        }
        let unfinished = downloads.iter().filter(|download| !download.is_ended()).count();
        if unfinished >= MOST_UNFINISHED && !is_needed {
            return Err(OrderError::Full);
        }
        let progress = Progress::counting(self.metrics.download_bytes_of(&name.to_string()));
        let download = Arc::new(Download::new(new_id(), name, progress, is_needed));
        add(&mut downloads, &download);
        // The start waits for no turn: it orders one model after the other.
        let place = Arc::clone(&self.running).try_acquire_owned().ok();
        if place.is_some() || is_needed {
            download.enter(Stage::Running);
        }
        let (registry, running) = (Arc::clone(self), Arc::clone(&download));
        self.tasks.spawn(async move { registry.run(&running, &downloader, place).await });
        Ok(download)
    }

    /// Remembers that a model was there when it was ordered.
    fn note_found(&self, name: RemoteName, model: DownloadedModel) -> Arc<Download> {
        let mut downloads = self.lock();
        if let Some(known) = downloads.iter().rev().find(|known| *known.name() == name && known.is_done()) {
            return Arc::clone(known);
        }
        let progress = Progress::default();
        progress.set_total(model.bytes);
        progress.add_found(model.bytes);
        let download = Arc::new(Download::new(new_id(), name, progress, false));
        download.enter(Stage::Ended(Outcome::Done(model)));
        add(&mut downloads, &download);
        download
    }

    /// Runs a download to its end. If the service stops it has none: nothing tells of it any more.
    async fn run(&self, download: &Download, downloader: &Downloader, place: Option<OwnedSemaphorePermit>) {
        let outcome = tokio::select! {
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
        download.enter(Stage::Ended(outcome));
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
                download.enter(Stage::Running);
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

/// Reads the name of a model on the network.
fn parse(given: &str) -> Result<RemoteName, OrderError> {
    RemoteName::parse(given).map_err(|source| {
        // Without anything that may be a query: signed addresses are secrets.
        let shown = given.split(['?', '#']).next().unwrap_or_default();
        let name = shown.chars().filter(|c| !c.is_control()).take(SHOWN_NAME).collect();
        OrderError::Name(DownloadError::Name { name, source })
    })
}

fn find_coming(downloads: &VecDeque<Arc<Download>>, name: &RemoteName) -> Option<Arc<Download>> {
    let is_coming = |known: &&Arc<Download>| known.name() == name && !known.is_ended() && !known.is_cancelled();
    downloads.iter().find(is_coming).cloned()
}

/// Adds a download, and forgets the oldest of those that have ended if they are too many.
fn add(downloads: &mut VecDeque<Arc<Download>>, download: &Arc<Download>) {
    downloads.push_back(Arc::clone(download));
    let ended = downloads.iter().filter(|download| download.is_ended()).count();
    let mut surplus = ended.saturating_sub(MOST_ENDED);
    downloads.retain(|download| {
        let is_kept = surplus == 0 || !download.is_ended();
        surplus -= usize::from(!is_kept);
        is_kept
    });
}

/// Looks for a model on the disk.
async fn look(settings: &Settings, given: &str) -> Option<DownloadedModel> {
    let (places, given) = (settings.model_places(), given.to_owned());
    let look = spawn_blocking(move || {
        let path = models::find(&places, &given).ok()?;
        let bytes = models::check_readable(&path).ok()?.size_bytes;
        Some(DownloadedModel { path, bytes, fetched: 0 })
    });
    timeout(LOOK_WAIT, look).await.ok()?.ok()?
}

fn new_id() -> String {
    format!("download-{}", uuid::Uuid::now_v7().simple())
}

async fn log_progress(download: &Download) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(LINE_INTERVAL).await;
        let DownloadReport { model, bytes, total, bytes_per_second, seconds_left } = download.report();
        tracing::info!(model, bytes, total, bytes_per_second, seconds_left, "downloading");
        download.renew_rate();
    }
}
