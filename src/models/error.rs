//! Why there is no model to serve: no file of that name ([`ModelError`]), or a file that cannot be used
//! ([`FileProblem`]).
//!
//! Owns the messages and the hints. Reads no file.

use std::io;
use std::path::{Path, PathBuf};

use super::gguf::GgufError;
use super::hub::HubError;
use super::split::id_of;
use super::stores::error::StoreError;

/// Most missing parts that a message names one by one.
const MAX_NAMED_PARTS: usize = 5;
/// Most similar names that a message suggests.
pub(super) const MAX_SUGGESTIONS: usize = 5;
/// Lowest similarity (Jaro-Winkler, 0 to 1) of a suggested name.
const MIN_SIMILARITY: f64 = 0.75;

/// Why there is no model to serve.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The name is empty.
    #[error("the model's name is empty")]
    NoName,
    /// A name that is a URL.
    #[error("this is an address, and of no model that can be downloaded")]
    Url,
    /// The models folder cannot be read.
    #[error("the models folder {} cannot be read: {source}", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// The error from the operating system.
        source: io::Error,
    },
    /// A name with `..` in it.
    #[error("the model name \"{name}\" leads out of the models folder")]
    Outside {
        /// The name.
        name: String,
    },
    /// There is no such model.
    #[error("there is no model \"{name}\" in {}; {}", dir.display(), suggest(similar, *has_models))]
    NotFound {
        /// The name.
        name: String,
        /// The folder that was searched.
        dir: PathBuf,
        /// Similar names, the most similar first.
        similar: Vec<String>,
        /// Whether the folder holds any model.
        has_models: bool,
    },
    /// More than one model of that name.
    #[error("the model name \"{name}\" means several files: {}", files.join(", "))]
    Ambiguous {
        /// The name.
        name: String,
        /// The files, relative to the models folder.
        files: Vec<String>,
    },
    /// Neither a file below the models folder nor a repository in the cache.
    #[error("{below}; and {hub}")]
    Nowhere {
        /// What is wrong with it as the name of a file.
        below: Box<ModelError>,
        /// What is wrong with it as the name of a repository.
        hub: HubError,
    },
    /// A repository in the cache has no model of that name.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A store has no model of that name.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file exists, but cannot be served.
    #[error("model file {} {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: Box<FileProblem>,
    },
}

impl ModelError {
    /// Returns what to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoName => "name a .gguf file, such as qwen3-4b.gguf",
            Self::Url => "name ORG/NAME[:QUANT], or https://HOST/FILE.gguf#sha256=HEX",
            Self::Folder { .. } => "create the folder, mount the volume, or set MODELS_DIR",
            Self::Outside { .. } => "name a file below MODELS_DIR, or give its full path in MODEL_PATH",
            Self::NotFound { .. } => {
                "put the .gguf file there, set MODELS_DIR, or give its full path; `llamagate list` names all that are here"
            }
            Self::Ambiguous { .. } => "name the file with its folder",
            Self::Nowhere { hub, .. } | Self::Hub(hub) => hub.hint(),
            Self::Store(store) => store.hint(),
            Self::File { problem, .. } => problem.hint(),
        }
    }

    /// Returns that the disk does not have it, in a few words, with the names that may have been meant.
    #[must_use]
    pub fn absence(&self) -> String {
        match self {
            Self::Nowhere { below, .. } => below.absence(),
            Self::NotFound { similar, .. } if !similar.is_empty() => {
                format!("it is not on the disk ({})", suggest(similar, true))
            }
            _ => "it is not on the disk".to_owned(),
        }
    }

    /// Returns whether there is no such file yet: a download may bring it.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::NotFound { .. } | Self::Folder { .. } | Self::Url | Self::Nowhere { .. } => true,
            Self::Hub(hub) => !matches!(hub, HubError::Several { .. }),
            Self::NoName | Self::Outside { .. } | Self::Ambiguous { .. } | Self::Store(_) | Self::File { .. } => false,
        }
    }

    /// Returns the file if its content is the problem: it is damaged or incomplete, rather than missing or the wrong
    /// one.
    #[must_use]
    pub fn broken_file(&self) -> Option<&Path> {
        let Self::File { path, problem } = self else { return None };
        let is_broken = match &**problem {
            FileProblem::Gguf(error) | FileProblem::Part { source: error, .. } => {
                !matches!(error, GgufError::Io(_) | GgufError::Folder | GgufError::NotAFile)
            }
            FileProblem::MissingParts { .. } | FileProblem::Renamed { .. } => true,
            FileProblem::NotFirst { .. }
            | FileProblem::NoModel { .. }
            | FileProblem::NoProjector
            | FileProblem::NoAdapter
            | FileProblem::OtherArchitecture { .. }
            | FileProblem::Draft => false,
        };
        is_broken.then_some(path)
    }

    /// Returns what is wrong with the file and what to do about it, in one sentence that names no path.
    #[must_use]
    pub fn sentence(&self) -> String {
        let problem = match self {
            Self::File { problem, .. } => match &**problem {
                FileProblem::NotFirst { .. } => "is not the first part of its model".to_owned(),
                problem => problem.to_string(),
            },
            _ => "cannot be found".to_owned(),
        };
        format!("the model file {problem}; {}", self.hint())
    }

    /// Returns the operating system's error about the file, if there is one.
    #[must_use]
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::File { problem, .. } => problem.io(),
            _ => None,
        }
    }
}

