//! Names with the prefix of a store: `ollama:qwen3:4b`, `lmstudio:PUBLISHER/REPOSITORY/FILE.gguf`.

use std::path::PathBuf;

use super::error::StoreError;
use super::lm_studio;
use super::ollama::{OllamaFiles, OllamaStore};
use super::ollama_name::OllamaName;
use crate::models::places::{ModelPlaces, PlaceKind};

/// A name that means a model of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreName<'a> {
    kind: PlaceKind,
    /// The text behind the prefix.
    rest: &'a str,
}

impl<'a> StoreName<'a> {
    /// Parses a name. Returns `None` if it has no such prefix.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (prefix, rest) = text.trim().split_once(':')?;
        let kind = [PlaceKind::Ollama, PlaceKind::LmStudio].into_iter().find(|kind| kind.word() == prefix)?;
        Some(Self { kind, rest })
    }

    /// Returns the id of a model that is named so: as its program writes it. `None` if it has the id of its file.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        match self.kind {
            PlaceKind::Ollama => Some(OllamaName::parse(self.rest)?.to_string()),
            _ => None,
        }
    }

    /// Returns the names that clients may use besides the id.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let prefixed = format!("{}:{}", self.kind, self.rest);
        if self.rest.is_empty() {
            return vec![prefixed];
        }
        let bare = match self.kind {
            PlaceKind::Ollama => OllamaName::parse(self.rest).map_or_else(Vec::new, |name| name.texts().split_off(1)),
            _ => vec![self.rest.to_owned()],
        };
        std::iter::once(prefixed).chain(bare).collect()
    }

    /// Finds the file that it means.
    ///
    /// # Errors
    ///
    /// The store is not there, has no such model, or that cannot be served.
    pub(in crate::models) fn find_file(&self, places: &ModelPlaces) -> Result<PathBuf, StoreError> {
        match self.kind {
            PlaceKind::LmStudio => {
                lm_studio::find(places.lm_studio.as_deref().ok_or_else(|| self.no_store())?, self.rest)
            }
            _ => self.find_in_ollama(places).map(|files| files.model),
        }
    }

    /// Returns the projectors that the store has for it; `None` if they lie beside its file.
    pub(in crate::models) fn find_projectors(&self, places: &ModelPlaces) -> Option<Vec<PathBuf>> {
        match self.kind {
            PlaceKind::LmStudio => None,
            _ => Some(self.find_in_ollama(places).map_or_else(|_| Vec::new(), |files| files.projectors)),
        }
    }

    fn find_in_ollama(&self, places: &ModelPlaces) -> Result<OllamaFiles, StoreError> {
        let folder = places.ollama.as_deref().ok_or_else(|| self.no_store())?;
        let unreadable = |source| StoreError::Folder { kind: self.kind, folder: folder.to_owned(), source };
        OllamaStore::open(folder).map_err(unreadable)?.find(self.rest)
    }

    fn no_store(&self) -> StoreError {
        StoreError::NoStore { kind: self.kind, name: format!("{}:{}", self.kind, self.rest) }
    }
}
