//! The ids of models in a folder, by the names of their files.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::models::bounds::SHELF_ID_LENGTH;
use crate::models::hub;
use crate::models::split::id_of;

/// Where a file lies in a folder with the layout of Hugging Face's cache: `models--ORG--NAME/snapshots/REVISION/...`.
struct HubPlace {
    /// The folder of the repository.
    repository: PathBuf,
    revision: OsString,
    /// The folder that an id may name: `ORG/NAME`, and the folders below the revision.
    folder: PathBuf,
}

impl HubPlace {
    fn of(path: &Path) -> Option<Self> {
        let parts: Vec<&std::ffi::OsStr> = path.parent()?.iter().collect();
        let at = parts.windows(3).position(|window| {
            window[0].to_str().is_some_and(|name| name.starts_with("models--")) && window[1] == "snapshots"
        })?;
        let name = parts[at].to_str()?.strip_prefix("models--")?.replacen("--", "/", 1);
        Some(Self {
            repository: parts[..=at].iter().collect(),
            revision: parts[at + 2].to_owned(),
            folder: PathBuf::from(name).join(parts[at + 3..].iter().collect::<PathBuf>()),
        })
    }
}

/// Whether the file belongs to the revision of its repository that counts, if it lies in one. `revisions` keeps the
/// answers for one scan.
pub(super) fn is_of_current_revision(
    dir: &Path,
    path: &Path,
    revisions: &mut HashMap<PathBuf, Option<OsString>>,
) -> bool {
    let Some(place) = HubPlace::of(path) else { return true };
    let current = revisions.entry(place.repository).or_insert_with_key(|repository| {
        let snapshot = hub::find_snapshot(dir.join(repository)).ok()?;
        snapshot.file_name().map(OsString::from)
    });
    current.as_ref() == Some(&place.revision)
}

/// The id of a model, and its name with its folder if that differs.
pub(in crate::models) struct ShelfName {
    pub(in crate::models) id: String,
    pub(in crate::models) alias: Option<String>,
    is_unicode: bool,
}

impl ShelfName {
    /// Returns the name if clients can ask for it.
    ///
    /// # Errors
    ///
    /// Returns why they cannot; follows "it".
    pub(super) fn checked(self) -> Result<Self, &'static str> {
        let has_control = self.id.chars().any(char::is_control);
        if !self.is_unicode {
            Err("has a name that is not UTF-8")
        } else if has_control || self.id.trim() != self.id || self.id.is_empty() {
            Err("has a name with control characters or with spaces at its ends")
        } else if self.id.len() > SHELF_ID_LENGTH {
            Err("has a name that is too long for an id")
        } else {
            Ok(Self { alias: self.alias.filter(|alias| alias.len() <= SHELF_ID_LENGTH), ..self })
        }
    }
}

/// Returns the ids of the models at these paths below one folder: the file name without `.gguf`. Where several have the
/// same, those in folders have the folder before it.
pub(in crate::models) fn ids_of(paths: &[PathBuf]) -> Vec<ShelfName> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for path in paths {
        *counts.entry(id_of(path)).or_default() += 1;
    }
    let name = |path: &PathBuf| {
        let base = id_of(path);
        let folder = HubPlace::of(path).map(|place| place.folder).or_else(|| path.parent().map(Path::to_owned));
        let with_folder = folder.filter(|folder| !folder.as_os_str().is_empty()).map(|folder| {
            let parts: Vec<_> = folder.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            format!("{}/{base}", parts.join("/"))
        });
        let is_shared = counts.get(&base).is_some_and(|count| *count > 1);
        let (id, alias) = match with_folder {
            Some(full) if is_shared => (full, None),
            other => (base, other),
        };
        ShelfName { id, alias, is_unicode: path.to_str().is_some() }
    };
    paths.iter().map(name).collect()
}