/// Why a file cannot be served as a model. Each message follows "the file ...".
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// The file is not a usable GGUF.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// One of the later parts is not a usable GGUF.
    #[error("cannot be used, because its part {number} {source}")]
    Part {
        /// Which part, counted from 1.
        number: usize,
        /// What is wrong with it.
        source: GgufError,
    },
    /// Parts are missing from its folder.
    #[error("is incomplete: {}", missing_parts(missing, *count))]
    MissingParts {
        /// Numbers of the missing parts, counted from 1.
        missing: Vec<usize>,
        /// How many parts the model has.
        count: usize,
    },
    /// It is a part, but llama-server needs the first one.
    #[error("is not the first part of its model; the first is {}", first.display())]
    NotFirst {
        /// Path of the first part.
        first: PathBuf,
    },
    /// It is a part that was renamed, so llama-server cannot find the others.
    #[error("is one of {count} parts, but its name does not end in -NNNNN-of-{count:05}.gguf")]
    Renamed {
        /// How many parts the model has.
        count: u64,
    },
    /// It is a GGUF that does not hold a model.
    #[error("is {what}, not a model of its own")]
    NoModel {
        /// What it holds.
        what: String,
    },
    /// It is a GGUF that does not hold a projector.
    #[error("is no multimodal projector (mmproj)")]
    NoProjector,
    /// It is a GGUF that does not hold a LoRA adapter.
    #[error("is no LoRA adapter")]
    NoAdapter,
    /// It is an adapter for models of another architecture.
    #[error("is made for {of}, and the model is {needed}")]
    OtherArchitecture {
        /// The architecture of the adapter.
        of: String,
        /// That of the model.
        needed: String,
    },
    /// Its name says that it is the draft model of another one.
    #[error("is a draft model by its name, not a model of its own")]
    Draft,
}

impl FileProblem {
    /// Returns what to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Gguf(error) | Self::Part { source: error, .. } => error.hint(),
            Self::MissingParts { .. } => "download the missing parts into the same folder",
            Self::NotFirst { .. } => "name the first part; llama-server finds the others",
            Self::Renamed { .. } => {
                "give all parts their original names again, or join them with `llama-gguf-split --merge`"
            }
            Self::NoModel { .. } => "name the model that it belongs to",
            Self::NoProjector => "download the projector of the model, or give this file another name",
            Self::NoAdapter => "name a LoRA adapter as a GGUF file; llama.cpp's convert_lora_to_gguf.py makes one",
            Self::OtherArchitecture { .. } => "name an adapter that was trained for this model",
            Self::Draft => {
                "name the model that it belongs to, and this file in EXTRA_ARGS (`-md FILE`); to serve it all the same, list it under models: in llamagate.yaml"
            }
        }
    }

    /// Returns the operating system's error, if there is one.
    #[must_use]
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Gguf(GgufError::Io(error)) | Self::Part { source: GgufError::Io(error), .. } => Some(error),
            _ => None,
        }
    }
}

fn suggest(similar: &[String], has_models: bool) -> String {
    match similar {
        [] if has_models => "no name there is similar".to_owned(),
        [] => "the folder holds no .gguf file".to_owned(),
        [one] => format!("did you mean {one}?"),
        _ => format!("did you mean one of {}?", similar.join(", ")),
    }
}

fn missing_parts(missing: &[usize], count: usize) -> String {
    let named: Vec<String> = missing.iter().take(MAX_NAMED_PARTS).map(usize::to_string).collect();
    let more = missing.len().saturating_sub(MAX_NAMED_PARTS);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    match named.as_slice() {
        [one] => format!("part {one} of {count} is missing"),
        _ => format!("parts {}{more} of {count} are missing", named.join(", ")),
    }
}

/// Returns the models whose id is similar to `name`, the most similar first.
pub(super) fn similar_names(name: &str, models: &[PathBuf]) -> Vec<String> {
    let names = models.iter().map(|path| (id_of(path), path.display().to_string()));
    most_similar(&id_of(Path::new(name)), names)
}

/// Returns the texts that are similar to `name`, the most similar first.
pub(super) fn similar_texts(name: &str, texts: &[String]) -> Vec<String> {
    most_similar(name, texts.iter().map(|text| (text.clone(), text.clone())))
}

/// Returns the second text of each pair whose first is similar to `name`, the most similar first.
fn most_similar(name: &str, names: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let wanted = name.to_lowercase();
    let mut scored: Vec<(f64, String)> = names
        .map(|(name, shown)| (strsim::jaro_winkler(&wanted, &name.to_lowercase()), shown))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    scored.into_iter().take(MAX_SUGGESTIONS).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_parts_beyond_five_are_counted() {
        assert_eq!(missing_parts(&[2], 3), "part 2 of 3 is missing");
        assert_eq!(missing_parts(&[1, 2, 3, 4, 5, 6, 7], 9), "parts 1, 2, 3, 4, 5 and 2 more of 9 are missing");
    }
}
