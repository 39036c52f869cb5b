//! Why a name means no model of a store, and what to do about it.

use std::io;
use std::path::PathBuf;

use super::manifest::ManifestFault;
use crate::models::places::PlaceKind;

/// What to do where only Ollama's service may read its store.
pub(in crate::models) const OLLAMA_GROUP_HINT: &str =
    "add the user that runs llamagate to the group of Ollama's service: usermod -aG ollama USER";

/// Why a name means no model of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such store.
    #[error("there is no model \"{name}\": {} is not on this machine, or MODEL_STORES leaves it out", kind.title())]
    NoStore {
        /// Which one.
        kind: PlaceKind,
        /// The name, with its prefix.
        name: String,
    },
    /// The store cannot be read.
    #[error("{} in {} cannot be read: {source}", kind.title(), folder.display())]
    Folder {
        /// Which one.
        kind: PlaceKind,
        /// Its folder.
        folder: PathBuf,
        /// The error from the operating system.
        source: io::Error,
    },
    /// There is no such model.
    #[error("there is no model \"{name}\" of {} in {}; {}", kind.title(), folder.display(), suggest(similar, *has_models))]
    NotFound {
        /// Which store.
        kind: PlaceKind,
        /// The name, with its prefix.
        name: String,
        /// The folder that was searched.
        folder: PathBuf,
        /// Similar names, the most similar first.
        similar: Vec<String>,
        /// Whether the store holds any model.
        has_models: bool,
    },
    /// The name means more than one file.
    #[error("the name \"{name}\" is not of one model of {}: {reason}", kind.title())]
    Unclear {
        /// Which store.
        kind: PlaceKind,
        /// The name, with its prefix.
        name: String,
        /// Why it is not clear.
        reason: String,
    },
    /// The model is there, but cannot be served.
    #[error("the model \"{name}\" of Ollama's store cannot be served: it {fault}")]
    Unusable {
        /// The name, with its prefix.
        name: String,
        /// What is wrong with it.
        fault: OllamaFault,
    },
}

impl StoreError {
    /// Returns what to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoStore { kind: PlaceKind::LmStudio, .. } | Self::Folder { kind: PlaceKind::LmStudio, .. } => {
                "set LM_STUDIO_MODELS to LM Studio's folder of models"
            }
            Self::Folder { source, .. } if is_forbidden(source) => OLLAMA_GROUP_HINT,
            Self::NoStore { .. } | Self::Folder { .. } => {
                "set OLLAMA_MODELS to Ollama's folder of models, and see that this user may read it"
            }
            Self::NotFound { .. } => {
                "`llamagate list` names the models that are here; a name with this prefix is never downloaded"
            }
            Self::Unclear { .. } => "name the file with its folder",
            Self::Unusable { fault, .. } => fault.hint(),
        }
    }
}

/// Why a model of Ollama's store cannot be served. Each message follows "it".
#[derive(Debug, thiserror::Error)]
pub enum OllamaFault {
    /// The manifest cannot be read.
    #[error("has a manifest that cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The manifest is larger than any is.
    #[error("has a manifest of more than {0} bytes")]
    TooLarge(u64),
    /// What the manifest says cannot be served.
    #[error(transparent)]
    Manifest(#[from] ManifestFault),
    /// A blob cannot be read.
    #[error("has a file that cannot be read, {blob}: {source}")]
    Unreadable {
        /// Its name.
        blob: String,
        /// The error from the operating system.
        source: io::Error,
    },
    /// A blob is not there.
    #[error("has no file {blob}")]
    NoBlob {
        /// Its name.
        blob: String,
    },
    /// A blob has another size than the manifest says.
    #[error("is incomplete: {blob} has {actual} of {expected} bytes")]
    Short {
        /// Its name.
        blob: String,
        /// Its size in bytes.
        actual: u64,
        /// The size in bytes that the manifest gives.
        expected: u64,
    },
    /// A link leads out of the store.
    #[error("is a link that leads out of the store, at {0}")]
    Outside(String),
}

impl OllamaFault {
    /// Returns the fault for a list, in which only what this user may not read needs a hint.
    #[must_use]
    pub fn listed(&self) -> String {
        match self {
            Self::Io(error) | Self::Unreadable { source: error, .. } if is_forbidden(error) => {
                format!("{self}; {OLLAMA_GROUP_HINT}")
            }
            _ => self.to_string(),
        }
    }

    /// Returns what to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Manifest(fault) => fault.hint(),
            Self::Io(error) | Self::Unreadable { source: error, .. } if is_forbidden(error) => OLLAMA_GROUP_HINT,
            Self::Io(_) | Self::Unreadable { .. } => "see that this user may read Ollama's store",
            Self::TooLarge(_) | Self::NoBlob { .. } | Self::Short { .. } => "run `ollama pull` for it again",
            Self::Outside(_) => "put the file itself into the store, or name it by its path",
        }
    }
}

/// Returns whether this user may not read something.
pub(in crate::models) fn is_forbidden(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

fn suggest(similar: &[String], has_models: bool) -> String {
    match similar {
        [] if has_models => "no name there is similar".to_owned(),
        [] => "it holds no model".to_owned(),
        [one] => format!("did you mean {one}?"),
        _ => format!("did you mean one of {}?", similar.join(", ")),
    }
}
