//! A folder of models as a shelf: every model below it is served under the name of its file.
//!
//! Owns the ids, and what is left out and why. A scan reads the header of a file once, and again only after the file
//! has changed. Files that are being written are left out until they are whole.
//!
//! - `names.rs`: the ids of models in a folder
//! - `seen.rs`: what a file is

mod names;
mod seen;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::bounds::MOST_SHELF_MODELS;
use super::check::InspectedModel;
use super::companions::projector::{
    BrokenProjector, ProjectorCandidate, ProjectorFolder, ProjectorSearch, has_projector_name,
};
use super::error::ModelError;
use super::folder_walk::walk;
pub(super) use names::ids_of;
use names::is_of_current_revision;
pub use seen::BrokenShelfFile;
use seen::{Finding, SeenFile, look};

/// Most files that one scan names one by one as left out.
const MOST_NAMED: usize = 10;
/// What is known about the files below a folder from earlier scans.
#[derive(Debug, Default)]
pub struct Shelf {
    files: BTreeMap<PathBuf, SeenFile>,
    /// What the last scan left out, so that it is reported only once.
    reported: BTreeSet<PathBuf>,
}

/// A model of the shelf.
#[derive(Debug, Clone, PartialEq)]
pub struct ShelfModel {
    /// The id that clients use.
    pub id: String,
    /// The id with its folder, if that is another name.
    pub alias: Option<String>,
    /// The file, or its first part.
    pub path: PathBuf,
    /// Its metadata and size.
    pub model: InspectedModel,
    /// The result of the search for its projector.
    pub projector: ProjectorSearch,
}

/// The result of one scan.
#[derive(Debug, Default)]
pub struct ShelfScan {
    /// The models, sorted by path.
    pub models: Vec<ShelfModel>,
    /// The files that cannot be served.
    pub broken: Vec<BrokenShelfFile>,
    /// Sentences about what is left out and was not before.
    pub notes: Vec<String>,
}

impl Shelf {
    /// Scans the models below `dir`, as [`walk`] finds them.
    ///
    /// # Errors
    ///
    /// `dir` itself cannot be read; then nothing that is known is forgotten.
    pub fn scan(&mut self, dir: &Path) -> Result<ShelfScan, ModelError> {
        let below = walk(dir).map_err(|source| ModelError::Folder { dir: dir.to_owned(), source })?;
        let mut left_out: Vec<(PathBuf, String)> = below.skipped;
        let mut earlier = std::mem::take(&mut self.files);
        let mut revisions = HashMap::new();
        let mut paths = Vec::new();
        for path in below.models {
            if !is_of_current_revision(dir, &path, &mut revisions) {
                continue;
            }
            if paths.len() == MOST_SHELF_MODELS {
                let reason = format!("is one model too many: {MOST_SHELF_MODELS} are served at most");
                left_out.push((path, reason));
                break;
            }
            let seen = look(&dir.join(&path), earlier.remove(&path));
            if matches!(seen.finding, Finding::Model(_)) {
                paths.push(path.clone());
            }
            self.files.insert(path, seen);
        }
        let mut scan = ShelfScan::default();
        let folders = self.folders();
        let mut taken: BTreeMap<String, &Path> = BTreeMap::new();
        for (path, name) in paths.iter().zip(ids_of(&paths)) {
            let Some(SeenFile { finding: Finding::Model(model), .. }) = self.files.get(path) else { continue };
            let name = match name.checked() {
                Ok(name) => name,
                Err(fault) => {
                    left_out.push((path.clone(), fault.to_owned()));
                    continue;
                }
            };
            if let Some(other) = taken.get(&name.id) {
                left_out.push((path.clone(), format!("has the same id as {}", other.display())));
                continue;
            }
            taken.insert(name.id.clone(), path);
            let folder = path.parent().and_then(|parent| folders.get(parent));
            let full = dir.join(path);
            let width = model.metadata.embedding_length;
            let projector = folder.map(|folder| folder.search(&full, width)).unwrap_or_default();
            let model = InspectedModel::clone(model);
            scan.models.push(ShelfModel { id: name.id, alias: name.alias, path: full, model, projector });
        }
        for (path, seen) in &self.files {
            if let Finding::Broken(broken) = &seen.finding {
                left_out.push((path.clone(), broken.fault.clone()));
                scan.broken.push(broken.clone());
            }
        }
        scan.notes = self.report(left_out);
        Ok(scan)
    }

    /// Returns the models and projectors of each folder.
    fn folders(&self) -> HashMap<PathBuf, ProjectorFolder> {
        let mut folders: HashMap<PathBuf, ProjectorFolder> = HashMap::new();
        for (path, seen) in &self.files {
            let Some(parent) = path.parent() else { continue };
            let folder = folders.entry(parent.to_owned()).or_default();
            match &seen.finding {
                Finding::Model(_) => folder.models += 1,
                Finding::Projector(candidate) => folder.candidates.push(ProjectorCandidate::clone(candidate)),
                Finding::Broken(BrokenShelfFile { path, fault, hint, .. }) if has_projector_name(path) => {
                    folder.broken.push(BrokenProjector { path: path.clone(), fault: fault.clone(), hint });
                }
                Finding::Companion | Finding::Broken(_) => {}
            }
        }
        folders
    }

    /// Returns a sentence for each path that the last scan did not leave out.
    fn report(&mut self, left_out: Vec<(PathBuf, String)>) -> Vec<String> {
        let is_new = |(path, _): &&(PathBuf, String)| !self.reported.contains(path);
        let mut notes: Vec<String> = left_out
            .iter()
            .filter(is_new)
            .map(|(path, fault)| {
                format!("{:?} in the models folder is left out: it {fault}", path.display().to_string())
            })
            .collect();
        let more = notes.len().saturating_sub(MOST_NAMED);
        if more > 0 {
            notes.truncate(MOST_NAMED);
            notes.push(format!("{more} more files in the models folder are left out; `llamagate models` lists them"));
        }
        self.reported = left_out.into_iter().map(|(path, _)| path).collect();
        notes
    }
}

#[cfg(test)]
mod tests;
