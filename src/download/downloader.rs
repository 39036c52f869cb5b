//! Brings a model from the network to the disk: which files, in which order, and when they get their names.
//!
//! A file gets its final name only after all of its bytes have come, its hash is the one that was named, and its header is
//! that of a GGUF. `refs/` name a commit only once the whole model is there.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::answers::Listing;
use super::body_writer::Pace;
use super::bounds::LOCK_POLL;
use super::chosen_files::{files_of_file, files_of_model};
use super::disk::cache::{CachedRepository, create_folder, is_whole};
use super::disk::part_file::PartFile;
use super::disk::room::{check_room, no_room};
use super::error::DownloadError;
use super::hub::{Hub, LocatedFile};
use super::naming::{FetchTarget, SnapshotPlan, Wanted};
use super::progress::{DownloadPhase, Progress};
use super::retry::{with_retries, with_shown_retries};
use super::transfer::{DownloadLimits, Transfer};
use crate::file_lock::{FileLock, LockTaker};
use crate::models::{ModelPlaces, RemoteName, RepositoryId, check_readable, path_of_address};

/// Brings models from one hub into one cache.
#[derive(Debug, Clone)]
pub struct Downloader {
    /// The hub.
    pub hub: Hub,
    /// `HF_HUB_CACHE`
    pub cache: PathBuf,
    /// Where a file that is named by its address goes.
    pub models_dir: PathBuf,
    /// The limits of settings.
    pub limits: DownloadLimits,
}

/// A model that is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadedModel {
    /// Its file; of a split model, the first part.
    pub path: PathBuf,
    /// Bytes of all its files, its projector included.
    pub bytes: u64,
    /// The bytes of them that came over the network now.
    pub fetched: u64,
}

impl Downloader {
    /// Brings a model, and returns once all of it is there. What was there before is not fetched again.
    ///
    /// # Errors
    /// See [`DownloadError`]. What has arrived is kept, unless it was wrong.
    pub async fn download(
        &self,
        name: &RemoteName,
        progress: &Arc<Progress>,
    ) -> Result<DownloadedModel, DownloadError> {
        match self.bring(name, progress).await {
            Err(error @ DownloadError::NoFile { .. }) => {
                self.find_on_disk(name, progress, "the hub has this model no more").await.ok_or(error)
            }
            outcome => outcome,
        }
    }

    /// Finds a model that the hub does not give, for this reason, in a snapshot on the disk that has all of it.
    async fn find_on_disk(
        &self,
        name: &RemoteName,
        progress: &Progress,
        reason: &'static str,
    ) -> Option<DownloadedModel> {
        let places = ModelPlaces {
            models_dir: self.models_dir.clone(),
            hub_cache: self.cache.clone(),
            ..ModelPlaces::default()
        };
        let name = name.clone();
        let found = on_disk(move || {
            Ok(name.find_file(&places).ok().and_then(|path| {
                let bytes = check_readable(&path).ok()?.size_bytes;
                Some(DownloadedModel { path, bytes, fetched: 0 })
            }))
        });
        let found = found.await.ok().flatten()?;
        tracing::warn!(path = %found.path.display(), "{reason}: the one on the disk is used");
        progress.set_warning(reason);
        Some(found)
    }

    async fn bring(&self, name: &RemoteName, progress: &Arc<Progress>) -> Result<DownloadedModel, DownloadError> {
        match name {
            RemoteName::Model { repository, .. } | RemoteName::File { repository, .. } => {
                let (commit, files) = match self.files_of(name, repository, progress).await {
                    // What it has now cannot be known, and what is here is whole.
                    Err(error @ DownloadError::GivenUp { .. }) => {
                        return self.find_on_disk(name, progress, "the hub gives no answer").await.ok_or(error);
                    }
                    listed => listed?,
                };
                self.download_files(repository, &commit, &files, progress).await
            }
            RemoteName::Address { address, sha256 } => self.download_address(address, sha256, progress).await,
        }
    }

