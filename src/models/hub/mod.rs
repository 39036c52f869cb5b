//! Finds models in Hugging Face's cache, where RunPod's cached models and `hf download` put them.
//!
//! `ORG/NAME[:QUANT]` means a GGUF file of a repository that has been downloaded already:
//! `models--ORG--NAME/{refs/main,snapshots/REVISION/...,blobs}`.
//! Downloads nothing, and does not read the file: [`super::check`] does.
//!
//! - `name.rs`: what the name of a model on the network means
//! - `quants.rs`: the models of a repository, by the names of its files

pub(super) mod name;
pub(super) mod quants;

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::companions::names::has_companion_name;
use super::folder_walk::walk;
use super::split::{SplitPart, id_of, is_gguf, parts_of};

/// Quantisations that are chosen if the name gives none, in this order, as llama.cpp does.
const PREFERRED: [&str; 2] = ["Q4_K_M", "Q8_0"];
/// The revision that is meant if none is named.
pub(super) const MAIN: &str = "main";
/// Most names that an error lists.
const MAX_LISTED_NAMES: usize = 8;
/// Most snapshots beside the one that counts in which a model is looked for.
const MAX_SNAPSHOTS: usize = 100;
/// Most bytes that are read from a reference. The name of a revision is shorter.
const MAX_REFERENCE_BYTES: u64 = 256;

/// A model repository, and optionally which of its files: `ORG/NAME[:QUANT]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repository<'a> {
    org: &'a str,
    name: &'a str,
    quant: Option<&'a str>,
}

/// Why no model was found in a repository.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The cache cannot be read.
    #[error("the Hugging Face cache {} cannot be read: {source}", cache.display())]
    Cache {
        /// The folder.
        cache: PathBuf,
        /// The error from the operating system.
        source: io::Error,
    },
    /// The cache does not hold the repository.
    #[error("the Hugging Face cache {} does not have it; {}", cache.display(), describe(found))]
    NoRepository {
        /// The folder of the cache.
        cache: PathBuf,
        /// The repositories that it holds.
        found: Vec<String>,
    },
    /// A file that is named by its address is not in the models folder.
    #[error("{} does not have it", dir.display())]
    NoDownload {
        /// The folder.
        dir: PathBuf,
    },
    /// The repository has no revision.
    #[error("{} holds no snapshot: its download is not complete", dir.display())]
    NoSnapshot {
        /// The repository's folder.
        dir: PathBuf,
    },
    /// The revision has no GGUF file.
    #[error("{} holds no model as a .gguf file", snapshot.display())]
    NoModel {
        /// The revision's folder.
        snapshot: PathBuf,
    },
    /// The revision has no file of that quantisation, or, if the name gives none, none of a preferred one.
    #[error("{} has no {wanted}; {}", snapshot.display(), describe(found))]
    NoQuant {
        /// The revision's folder.
        snapshot: PathBuf,
        /// What was searched for.
        wanted: String,
        /// The models that the revision holds.
        found: Vec<String>,
    },
    /// The revision has several files of that quantisation.
    #[error("several files of {} are a {quant}: {}", snapshot.display(), join_names(found))]
    Several {
        /// The revision's folder.
        snapshot: PathBuf,
        /// The quantisation that was searched for.
        quant: String,
        /// The files.
        found: Vec<String>,
    },
}

impl HubError {
    /// Returns what to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Cache { .. } | Self::NoRepository { .. } | Self::NoDownload { .. } => {
                "download it with `llamagate pull NAME` (on RunPod, choose it as the endpoint's cached model), put a GGUF file into MODELS_DIR and name it, or set HF_HUB_CACHE"
            }
            Self::NoSnapshot { .. } => "run `llamagate pull NAME`, which goes on where it ended",
            Self::NoModel { .. } => "llama-server serves GGUF files: name a repository that holds them",
            Self::NoQuant { .. } | Self::Several { .. } => {
                "use ORG/NAME:QUANT, where QUANT is a whole word of one of these names, such as Q4_K_M"
            }
        }
    }

    /// Whether the cache holds nothing of the repository. The name may then have been meant as a file name.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Cache { .. } | Self::NoRepository { .. } | Self::NoDownload { .. })
    }
}

