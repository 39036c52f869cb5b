//! The models that are served under their own names: those below `MODELS_DIR`, and those of the stores.
//!
//! Owns the names, and what is left out and why. A scan reads the header of a file once, and again only after the file
//! has changed. Files that are being written are left out until they are whole.
//!
//! - `folder.rs`: the models of one folder of GGUF files
//! - `join.rs`: one list out of those of all places, with different names
//! - `names.rs`: the names of models in a folder
//! - `ollama.rs`: the models of Ollama's store
//! - `scanned.rs`: what the scan of one place returns
//! - `seen.rs`: what a file is
//! - `tests/`: tests of folders and stores

mod folder;
mod join;
mod names;
mod ollama;
mod scanned;
mod seen;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::error::ModelError;
use super::places::{ModelPlaces, PlaceKind};
use super::stores::error::StoreError;
use folder::FolderShelf;
use join::join;
pub(super) use names::{commands_of, names_of};
use ollama::OllamaShelf;
use scanned::PlaceScan;
pub use scanned::ShelfModel;
pub use seen::BrokenShelfFile;

/// Most files that one scan names one by one as left out.
const MOST_NAMED: usize = 10;

/// What is known about the files of all places from earlier scans.
#[derive(Debug, Default)]
pub struct Shelf {
    /// The places that are folders of GGUF files.
    folders: BTreeMap<PlaceKind, FolderShelf>,
    ollama: OllamaShelf,
    /// The folders that the last scan could read.
    read: BTreeSet<PathBuf>,
    /// What the last scan left out, so that it is reported only once.
    reported: BTreeSet<(PlaceKind, PathBuf)>,
}

/// The result of one scan.
#[derive(Debug, Default)]
pub struct ShelfScan {
    /// The models, in the order of the places, and of a place sorted by path.
    pub models: Vec<ShelfModel>,
    /// The files that cannot be served.
    pub broken: Vec<BrokenShelfFile>,
    /// Sentences about what is left out and was not before.
    pub notes: Vec<String>,
}

impl Shelf {
    /// Scans the models of all places that are adopted. A store that is not there holds none, and so does one that could
    /// not be read before either.
    ///
    /// # Errors
    ///
    /// A place that could be read before cannot be now, or `MODELS_DIR` cannot be read and no other place has a model. Then
    /// nothing that is known is forgotten.
    pub fn scan(&mut self, places: &ModelPlaces) -> Result<ShelfScan, ModelError> {
        let (mut scans, mut read, mut remarks) = (Vec::new(), BTreeSet::new(), Vec::new());
        let mut unread = None;
        for (kind, folder) in places.adopted() {
            match self.scan_place(kind, folder) {
                Ok(scan) => {
                    read.insert(folder.to_owned());
                    scans.push((kind, scan));
                }
                Err(source) if self.read.contains(folder) => return Err(folder_error(kind, folder, source)),
                Err(source) if kind == PlaceKind::Hub && source.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    let shown = folder.display();
                    remarks.push((kind, PathBuf::new(), format!("{} {shown} is passed over: {source}", kind.title())));
                    unread = unread.or_else(|| (kind == PlaceKind::Models).then(|| folder_error(kind, folder, source)));
                }
            }
        }
        self.read = read;
        let mut scan = ShelfScan::default();
        for (kind, place) in &mut scans {
            scan.broken.append(&mut place.broken);
            let about = |(path, text): (PathBuf, String)| {
                let sentence = format!("{:?} in {} {text}", path.display().to_string(), kind.title());
                (*kind, path, sentence)
            };
            remarks.extend(std::mem::take(&mut place.remarks).into_iter().map(about));
        }
        let joined = join(scans.into_iter().map(|(kind, place)| (kind, place.models)));
        scan.models = joined.models;
        remarks.extend(joined.remarks);
        match unread {
            Some(error) if scan.models.is_empty() => return Err(error),
            _ => {}
        }
        scan.notes = self.report(remarks);
        Ok(scan)
    }

    fn scan_place(&mut self, kind: PlaceKind, folder: &Path) -> io::Result<PlaceScan> {
        match kind {
            PlaceKind::Ollama => self.ollama.scan(folder),
            PlaceKind::Models | PlaceKind::Hub | PlaceKind::LmStudio => {
                self.folders.entry(kind).or_default().scan(kind, folder)
            }
        }
    }

    /// Returns a sentence for each path that the last scan had no remark about.
    fn report(&mut self, remarks: Vec<(PlaceKind, PathBuf, String)>) -> Vec<String> {
        let is_new = |(kind, path, _): &&(PlaceKind, PathBuf, String)| !self.reported.contains(&(*kind, path.clone()));
        let mut notes: Vec<String> = remarks.iter().filter(is_new).map(|(_, _, sentence)| sentence.clone()).collect();
        let more = notes.len().saturating_sub(MOST_NAMED);
        if more > 0 {
            notes.truncate(MOST_NAMED);
            notes.push(format!("{more} more files are left out or renamed; `llamagate list` lists them"));
        }
        self.reported = remarks.into_iter().map(|(kind, path, _)| (kind, path)).collect();
        notes
    }
}

fn folder_error(kind: PlaceKind, folder: &Path, source: io::Error) -> ModelError {
    let folder = folder.to_owned();
    match kind {
        PlaceKind::Models => ModelError::Folder { dir: folder, source },
        kind => StoreError::Folder { kind, folder, source }.into(),
    }
}

#[cfg(test)]
mod tests;
