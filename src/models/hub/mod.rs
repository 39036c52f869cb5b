//! Models in a folder of Hugging Face's cache, as RunPod's cached models and `hf download` leave them there.
//!
//! `ORG/NAME[:QUANT]` means a GGUF file of a repository that has been downloaded already:
//! `models--ORG--NAME/{refs/main,snapshots/REVISION/...,blobs}`. Nothing is downloaded here. Whether the file is any good
//! is for [`super::check`] to say.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::folder_walk::walk;
use super::split::{SplitPart, id_of};

/// Quantisations that are taken when none is asked for, in this order, as llama.cpp does.
const PREFERRED: [&str; 2] = ["Q4_K_M", "Q8_0"];
/// What the names of files hold that go with a model but are none, in lower case, as llama.cpp tells them.
const BESIDE_A_MODEL: [&str; 6] = ["mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-"];
/// Most names in an error.
const NAMED: usize = 8;
/// More than any name of a revision takes, in bytes.
const REVISION_SIZE: u64 = 256;

/// A repository of models, and perhaps which of its files: `ORG/NAME[:QUANT]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repository<'a> {
    org: &'a str,
    name: &'a str,
    quant: Option<&'a str>,
}

/// Why a repository gives no model.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The folder of the cache.
    #[error("the Hugging Face cache {} cannot be read: {source}", cache.display())]
    Cache {
        /// The folder.
        cache: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// No such repository.
    #[error("the Hugging Face cache {} does not have it; {}", cache.display(), there_is(found))]
    NoRepository {
        /// The folder of the cache.
        cache: PathBuf,
        /// The repositories that it has.
        found: Vec<String>,
    },
    /// A repository of which no revision is there.
    #[error("{} holds no snapshot: its download has not come to an end", dir.display())]
    NoSnapshot {
        /// The repository's folder.
        dir: PathBuf,
    },
    /// A revision without a GGUF file.
    #[error("{} holds no model as a .gguf file", snapshot.display())]
    NoModel {
        /// The revision's folder.
        snapshot: PathBuf,
    },
    /// No file of that quantisation, or none is asked for and none of them is usual.
    #[error("{} has no {wanted}; {}", snapshot.display(), there_is(found))]
    NoQuant {
        /// The revision's folder.
        snapshot: PathBuf,
        /// What was looked for.
        wanted: String,
        /// The models that it holds.
        found: Vec<String>,
    },
    /// Several files of that quantisation.
    #[error("several files of {} are a {quant}: {}", snapshot.display(), listed(found))]
    Several {
        /// The revision's folder.
        snapshot: PathBuf,
        /// What was looked for.
        quant: String,
        /// The files.
        found: Vec<String>,
    },
}

impl HubError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Cache { .. } | Self::NoRepository { .. } => {
                "nothing is downloaded here: name it as the cached model of the RunPod endpoint, run `hf download ORG/NAME`, or set HF_HUB_CACHE"
            }
            Self::NoSnapshot { .. } => "download it again",
            Self::NoModel { .. } => "llama-server serves GGUF files: name a repository that holds them",
            Self::NoQuant { .. } | Self::Several { .. } => {
                "say ORG/NAME:QUANT, where QUANT is a part of one of these names"
            }
        }
    }

    /// Whether the cache has nothing of the repository, which then may have been meant as a name of another kind.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Cache { .. } | Self::NoRepository { .. })
    }
}

fn there_is(found: &[String]) -> String {
    if found.is_empty() { "there is none at all".to_owned() } else { format!("there is {}", listed(found)) }
}