    /// Asks the hub which files a model of this repository has. Returns the commit, and the files: the model's own ones in
    /// order, then its projector.
    pub(super) async fn files_of(
        &self,
        name: &RemoteName,
        repository: &RepositoryId,
        progress: &Progress,
    ) -> Result<(String, Vec<String>), DownloadError> {
        let listing = self.list(repository, progress).await?;
        let files = match name {
            RemoteName::Model { quant, .. } => files_of_model(repository, &listing, quant.as_deref())?,
            RemoteName::File { file, .. } => files_of_file(repository, &listing, file)?,
            RemoteName::Address { .. } => Vec::new(),
        };
        Ok((listing.commit, files))
    }

    async fn list(&self, repository: &RepositoryId, progress: &Progress) -> Result<Listing, DownloadError> {
        with_shown_retries(progress, self.limits.retries, &self.hub.host(), || self.hub.list(repository)).await
    }

    async fn download_files(
        &self,
        repository: &RepositoryId,
        commit: &str,
        files: &[String],
        progress: &Arc<Progress>,
    ) -> Result<DownloadedModel, DownloadError> {
        let cached = CachedRepository::new(&self.cache, repository);
        let mut wanted = Vec::with_capacity(files.len());
        for file in files {
            let host = self.hub.host();
            let locate = || self.hub.locate(repository, commit, file);
            let located = with_retries(self.limits.retries, &host, locate).await?;
            wanted.push(Wanted { name: file.clone(), located });
        }
        let bytes = wanted.iter().map(|one| one.located.size).sum();
        progress.set_total(bytes);
        progress.set_digest(wanted.first().map(|first| &first.located));
        let plan = SnapshotPlan { cached, repository: repository.clone(), commit: commit.to_owned() };
        let looking = plan.clone();
        let missing = on_disk(move || looking.missing(wanted)).await?;
        progress.add_found(bytes - missing.iter().map(|one| one.located.size).sum::<u64>());
        let (mut fetched, pace) = (0, Arc::new(Pace::new(self.limits.max_rate)));
        let (mut locks, mut brought) = (Vec::with_capacity(missing.len()), HashSet::new());
        for one in &missing {
            // Two files with the same bytes are one blob, whose lock this process has already.
            if !brought.insert(&one.located.etag) {
                progress.add_found(one.located.size);
                continue;
            }
            let (bytes, lock) = self.download_blob(&plan, one, progress, &pace).await?;
            fetched += bytes;
            locks.push(lock);
        }
        let path = files.first().map(|file| plan.cached.path(commit, file)).unwrap_or_default();
        on_disk(move || plan.name(&missing, locks)).await?;
        Ok(DownloadedModel { path, bytes, fetched })
    }

    /// Brings one blob into the cache. Returns the bytes that came over the network, and the right to give it its name.
    async fn download_blob(
        &self,
        plan: &SnapshotPlan,
        wanted: &Wanted,
        progress: &Arc<Progress>,
        pace: &Arc<Pace>,
    ) -> Result<(u64, Arc<FileLock>), DownloadError> {
        let (etag, size) = (&wanted.located.etag, wanted.located.size);
        loop {
            let lock = wait_for_lock(plan.cached.lock(etag), progress).await?;
            let (looking, one) = (plan.clone(), wanted.clone());
            if on_disk(move || Ok(looking.has(&one))).await? {
                progress.add_found(size);
                return Ok((0, lock));
            }
            let target = FetchTarget { part: plan.cached.part(etag), name: plan.cached.blob(etag), lock };
            if let Some(fetched) = self.fetch(&wanted.located, &target, progress, pace).await? {
                return Ok((fetched, target.lock));
            }
        }
    }

