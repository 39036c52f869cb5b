//! What goes with a model of the models folder: its files, and the folder of a file that was downloaded from an address.

use std::fs;
use std::path::{Path, PathBuf};

use super::draft::RemovalDraft;
use super::error::RemovalError;
use super::projectors::{ProjectorScope, projector_to_remove};
use super::steps::RemovalStep;
use crate::models::hub::name::{path_of_address, sha256_of};
use crate::models::split::parts_of;

/// Plans the removal of the model at `path`, below the models folder `root`, whose links are resolved.
///
/// # Errors
/// There is no such file, or one of them cannot be looked at.
pub(super) fn plan_plain(root: &Path, path: &Path) -> Result<RemovalDraft, RemovalError> {
    let mut draft = RemovalDraft::default();
    let there: Vec<PathBuf> = parts_of(path).into_iter().filter(|part| fs::symlink_metadata(part).is_ok()).collect();
    let folder = path.parent().filter(|_| !there.is_empty());
    let folder = folder.ok_or_else(|| RemovalError::Absent { path: path.to_owned() })?;
    let projector = projector_to_remove(path, ProjectorScope::Folder(folder), &mut draft);
    // The first part first: by it the model is found.
    for file in there.iter().chain(&projector) {
        if let Ok(target) = fs::read_link(file) {
            let target = fs::canonicalize(file).unwrap_or(target);
            draft.keep(target, "stays: only the link to it goes");
        }
        draft.remove(file)?;
    }
    if let Some(name) = name_of_download(root, path) {
        clear_download(folder, &name, &mut draft)?;
    }
    Ok(draft)
}

/// Lets all that belongs to a download from an address go: its part, its lock, its folder.
///
/// # Errors
/// A file cannot be looked at.
pub(super) fn clear_download(folder: &Path, name: &str, draft: &mut RemovalDraft) -> Result<(), RemovalError> {
    let lock = folder.join(".lock");
    draft.remove(&folder.join(format!(".{name}.incomplete")))?;
    draft.steps.push(RemovalStep::Lock { path: lock.clone() });
    draft.locks.push((lock, folder.join(name)));
    draft.remove_folder(folder.to_owned());
    Ok(())
}

/// Returns the name of the file if it lies where a download from an address puts it.
fn name_of_download(root: &Path, path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let sha256 = sha256_of(path.parent()?.file_name()?.to_str()?)?;
    (path_of_address(root, name, &sha256) == path).then(|| name.to_owned())
}
