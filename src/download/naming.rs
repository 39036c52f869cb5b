//! When the files of a download get their names: only when they are right, and a model's only when all of it is there.
//!
//! All of it blocks. What is fetched, and in which order, is decided in `downloader.rs`.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;

use super::disk::cache::CachedRepository;
use super::disk::part_file::PartFile;
use super::disk::room::check_room;
use super::error::DownloadError;
use super::hub::LocatedFile;
use crate::file_lock::FileLock;
use crate::models::{RepositoryId, gguf};

/// A file of a repository, and where it is.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) located: LocatedFile,
}

/// The snapshot that the files of a model will lie in.
#[derive(Debug, Clone)]
pub(super) struct SnapshotPlan {
    pub(super) cached: CachedRepository,
    pub(super) repository: RepositoryId,
    pub(super) commit: String,
}

/// Where one file grows, what it becomes, and the right to do so.
#[derive(Clone)]
pub(super) struct FetchTarget {
    pub(super) part: PathBuf,
    pub(super) name: PathBuf,
    pub(super) lock: Arc<FileLock>,
}

impl SnapshotPlan {
    /// Returns the files that are not there, for which the disk has room.
    ///
    /// # Errors
    /// The cache cannot be written, or the disk is too full.
    pub(super) fn missing(&self, wanted: Vec<Wanted>) -> Result<Vec<Wanted>, DownloadError> {
        let cached = &self.cached;
        cached.create()?;
        let is_missing = |one: &Wanted| !cached.has_file(&self.commit, &one.name, one.located.size);
        let missing: Vec<Wanted> = wanted.into_iter().filter(is_missing).collect();
        let needed = missing.iter().filter(|one| !cached.has_blob(&one.located.etag, one.located.size));
        check_room(cached.folder(), needed.map(|one| (cached.part(&one.located.etag), one.located.size)))?;
        Ok(missing)
    }

    /// Returns whether another process has brought a file; without links it is in the snapshot then.
    pub(super) fn has(&self, wanted: &Wanted) -> bool {
        let size = wanted.located.size;
        self.cached.has_blob(&wanted.located.etag, size) || self.cached.has_file(&self.commit, &wanted.name, size)
    }

    /// Gives the files their names, the one by which the model is found last, and releases their locks.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub(super) fn name(&self, files: &[Wanted], locks: Vec<Arc<FileLock>>) -> Result<(), DownloadError> {
        for one in files.iter().rev() {
            self.cached.link(&self.commit, &one.name, &one.located.etag)?;
        }
        drop(locks);
        self.cached.set_commit(&self.repository.revision, &self.commit)
    }
}

impl FetchTarget {
    /// Gives a file its name if its hash is the one that was named, and its header is that of a GGUF. Returns `false` if
    /// another process has taken over the lock, and with it the part.
    ///
    /// # Errors
    /// It is not what it should be, or the disk fails.
    pub(super) fn finish(&self, part: PartFile, located: &LocatedFile, found: String) -> Result<bool, DownloadError> {
        if !self.lock.is_held() {
            return Ok(false);
        }
        if let Some(expected) = located.sha256.as_ref().filter(|expected| **expected != found) {
            // What is wrong is never gone on with.
            let _ = fs::remove_file(&self.part);
            return Err(DownloadError::WrongHash { file: located.label.clone(), expected: expected.clone(), found });
        }
        let file = File::open(&self.part).map_err(|source| DownloadError::disk(&self.part, "read", source))?;
        if gguf::parse(BufReader::new(file), Some(located.size)).is_err() {
            // Neither would any later download make a model of it.
            let _ = fs::remove_file(&self.part);
            return Err(DownloadError::NotGguf { file: located.label.clone() });
        }
        part.finish(&self.name).map_err(|source| DownloadError::disk(&self.part, "renamed", source))?;
        Ok(true)
    }
}
