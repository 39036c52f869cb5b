//! Finds the file below a folder that a model name means.
//!
//! Does not read the file: [`super::check`] does.

use std::path::{Component, Path, PathBuf};

use super::error::{MAX_SUGGESTIONS, ModelError, similar_names};
use super::folder_walk::walk;
use super::split::{SplitPart, id_of};

/// Finds the file that `name` means: an absolute path as it is, else a file below `models_dir` by its relative path,
/// file name or id.
///
/// `.gguf` may be left out. For a split model, returns the first part. An absolute path is returned unchecked.
///
/// # Errors
///
/// No file or more than one has this name, the name is empty or leads out of `models_dir`, or `models_dir` cannot be
/// read.
pub fn resolve(models_dir: &Path, name: &str) -> Result<PathBuf, ModelError> {
    let wanted = Path::new(name);
    refuse_url(name)?;
    if name.trim().is_empty() {
        return Err(ModelError::NoName);
    }
    if wanted.is_absolute() {
        return Ok(wanted.to_owned());
    }
    if wanted.components().any(|component| component == Component::ParentDir) {
        return Err(ModelError::Outside { name: name.to_owned() });
    }
    // A direct hit needs no walk through the folder, which may be on a slow network volume.
    let direct = [models_dir.join(name), models_dir.join(format!("{name}.gguf"))];
    if let Some(path) = direct.into_iter().find(|path| path.is_file()) {
        return Ok(first_part(path));
    }
    let below = walk(models_dir).map_err(|source| ModelError::Folder { dir: models_dir.to_owned(), source })?;
    let is_meant = |path: &&PathBuf| {
        let id = id_of(path);
        path.file_name() == Some(wanted.as_os_str()) || id == name || path.with_file_name(id) == wanted
    };
    let matches: Vec<&PathBuf> = below.models.iter().filter(is_meant).collect();
    match matches.as_slice() {
        [] => Err(ModelError::NotFound {
            name: name.to_owned(),
            dir: models_dir.to_owned(),
            similar: similar_names(name, &below.models),
            has_models: !below.models.is_empty(),
        }),
        [one] => Ok(first_part(models_dir.join(one))),
        several => Err(ModelError::Ambiguous {
            name: name.to_owned(),
            files: several.iter().take(MAX_SUGGESTIONS).map(|path| path.display().to_string()).collect(),
        }),
    }
}

/// Refuses a name that is a URL, or the address of a repository on Hugging Face.
///
/// # Errors
///
/// [`ModelError::Url`] if it is one.
pub fn refuse_url(name: &str) -> Result<(), ModelError> {
    let name = name.trim();
    let is_url = name.contains("://") || HUB_HOSTS.iter().any(|host| name.starts_with(host));
    if is_url { Err(ModelError::Url) } else { Ok(()) }
}

/// Beginnings of the address of a repository, as other programs take it for a model.
const HUB_HOSTS: [&str; 2] = ["hf.co/", "huggingface.co/"];

fn first_part(path: PathBuf) -> PathBuf {
    SplitPart::of_path(&path).and_then(|part| part.siblings(&path).next()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::sample::GgufSample;

    #[test]
    fn a_model_is_found_by_path_file_name_or_id() {
        let dir = tempfile::tempdir().unwrap();
        let top = GgufSample::chat().write(dir.path(), "tiny.gguf");
        let deep = GgufSample::chat().write(dir.path(), "sub/deep.gguf");
        let first = GgufSample::chat().write(dir.path(), "big-00001-of-00002.gguf");
        GgufSample::default().write(dir.path(), "big-00002-of-00002.gguf");
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
    fn the_error_for_a_missing_model_names_the_folder_and_similar_models() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["Qwen3-4B-Q4_K_M.gguf", "Qwen3-8B-Q4_K_M.gguf", "bge-reranker.gguf"] {
            GgufSample::chat().write(dir.path(), name);
        }
        let error = resolve(dir.path(), "qwen3-4b.gguf").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("did you mean one of Qwen3-4B-Q4_K_M.gguf, Qwen3-8B"), "{text}");
        assert!(text.contains(&dir.path().display().to_string()) && !text.contains("bge"), "{text}");
        assert!(resolve(dir.path(), "zzz").unwrap_err().to_string().contains("no name there is similar"));
        let empty = tempfile::tempdir().unwrap();
        assert!(resolve(empty.path(), "zzz").unwrap_err().to_string().contains("holds no .gguf"));
    }

    #[test]
    fn ambiguous_outside_and_empty_names_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        GgufSample::chat().write(dir.path(), "a/same.gguf");
        GgufSample::chat().write(dir.path(), "b/same.gguf");
        assert!(matches!(resolve(dir.path(), "same"), Err(ModelError::Ambiguous { files, .. }) if files.len() == 2));
        assert!(matches!(resolve(dir.path(), "../x.gguf"), Err(ModelError::Outside { .. })));
        assert!(matches!(resolve(dir.path(), "a/../../x"), Err(ModelError::Outside { .. })));
        assert!(matches!(resolve(dir.path(), " "), Err(ModelError::NoName)));
        assert!(matches!(resolve(&dir.path().join("none"), "x"), Err(ModelError::Folder { .. })));
    }
}
