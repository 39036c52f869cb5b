//! Downloads that did not come to their end, found by the name of their model: parts, whole files that have no name yet,
//! split models whose first part is missing, and projectors that a removal was killed before.

use std::fs;
use std::path::{Path, PathBuf};

use super::contents::files_below;
use super::draft::RemovalDraft;
use super::error::RemovalError;
use super::location::check_owner;
use super::plain::clear_download;
use super::repository::CachedLinks;
use crate::models::companions::choice::has_projector_name;
use crate::models::companions::names::has_companion_name;
use crate::models::folder_walk::walk;
use crate::models::gguf;
use crate::models::hub::has_quant;
use crate::models::hub::name::{RemoteName, RepositoryId, path_of_address};
use crate::models::places::ModelPlaces;
use crate::models::split::{SplitPart, parts_of};

/// Which files of a repository a name means.
#[derive(Debug, Clone, Copy)]
enum MeantFiles<'a> {
    /// Its usual model, whatever that is.
    Any,
    /// The model of this quantisation.
    Quant(&'a str),
    /// The file at this path.
    File(&'a str),
}

impl MeantFiles<'_> {
    /// Returns whether a file of a snapshot is meant.
    fn is_at(self, path: &Path) -> bool {
        match self {
            Self::Any => true,
            Self::Quant(quant) => has_quant(path, quant),
            Self::File(file) => parts_of(Path::new(file)).iter().any(|part| part == path),
        }
    }

    /// Returns whether the header of a blob says that it is of the quantisation that is meant.
    fn is_of(self, blob: &Path) -> bool {
        let said = gguf::read(blob).ok().map(|metadata| metadata.quantization);
        said.is_some_and(|said| match self {
            Self::Any => true,
            Self::Quant(quant) => quant.eq_ignore_ascii_case(&said),
            Self::File(file) => has_quant(Path::new(file), &said),
        })
    }
}

/// Plans the removal of what has come of the model `name`; `None` if nothing has.
///
/// # Errors
/// It is not clear what belongs to the name, or a folder cannot be looked through.
pub(super) fn plan_unfinished(places: &ModelPlaces, name: &str) -> Result<Option<RemovalDraft>, RemovalError> {
    match RemoteName::parse(name) {
        Ok(RemoteName::Address { address, sha256 }) => {
            let file = address.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
            plan_address(places, file, &sha256)
        }
        Ok(RemoteName::Model { repository, quant }) => {
            let meant = quant.as_deref().map_or(MeantFiles::Any, MeantFiles::Quant);
            plan_repository(places, &repository, meant)
        }
        Ok(RemoteName::File { repository, file }) => plan_repository(places, &repository, MeantFiles::File(&file)),
        Err(_) => Ok(None),
    }
}

fn plan_address(places: &ModelPlaces, name: &str, sha256: &str) -> Result<Option<RemovalDraft>, RemovalError> {
    let Ok(root) = fs::canonicalize(&places.models_dir) else { return Ok(None) };
    let file = path_of_address(&root, name, sha256);
    let Some(folder) = file.parent().filter(|folder| folder.is_dir()) else { return Ok(None) };
    check_inside(places, folder)?;
    let mut draft = RemovalDraft::default();
    clear_download(folder, name, &mut draft)?;
    Ok((!draft.files.is_empty()).then_some(draft))
}

/// Plans the removal of what no name of a model leads to.
fn plan_repository(
    places: &ModelPlaces,
    id: &RepositoryId,
    meant: MeantFiles<'_>,
) -> Result<Option<RemovalDraft>, RemovalError> {
    let (Ok(cache), Ok(folder)) = (fs::canonicalize(&places.hub_cache), id.as_cached().find_folder(&places.hub_cache))
    else {
        return Ok(None);
    };
    let folder = cache.join(folder.file_name().unwrap_or_default());
    check_inside(places, &folder)?;
    let (links, has_model) = (CachedLinks::read(&folder)?, !models_of(&folder)?.is_empty());
    if has_model && matches!(meant, MeantFiles::Any) {
        return Ok(None);
    }
    let mut names = headless_models(&folder, meant)?;
    if !has_model {
        names.extend(lone_projectors(&folder)?);
    }
    let blobs = meant_blobs(&links, id, meant, has_model, names.is_empty())?;
    let mut draft = RemovalDraft::default();
    links.remove_names(&names, &mut draft)?;
    blobs.iter().try_for_each(|blob| links.remove_blob(blob, &mut draft))?;
    if draft.files.is_empty() {
        return Ok(None);
    }
    links.clear(&names, &mut draft)?;
    Ok(Some(draft))
}

