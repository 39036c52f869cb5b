//! What the scan of one place returns, and what becomes of it.

use std::path::PathBuf;

use super::names::ShelfName;
use super::seen::BrokenShelfFile;
use crate::file_identity::FileIdentity;
use crate::models::check::InspectedModel;
use crate::models::companions::projector::ProjectorSearch;

/// A model of the shelf.
#[derive(Debug, Clone, PartialEq)]
pub struct ShelfModel {
    /// The id that clients use.
    pub id: String,
    /// Other names that mean it.
    pub aliases: Vec<String>,
    /// The file, or its first part.
    pub path: PathBuf,
    /// Its metadata and size.
    pub model: InspectedModel,
    /// The result of the search for its projector.
    pub projector: ProjectorSearch,
}

/// A model of one place.
#[derive(Debug)]
pub(super) struct PlacedModel {
    /// Its names.
    pub(super) name: ShelfName,
    /// What it is called in its place.
    pub(super) shown: PathBuf,
    /// Tells whether another candidate is the same file.
    pub(super) file: Option<FileIdentity>,
    /// The file, or its first part.
    pub(super) path: PathBuf,
    /// Its metadata and size.
    pub(super) model: InspectedModel,
    /// The result of the search for its projector.
    pub(super) projector: ProjectorSearch,
}

/// What one place holds.
#[derive(Debug, Default)]
pub(super) struct PlaceScan {
    /// The models, sorted by path.
    pub(super) models: Vec<PlacedModel>,
    /// The files that cannot be served.
    pub(super) broken: Vec<BrokenShelfFile>,
    /// What is not served as it is, by its path in the place, with the rest of a sentence that begins with that.
    pub(super) remarks: Vec<(PathBuf, String)>,
}

impl PlaceScan {
    /// Notes that something is left out. `fault` follows "it".
    pub(super) fn leave_out(&mut self, path: PathBuf, fault: &str) {
        self.remarks.push((path, format!("is left out: it {fault}")));
    }
}
