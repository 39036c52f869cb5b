//! The models of one folder of GGUF files: `MODELS_DIR`, Hugging Face's cache, or LM Studio's folder.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use super::names::{is_in_hub_layout, is_of_current_revision, names_of};
use super::scanned::{PlaceScan, PlacedModel};
use super::seen::{BrokenShelfFile, Finding, SeenFile, inspect, look};
use crate::models::bounds::MOST_SHELF_MODELS;
use crate::models::check::InspectedModel;
use crate::models::companions::choice::has_projector_name;
use crate::models::companions::projector::{
    BrokenProjector, ProjectorCandidate, ProjectorFolder, ProjectorSearch, search_snapshot, snapshot_of,
};
use crate::models::error::FileProblem;
use crate::models::folder_walk::walk;
use crate::models::places::PlaceKind;

/// What is known about the files below one folder, by their paths in it.
#[derive(Debug, Default)]
pub(super) struct FolderShelf {
    files: BTreeMap<PathBuf, SeenFile>,
}

impl FolderShelf {
    /// Scans the models below `dir`, as [`walk`] finds them.
    ///
    /// # Errors
    ///
    /// `dir` itself cannot be read; then nothing that is known is forgotten.
    pub(super) fn scan(&mut self, kind: PlaceKind, dir: &Path) -> io::Result<PlaceScan> {
        let below = walk(dir)?;
        let mut scan = PlaceScan::default();
        for (path, reason) in below.skipped {
            scan.leave_out(path, &reason);
        }
        let mut earlier = std::mem::take(&mut self.files);
        let (mut revisions, mut paths) = (HashMap::new(), Vec::new());
        for path in below.models {
            // What does not lie as in the hub's cache is no part of it.
            let is_foreign = kind == PlaceKind::Hub && !is_in_hub_layout(&path);
            if is_foreign || !is_of_current_revision(dir, &path, &mut revisions) {
                continue;
            }
            if paths.len() == MOST_SHELF_MODELS {
                scan.leave_out(path, &format!("is one model too many: {MOST_SHELF_MODELS} are served at most"));
                break;
            }
            let seen = look(&dir.join(&path), earlier.remove(&path));
            if matches!(seen.finding, Finding::Model(_)) {
                paths.push(path.clone());
            }
            self.files.insert(path, seen);
        }
        self.describe(kind, dir, &paths, &mut scan);
        Ok(scan)
    }

    /// Adds the models at these paths, and what is broken.
    fn describe(&self, kind: PlaceKind, dir: &Path, paths: &[PathBuf], scan: &mut PlaceScan) {
        let folders = self.folders();
        for (path, name) in paths.iter().zip(names_of(kind, paths)) {
            let Some(seen @ SeenFile { finding: Finding::Model(model), .. }) = self.files.get(path) else { continue };
            let name = match name.checked() {
                Ok(name) => name,
                Err(fault) => {
                    scan.leave_out(path.clone(), fault);
                    continue;
                }
            };
            let full = dir.join(path);
            let width = model.metadata.embedding_length;
            let folder = || path.parent().and_then(|parent| folders.get(parent));
            let projector = match snapshot_of(&full) {
                Some(snapshot) => self.search_snapshot(dir, snapshot, &full, width),
                None => folder().map(|folder| folder.search(&full, width)).unwrap_or_default(),
            };
            scan.models.push(PlacedModel {
                name,
                shown: path.clone(),
                file: seen.identity(),
                projector,
                path: full,
                model: InspectedModel::clone(model),
            });
        }
        for (path, seen) in &self.files {
            if let Finding::Broken(broken) = &seen.finding {
                scan.leave_out(path.clone(), &broken.fault);
                scan.broken.push(broken.clone());
            }
        }
    }

    /// Searches a snapshot of Hugging Face's cache for the projector of the model at `model`.
    fn search_snapshot(&self, dir: &Path, snapshot: &Path, model: &Path, width: Option<u64>) -> ProjectorSearch {
        let below = |path: &PathBuf| dir.join(path).strip_prefix(snapshot).ok().map(Path::to_owned);
        let files = self.files.keys().filter_map(below).collect();
        let read = |path: &Path| {
            let seen = path.strip_prefix(dir).ok().and_then(|path| self.files.get(path));
            match seen.map(|seen| &seen.finding) {
                Some(Finding::Projector(candidate)) => Ok(ProjectorCandidate::clone(candidate)),
                // Read again, because only what is wrong with it is kept.
                _ => Err(inspect(path).err().unwrap_or(FileProblem::NoProjector)),
            }
        };
        search_snapshot(model, snapshot, files, width, &read)
    }

    /// Returns the models and projectors of each folder.
    fn folders(&self) -> HashMap<PathBuf, ProjectorFolder> {
        let mut folders: HashMap<PathBuf, ProjectorFolder> = HashMap::new();
        for (path, seen) in &self.files {
            let Some(parent) = path.parent() else { continue };
            let folder = folders.entry(parent.to_owned()).or_default();
            match &seen.finding {
                Finding::Model(_) => folder.add_model(path),
                Finding::Projector(candidate) => folder.candidates.push(ProjectorCandidate::clone(candidate)),
                Finding::Broken(BrokenShelfFile { path, fault, hint, .. }) if has_projector_name(path) => {
                    folder.broken.push(BrokenProjector { path: path.clone(), fault: fault.clone(), hint });
                }
                Finding::Companion | Finding::Broken(_) => {}
            }
        }
        folders
    }
}