/// Returns the blobs and parts without a name that are meant: those whose headers say so. Where none does, the only one of
/// a repository that has no model.
fn meant_blobs(
    links: &CachedLinks,
    id: &RepositoryId,
    meant: MeantFiles<'_>,
    has_model: bool,
    is_all: bool,
) -> Result<Vec<PathBuf>, RemovalError> {
    let unlinked = links.unlinked()?;
    if matches!(meant, MeantFiles::Any) {
        return Ok(unlinked);
    }
    let said: Vec<PathBuf> = unlinked.iter().filter(|blob| meant.is_of(blob)).cloned().collect();
    match (said.is_empty(), has_model, unlinked.len()) {
        (false, ..) => Ok(said),
        (true, false, 0 | 1) => Ok(unlinked),
        (true, false, count) if is_all => Err(RemovalError::WhichUnfinished { repository: id.to_string(), count }),
        _ => Ok(Vec::new()),
    }
}

/// Returns the files of split models whose first part is missing, of every revision.
fn headless_models(folder: &Path, meant: MeantFiles<'_>) -> Result<Vec<PathBuf>, RemovalError> {
    let mut found = Vec::new();
    for snapshot in snapshots(folder)? {
        let models = walk(&snapshot).map(|below| below.models).unwrap_or_default();
        let is_headless = |path: &&PathBuf| SplitPart::of_path(path).is_some_and(|part| part.number != 1);
        for model in models.iter().filter(is_headless).filter(|path| meant.is_at(path)) {
            let parts = parts_of(&snapshot.join(model));
            found.extend(parts.into_iter().filter(|part| fs::symlink_metadata(part).is_ok()));
        }
    }
    Ok(found)
}

/// Returns the projectors of a repository without models.
fn lone_projectors(folder: &Path) -> Result<Vec<PathBuf>, RemovalError> {
    let projectors = |snapshot: PathBuf| {
        let found = walk(&snapshot).map(|below| below.models).unwrap_or_default();
        found.into_iter().filter(|path| has_projector_name(path)).map(move |path| snapshot.join(path))
    };
    Ok(snapshots(folder)?.into_iter().flat_map(projectors).collect())
}

/// Returns the models of the repository that are whole by their names.
fn models_of(folder: &Path) -> Result<Vec<PathBuf>, RemovalError> {
    let is_first = |path: &PathBuf| SplitPart::of_path(path).is_none_or(|part| part.number == 1);
    let is_model = |path: &PathBuf| is_first(path) && !has_companion_name(path);
    let models = |snapshot: PathBuf| walk(&snapshot).map(|below| below.models).unwrap_or_default();
    Ok(snapshots(folder)?.into_iter().flat_map(models).filter(is_model).collect())
}

/// Returns the folders of the repository's revisions.
fn snapshots(folder: &Path) -> Result<Vec<PathBuf>, RemovalError> {
    let snapshots = folder.join("snapshots");
    let commit =
        |path: &PathBuf| path.strip_prefix(&snapshots).ok()?.components().next().map(|one| snapshots.join(one));
    let mut found: Vec<PathBuf> = files_below(&snapshots)?.iter().filter_map(commit).collect();
    found.dedup();
    Ok(found)
}

/// Checks that no part of the path is a link, and that the folder is none of another program.
fn check_inside(places: &ModelPlaces, folder: &Path) -> Result<(), RemovalError> {
    match fs::canonicalize(folder) {
        Ok(found) if found == folder => check_owner(places, folder, folder),
        found => Err(RemovalError::Outside { path: found.unwrap_or_else(|_| folder.to_owned()) }),
    }
}
