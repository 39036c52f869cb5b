//! Brings a model from the network to the disk: which files, in which order, and when they get their names.
//!
//! A file gets its final name only after all of its bytes have come, its hash is the one that was named, and its header is
//! that of a GGUF. `refs/` name a commit only once the whole model is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::statvfs::statvfs;
use tokio::task::spawn_blocking;

use super::body_writer::Pace;
use super::bounds::{DISK_RESERVE, LOCK_POLL};
use super::disk::cache::{CachedRepository, FileLock};
use super::disk::part_file::PartFile;
use super::error::DownloadError;
use super::hub::{Hub, Listing, LocatedFile};
use super::progress::{DownloadPhase, Progress};
use super::retry::with_retries;
use super::transfer::{DownloadLimits, Transfer};
use crate::models::{RemoteName, RepositoryId, choose_files, gguf, path_of_address, projector_of};

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

/// A file of a repository, and where it will lie.
struct Wanted {
    name: String,
    located: LocatedFile,
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
        match name {
            RemoteName::Model { repository, quant } => {
                let listing = self.list(repository).await?;
                let files = files_of_model(repository, &listing, quant.as_deref())?;
                self.download_files(repository, &listing.commit, &files, progress).await
            }
            RemoteName::File { repository, file } => {
                let listing = self.list(repository).await?;
                let files = files_of_file(repository, &listing, file)?;
                self.download_files(repository, &listing.commit, &files, progress).await
            }
            RemoteName::Address { address, sha256 } => self.download_address(address, sha256, progress).await,
        }
    }

    async fn list(&self, repository: &RepositoryId) -> Result<Listing, DownloadError> {
        with_retries(self.limits.retries, &self.hub.host(), || self.hub.list(repository)).await
    }

    async fn download_files(
        &self,
        repository: &RepositoryId,
        commit: &str,
        files: &[String],
        progress: &Arc<Progress>,
    ) -> Result<DownloadedModel, DownloadError> {
        let cached = CachedRepository::new(&self.cache, repository);
        cached.create()?;
        let mut wanted = Vec::with_capacity(files.len());
        for file in files {
            let host = self.hub.host();
            let locate = || self.hub.locate(repository, commit, file);
            let located = with_retries(self.limits.retries, &host, locate).await?;
            wanted.push(Wanted { name: file.clone(), located });
        }
        let bytes = wanted.iter().map(|one| one.located.size).sum();
        progress.set_total(bytes);
        let is_there = |one: &&Wanted| is_blob(&cached.path(commit, &one.name), one.located.size);
        let missing: Vec<&Wanted> = wanted.iter().filter(|one| !is_there(one)).collect();
        let there = bytes - missing.iter().map(|one| one.located.size).sum::<u64>();
        progress.add_found(there);
        let needed = missing.iter().filter(|one| !is_blob(&cached.blob(&one.located.etag), one.located.size));
        check_room(&self.cache, needed.map(|one| (cached.part(&one.located.etag), one.located.size)))?;
        let (mut fetched, pace) = (0, Arc::new(Pace::new(self.limits.max_rate)));
        let mut locks = Vec::with_capacity(missing.len());
        for one in &missing {
            let (bytes, lock) = self.download_blob(&cached, commit, one, progress, &pace).await?;
            fetched += bytes;
            locks.push(lock);
        }
        // Only now, and the file by which the model is found last: a model is there as a whole or not at all.
        for one in missing.iter().rev() {
            cached.link(commit, &one.name, &one.located.etag)?;
        }
        drop(locks);
        cached.set_commit(&repository.revision, commit)?;
        let first = files.first().map(|file| cached.path(commit, file)).unwrap_or_default();
        Ok(DownloadedModel { path: first, bytes, fetched })
    }

    /// Brings one blob into the cache. Returns the bytes that came over the network, and the right to give it its name.
    async fn download_blob(
        &self,
        cached: &CachedRepository,
        commit: &str,
        wanted: &Wanted,
        progress: &Arc<Progress>,
        pace: &Arc<Pace>,
    ) -> Result<(u64, FileLock), DownloadError> {
        let (etag, size) = (&wanted.located.etag, wanted.located.size);
        let lock = wait_for_lock(|| cached.lock(etag), progress).await?;
        let blob = cached.blob(etag);
        // Another process may have brought it while this one waited; without links it is in the snapshot then.
        if is_blob(&blob, size) || is_blob(&cached.path(commit, &wanted.name), size) {
            progress.add_found(size);
            return Ok((0, lock));
        }
        let fetched = self.fetch(&wanted.located, &cached.part(etag), &blob, progress, pace).await?;
        Ok((fetched, lock))
    }

    async fn download_address(
        &self,
        address: &url::Url,
        sha256: &str,
        progress: &Arc<Progress>,
    ) -> Result<DownloadedModel, DownloadError> {
        let host = super::hub::host_of(address);
        let locate = || self.hub.locate_address(address, sha256);
        let located = with_retries(self.limits.retries, &host, locate).await?;
        // A folder for each hash: files of one name at two addresses are two files, and none of the user's is replaced.
        let path = path_of_address(&self.models_dir, &located.label, sha256);
        let folder = path.parent().unwrap_or(&self.models_dir).to_owned();
        progress.set_total(located.size);
        let created = std::fs::create_dir_all(&folder);
        created.map_err(|source| DownloadError::disk(&folder, "created", source))?;
        let _lock = wait_for_lock(|| FileLock::take(&folder.join(".lock")), progress).await?;
        if is_blob(&path, located.size) {
            progress.add_found(located.size);
            return Ok(DownloadedModel { path, bytes: located.size, fetched: 0 });
        }
        let part = folder.join(format!(".{}.incomplete", located.label));
        check_room(&folder, [(part.clone(), located.size)])?;
        let pace = Arc::new(Pace::new(self.limits.max_rate));
        let fetched = self.fetch(&located, &part, &path, progress, &pace).await?;
        Ok(DownloadedModel { path, bytes: located.size, fetched })
    }

    /// Fetches a file into its part, checks it and gives it its name.
    async fn fetch(
        &self,
        located: &LocatedFile,
        part_path: &Path,
        name: &Path,
        progress: &Arc<Progress>,
        pace: &Arc<Pace>,
    ) -> Result<u64, DownloadError> {
        let disk = |what, source| DownloadError::disk(part_path, what, source);
        let (path, size) = (part_path.to_owned(), located.size);
        let opened = blocking(move || PartFile::open(&path, size)).await;
        let part = Arc::new(opened.map_err(|source| match source.kind() {
            std::io::ErrorKind::StorageFull => no_room(part_path, size),
            _ => disk("created", source),
        })?);
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
        if let Some(expected) = located.sha256.as_ref().filter(|expected| **expected != found) {
            // What is wrong is never gone on with.
            let _ = std::fs::remove_file(part_path);
            return Err(DownloadError::WrongHash { file: located.label.clone(), expected: expected.clone(), found });
        }
        let path = part_path.to_owned();
        let is_gguf =
            blocking(move || Ok(gguf::parse(std::io::BufReader::new(std::fs::File::open(path)?), Some(size)).is_ok()));
        if !is_gguf.await.map_err(|source| disk("read", source))? {
            // The bytes are those that were named, so the part stays: another try would only fetch them again.
            return Err(DownloadError::NotGguf { file: located.label.clone() });
        }
        let part = Arc::into_inner(part).ok_or(DownloadError::Stopped)?;
        let name = name.to_owned();
        blocking(move || part.finish(&name)).await.map_err(|source| disk("renamed", source))?;
        Ok(size - there)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// Waits until no other process downloads the same file, however long that takes: its owner ends, or its lock does.
async fn wait_for_lock(
    take: impl Fn() -> Result<Option<FileLock>, DownloadError>,
    progress: &Progress,
) -> Result<FileLock, DownloadError> {
    loop {
        if let Some(lock) = take()? {
            return Ok(lock);
        }
        progress.set_phase(DownloadPhase::WaitingForOther);
        tokio::time::sleep(LOCK_POLL).await;
    }
}

/// Returns whether a whole file is at this path: files get their names only when they are whole.
fn is_blob(path: &Path, size: u64) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
}

