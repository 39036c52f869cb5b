//! What goes with a model of the hub's cache: its links in one snapshot, the blobs that no other link points to, parts, and
//! what is empty afterwards. Files of other kinds stay, and so does what another revision uses.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::contents::files_below;
use super::draft::RemovalDraft;
use super::error::RemovalError;
use super::location::SnapshotFile;
use super::projectors::{ProjectorScope, projector_to_remove};
use super::steps::{RemovalStep, is_reference_to};
use crate::models::split::parts_of;

/// Plans the removal of the model at this place.
///
/// # Errors
/// There is no such file, or the repository cannot be looked through.
pub(super) fn plan_snapshot(place: &SnapshotFile) -> Result<RemovalDraft, RemovalError> {
    let mut draft = RemovalDraft::default();
    let is_there = |path: &PathBuf| fs::symlink_metadata(path).is_ok();
    let mut names: Vec<PathBuf> = parts_of(&place.path).into_iter().filter(is_there).collect();
    if names.is_empty() {
        return Err(RemovalError::Absent { path: place.path.clone() });
    }
    names.extend(projector_to_remove(&place.path, ProjectorScope::Snapshot(&place.snapshot), &mut draft));
    let repository = CachedLinks::read(&place.repository)?;
    repository.remove_names(&names, &mut draft)?;
    repository.clear(&names, &mut draft)?;
    Ok(draft)
}

/// The links of a repository, of every revision.
pub(super) struct CachedLinks {
    /// The folder `models--ORG--NAME`, with all links resolved.
    folder: PathBuf,
    /// Each link of a snapshot, with the file that it points to.
    links: Vec<(PathBuf, PathBuf)>,
}

impl CachedLinks {
    /// Reads the links of the repository at `folder`.
    ///
    /// # Errors
    /// A folder cannot be read, or there are too many files.
    pub(super) fn read(folder: &Path) -> Result<Self, RemovalError> {
        let links = files_below(&folder.join("snapshots"))?.into_iter().filter_map(|path| {
            let target = path.is_symlink().then(|| fs::canonicalize(&path).ok()).flatten()?;
            Some((path, target))
        });
        Ok(Self { folder: folder.to_owned(), links: links.collect() })
    }

    /// Returns the blobs and parts that no link points to.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) fn unlinked(&self) -> Result<Vec<PathBuf>, RemovalError> {
        let linked: BTreeSet<&PathBuf> = self.links.iter().map(|(_, target)| target).collect();
        let blobs = files_below(&self.folder.join("blobs"))?;
        // A link among the blobs leads elsewhere, and other folders are not the hub's.
        let is_blob = |path: &PathBuf| path.parent() == Some(&self.folder.join("blobs")) && !path.is_symlink();
        Ok(blobs.into_iter().filter(|path| is_blob(path) && !linked.contains(path)).collect())
    }

    /// Lets these names of snapshots go, in this order, each followed by its blob, if no other link points to that.
    ///
    /// # Errors
    /// A file cannot be looked at.
    pub(super) fn remove_names(&self, names: &[PathBuf], draft: &mut RemovalDraft) -> Result<(), RemovalError> {
        for (at, name) in names.iter().enumerate() {
            draft.remove(name)?;
            let Some((_, target)) = self.links.iter().find(|(link, _)| link == name) else { continue };
            let users = || self.links.iter().filter(|(link, found)| found == target && !names[..=at].contains(link));
            if target.parent() != Some(&self.folder.join("blobs")) {
                draft.keep(target.clone(), "stays: only the link to it goes, because it is no file of this repository");
            } else if users().next().is_none() {
                self.remove_blob(target, draft)?;
            } else if let Some((other, _)) = users().find(|(link, _)| !names.contains(link)) {
                draft.keep(target.clone(), format!("stays: {} needs it", self.shown(other)));
            }
        }
        Ok(())
    }

    /// Lets a blob or a part go, with the other one of the same file, under its lock.
    ///
    /// # Errors
    /// A file cannot be looked at.
    pub(super) fn remove_blob(&self, blob: &Path, draft: &mut RemovalDraft) -> Result<(), RemovalError> {
        let name = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let etag = name.strip_suffix(".incomplete").unwrap_or(&name);
        draft.remove(blob)?;
        if etag == name {
            draft.remove(&blob.with_file_name(format!("{etag}.incomplete")))?;
        }
        draft.locks.push((self.locks().join(format!("{etag}.lock")), blob.to_owned()));
        Ok(())
    }

    /// Lets go what is empty once these names are gone: references to their commits, folders, the repository itself, and the
    /// files of the locks.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub(super) fn clear(&self, names: &[PathBuf], draft: &mut RemovalDraft) -> Result<(), RemovalError> {
        let snapshots = self.folder.join("snapshots");
        let touched: BTreeSet<PathBuf> = names
            .iter()
            .filter_map(|name| Some(snapshots.join(name.strip_prefix(&snapshots).ok()?.components().next()?)))
            .collect();
        // A reference to a commit without a folder makes a cache unsound for other programs, an empty folder does not: so
        // references go before the folders.
        for snapshot in &touched {
            self.clear_references(snapshot, names, draft)?;
        }
        let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
        for name in names {
            folders.extend(name.ancestors().skip(1).take_while(|folder| *folder != snapshots).map(Path::to_owned));
        }
        folders.into_iter().rev().for_each(|folder| draft.remove_folder(folder));
        draft.steps.push(RemovalStep::Repository { path: self.folder.clone() });
        let locks: BTreeSet<PathBuf> = draft.locks.iter().map(|(lock, _)| lock.clone()).collect();
        draft.steps.extend(locks.into_iter().map(|path| RemovalStep::Lock { path }));
        draft.remove_folder(self.locks());
        Ok(())
    }

    fn clear_references(
        &self,
        snapshot: &Path,
        names: &[PathBuf],
        draft: &mut RemovalDraft,
    ) -> Result<(), RemovalError> {
        if files_below(snapshot)?.iter().any(|file| !names.contains(file)) {
            return Ok(());
        }
        let references = files_below(&self.folder.join("refs"))?;
        for path in references.into_iter().filter(|path| is_reference_to(path, snapshot)) {
            draft.steps.push(RemovalStep::Reference { path, snapshot: snapshot.to_owned() });
        }
        Ok(())
    }

    /// Returns the folder of the repository's locks.
    fn locks(&self) -> PathBuf {
        let cache = self.folder.parent().unwrap_or(&self.folder);
        cache.join(".locks").join(self.folder.file_name().unwrap_or_default())
    }

    /// Returns a link's revision and file.
    fn shown(&self, link: &Path) -> String {
        link.strip_prefix(self.folder.join("snapshots")).unwrap_or(link).display().to_string()
    }
}