fn describe(found: &[String]) -> String {
    if found.is_empty() { "there is none at all".to_owned() } else { format!("there is {}", join_names(found)) }
}

fn join_names(found: &[String]) -> String {
    let more = found.len().saturating_sub(MAX_LISTED_NAMES);
    let named = found.iter().take(MAX_LISTED_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

impl<'a> Repository<'a> {
    /// Parses `ORG/NAME[:QUANT]`. Returns `None` if it cannot be the name of a repository, such as a path to a `.gguf`
    /// file.
    #[must_use]
    pub fn named(text: &'a str) -> Option<Self> {
        let (path, quant) = match text.split_once(':') {
            Some((path, quant)) => (path, Some(quant)),
            None => (text, None),
        };
        let (org, name) = path.split_once('/')?;
        // Neither `..` nor another separator may pass, so that a name never leads out of the cache.
        let is_plain = |word: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            !word.is_empty() && !word.starts_with('.') && word.bytes().all(allowed)
        };
        let is_file = Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        ([org, name].into_iter().chain(quant).all(is_plain) && !is_file).then_some(Self { org, name, quant })
    }

    /// Returns the user or the organisation.
    #[must_use]
    pub fn org(&self) -> &'a str {
        self.org
    }

    /// Returns the name below that.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Returns the quantisation that is asked for.
    #[must_use]
    pub fn quant(&self) -> Option<&'a str> {
        self.quant
    }

    /// Returns the names that clients may use: with the quantisation, if there is one, and without.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let bare = format!("{}/{}", self.org, self.name);
        self.quant.map(|quant| format!("{bare}:{quant}")).into_iter().chain([bare.clone()]).collect()
    }

    /// Finds the file that it means in the cache at `cache`; for a split model, the first part.
    ///
    /// # Errors
    ///
    /// The cache cannot be read, or has no such file or more than one.
    pub fn find_file(&self, cache: &Path) -> Result<PathBuf, HubError> {
        find_first(self.find_folder(cache)?, |snapshot| self.find_in(cache, snapshot))
    }

    /// Finds the file that it means in the cache at `cache`, as the repository was at this revision.
    pub(super) fn find_at(&self, cache: &Path, revision: &str) -> Result<PathBuf, HubError> {
        if revision == MAIN {
            return self.find_file(cache);
        }
        let folder = self.find_folder(cache)?;
        let commit = read_reference(&folder, revision).unwrap_or_else(|| revision.to_owned());
        match folder.join("snapshots").join(commit) {
            snapshot if snapshot.is_dir() => self.find_in(cache, &snapshot),
            _ => Err(HubError::NoSnapshot { dir: folder }),
        }
    }

    fn find_in(&self, cache: &Path, snapshot: &Path) -> Result<PathBuf, HubError> {
        let below = walk(snapshot).map_err(|source| HubError::Cache { cache: cache.to_owned(), source })?;
        // The first part gets its name last and loses it first: without it a model is not there.
        let is_first = |path: &PathBuf| SplitPart::of_path(path).is_none_or(|part| part.number == 1);
        let is_model = |path: &PathBuf| !has_companion_name(path) && is_first(path);
        let models: Vec<PathBuf> = below.models.into_iter().filter(is_model).collect();
        let path = choose(&models, self.quant).map_err(|reason| reason.into_error(snapshot, &models))?;
        Ok(snapshot.join(path))
    }

    /// Finds the file at this path of the repository in the cache at `cache`, as it was at this revision.
    pub(super) fn find_named(&self, cache: &Path, revision: &str, file: &str) -> Result<PathBuf, HubError> {
        let folder = self.find_folder(cache)?;
        let find_in = |snapshot: &Path| match snapshot.join(file) {
            path if path.is_file() => Ok(path),
            _ => {
                let (snapshot, wanted) = (snapshot.to_owned(), format!("file {file}"));
                Err(HubError::NoQuant { snapshot, wanted, found: Vec::new() })
            }
        };
        if revision == MAIN {
            return find_first(folder, find_in);
        }
        let commit = read_reference(&folder, revision).unwrap_or_else(|| revision.to_owned());
        find_in(&folder.join("snapshots").join(commit))
    }

    /// Finds the repository's folder. Its name may differ in case, because RunPod writes some of them in lower case.
    pub(super) fn find_folder(&self, cache: &Path) -> Result<PathBuf, HubError> {
        let failed = |source| HubError::Cache { cache: cache.to_owned(), source };
        let wanted = format!("models--{}--{}", self.org, self.name);
        let mut names = Vec::new();
        for entry in fs::read_dir(cache).map_err(failed)? {
            names.extend(entry.map_err(failed)?.file_name().into_string());
        }
        // Sorted, so that the choice between names that differ only in case does not depend on the file system.
        names.sort();
        let exact = names.iter().find(|name| **name == wanted);
        match exact.or_else(|| names.iter().find(|name| name.eq_ignore_ascii_case(&wanted))) {
            Some(name) => Ok(cache.join(name)),
            None => {
                let found = names.iter().filter_map(|name| Some(name.strip_prefix("models--")?.replacen("--", "/", 1)));
                let found = found.filter(|name| Repository::named(name).is_some()).collect();
                Err(HubError::NoRepository { cache: cache.to_owned(), found })
            }
        }
    }
}

