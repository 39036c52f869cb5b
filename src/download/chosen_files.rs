//! Which files of a repository a name means: all parts of a split model, and its projector.

use std::path::{Path, PathBuf};

use super::answers::Listing;
use super::error::DownloadError;
use crate::models::{RepositoryId, choose_files, projector_of};

/// Returns the files of the model of this quantisation, or of the usual one; the model's first part first.
///
/// # Errors
/// [`DownloadError::NoFile`]
pub(super) fn files_of_model(
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

/// Returns the files of the model whose file this is: all its parts.
///
/// # Errors
/// [`DownloadError::NoFile`]
pub(super) fn files_of_file(
    repository: &RepositoryId,
    listing: &Listing,
    file: &str,
) -> Result<Vec<String>, DownloadError> {
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