    async fn download_address(
        &self,
        address: &url::Url,
        sha256: &str,
        progress: &Arc<Progress>,
    ) -> Result<DownloadedModel, DownloadError> {
        let host = super::hub::host_of(address);
        let locate = || self.hub.locate_address(address, sha256);
        let located = with_shown_retries(progress, self.limits.retries, &host, locate).await?;
        // A folder for each hash: files of one name at two addresses are two files, and none of the user's is replaced.
        let path = path_of_address(&self.models_dir, &located.label, sha256);
        let folder = path.parent().unwrap_or(&self.models_dir).to_owned();
        let part = folder.join(format!(".{}.incomplete", located.label));
        let (size, pace) = (located.size, Arc::new(Pace::new(self.limits.max_rate)));
        progress.set_total(size);
        progress.set_digest(Some(&located));
        let created = folder.clone();
        on_disk(move || create_folder(&created)).await?;
        loop {
            let lock = wait_for_lock(LockTaker::new(folder.join(".lock")), progress).await?;
            let (folder, target) = (folder.clone(), FetchTarget { part: part.clone(), name: path.clone(), lock });
            let (name, part) = (path.clone(), part.clone());
            let is_there = on_disk(move || match is_whole(&name, size) {
                true => Ok(true),
                false => check_room(&folder, [(part, size)]).map(|()| false),
            });
            if is_there.await? {
                progress.add_found(size);
                return Ok(DownloadedModel { path, bytes: size, fetched: 0 });
            }
            if let Some(fetched) = self.fetch(&located, &target, progress, &pace).await? {
                return Ok(DownloadedModel { path, bytes: size, fetched });
            }
        }
    }

    /// Fetches a file while this process holds its lock. Returns the bytes that came; `None` if the lock was lost.
    async fn fetch(
        &self,
        located: &LocatedFile,
        target: &FetchTarget,
        progress: &Arc<Progress>,
        pace: &Arc<Pace>,
    ) -> Result<Option<u64>, DownloadError> {
        let before = progress.arrived();
        let fetched = tokio::select! {
            fetched = self.fetch_locked(located, target, progress, pace) => fetched?,
            () = target.lock.keep_until_lost() => None,
        };
        if fetched.is_none() {
            tracing::warn!(file = located.label, "another program has taken over the download");
            progress.take_back(before);
        }
        Ok(fetched)
    }

    /// Fetches a file into its part, checks it and gives it its name.
    async fn fetch_locked(
        &self,
        located: &LocatedFile,
        target: &FetchTarget,
        progress: &Arc<Progress>,
        pace: &Arc<Pace>,
    ) -> Result<Option<u64>, DownloadError> {
        let (path, size) = (target.part.clone(), located.size);
        let opened = on_disk(move || {
            PartFile::open(&path, size).map_err(|source| match source.kind() {
                std::io::ErrorKind::StorageFull => no_room(&path, size),
                _ => DownloadError::disk(&path, "created", source),
            })
        });
        let part = Arc::new(opened.await?);
        let there = part.lock().arrived_bytes();
        progress.add_found(there);
        progress.set_phase(DownloadPhase::Fetching);
        let transfer = Transfer {
            hub: self.hub.clone(),
            file: located.clone(),
            part: Arc::clone(&part),
            progress: Arc::clone(progress),
            limits: self.limits,
            pace: Arc::clone(pace),
        };
        let found = transfer.run().await?;
        progress.set_phase(DownloadPhase::Checking);
        let part = Arc::into_inner(part).ok_or(DownloadError::Stopped)?;
        let (located, target) = (located.clone(), target.clone());
        let is_finished = on_disk(move || target.finish(part, &located, found)).await?;
        Ok(is_finished.then_some(size - there))
    }
}

/// Does something on the disk where it may block, however long a network volume takes.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DownloadError> + Send + 'static,
) -> Result<T, DownloadError> {
    // It fails only while the program stops.
    spawn_blocking(work).await.unwrap_or(Err(DownloadError::Stopped))
}

/// Waits until no other process downloads the same file, however long that takes: its owner ends, or its lock does.
async fn wait_for_lock(mut taker: LockTaker, progress: &Progress) -> Result<Arc<FileLock>, DownloadError> {
    loop {
        let taken;
        (taker, taken) = on_disk(move || match taker.take() {
            Ok(taken) => Ok((taker, taken)),
            Err(source) => Err(DownloadError::disk(taker.path(), "locked", source)),
        })
        .await?;
        if let Some(lock) = taken {
            return Ok(Arc::new(lock));
        }
        progress.set_phase(DownloadPhase::WaitingForOther);
        tokio::time::sleep(LOCK_POLL).await;
    }
}
