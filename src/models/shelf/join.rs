//! One list out of the models of all places: each file once, and each name for one model.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use super::names::ShelfName;
use super::scanned::{PlacedModel, ShelfModel};
use crate::file_identity::FileIdentity;
use crate::models::places::PlaceKind;

/// The models of all places.
#[derive(Debug, Default)]
pub(super) struct Joined {
    pub(super) models: Vec<ShelfModel>,
    /// Place, path and sentence of each model that has another id than its own, or none.
    pub(super) remarks: Vec<(PlaceKind, PathBuf, String)>,
}

/// Joins the models of the places. Of two with one id the earlier keeps it. A file that an earlier place has too is served
/// once, and has all its names.
pub(super) fn join(places: impl Iterator<Item = (PlaceKind, Vec<PlacedModel>)>) -> Joined {
    let mut joined = Joined::default();
    let mut ids: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut files: HashMap<FileIdentity, (PlaceKind, usize)> = HashMap::new();
    for (kind, candidates) in places {
        for candidate in candidates {
            let PlacedModel { name: ShelfName { id, prefixed, mut aliases, .. }, shown, file, path, model, projector } =
                candidate;
            let earlier = file.and_then(|file| files.get(&file));
            // Two links in one folder are two names that were given on purpose.
            if let Some((_, at)) = earlier.filter(|(other, _)| *other != kind || kind == PlaceKind::Ollama) {
                let known: &mut ShelfModel = &mut joined.models[*at];
                known.aliases.push(id);
                known.aliases.append(&mut aliases);
                continue;
            }
            let is_free = |id: &String| !ids.contains_key(id);
            let Some(chosen) = [Some(id.clone()), prefixed].into_iter().flatten().find(is_free) else {
                let other = ids.get(&id).cloned().unwrap_or_default();
                let text = format!("is left out: it has the same id as {}", other.display());
                joined.remarks.push(remark(kind, shown, &text));
                continue;
            };
            if chosen != id {
                let text = format!("is served as {chosen:?}: {id:?} is another model");
                joined.remarks.push(remark(kind, shown.clone(), &text));
            }
            ids.insert(chosen.clone(), shown);
            if let Some(file) = file {
                files.entry(file).or_insert((kind, joined.models.len()));
            }
            joined.models.push(ShelfModel { id: chosen, aliases, path, model, projector });
        }
    }
    keep_clear_aliases(&mut joined.models, ids.into_keys().collect());
    joined
}

fn remark(kind: PlaceKind, path: PathBuf, text: &str) -> (PlaceKind, PathBuf, String) {
    let sentence = format!("{:?} in {} {text}", path.display().to_string(), kind.title());
    (kind, path, sentence)
}

/// Leaves each alias to the first model that has it, and none that is an id.
fn keep_clear_aliases(models: &mut [ShelfModel], ids: BTreeSet<String>) {
    let mut taken = ids;
    for model in models {
        model.aliases.retain(|alias| taken.insert(alias.clone()));
    }
}