/// Finds a model in the snapshot that counts, else in the newest of the others that has it: a new commit, of which another
/// model was downloaded, hides none of those that are there. If none has it, the error is that of the one that counts.
fn find_first(dir: PathBuf, find_in: impl Fn(&Path) -> Result<PathBuf, HubError>) -> Result<PathBuf, HubError> {
    let current = find_snapshot(dir.clone())?;
    let error = match find_in(&current) {
        Err(error @ (HubError::NoModel { .. } | HubError::NoQuant { .. })) => error,
        found => return found,
    };
    let mut others = snapshots_of(&dir);
    others.sort_unstable_by(|one, other| other.cmp(one));
    let others = others.into_iter().map(|(_, path)| path).filter(|path| *path != current);
    others.take(MAX_SNAPSHOTS).find_map(|snapshot| find_in(&snapshot).ok()).ok_or(error)
}

/// Finds the folder of the revision that `refs/main` names, else of the newest one.
pub(super) fn find_snapshot(dir: PathBuf) -> Result<PathBuf, HubError> {
    let snapshots = dir.join("snapshots");
    if let Some(main) = read_reference(&dir, MAIN).map(|main| snapshots.join(main)).filter(|main| main.is_dir()) {
        return Ok(main);
    }
    snapshots_of(&dir).into_iter().max().map(|(_, path)| path).ok_or(HubError::NoSnapshot { dir })
}

/// Returns the snapshots of the repository at `dir`, each with the time at which its folder was changed.
fn snapshots_of(dir: &Path) -> Vec<(Option<SystemTime>, PathBuf)> {
    let entries = fs::read_dir(dir.join("snapshots")).into_iter().flatten().flatten();
    let folders = entries.filter_map(|entry| {
        let metadata = fs::metadata(entry.path()).ok().filter(fs::Metadata::is_dir)?;
        Some((metadata.modified().ok(), entry.path()))
    });
    folders.collect()
}

/// Returns the commit that a revision of the repository at `dir` means. One that cannot be read is treated like a missing
/// one.
fn read_reference(dir: &Path, revision: &str) -> Option<String> {
    let mut text = String::new();
    let file = fs::File::open(dir.join("refs").join(revision)).ok()?;
    file.take(MAX_REFERENCE_BYTES).read_to_string(&mut text).ok()?;
    let commit = text.trim();
    (!commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_alphanumeric())).then(|| commit.to_owned())
}

/// Why no file was chosen.
enum NoChoice {
    NotFound { wanted: String },
    Several { quant: String, found: Vec<String> },
}

