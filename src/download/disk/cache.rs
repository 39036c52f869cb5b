//! Where files lie in the hub's cache, as the hub's own clients lay them.
//!
//! `models--ORG--NAME/blobs/ETAG` has the bytes, `snapshots/COMMIT/PATH` links to it, `refs/REVISION` names the commit, and
//! `.locks/models--ORG--NAME/ETAG.lock` is held while a blob comes. Owns names and links. Which blobs are fetched is
//! decided in `downloader.rs`; finding a model in the cache is in `models/hub/`, and who holds a lock in `file_lock/`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::part_file::sync_folder;
use crate::download::error::DownloadError;
use crate::file_lock::LockTaker;
use crate::file_replacement::{BY_UMASK, LinkDraft, replace};
use crate::models::RepositoryId;

/// A repository's folder in the cache.
#[derive(Debug, Clone)]
pub(in crate::download) struct CachedRepository {
    folder: PathBuf,
    locks: PathBuf,
}

impl CachedRepository {
    pub(in crate::download) fn new(cache: &Path, repository: &RepositoryId) -> Self {
        let name = repository.folder();
        Self { folder: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    /// Creates the folders that a download needs.
    pub(in crate::download) fn create(&self) -> Result<(), DownloadError> {
        for folder in
            [&self.locks, &self.folder.join("blobs"), &self.folder.join("snapshots"), &self.folder.join("refs")]
        {
            create_folder(folder)?;
        }
        ["blobs", "snapshots", "refs"].iter().try_for_each(|name| self.check_inside(&self.folder.join(name)))
    }

    /// Checks that a folder of the repository is no link that leads out of it. The repository's folder itself may be a
    /// link, as the whole cache may.
    fn check_inside(&self, folder: &Path) -> Result<(), DownloadError> {
        let real = |path: &Path| path.canonicalize().map_err(|source| DownloadError::disk(path, "read", source));
        if real(folder)?.starts_with(real(&self.folder)?) {
            return Ok(());
        }
        let source = io::Error::other(format!("it is a link that leads out of {}", self.folder.display()));
        Err(DownloadError::disk(folder, "used", source))
    }

    /// Creates the folder that a file of a commit will lie in.
    fn create_folder_of(&self, path: &Path) -> Result<(), DownloadError> {
        let folder = path.parent().unwrap_or(&self.folder);
        create_folder(folder)?;
        self.check_inside(folder)
    }

    /// Returns the repository's folder.
    pub(in crate::download) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(in crate::download) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    pub(in crate::download) fn part(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Returns where a file of a commit is.
    pub(in crate::download) fn path(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit).join(file)
    }

    /// Returns the commit that a revision meant when it was asked for last.
    pub(in crate::download) fn commit_of(&self, revision: &str) -> Option<String> {
        let commit = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        let commit = commit.trim();
        (!commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_alphanumeric())).then(|| commit.to_owned())
    }

    /// Returns what takes the lock of a blob.
    pub(in crate::download) fn lock(&self, etag: &str) -> LockTaker {
        LockTaker::new(self.locks.join(format!("{etag}.lock")))
    }

    /// Returns whether a file of a commit is there as a whole: files get their names only then.
    pub(in crate::download) fn has_file(&self, commit: &str, file: &str, size: u64) -> bool {
        is_whole(&self.path(commit, file), size)
    }

    /// Returns whether a blob is there as a whole.
    pub(in crate::download) fn has_blob(&self, etag: &str, size: u64) -> bool {
        is_whole(&self.blob(etag), size)
    }

    /// Makes a file of a commit a link to its blob. On file systems without links the blob itself becomes the file.
    pub(in crate::download) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<PathBuf, DownloadError> {
        let (path, blob) = (self.path(commit, file), self.blob(etag));
        self.create_folder_of(&path)?;
        let up = "../".repeat(2 + file.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        if fs::read_link(&path).is_ok_and(|found| found == target) && path.exists() {
            return Ok(path);
        }
        let failed = |source| DownloadError::disk(&path, "created", source);
        match LinkDraft::beside(&path, &target) {
            Ok(link) => link.put_in_place().map_err(failed)?,
            // The blob becomes the file, unless another program has made it that.
            Err(error) if has_no_links(&error) => match fs::rename(&blob, &path) {
                Err(error) if !path.exists() => return Err(failed(error)),
                _ => {}
            },
            Err(error) => return Err(failed(error)),
        }
        sync_folder(&path).map_err(failed)?;
        Ok(path)
    }

    /// Notes which commit a revision means.
    pub(in crate::download) fn set_commit(&self, revision: &str, commit: &str) -> Result<(), DownloadError> {
        // A commit is its own revision.
        if revision == commit || self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        replace(&path, commit.as_bytes(), BY_UMASK).map_err(|source| DownloadError::disk(&path, "written", source))
    }
}

/// Creates a folder and those above it.
pub(in crate::download) fn create_folder(folder: &Path) -> Result<(), DownloadError> {
    fs::create_dir_all(folder).map_err(|source| DownloadError::disk(folder, "created", source))
}

/// Returns whether a file of this size is at this path.
pub(in crate::download) fn is_whole(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
}

/// Returns whether a file system has no symbolic links, by the error of creating one.
fn has_no_links(error: &io::Error) -> bool {
    let codes = [nix::Error::EPERM, nix::Error::EOPNOTSUPP, nix::Error::ENOSYS, nix::Error::EACCES];
    error.raw_os_error().is_some_and(|code| codes.iter().any(|known| *known as i32 == code))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn repository(cache: &Path) -> CachedRepository {
        let repository = RepositoryId { org: "o".into(), name: "n".into(), revision: "main".into() };
        let cached = CachedRepository::new(cache, &repository);
        cached.create().unwrap();
        cached
    }

    /// In a container the service has the same process id after each restart. A link by that id, which a killed service had
    /// left, once stopped every later download of the file.
    #[test]
    fn a_link_that_a_killed_download_left_stops_no_later_one() {
        let cache = tempfile::tempdir().unwrap();
        let cached = repository(cache.path());
        fs::write(cached.blob("abc"), "bytes").unwrap();
        fs::create_dir_all(cached.path(COMMIT, "")).unwrap();
        let left = cached.path(COMMIT, &format!(".{}.abc", std::process::id()));
        std::os::unix::fs::symlink("../../blobs/abc", left).unwrap();
        let path = cached.link(COMMIT, "m.gguf", "abc").unwrap();
        assert_eq!(fs::read(path).unwrap(), b"bytes");
    }

    #[test]
    fn a_file_of_a_folder_links_to_its_blob() {
        let cache = tempfile::tempdir().unwrap();
        let cached = repository(cache.path());
        fs::write(cached.blob("abc"), "bytes").unwrap();
        for file in ["m.gguf", "BF16/m-00001-of-00002.gguf"] {
            let path = cached.link(COMMIT, file, "abc").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"bytes", "{file}");
            assert!(fs::read_link(&path).unwrap().is_relative());
            assert_eq!(cached.link(COMMIT, file, "abc").unwrap(), path, "again");
        }
        cached.set_commit("main", COMMIT).unwrap();
        assert_eq!(cached.commit_of("main").as_deref(), Some(COMMIT));
        let found = crate::models::Repository::named("o/n").unwrap().find_file(cache.path());
        assert!(found.is_err(), "two models of no known quantisation");
    }
}
