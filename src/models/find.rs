//! Finds the file that a model name means, in all places in which models lie.
//!
//! Does not read the file: [`super::check`] does.

use std::path::{Path, PathBuf};

use super::companions::projector::{BrokenProjector, ProjectorSearch, find_projector, read_projector};
use super::error::ModelError;
use super::gguf::{self, Metadata};
use super::hub::name::RemoteName;
use super::places::{ModelPlaces, PlaceKind};
use super::resolve::resolve;
use super::split::id_of;
use super::stores::name::StoreName;

/// Finds the file that `name` means below the models folder, as [`resolve`] does, else in the Hugging Face cache, where
/// [`RemoteName`]s name a repository or a file of one. A name with the prefix of a store is looked up there alone.
///
/// # Errors
///
/// Neither place has the model, or the name does not mean exactly one file.
pub fn find(places: &ModelPlaces, name: &str) -> Result<PathBuf, ModelError> {
    if let Some(name) = StoreName::parse(name) {
        return Ok(name.find_file(places)?);
    }
    // `ORG/NAME` may also be a file in a folder. Only if there is none is it looked up in the cache.
    match (resolve(&places.models_dir, name), RemoteName::parse(name)) {
        (Err(below @ (ModelError::NotFound { .. } | ModelError::Folder { .. } | ModelError::Url)), Ok(remote)) => {
            remote.find_file(places).map_err(|hub| match hub.is_absent() {
                true => ModelError::Nowhere { below: Box::new(below), hub },
                false => ModelError::Hub(hub),
            })
        }
        (Err(below), _) => Err(with_names_of_stores(places, name, below)),
        (Ok(path), _) => Ok(path),
    }
}

/// Adds the model that Ollama's store has under this name to those that may have been meant.
fn with_names_of_stores(places: &ModelPlaces, name: &str, mut error: ModelError) -> ModelError {
    if let ModelError::NotFound { similar, .. } = &mut error {
        let prefixed = format!("{}:{name}", PlaceKind::Ollama);
        if StoreName::parse(&prefixed).is_some_and(|name| name.find_file(places).is_ok()) {
            similar.insert(0, prefixed);
        }
    }
    error
}

/// Returns the id of the model that was found by `name` at `path`.
#[must_use]
pub fn id_of_found(name: &str, path: &Path) -> String {
    StoreName::parse(name).and_then(|name| name.id()).unwrap_or_else(|| id_of(path))
}

/// Searches the projector of the model that was found by `name` at `path`: the one that its store has for it, else one
/// beside its file.
#[must_use]
pub fn find_projector_of(places: &ModelPlaces, name: &str, path: &Path, metadata: &Metadata) -> ProjectorSearch {
    match StoreName::parse(name).and_then(|name| name.find_projectors(places)) {
        Some(projectors) => read_projectors(&projectors),
        None => find_projector(path, metadata),
    }
}

/// Adds what a name says of a model to what its file says: files of a store have no names of their own.
pub fn add_meaning_of_name(metadata: &mut Metadata, name: &str) {
    metadata.has_reranker_name |= StoreName::parse(name).is_some() && gguf::is_reranker_name(name);
}

/// Reads the projectors that a store has for one model.
fn read_projectors(paths: &[PathBuf]) -> ProjectorSearch {
    let (mut good, mut broken) = (Vec::new(), Vec::new());
    for path in paths {
        match read_projector(path) {
            Ok(projector) => good.push(projector),
            Err(ModelError::File { path, problem }) => {
                broken.push(BrokenProjector { path, fault: problem.to_string(), hint: problem.hint() });
            }
            Err(_) => {}
        }
    }
    ProjectorSearch::of_one_model(good, broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::refuse_url;

    #[test]
    fn a_url_was_looked_up_as_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let places = ModelPlaces {
            models_dir: dir.path().to_owned(),
            hub_cache: dir.path().to_owned(),
            ..ModelPlaces::default()
        };
        for name in ["https://x.example/y.gguf", "hf://org/name", "hf.co/org/name:Q4_K_M", " huggingface.co/org/name"] {
            assert!(matches!(resolve(dir.path(), name), Err(ModelError::Url)), "{name}");
            let found = find(&places, name);
            assert!(matches!(found, Err(ModelError::Url | ModelError::Nowhere { .. })), "{name}: {found:?}");
        }
        assert!(refuse_url("org/name").is_ok() && refuse_url("/hf.co/m.gguf").is_ok());
    }
}
