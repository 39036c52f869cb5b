//! The models of a repository, with their sizes: pure.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::answers::{DescribedRepository, FoundRepository};
use crate::download::answers::bad_answer;
use crate::download::bounds::LISTED_MODELS;
use crate::download::error::DownloadError;
use crate::models::{is_plain_path, models_of_repository};

/// A repository and its models.
#[derive(Debug, Clone, PartialEq)]
pub struct RepositoryDetails {
    /// The repository.
    pub repository: FoundRepository,
    /// Its models, the smallest first.
    pub models: Vec<FoundModel>,
    /// Whether it has more models than are listed.
    pub has_more: bool,
}

/// A model of a repository, usually one of its quantisations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundModel {
    /// The name by which it is downloaded.
    pub model: String,
    /// Its quantisation, as the name of its file says it.
    pub quantization: Option<String>,
    /// Its files; of a split model, all parts in order.
    pub files: Vec<String>,
    /// Bytes of these files; `None` if the hub does not say.
    pub size_bytes: Option<u64>,
    /// What its name says besides the quantisation: the same for all quantisations of one model.
    #[serde(skip)]
    pub family: String,
    /// Bytes of the projector that comes with it; 0 without one.
    pub projector_bytes: u64,
}

impl RepositoryDetails {
    /// Returns what the hub's description says. Files whose paths lead elsewhere are left out.
    pub(super) fn of(host: &str, answer: &DescribedRepository) -> Result<Self, DownloadError> {
        let repository =
            answer.found().ok_or_else(|| bad_answer(host, "names no repository in its description of one"))?;
        let known = answer.siblings.iter().filter(|file| is_plain_path(&file.path));
        let sizes: HashMap<&Path, Option<u64>> = known.map(|file| (Path::new(&file.path), file.size())).collect();
        let mut files: Vec<PathBuf> = sizes.keys().map(|path| (*path).to_owned()).collect();
        files.sort_unstable();
        let size_of = |path: &PathBuf| sizes.get(path.as_path()).copied().flatten();
        let found = models_of_repository(&repository.id, &files, LISTED_MODELS + 1);
        let has_more = found.len() > LISTED_MODELS;
        let mut models: Vec<FoundModel> = found
            .into_iter()
            .take(LISTED_MODELS)
            .map(|model| FoundModel {
                size_bytes: model
                    .files
                    .iter()
                    .map(size_of)
                    .try_fold(0, |sum: u64, size| Some(sum.saturating_add(size?))),
                projector_bytes: model.projector.as_ref().and_then(size_of).unwrap_or(0),
                files: model.files.iter().map(|file| file.to_string_lossy().into_owned()).collect(),
                model: model.name,
                family: model.family,
                quantization: model.quant,
            })
            .collect();
        models.sort_by(|one, other| (one.size_bytes, &one.model).cmp(&(other.size_bytes, &other.model)));
        Ok(Self { repository, models, has_more })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_models_of_a_repository_are_listed_with_the_sizes_of_all_their_parts() {
        let text = json!({"id": "o/m", "sha": "abc", "siblings": [
            {"rfilename": "M-Q8_0-00001-of-00002.gguf", "size": 100, "lfs": {"sha256": "x", "size": 1000}},
            {"rfilename": "M-Q8_0-00002-of-00002.gguf", "size": 500},
            {"rfilename": "M-Q4_0.gguf", "size": 800},
            {"rfilename": "M-Q2_K.gguf"},
            {"rfilename": "mmproj-M-F16.gguf", "size": 70},
            {"rfilename": "../M-Q5_0.gguf", "size": 1},
        ]});
        let answer = DescribedRepository::parse("hub", text.to_string().as_bytes()).unwrap();
        let details = RepositoryDetails::of("hub", &answer).unwrap();
        let told: Vec<_> =
            details.models.iter().map(|one| (one.model.as_str(), one.size_bytes, one.projector_bytes)).collect();
        assert_eq!(told, [("o/m:Q2_K", None, 70), ("o/m:Q4_0", Some(800), 70), ("o/m:Q8_0", Some(1500), 70)]);
        assert!(!details.has_more);
    }
}
