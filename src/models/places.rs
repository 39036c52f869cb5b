//! Where models lie on this machine.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// A kind of place in which models lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PlaceKind {
    /// `MODELS_DIR`
    Models,
    /// Hugging Face's cache, `HF_HUB_CACHE`.
    Hub,
    /// Ollama's store.
    Ollama,
    /// LM Studio's folder of models.
    LmStudio,
}

impl PlaceKind {
    /// The places besides `MODELS_DIR`, in the order in which they are looked at.
    pub const STORES: [Self; 3] = [Self::Hub, Self::Ollama, Self::LmStudio];

    /// Returns the word for it in settings and tables.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Models => "models",
            Self::Hub => "hub",
            Self::Ollama => "ollama",
            Self::LmStudio => "lmstudio",
        }
    }

    /// Returns what it is called in a sentence.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Models => "the models folder",
            Self::Hub => "Hugging Face's cache",
            Self::Ollama => "Ollama's store",
            Self::LmStudio => "LM Studio's folder",
        }
    }
}

impl fmt::Display for PlaceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The folders in which models are looked up by name, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelPlaces {
    /// `MODELS_DIR`
    pub models_dir: PathBuf,
    /// `HF_HUB_CACHE`
    pub hub_cache: PathBuf,
    /// Whether what is in `hub_cache` is listed and served without being named.
    pub adopts_hub: bool,
    /// The folder of Ollama's store, if it is there and `MODEL_STORES` has it.
    pub ollama: Option<PathBuf>,
    /// LM Studio's folder, if it is there and `MODEL_STORES` has it.
    pub lm_studio: Option<PathBuf>,
    /// The folders of other programs from which nothing is removed, whether or not `MODEL_STORES` has them.
    pub foreign: Vec<PathBuf>,
}

impl ModelPlaces {
    /// Returns the places whose models are listed, and served if none is named, in the order in which they are looked at.
    pub fn adopted(&self) -> impl Iterator<Item = (PlaceKind, &Path)> {
        let hub = self.adopts_hub.then_some(self.hub_cache.as_path());
        [
            (PlaceKind::Models, Some(self.models_dir.as_path())),
            (PlaceKind::Hub, hub),
            (PlaceKind::Ollama, self.ollama.as_deref()),
            (PlaceKind::LmStudio, self.lm_studio.as_deref()),
        ]
        .into_iter()
        .filter_map(|(kind, folder)| Some((kind, folder?)))
    }
}
