//! Begins downloads: each at most once at a time, and within bounds.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::timeout;

use super::all::{DownloadRegistry, find_coming};
use super::bounds::{LOOK_WAIT, MOST_ENDED, MOST_UNFINISHED, SHOWN_NAME};
use super::one::{Download, DownloadStage, Outcome};
use super::order_error::OrderError;
use super::status::DownloadFailure;
use crate::blocking_pool::BlockingPool;
use crate::download::downloader::{DownloadedModel, Downloader};
use crate::download::error::DownloadError;
use crate::download::progress::Progress;
use crate::models::{self, RemoteName};
use crate::settings::Settings;

/// What became of an order.
#[derive(Debug)]
pub enum Ordered {
    /// The model comes, for this order or for an earlier one.
    Comes(Arc<Download>),
    /// The model is on the disk.
    IsThere(Arc<Download>),
}

impl DownloadRegistry {
    /// Begins to bring a model, unless it is there or comes already.
    ///
    /// # Errors
    /// The text names no model, downloads are forbidden, or too many have not ended.
    pub async fn order(self: &Arc<Self>, given: &str) -> Result<Ordered, OrderError> {
        let name = parse(given)?;
        if let Some(coming) = find_coming(&self.lock(), &name) {
            return Ok(Ordered::Comes(coming));
        }
        let settings = self.settings();
        if let Some(model) = look(&self.looks, &settings, given).await {
            return Ok(Ordered::IsThere(self.note_found(name, model)));
        }
        let downloader = self.downloader(&name.to_string())?;
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
            Err(error) => Err(DownloadFailure {
                message: error.to_string(),
                hint: None,
                at: jiff::Timestamp::now(),
                is_of_settings: false,
            }),
        }
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
            download.enter(DownloadStage::Running);
        }
        let (registry, running) = (Arc::clone(self), Arc::clone(&download));
        self.tasks.spawn_on(async move { registry.run(&running, &downloader, place).await }, &self.runtime);
        Ok(download)
    }

    /// Remembers that a model was there when it was ordered.
    fn note_found(&self, name: RemoteName, model: DownloadedModel) -> Arc<Download> {
        let mut downloads = self.lock();
        if let Some(known) = downloads.iter().rev().find(|known| known.name().is_same_model(&name) && known.is_done()) {
            return Arc::clone(known);
        }
        let progress = Progress::default();
        progress.set_total(model.bytes);
        progress.add_found(model.bytes);
        let download = Arc::new(Download::new(new_id(), name, progress, false));
        download.enter(DownloadStage::Ended(Outcome::Done(model)));
        add(&mut downloads, &download);
        download
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

/// Looks for a model on the disk. One that is not found in time counts as not there: the download itself looks again.
async fn look(looks: &BlockingPool, settings: &Settings, given: &str) -> Option<DownloadedModel> {
    let (places, given) = (settings.model_places(), given.to_owned());
    let look = looks.run(move || {
        let path = models::find(&places, &given).ok()?;
        let bytes = models::check_readable(&path).ok()?.size_bytes;
        Some(DownloadedModel { path, bytes, fetched: 0 })
    });
    timeout(LOOK_WAIT, look).await.ok()?.ok()?
}

fn new_id() -> String {
    format!("download-{}", uuid::Uuid::now_v7().simple())
}
