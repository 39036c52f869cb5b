//! Which projector of a repository belongs to a model, by the names of its files alone: pure.
//!
//! A download asks before the files are there, and a start asks once they are: both get the same answer.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::names::{begins_precision, has_companion_name, lower_name, split_precision, words};
use crate::models::split::is_gguf;

/// The word that the name of each projector has.
const PROJECTOR_WORD: &str = "mmproj";
/// Words of a name that name no model; `ud` belongs to a quantisation.
const GENERIC_WORDS: [&str; 10] =
    [PROJECTOR_WORD, "model", "vision", "audio", "clip", "encoder", "projector", "gguf", "ggml", "ud"];

/// Whether `mmproj` is a word of the file's name.
pub(in crate::models) fn has_projector_name(path: &Path) -> bool {
    words(&lower_name(path)).any(|word| word == PROJECTOR_WORD)
}

/// Returns the words of a file name that name a model.
pub(in crate::models) fn naming_words(path: &Path) -> Vec<String> {
    let name = lower_name(path);
    // What follows the precision does not name the model either.
    let names = words(&name).take_while(|word| !begins_precision(word));
    names.filter(|word| !GENERIC_WORDS.contains(word)).map(str::to_owned).collect()
}

/// The projectors of a repository, by the names of its files alone.
#[derive(Debug)]
pub(in crate::models) struct RepositoryProjectors<'f> {
    /// Each with the words that name its model.
    projectors: Vec<(&'f PathBuf, Vec<String>)>,
    /// Whether all models are quantisations of one.
    is_of_one_model: bool,
}

impl<'f> RepositoryProjectors<'f> {
    /// Finds the projectors among all files of a repository.
    pub(in crate::models) fn of(files: &'f [PathBuf]) -> Self {
        let projectors = files.iter().filter(|path| is_gguf(path) && has_projector_name(path));
        let projectors: Vec<_> = projectors.map(|path| (path, naming_words(path))).collect();
        let is_of_one_model = projectors.is_empty() || models_of(files).len() <= 1;
        Self { projectors, is_of_one_model }
    }

    /// Returns the projector for the model at `model`. It lies in the model's folder or in one above it, the nearest that has
    /// one. Of several there, the one whose name is most like the model's is chosen, in the preferred precision. One that names
    /// another model is none for this one.
    pub(in crate::models) fn of_model(&self, model: &Path) -> Option<PathBuf> {
        if self.projectors.is_empty() {
            return None;
        }
        let of_model = naming_words(model);
        let fits =
            |own: &[String]| self.is_of_one_model || common_words(own, &of_model) == own.len().min(of_model.len());
        let fitting: Vec<_> = self.projectors.iter().filter(|(_, own)| fits(own)).collect();
        let rank = |path: &Path| split_precision(&lower_name(path)).map_or(usize::MAX, |name| name.rank);
        model.ancestors().skip(1).find_map(|folder| {
            let beside = fitting.iter().filter(|(path, _)| path.parent() == Some(folder));
            let best = beside.min_by_key(|(path, own)| (Reverse(common_words(own, &of_model)), rank(path), *path));
            best.map(|(path, _)| (*path).clone())
        })
    }
}

/// Returns the projector that a repository has for its model at `model`, by the names of its `files` alone.
#[must_use]
pub fn projector_of(model: &Path, files: &[PathBuf]) -> Option<PathBuf> {
    RepositoryProjectors::of(files).of_model(model)
}

/// Returns what the names of the models of a repository call them: quantisations of one model count once.
fn models_of(files: &[PathBuf]) -> BTreeSet<Vec<String>> {
    let models = files.iter().filter(|path| is_gguf(path) && !has_companion_name(path));
    models.map(|path| naming_words(path)).collect()
}

/// Returns the number of words that two names begin with.
fn common_words(one: &[String], other: &[String]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_projector_that_names_no_other_model_is_chosen() {
        let small = "gemma-3-4b-it-Q4_K_M.gguf";
        for (model, projectors, others, expected) in [
            (small, &["mmproj-F16.gguf"][..], &[][..], "mmproj-F16.gguf"),
            (small, &["mmproj-BF16.gguf", "mmproj-F16.gguf", "mmproj-F32.gguf"], &[], "mmproj-F16.gguf"),
            (small, &["mmproj-F16.gguf"], &["gemma-3-4b-it-UD-Q8_0.gguf"], "mmproj-F16.gguf"),
            (small, &["mmproj-other-F16.gguf"], &[], "mmproj-other-F16.gguf"),
            (small, &["mmproj-gemma-3-12b-it-f16.gguf"], &["gemma-3-12b-it-Q4_0.gguf"], ""),
            (
                small,
                &["mmproj-gemma-3-12b-it-f16.gguf", "mmproj-gemma-3-4b-it-q8_0.gguf"],
                &["gemma-3-12b-it-Q4_0.gguf"],
                "mmproj-gemma-3-4b-it-q8_0.gguf",
            ),
            ("Q8_0/vl-Q8_0.gguf", &["mmproj-F16.gguf"], &["vl-Q4_0.gguf"], "mmproj-F16.gguf"),
            ("a/b/vl.gguf", &["mmproj-F16.gguf", "a/mmproj-BF16.gguf"], &[], "a/mmproj-BF16.gguf"),
            ("a/vl.gguf", &["b/mmproj-F16.gguf"], &[], ""),
            (small, &["mmproj.txt"], &[], ""),
        ] {
            let files: Vec<PathBuf> =
                projectors.iter().chain(others).chain([&model]).map(|name| PathBuf::from(*name)).collect();
            let found = projector_of(Path::new(model), &files);
            assert_eq!(found.unwrap_or_default(), Path::new(expected), "{model} {projectors:?} {others:?}");
        }
    }
}
