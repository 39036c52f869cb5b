//! The models of a repository, by the names of its files alone: its quantisations, each with the name by which it is pulled.

use std::collections::HashMap;
use std::path::PathBuf;

use super::{choose, is_model};
use crate::models::companions::choice::{RepositoryProjectors, naming_words};
use crate::models::companions::names::quant_word;
use crate::models::split::parts_of;

/// A model of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryModel {
    /// The name by which it is pulled.
    pub name: String,
    /// Its quantisation, as the name of its file says it.
    pub quant: Option<String>,
    /// Its files; of a split model, all parts in order.
    pub files: Vec<PathBuf>,
    /// What its name says besides the quantisation: the same for all quantisations of one model.
    pub family: String,
    /// The projector that comes with it.
    pub projector: Option<PathBuf>,
}

/// Returns the first models of the repository with this name, at most `most` of them, in the order of `files`, which are the
/// paths of all its files. What holds for all models is found once, because a repository may have many thousand files.
#[must_use]
pub fn models_of_repository(repository: &str, files: &[PathBuf], most: usize) -> Vec<RepositoryModel> {
    let all: Vec<PathBuf> = files.iter().filter(|path| is_model(path)).cloned().collect();
    let projectors = RepositoryProjectors::of(files);
    let mut meant = HashMap::<String, Option<&PathBuf>>::new();
    let mut listed = Vec::with_capacity(most.min(all.len()));
    for path in all.iter().take(most) {
        let text = path.to_string_lossy();
        let quant = quant_word(&text);
        let by_quant = quant.filter(|quant| {
            let means = meant.entry(quant.to_ascii_lowercase()).or_insert_with(|| choose(&all, Some(quant)).ok());
            *means == Some(path)
        });
        listed.push(RepositoryModel {
            name: by_quant.map_or_else(|| format!("{repository}/{text}"), |quant| format!("{repository}:{quant}")),
            quant: quant.map(str::to_owned),
            family: naming_words(path).join("-"),
            files: parts_of(path),
            // What is named by its file comes alone.
            projector: by_quant.and_then(|_| projectors.of_model(path)),
        });
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_quantisation_has_the_name_by_which_it_comes() {
        let files: Vec<PathBuf> = [
            "README.md",
            "M-Q4_K_M.gguf",
            "M-UD-Q4_K_M.gguf",
            "M-Q8_0-00001-of-00002.gguf",
            "M-Q8_0-00002-of-00002.gguf",
            "mmproj-M-f16.gguf",
            "M.gguf",
        ]
        .map(PathBuf::from)
        .into();
        let found = models_of_repository("o/m", &files, 100);
        let names: Vec<(&str, Option<&str>, usize)> =
            found.iter().map(|one| (one.name.as_str(), one.quant.as_deref(), one.files.len())).collect();
        assert_eq!(
            names,
            [
                ("o/m:Q4_K_M", Some("Q4_K_M"), 1),
                ("o/m/M-UD-Q4_K_M.gguf", Some("Q4_K_M"), 1),
                ("o/m:Q8_0", Some("Q8_0"), 2),
                ("o/m/M.gguf", None, 1),
            ]
        );
        assert_eq!(found[0].projector.as_deref(), Some("mmproj-M-f16.gguf".as_ref()));
        assert_eq!(found[1].projector, None);
        assert!(found.iter().all(|one| one.family == found[0].family), "{found:?}");
        let others = models_of_repository("o/m", &["A-Q4_0.gguf", "B-Q4_0.gguf"].map(PathBuf::from), 100);
        assert!(others[0].family != others[1].family, "{others:?}");
        assert_eq!(models_of_repository("o/m", &files, 2).len(), 2);
    }
}
