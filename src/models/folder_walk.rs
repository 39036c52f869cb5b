//! Finds the GGUF files below a folder. Bounded in depth and number of entries; loops of links end.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use super::split::{SplitPart, is_gguf};
use crate::file_identity::FileIdentity;

/// Depth of the deepest folder below the models folder that is read.
pub(super) const MAX_DEPTH: usize = 8;
/// Most folder entries that are read in one walk.
pub(super) const MAX_ENTRIES: usize = 20_000;

/// The files below a folder. All paths are relative to it.
#[derive(Debug, Default)]
pub(super) struct FolderWalk {
    /// Files that end in `.gguf`, one for each model, sorted. For a split model, its first part that exists.
    pub(super) models: Vec<PathBuf>,
    /// Folders that were not read completely, with the reason.
    pub(super) skipped: Vec<(PathBuf, String)>,
}

/// Walks through `dir`. Follows links, reads each folder once, and skips names that begin with a dot.
///
/// # Errors
///
/// `dir` itself cannot be read. Folders below it that cannot be read are in `skipped`.
pub(super) fn walk(dir: &Path) -> io::Result<FolderWalk> {
    let top = std::fs::metadata(dir)?;
    // A folder is known whatever link leads to it, so a loop of links ends.
    let mut seen = HashSet::from([FileIdentity::of(&top)]);
    let mut walk = FolderWalk::default();
    let mut entries = 0;
    let mut pending = vec![(PathBuf::new(), 0)];
    while let Some((below, depth)) = pending.pop() {
        let listing = match std::fs::read_dir(dir.join(&below)) {
            Ok(listing) => listing,
            Err(error) if depth == 0 => return Err(error),
            Err(error) => {
                walk.skipped.push((below, format!("cannot be read: {error}")));
                continue;
            }
        };
        for entry in listing {
            entries += 1;
            if entries > MAX_ENTRIES {
                walk.skipped.push((
                    below,
                    format!("is one folder too many: only the first {MAX_ENTRIES} entries are looked at"),
                ));
                return Ok(walk.sorted());
            }
            let Ok(entry) = entry else { continue };
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = below.join(entry.file_name());
            match std::fs::metadata(entry.path()) {
                Ok(found) if found.is_dir() => {
                    if !seen.insert(FileIdentity::of(&found)) {
                        continue;
                    }
                    if depth == MAX_DEPTH {
                        walk.skipped
                            .push((path, format!("lies deeper than {MAX_DEPTH} folders and is not looked into")));
                    } else {
                        pending.push((path, depth + 1));
                    }
                }
                // A broken link is kept too: reading the file later reports it.
                _ if is_gguf(&path) => walk.models.push(path),
                _ => {}
            }
        }
    }
    Ok(walk.sorted())
}

impl FolderWalk {
    /// Sorts the lists, and keeps one file for each split model.
    fn sorted(mut self) -> Self {
        self.models.sort();
        let mut sets = HashSet::new();
        self.models.retain(|path| match SplitPart::of_path(path) {
            Some(part) => sets.insert((path.parent().map(Path::to_owned), part.prefix, part.count)),
            None => true,
        });
        self.skipped.sort();
        self
    }
}
