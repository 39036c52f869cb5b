//! The names of models in a folder, by the names of their files and folders.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::models::bounds::SHELF_ID_LENGTH;
use crate::models::companions::names::quant_word;
use crate::models::hub;
use crate::models::places::PlaceKind;
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

/// Whether the path is one of a folder with the layout of Hugging Face's cache.
pub(super) fn is_in_hub_layout(path: &Path) -> bool {
    HubPlace::of(path).is_some()
}

/// The names of a model.
#[derive(Debug)]
pub(in crate::models) struct ShelfName {
    /// The name of its file.
    pub(in crate::models) id: String,
    /// The id if another place has a model with that one.
    pub(super) prefixed: Option<String>,
    /// Other names.
    pub(super) aliases: Vec<String>,
    is_unicode: bool,
}

impl ShelfName {
    /// Makes a name out of texts that are known to be good ones.
    pub(super) fn new(id: String, prefixed: Option<String>, aliases: Vec<String>) -> Self {
        Self { id, prefixed, aliases, is_unicode: true }
    }

    /// Returns the name if clients can ask for it.
    ///
    /// # Errors
    ///
    /// Returns why they cannot; follows "it".
    pub(super) fn checked(mut self) -> Result<Self, &'static str> {
        let has_control = self.id.chars().any(char::is_control);
        if !self.is_unicode {
            Err("has a name that is not UTF-8")
        } else if has_control || self.id.trim() != self.id || self.id.is_empty() {
            Err("has a name with control characters or with spaces at its ends")
        } else if self.id.len() > SHELF_ID_LENGTH {
            Err("has a name that is too long for an id")
        } else {
            self.aliases.retain(|alias| alias.len() <= SHELF_ID_LENGTH);
            Ok(self)
        }
    }
}

/// Returns the names of the models at these paths below one folder. The id is the file name without `.gguf`; where several
/// have the same, those in folders have the folder before it. A model of a repository also has the names by which it is
/// pulled.
pub(in crate::models) fn names_of(kind: PlaceKind, paths: &[PathBuf]) -> Vec<ShelfName> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for path in paths {
        *counts.entry(id_of(path)).or_default() += 1;
    }
    let repositories = Repositories::of(kind, paths);
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
        let mut aliases: Vec<String> = alias.iter().cloned().chain(repositories.names(path)).collect();
        let mut prefixed = alias.filter(|_| kind == PlaceKind::Hub);
        if kind == PlaceKind::LmStudio {
            let with_prefix = |text: &str| format!("{kind}:{text}");
            let own = with_prefix(&path.to_string_lossy());
            let named: Vec<String> = repositories.names(path).iter().map(|name| with_prefix(name)).collect();
            aliases.extend(named.into_iter().chain([own.clone()]));
            prefixed = Some(own);
        }
        ShelfName { id, prefixed, aliases, is_unicode: path.to_str().is_some() }
    };
    paths.iter().map(name).collect()
}

/// Returns the name by which a command takes each of the files at these paths below `dir`; `None` for one that does not
/// count: an older revision, or what is no part of a cache.
pub(in crate::models) fn commands_of(kind: PlaceKind, dir: &Path, paths: &[PathBuf]) -> Vec<Option<String>> {
    let mut revisions = HashMap::new();
    let counts: Vec<bool> = paths
        .iter()
        .map(|path| match kind {
            PlaceKind::Hub => is_in_hub_layout(path) && is_of_current_revision(dir, path, &mut revisions),
            _ => true,
        })
        .collect();
    let counting: Vec<PathBuf> =
        paths.iter().zip(&counts).filter(|(_, counts)| **counts).map(|(path, _)| path.clone()).collect();
    let repositories = Repositories::of(kind, &counting);
    let name = |path: &PathBuf| match kind {
        PlaceKind::Hub => {
            let of_file = || {
                let ((name, _), below) = repository_of(kind, path)?;
                Some(format!("{name}/{}", below.display()))
            };
            repositories.names(path).into_iter().next().or_else(of_file)
        }
        PlaceKind::LmStudio => Some(format!("{kind}:{}", path.display())),
        PlaceKind::Models | PlaceKind::Ollama => Some(path.display().to_string()),
    };
    paths.iter().zip(counts).map(|(path, counts)| name(path).filter(|_| counts)).collect()
}

/// The models of each repository among the paths of a place.
struct Repositories {
    kind: PlaceKind,
    /// The paths of its models in it, by the name and the folder of a repository.
    files: HashMap<(String, PathBuf), Vec<PathBuf>>,
}

impl Repositories {
    fn of(kind: PlaceKind, paths: &[PathBuf]) -> Self {
        let mut files: HashMap<(String, PathBuf), Vec<PathBuf>> = HashMap::new();
        for path in paths {
            if let Some((repository, below)) = repository_of(kind, path) {
                files.entry(repository).or_default().push(below);
            }
        }
        Self { kind, files }
    }

    /// Returns the names by which this model of a repository is pulled: `ORG/NAME` if it is the one that this means, and
    /// `ORG/NAME:QUANT`.
    fn names(&self, path: &Path) -> Vec<String> {
        let Some((repository, below)) = repository_of(self.kind, path) else { return Vec::new() };
        let (name, files) = (repository.0.clone(), self.files.get(&repository).map_or(&[][..], Vec::as_slice));
        let means = |quant: Option<&str>| hub::choose_files(files, quant).is_ok_and(|chosen| chosen.contains(&below));
        let text = below.to_string_lossy();
        let quant = quant_word(&text).filter(|quant| means(Some(quant)));
        let bare = means(None).then(|| name.clone());
        quant.map(|quant| format!("{name}:{quant}")).into_iter().chain(bare).collect()
    }
}

/// Returns the repository in which the file lies, by name and folder, and its path there.
fn repository_of(kind: PlaceKind, path: &Path) -> Option<((String, PathBuf), PathBuf)> {
    let folder: PathBuf = match HubPlace::of(path) {
        Some(place) => place.repository.join("snapshots").join(&place.revision),
        None if kind == PlaceKind::LmStudio => path.iter().take(2).collect(),
        None => return None,
    };
    let below = path.strip_prefix(&folder).ok().filter(|below| !below.as_os_str().is_empty())?.to_owned();
    let name = match HubPlace::of(path) {
        Some(place) => place.folder.iter().take(2).collect::<PathBuf>(),
        None => folder.clone(),
    };
    let name = name.to_str()?.to_owned();
    hub::Repository::named(&name)?;
    Some(((name, folder), below))
}
