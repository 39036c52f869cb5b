//! Lists all files below a folder, also hidden ones, without following links. Bounded.

use std::io;
use std::path::{Path, PathBuf};

use super::error::RemovalError;

/// Most entries that are looked through below one folder.
const MOST_ENTRIES: usize = 50_000;

/// Returns the paths of all that is no folder below `folder`, sorted; none if there is no such folder.
///
/// # Errors
/// A folder cannot be read, or there are more than [`MOST_ENTRIES`] entries.
pub(super) fn files_below(folder: &Path) -> Result<Vec<PathBuf>, RemovalError> {
    let (mut files, mut pending, mut entries) = (Vec::new(), vec![folder.to_owned()], 0);
    while let Some(next) = pending.pop() {
        let failed = |source| RemovalError::Disk { path: next.clone(), what: "read", source };
        let listing = match std::fs::read_dir(&next) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            listing => listing.map_err(failed)?,
        };
        for entry in listing {
            entries += 1;
            if entries > MOST_ENTRIES {
                return Err(RemovalError::TooMany { path: folder.to_owned(), most: MOST_ENTRIES });
            }
            let entry = entry.map_err(failed)?;
            match entry.file_type().map_err(failed)?.is_dir() {
                true => pending.push(entry.path()),
                false => files.push(entry.path()),
            }
        }
    }
    files.sort();
    Ok(files)
}