fn listed(found: &[String]) -> String {
    let more = found.len().saturating_sub(NAMED);
    let named = found.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

impl<'a> Repository<'a> {
    /// Reads `ORG/NAME[:QUANT]`; none if it cannot be the name of a repository. A path to a `.gguf` file is none.
    #[must_use]
    pub fn named(text: &'a str) -> Option<Self> {
        let (path, quant) = match text.split_once(':') {
            Some((path, quant)) => (path, Some(quant)),
            None => (text, None),
        };
        let (org, name) = path.split_once('/')?;
        // So that no folder but those of the cache can be named.
        let is_plain = |word: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            !word.is_empty() && !word.starts_with('.') && word.bytes().all(allowed)
        };
        let is_file = Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        ([org, name].into_iter().chain(quant).all(is_plain) && !is_file).then_some(Self { org, name, quant })
    }

    /// What clients may call it: with the quantisation, if one is asked for, and without.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let bare = format!("{}/{}", self.org, self.name);
        self.quant.map(|quant| format!("{bare}:{quant}")).into_iter().chain([bare.clone()]).collect()
    }

    /// The file that it means in the cache at `cache`; of a model in parts, the first.
    pub fn file_in(&self, cache: &Path) -> Result<PathBuf, HubError> {
        let snapshot = snapshot_of(self.folder_in(cache)?)?;
        let below = walk(&snapshot).map_err(|source| HubError::Cache { cache: cache.to_owned(), source })?;
        let models: Vec<PathBuf> = below.models.into_iter().filter(|path| is_model(path)).collect();
        let path = choose(&models, self.quant).map_err(|choice| choice.error(&snapshot, &models))?;
        let path = snapshot.join(path);
        Ok(SplitPart::of_path(&path).and_then(|part| part.siblings(&path).next()).unwrap_or(path))
    }

    /// The repository's folder, whose name may differ in case: RunPod writes some of them in lower case.
    fn folder_in(&self, cache: &Path) -> Result<PathBuf, HubError> {
        let failed = |source| HubError::Cache { cache: cache.to_owned(), source };
        let wanted = format!("models--{}--{}", self.org, self.name);
        let mut names = Vec::new();
        for entry in fs::read_dir(cache).map_err(failed)? {
            names.extend(entry.map_err(failed)?.file_name().into_string());
        }
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

/// The folder of the revision that `refs/main` names, else of the one that came last.
fn snapshot_of(dir: PathBuf) -> Result<PathBuf, HubError> {
    let snapshots = dir.join("snapshots");
    let mut main = String::new();
    // A broken reference is no worse than none.
    let _ = fs::File::open(dir.join("refs/main")).and_then(|file| file.take(REVISION_SIZE).read_to_string(&mut main));
    let main = main.trim();
    if !main.is_empty() && main.bytes().all(|byte| byte.is_ascii_alphanumeric()) && snapshots.join(main).is_dir() {
        return Ok(snapshots.join(main));
    }
    let entries = fs::read_dir(&snapshots).into_iter().flatten().flatten();
    let folders = entries.filter_map(|entry| {
        let metadata = fs::metadata(entry.path()).ok().filter(fs::Metadata::is_dir)?;
        Some((metadata.modified().ok(), entry.path()))
    });
    folders.max().map(|(_, path)| path).ok_or(HubError::NoSnapshot { dir })
}

/// Whether a file is a model of its own, as far as its name tells.
fn is_model(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    !BESIDE_A_MODEL.iter().any(|word| name.contains(word))
}

/// Why no file was chosen.
enum Choice {
    Nothing { wanted: String },
    Several { quant: String, found: Vec<String> },
}

impl Choice {
    fn error(self, snapshot: &Path, models: &[PathBuf]) -> HubError {
        let snapshot = snapshot.to_owned();
        match self {
            Self::Nothing { .. } if models.is_empty() => HubError::NoModel { snapshot },
            Self::Nothing { wanted } => {
                HubError::NoQuant { snapshot, wanted, found: models.iter().map(|path| shown(path)).collect() }
            }
            Self::Several { quant, found } => HubError::Several { snapshot, quant, found },
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The one of `models` that is meant: of this quantisation, or, if none is asked for, a usual one, or the only one.
fn choose<'p>(models: &'p [PathBuf], quant: Option<&str>) -> Result<&'p PathBuf, Choice> {
    if let Some(quant) = quant {
        return of_quant(models, quant)?.ok_or_else(|| Choice::Nothing { wanted: format!("model {quant}") });
    }
    if let [one] = models {
        return Ok(one);
    }
    for quant in PREFERRED {
        if let Some(path) = of_quant(models, quant)? {
            return Ok(path);
        }
    }
    Err(Choice::Nothing { wanted: format!("model {}, which are taken where none is named", PREFERRED.join(" or ")) })
}

/// The model whose path has this quantisation in it. Of several it is the one with the shortest name, which has the least
/// besides: `M-Q4_K_M.gguf`, not `M-UD-Q4_K_M.gguf`.
fn of_quant<'p>(models: &'p [PathBuf], quant: &str) -> Result<Option<&'p PathBuf>, Choice> {
    let found: Vec<&PathBuf> = models.iter().filter(|path| has_quant(path, quant)).collect();
    let length = |path: &&&PathBuf| id_of(path).len();
    let shortest = found.iter().map(|path| length(&path)).min();
    match found.iter().filter(|path| Some(length(path)) == shortest).collect::<Vec<_>>().as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        several => {
            let found = several.iter().map(|path| shown(path)).collect();
            Err(Choice::Several { quant: quant.to_owned(), found })
        }
    }
}

/// Whether the path holds this quantisation as a whole word, or whole words, in any case: `Q4_K` is not in `Q4_K_M`.
fn has_quant(path: &Path, quant: &str) -> bool {
    let path = path.to_string_lossy().to_ascii_lowercase();
    let quant = quant.to_ascii_lowercase();
    let ends = |byte: Option<u8>| byte.is_none_or(|byte| b"-./".contains(&byte));
    path.match_indices(&quant).any(|(at, word)| {
        let before = at.checked_sub(1).map(|at| path.as_bytes()[at]);
        ends(before) && ends(path.as_bytes().get(at + word.len()).copied())
    })
}

#[cfg(test)]
mod tests;