fn files_of_model(
    repository: &RepositoryId,
    listing: &Listing,
    quant: Option<&str>,
) -> Result<Vec<String>, DownloadError> {
    let paths: Vec<PathBuf> = listing.files.iter().map(PathBuf::from).collect();
    let no_file = |reason| DownloadError::NoFile { repository: repository.to_string(), reason };
    let chosen = choose_files(&paths, quant).map_err(no_file)?;
    let projector = chosen.first().and_then(|model| projector_of(model, &paths));
    files_in_listing(repository, listing, chosen.into_iter().chain(projector))
}

fn files_of_file(repository: &RepositoryId, listing: &Listing, file: &str) -> Result<Vec<String>, DownloadError> {
    files_in_listing(repository, listing, crate::models::split::parts_of(Path::new(file)).into_iter())
}

/// Returns the names of these files, all of which the repository must have.
fn files_in_listing(
    repository: &RepositoryId,
    listing: &Listing,
    files: impl Iterator<Item = PathBuf>,
) -> Result<Vec<String>, DownloadError> {
    let has = |file: PathBuf| {
        let name = file.to_string_lossy().into_owned();
        match listing.files.contains(&name) {
            true => Ok(name),
            false => Err(DownloadError::NoFile {
                repository: repository.to_string(),
                reason: format!("there is no file {name}"),
            }),
        }
    };
    files.map(has).collect()
}

/// Checks that the disk has room for these parts, of which some bytes may be there.
fn check_room(folder: &Path, parts: impl IntoIterator<Item = (PathBuf, u64)>) -> Result<(), DownloadError> {
    use std::os::unix::fs::MetadataExt as _;
    let taken = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512);
    let missing: u64 = parts.into_iter().map(|(path, size)| size.saturating_sub(taken(&path))).sum();
    let free = free_bytes(folder);
    match free {
        Some(free) if missing > 0 && free < missing + DISK_RESERVE => {
            Err(DownloadError::NoRoom { folder: folder.to_owned(), free, needed: missing + DISK_RESERVE })
        }
        _ => Ok(()),
    }
}

fn no_room(part: &Path, needed: u64) -> DownloadError {
    let folder = part.parent().unwrap_or(part).to_owned();
    DownloadError::NoRoom { free: free_bytes(&folder).unwrap_or_default(), folder, needed }
}

/// Returns the bytes that this user may still write; `None` if the file system does not say.
fn free_bytes(folder: &Path) -> Option<u64> {
    let found = statvfs(folder).ok()?;
    found.blocks_available().checked_mul(found.fragment_size())
}
