//! The models of Ollama's store, under the names that Ollama has for them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::names::ShelfName;
use super::scanned::{PlaceScan, PlacedModel};
use super::seen::{Finding, SeenFile, look};
use crate::models::bounds::MOST_SHELF_MODELS;
use crate::models::check::InspectedModel;
use crate::models::companions::projector::{BrokenProjector, ProjectorSearch};
use crate::models::gguf;
use crate::models::places::PlaceKind;
use crate::models::stores::ollama::{OllamaEntry, OllamaStore};
use crate::models::stores::ollama_name::OllamaName;

/// What is known about the blobs of the store.
#[derive(Debug, Default)]
pub(super) struct OllamaShelf {
    blobs: BTreeMap<PathBuf, SeenFile>,
}

impl OllamaShelf {
    /// Scans the store in this folder.
    ///
    /// # Errors
    ///
    /// The folder cannot be read; then nothing that is known is forgotten.
    pub(super) fn scan(&mut self, folder: &Path) -> io::Result<PlaceScan> {
        let listing = OllamaStore::open(folder)?.list()?;
        let mut scan = PlaceScan::default();
        for (path, reason) in listing.skipped {
            scan.leave_out(path, &reason);
        }
        let mut earlier = std::mem::take(&mut self.blobs);
        for OllamaEntry { name, files } in listing.entries {
            let shown = PathBuf::from(name.to_string());
            let files = match files {
                Ok(_) if scan.models.len() == MOST_SHELF_MODELS => {
                    scan.leave_out(shown, &format!("is one model too many: {MOST_SHELF_MODELS} are served at most"));
                    break;
                }
                Ok(files) => files,
                Err(fault) => {
                    scan.leave_out(shown, &fault.to_string());
                    continue;
                }
            };
            for blob in files.projectors.iter().chain([&files.model]) {
                self.see(blob, &mut earlier);
            }
            let Some(seen) = self.blobs.get(&files.model) else { continue };
            match &seen.finding {
                Finding::Model(model) => {
                    let mut model = InspectedModel::clone(model);
                    model.metadata.has_reranker_name |= gguf::is_reranker_name(&name.to_string());
                    let (projector, file) = (self.projectors(&files.projectors), seen.identity());
                    let name = shelf_name(&name);
                    scan.models.push(PlacedModel { name, shown, file, path: files.model, model, projector });
                }
                Finding::Broken(broken) => {
                    scan.leave_out(shown, &format!("has a file that {}", broken.fault));
                    scan.broken.push(broken.clone());
                }
                Finding::Projector(_) | Finding::Companion => {
                    scan.leave_out(shown, "has a model file that holds no model of its own");
                }
            }
        }
        Ok(scan)
    }

    /// Looks at a blob, once in a scan.
    fn see(&mut self, blob: &Path, earlier: &mut BTreeMap<PathBuf, SeenFile>) {
        self.blobs.entry(blob.to_owned()).or_insert_with(|| look(blob, earlier.remove(blob)));
    }

    fn projectors(&self, blobs: &[PathBuf]) -> ProjectorSearch {
        let (mut good, mut broken) = (Vec::new(), Vec::new());
        for path in blobs {
            match self.blobs.get(path).map(|seen| &seen.finding) {
                Some(Finding::Projector(candidate)) => good.push(candidate.projector().clone()),
                Some(Finding::Broken(found)) => {
                    let (fault, hint) = (found.fault.clone(), found.hint);
                    broken.push(BrokenProjector { path: path.clone(), fault, hint });
                }
                _ => {}
            }
        }
        ProjectorSearch::of_one_model(good, broken)
    }
}

fn shelf_name(name: &OllamaName) -> ShelfName {
    let prefixed = |text: &String| format!("{}:{text}", PlaceKind::Ollama);
    let texts = name.texts();
    let aliases = texts.iter().skip(1).cloned().chain(texts.iter().map(prefixed)).collect();
    let id = name.to_string();
    ShelfName::new(id.clone(), Some(prefixed(&id)), aliases)
}