impl NoChoice {
    fn describe(self, models: &[PathBuf]) -> String {
        let names = || models.iter().map(|path| display(path)).collect::<Vec<_>>();
        match self {
            Self::NotFound { .. } if models.is_empty() => "it holds no model as a .gguf file".to_owned(),
            Self::NotFound { wanted } => format!("it has no {wanted}; {}", describe(&names())),
            Self::Several { quant, found } => format!("several of its files are a {quant}: {}", join_names(&found)),
        }
    }

    fn into_error(self, snapshot: &Path, models: &[PathBuf]) -> HubError {
        let snapshot = snapshot.to_owned();
        match self {
            Self::NotFound { .. } if models.is_empty() => HubError::NoModel { snapshot },
            Self::NotFound { wanted } => {
                HubError::NoQuant { snapshot, wanted, found: models.iter().map(|path| display(path)).collect() }
            }
            Self::Several { quant, found } => HubError::Several { snapshot, quant, found },
        }
    }
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

/// Chooses one of `models`: the one of this quantisation, or, without one, the only one or one of a preferred
/// quantisation.
fn choose<'p>(models: &'p [PathBuf], quant: Option<&str>) -> Result<&'p PathBuf, NoChoice> {
    if let Some(quant) = quant {
        return find_quant(models, quant)?.ok_or_else(|| NoChoice::NotFound { wanted: format!("model {quant}") });
    }
    if let [one] = models {
        return Ok(one);
    }
    for quant in PREFERRED {
        if let Some(path) = find_quant(models, quant)? {
            return Ok(path);
        }
    }
    Err(NoChoice::NotFound { wanted: format!("model {}, which are the default", PREFERRED.join(" or ")) })
}

/// Returns which files of a repository its model of this quantisation is: all parts of a split one, in order. `files` are the
/// paths of all its files.
///
/// # Errors
/// Why none was chosen, in one sentence.
pub fn choose_files(files: &[PathBuf], quant: Option<&str>) -> Result<Vec<PathBuf>, String> {
    let models: Vec<PathBuf> = files.iter().filter(|path| is_model(path)).cloned().collect();
    choose(&models, quant).map(|chosen| parts_of(chosen)).map_err(|reason| reason.describe(&models))
}

/// Returns whether the file at this path is a model by its name: no companion, and of a split model the first part.
fn is_model(path: &Path) -> bool {
    let is_first = SplitPart::of_path(path).is_none_or(|part| part.number == 1);
    is_first && is_gguf(path) && !has_companion_name(path)
}

/// Finds the model whose path contains this quantisation. If there are several, the one with the shortest id is chosen:
/// `M-Q4_K_M.gguf`, not `M-UD-Q4_K_M.gguf`.
fn find_quant<'p>(models: &'p [PathBuf], quant: &str) -> Result<Option<&'p PathBuf>, NoChoice> {
    let found: Vec<&PathBuf> = models.iter().filter(|path| has_quant(path, quant)).collect();
    let length = |path: &&&PathBuf| id_of(path).len();
    let shortest = found.iter().map(|path| length(&path)).min();
    match found.iter().filter(|path| Some(length(path)) == shortest).collect::<Vec<_>>().as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        several => {
            let found = several.iter().map(|path| display(path)).collect();
            Err(NoChoice::Several { quant: quant.to_owned(), found })
        }
    }
}

/// Whether the path contains this quantisation as whole words, in any case: `Q4_K` is not contained in `Q4_K_M`.
pub(super) fn has_quant(path: &Path, quant: &str) -> bool {
    let path = path.to_string_lossy().to_ascii_lowercase();
    let quant = quant.to_ascii_lowercase();
    let is_boundary = |byte: Option<u8>| byte.is_none_or(|byte| b"-./".contains(&byte));
    path.match_indices(&quant).any(|(at, word)| {
        let before = at.checked_sub(1).map(|at| path.as_bytes()[at]);
        is_boundary(before) && is_boundary(path.as_bytes().get(at + word.len()).copied())
    })
}

#[cfg(test)]
mod tests;
