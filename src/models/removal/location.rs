//! Where the file of a model lies, and whether it may be removed at all: only below `MODELS_DIR` and `HF_HUB_CACHE`, with
//! the links of all folders resolved, and never out of the store of another program, which may lie below them.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::error::RemovalError;
use crate::models::places::ModelPlaces;
use crate::models::split::is_gguf;

/// Folders of other programs that keep models and their own list of them.
const FOREIGN_STORES: [&str; 3] = [".ollama", ".lmstudio", "lm-studio"];

/// The file of a model that may be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ModelLocation {
    /// Below the models folder.
    Plain {
        /// The folder that settings name, with its links resolved.
        root: PathBuf,
        /// The file. The links of its folders are resolved, it may itself be one.
        path: PathBuf,
    },
    /// In a snapshot of a repository, as the hub's cache lays them.
    Snapshot(SnapshotFile),
}

/// A file of a snapshot: `models--ORG--NAME/snapshots/COMMIT/...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SnapshotFile {
    /// The folder `models--ORG--NAME`.
    pub(super) repository: PathBuf,
    /// The folder of the commit.
    pub(super) snapshot: PathBuf,
    /// The file. The links of its folders are resolved, it may itself be one.
    pub(super) path: PathBuf,
}

impl ModelLocation {
    /// Finds out where the file at `path` lies. It need not exist, its folder must.
    ///
    /// # Errors
    /// It may not be removed, or its folder cannot be read.
    pub(super) fn of(places: &ModelPlaces, path: &Path) -> Result<Self, RemovalError> {
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(RemovalError::Outside { path: path.to_owned() });
        }
        let no_model = || RemovalError::NotAModel { path: path.to_owned() };
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Err(no_model()) };
        let folder = canonical(folder, path);
        // First of all: the blobs of a store have no ending.
        if let Ok(folder) = &folder {
            check_owner(places, folder, &folder.join(name))?;
        }
        if !is_gguf(path) {
            return Err(no_model());
        }
        let folder = folder?;
        let found = folder.join(name);
        check_kind(&found)?;
        let roots = [&places.hub_cache, &places.models_dir];
        // Of two folders of which one lies in the other, the inner one says what the rest of the path means.
        let above = roots.iter().filter_map(|root| fs::canonicalize(root).ok()).filter(|root| folder.starts_with(root));
        let root = above.max_by_key(|root| root.components().count());
        let Some(root) = root else { return Err(RemovalError::Outside { path: found }) };
        let inner = folder.strip_prefix(&root).unwrap_or(&folder);
        Ok(match SnapshotFile::of(&folder, inner, &found) {
            Some(place) => Self::Snapshot(place),
            None => Self::Plain { root, path: found },
        })
    }
}

impl SnapshotFile {
    /// Reads the place out of the path of a folder, of which `inner` are the last parts.
    fn of(folder: &Path, inner: &Path, path: &Path) -> Option<Self> {
        let parts: Vec<&std::ffi::OsStr> = inner.iter().collect();
        let is_snapshot = |window: &[&std::ffi::OsStr]| {
            window[0].to_str().is_some_and(|name| name.starts_with("models--")) && window[1] == "snapshots"
        };
        let at = parts.windows(3).position(is_snapshot)?;
        let snapshot = folder.ancestors().nth(parts.len() - at - 3)?;
        let repository = snapshot.parent()?.parent()?;
        Some(Self { repository: repository.to_owned(), snapshot: snapshot.to_owned(), path: path.to_owned() })
    }
}

/// Resolves the links of the folder of the file at `path`.
fn canonical(folder: &Path, path: &Path) -> Result<PathBuf, RemovalError> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    fs::canonicalize(folder).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => RemovalError::Absent { path: path.to_owned() },
        _ => RemovalError::Disk { path: folder.to_owned(), what: "read", source },
    })
}

/// Checks that there is a file or a link at `path`, or nothing.
fn check_kind(path: &Path) -> Result<(), RemovalError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(()),
        // A link to a folder would be a folder of models.
        Ok(found) if found.is_symlink() && !path.is_dir() => Ok(()),
        Ok(_) => Err(RemovalError::NotAModel { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(RemovalError::Disk { path: path.to_owned(), what: "read", source }),
    }
}

/// Checks that a folder, whose links are resolved, is none of another program. `file` is the file in it.
///
/// # Errors
/// [`RemovalError::ForeignStore`] if it is.
pub(super) fn check_owner(places: &ModelPlaces, folder: &Path, file: &Path) -> Result<(), RemovalError> {
    let has_foreign_name = folder.iter().any(|part| part.to_str().is_some_and(|part| FOREIGN_STORES.contains(&part)));
    let stores = [&places.ollama, &places.lm_studio].into_iter().flatten().chain(&places.foreign);
    let is_below = |store: &PathBuf| fs::canonicalize(store).is_ok_and(|store| folder.starts_with(store));
    match has_foreign_name || stores.into_iter().any(is_below) {
        true => Err(RemovalError::ForeignStore { path: file.to_owned() }),
        false => Ok(()),
    }
}
