//! The steps of a removal. Each looks again at what it removes, because time passes between a plan and its execution.
//!
//! The order is that of the plan: the name by which a model is found and its bytes, the further names each with its bytes,
//! and what is left over at last. A program that is killed between two steps leaves a model that is whole, or one that is not found; what is left of
//! it goes with the next removal of the same name.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::contents::files_below;
use super::error::RemovalError;
use crate::file_identity::FileIdentity;

/// Which file lies under a name: another file of the same name has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PlannedFile {
    identity: FileIdentity,
    length: u64,
    /// Modification time in seconds and nanoseconds: a new file may get the number of one that is gone.
    modified: (i64, i64),
}

impl PlannedFile {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self {
            identity: FileIdentity::of(metadata),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RemovalStep {
    /// Removes a file or a link. Its folder has no links in its path.
    Name { path: PathBuf, identity: PlannedFile },
    /// Removes a reference to a commit, if the folder of the commit holds no file any more.
    Reference { path: PathBuf, snapshot: PathBuf },
    /// Removes a folder, if it is empty.
    Folder { path: PathBuf },
    /// Removes the folders of a repository, if no file is left in them.
    Repository { path: PathBuf },
    /// Removes the file of a lock that this process holds.
    Lock { path: PathBuf },
}

impl RemovalStep {
    /// Executes the step. What is gone already is no error.
    ///
    /// # Errors
    /// There is something else at its place now, or the disk refuses.
    pub(super) fn execute(&self) -> Result<(), RemovalError> {
        match self {
            Self::Name { path, identity } => remove_name(path, *identity),
            Self::Reference { path, snapshot } => remove_reference(path, snapshot),
            Self::Folder { path } => remove_folder(path),
            Self::Repository { path } => remove_repository(path),
            Self::Lock { path } => remove_file(path),
        }
    }
}

fn remove_name(path: &Path, identity: PlannedFile) -> Result<(), RemovalError> {
    let changed = || RemovalError::Changed { path: path.to_owned() };
    let folder = path.parent().ok_or_else(changed)?;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(found) if !found.is_dir() && PlannedFile::of(&found) == identity => {}
        _ => return Err(changed()),
    }
    // A folder that has become a link leads elsewhere.
    if fs::canonicalize(folder).ok().as_deref() != Some(folder) {
        return Err(changed());
    }
    remove_file(path)
}

fn remove_reference(path: &Path, snapshot: &Path) -> Result<(), RemovalError> {
    match files_below(snapshot)?.is_empty() && is_reference_to(path, snapshot) {
        true => remove_file(path),
        false => Ok(()),
    }
}

/// Returns whether the reference at `path` names the commit of this snapshot.
pub(super) fn is_reference_to(path: &Path, snapshot: &Path) -> bool {
    let commit = snapshot.file_name().and_then(|name| name.to_str());
    fs::read_to_string(path).is_ok_and(|text| Some(text.trim()) == commit)
}

/// Removes a folder, unless it holds something.
fn remove_folder(path: &Path) -> Result<(), RemovalError> {
    match fs::remove_dir(path) {
        Err(error) if is_no_matter(&error) => Ok(()),
        outcome => outcome.map_err(|source| disk(path, source)),
    }
}

/// A folder that holds something stays, and one that is gone or a link is none to remove.
fn is_no_matter(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory)
}

fn remove_repository(path: &Path) -> Result<(), RemovalError> {
    if !files_below(path)?.is_empty() {
        return Ok(());
    }
    let mut folders = folders_below(path)?;
    // The deepest first. `snapshots` is the last but the whole: by it other programs know a repository.
    folders.sort_by_key(|folder| (folder.ends_with("snapshots"), std::cmp::Reverse(folder.components().count())));
    folders.iter().chain([&path.to_owned()]).try_for_each(|folder| remove_folder(folder))
}

/// Returns all folders below one that holds no files.
fn folders_below(path: &Path) -> Result<Vec<PathBuf>, RemovalError> {
    let (mut found, mut pending) = (Vec::new(), vec![path.to_owned()]);
    while let Some(next) = pending.pop() {
        let listing = match fs::read_dir(&next) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            listing => listing.map_err(|source| disk(&next, source))?,
        };
        let within: Vec<PathBuf> = listing.flatten().map(|entry| entry.path()).collect();
        found.extend(within.iter().cloned());
        pending.extend(within);
    }
    Ok(found)
}

fn remove_file(path: &Path) -> Result<(), RemovalError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(|source| disk(path, source)),
    }
}

fn disk(path: &Path, source: io::Error) -> RemovalError {
    RemovalError::Disk { path: path.to_owned(), what: "removed", source }
}
