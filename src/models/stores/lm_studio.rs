//! Finds models in LM Studio's folder: `PUBLISHER/REPOSITORY/FILE.gguf`, with projectors beside them.

use std::path::{Path, PathBuf};

use super::error::StoreError;
use crate::models::error::ModelError;
use crate::models::folder_walk::walk;
use crate::models::hub::{Repository, choose_files};
use crate::models::places::PlaceKind;
use crate::models::resolve::resolve;

/// Finds the file that `given` means below `folder`: `PUBLISHER/REPOSITORY[:QUANT]`, a path, a file's name or its id. For a
/// split model, returns the first part.
///
/// # Errors
///
/// No file or more than one is meant.
pub(in crate::models) fn find(folder: &Path, given: &str) -> Result<PathBuf, StoreError> {
    let kind = PlaceKind::LmStudio;
    let name = format!("{kind}:{given}");
    if let Some(repository) = Repository::named(given) {
        let dir = folder.join(repository.org()).join(repository.name());
        if dir.is_dir() {
            let below = walk(&dir).map_err(|source| StoreError::Folder { kind, folder: dir.clone(), source })?;
            let files = choose_files(&below.models, repository.quant());
            let files = files.map_err(|reason| StoreError::Unclear { kind, name: name.clone(), reason })?;
            if let Some(first) = files.first() {
                return Ok(dir.join(first));
            }
        }
    }
    if Path::new(given).is_absolute() {
        return Err(StoreError::Unclear {
            kind,
            name,
            reason: "it is a path of its own, which needs no prefix".to_owned(),
        });
    }
    resolve(folder, given).map_err(|error| match error {
        ModelError::NotFound { similar, has_models, .. } => StoreError::NotFound {
            kind,
            name,
            folder: folder.to_owned(),
            similar: similar.into_iter().map(|path| format!("{kind}:{path}")).collect(),
            has_models,
        },
        ModelError::Folder { source, .. } => StoreError::Folder { kind, folder: folder.to_owned(), source },
        other => StoreError::Unclear { kind, name, reason: other.to_string() },
    })
}
