//! What is known of a model without its weights, on the disk or on the hub.

use std::path::{Path, PathBuf};

use crate::download::{DownloadError, RemoteHeader};
use crate::models::estimate::requantized;
use crate::models::{self, Metadata, ModelError, ModelPlaces, RemoteName};

/// A model without its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownModel {
    /// The metadata of its file; of a split model, of the first part.
    pub metadata: Metadata,
    /// Bytes of all its files.
    pub size_bytes: u64,
    /// Bytes of its projector.
    pub projector_bytes: u64,
}

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A file of this machine.
    Disk(PathBuf),
    /// On the hub, or at an address.
    Network(RemoteName),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoFit {
    /// The model is not there, or cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The hub does not give it.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// A value that was given is not right.
    #[error("{0}")]
    Value(String),
    /// How much memory there is was neither given nor found.
    #[error("this machine does not tell how much memory is free")]
    NoMemory,
    /// Something else of this machine.
    #[error("{0}")]
    Machine(String),
}

impl ModelSource {
    /// Finds a model by its name: on the disk, else it may be on the network. Blocks.
    ///
    /// # Errors
    /// The name means no model, or more than one.
    pub fn find(places: &ModelPlaces, name: &str) -> Result<Self, NoFit> {
        match (models::find(places, name), RemoteName::parse(name)) {
            (Ok(path), _) => Ok(Self::Disk(path)),
            (Err(error), Ok(remote)) if error.is_missing() => Ok(Self::Network(remote)),
            (Err(error), _) => Err(error.into()),
        }
    }
}

impl KnownModel {
    /// Reads what is known of a file of this machine. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, or is no model.
    pub fn of_file(path: &Path) -> Result<Self, NoFit> {
        let model = models::check_readable(path)?;
        let projector = models::find_projector(path, &model.metadata).found;
        let projector_bytes = projector.map_or(0, |found| found.size_bytes);
        Ok(Self { metadata: model.metadata, size_bytes: model.size_bytes, projector_bytes })
    }

    /// Returns another quantisation of this model, by the sizes of its files.
    #[must_use]
    pub fn requantized(&self, size_bytes: u64, projector_bytes: u64) -> Self {
        Self { metadata: requantized(&self.metadata, self.size_bytes, size_bytes), size_bytes, projector_bytes }
    }
}

impl From<RemoteHeader> for KnownModel {
    fn from(RemoteHeader { metadata, size_bytes, projector_bytes, .. }: RemoteHeader) -> Self {
        Self { metadata, size_bytes, projector_bytes }
    }
}

impl NoFit {
    /// Returns what to do about it, if something can be done.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Model(error) => Some(error.hint()),
            Self::Download(error) => error.hint(),
            Self::NoMemory => Some("say how much: --memory, or ?memory= over HTTP"),
            Self::Value(_) | Self::Machine(_) => None,
        }
    }
}
