//! From the name that somebody typed to the file that it means.
//!
//! It only looks for the file; whether the file is any good is for [`super::check`] to say.

use std::path::{Component, Path, PathBuf};

use super::error::{ModelError, SUGGESTIONS, near};
use super::folder_walk::walk;
use super::hub::Repository;
use super::split::{SplitPart, id_of};

/// The file that `name` means: a full path as it is, else a file below `models_dir` by its path, file name or id.
///
/// `.gguf` may be left out. Of a model in parts the answer is the first part. A full path is not looked at.
pub fn resolve(models_dir: &Path, name: &str) -> Result<PathBuf, ModelError> {
    let asked = Path::new(name);
    if name.trim().is_empty() {
        return Err(ModelError::NoName);
    }
    if asked.is_absolute() {
        return Ok(asked.to_owned());
    }
    if asked.components().any(|component| component == Component::ParentDir) {
        return Err(ModelError::Outside { name: name.to_owned() });
    }
    let direct = [models_dir.join(name), models_dir.join(format!("{name}.gguf"))];
    if let Some(path) = direct.into_iter().find(|path| path.is_file()) {
        return Ok(first_part(path));
    }
    let below = walk(models_dir).map_err(|source| ModelError::Folder { dir: models_dir.to_owned(), source })?;
    let means = |path: &&PathBuf| {
        let id = id_of(path);
        path.file_name() == Some(asked.as_os_str()) || id == name || path.with_file_name(id) == asked
    };
    let matches: Vec<&PathBuf> = below.models.iter().filter(means).collect();
    match matches.as_slice() {
        [] => Err(ModelError::NotFound {
            name: name.to_owned(),
            dir: models_dir.to_owned(),
            near: near(name, &below.models),
            any: !below.models.is_empty(),
        }),
        [one] => Ok(first_part(models_dir.join(one))),
        several => Err(ModelError::Ambiguous {
            name: name.to_owned(),
            files: several.iter().take(SUGGESTIONS).map(|path| path.display().to_string()).collect(),
        }),
    }
}

/// The same, or the file that `ORG/NAME[:QUANT]` means in the cache at `hub_cache`. Files below `models_dir` go first.
pub fn find(models_dir: &Path, hub_cache: &Path, name: &str) -> Result<PathBuf, ModelError> {
    match (resolve(models_dir, name), Repository::named(name)) {
        (Err(below @ (ModelError::NotFound { .. } | ModelError::Folder { .. })), Some(repository)) => {
            repository.file_in(hub_cache).map_err(|hub| match hub.is_absent() {
                true => ModelError::Nowhere { below: Box::new(below), hub },
                false => ModelError::Hub(hub),
            })
        }
        (resolved, _) => resolved,
    }
}

fn first_part(path: PathBuf) -> PathBuf {
    SplitPart::of_path(&path).and_then(|part| part.siblings(&path).next()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::sample::Sample;

    #[test]
    fn finds_a_model_by_path_file_name_or_id() {
        let dir = tempfile::tempdir().unwrap();
        let top = Sample::chat().write(dir.path(), "tiny.gguf");
        let deep = Sample::chat().write(dir.path(), "sub/deep.gguf");
        let first = Sample::chat().write(dir.path(), "big-00001-of-00002.gguf");
        Sample::default().write(dir.path(), "big-00002-of-00002.gguf");
        for (name, path) in [
            ("tiny.gguf", &top),
            ("tiny", &top),
            ("./tiny", &top),
            ("sub/deep.gguf", &deep),
            ("sub/deep", &deep),
            ("deep", &deep),
            ("deep.gguf", &deep),
            ("big", &first),
            ("big-00002-of-00002.gguf", &first),
        ] {
            assert_eq!(
                resolve(dir.path(), name).unwrap().canonicalize().unwrap(),
                path.canonicalize().unwrap(),
                "{name}"
            );
        }
        assert_eq!(resolve(dir.path(), "/some/where.gguf").unwrap(), Path::new("/some/where.gguf"));
    }

    #[test]
    fn a_missing_model_names_the_folder_and_its_likes() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["Qwen3-4B-Q4_K_M.gguf", "Qwen3-8B-Q4_K_M.gguf", "bge-reranker.gguf"] {
            Sample::chat().write(dir.path(), name);
        }
        let error = resolve(dir.path(), "qwen3-4b.gguf").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("did you mean one of Qwen3-4B-Q4_K_M.gguf, Qwen3-8B"), "{text}");
        assert!(text.contains(&dir.path().display().to_string()) && !text.contains("bge"), "{text}");
        assert!(resolve(dir.path(), "zzz").unwrap_err().to_string().contains("no name there is like it"));
        let empty = tempfile::tempdir().unwrap();
        assert!(resolve(empty.path(), "zzz").unwrap_err().to_string().contains("holds no .gguf"));
    }

    #[test]
    fn names_that_mean_nothing_or_too_much_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        Sample::chat().write(dir.path(), "a/same.gguf");
        Sample::chat().write(dir.path(), "b/same.gguf");
        assert!(matches!(resolve(dir.path(), "same"), Err(ModelError::Ambiguous { files, .. }) if files.len() == 2));
        assert!(matches!(resolve(dir.path(), "../x.gguf"), Err(ModelError::Outside { .. })));
        assert!(matches!(resolve(dir.path(), "a/../../x"), Err(ModelError::Outside { .. })));
        assert!(matches!(resolve(dir.path(), " "), Err(ModelError::NoName)));
        assert!(matches!(resolve(&dir.path().join("none"), "x"), Err(ModelError::Folder { .. })));
    }
}
