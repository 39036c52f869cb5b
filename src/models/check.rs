//! Checks that llama-server can load a model: all parts exist, are complete and readable, and hold a model.
//!
//! Reads only headers, so damaged weights still fail at the load.

use std::io;
use std::path::{Path, PathBuf};

use super::error::{FileProblem, ModelError};
use super::gguf::{self, GgufError, Metadata};
use super::kind::ModelKind;
use super::split::{SplitPart, parts_of};

/// A model whose headers were read and found good.
#[derive(Debug, Clone, PartialEq)]
pub struct InspectedModel {
    /// The metadata of the first part, with tensors, weights and ranking head counted over all parts.
    pub metadata: Metadata,
    /// Size of all parts in bytes.
    pub size_bytes: u64,
}

impl InspectedModel {
    /// Returns what the model is for.
    #[must_use]
    pub fn kind(&self) -> ModelKind {
        ModelKind::of(&self.metadata)
    }
}

/// Reads the headers of the model at `path`, which is its only file or its first part.
///
/// # Errors
///
/// [`ModelError::File`] if the model cannot be served.
pub fn check_readable(path: &Path) -> Result<InspectedModel, ModelError> {
    let refused = |problem| ModelError::File { path: path.to_owned(), problem: Box::new(problem) };
    let inspection = Inspection::of(path);
    match (inspection.problem, inspection.metadata) {
        (None, Some(metadata)) => Ok(InspectedModel { metadata, size_bytes: inspection.size_bytes }),
        (Some(problem), _) => Err(refused(problem)),
        (None, None) => Err(refused(GgufError::from(io::Error::from(io::ErrorKind::NotFound)).into())),
    }
}

/// What could be read about a model, even if it cannot be served.
#[derive(Debug, Default)]
pub(super) struct Inspection {
    pub(super) metadata: Option<Metadata>,
    pub(super) size_bytes: u64,
    /// Number of its files that exist.
    pub(super) files: usize,
    pub(super) problem: Option<FileProblem>,
}

impl Inspection {
    pub(super) fn of(path: &Path) -> Self {
        let part = SplitPart::of_path(path);
        let paths = parts_of(path);
        let sizes: Vec<Option<u64>> =
            paths.iter().map(|path| std::fs::metadata(path).ok().map(|file| file.len())).collect();
        let (size_bytes, files) = (sizes.iter().flatten().sum(), sizes.iter().flatten().count());
        let mut inspection = Self { size_bytes, files, ..Self::default() };
        inspection.problem = inspection.read_headers(path, part.as_ref(), &paths, &sizes).err();
        inspection
    }

    /// Reads the headers of all parts and stores the metadata, as far as there is any.
    ///
    /// # Errors
    ///
    /// The model cannot be served.
    fn read_headers(
        &mut self,
        path: &Path,
        part: Option<&SplitPart>,
        paths: &[PathBuf],
        sizes: &[Option<u64>],
    ) -> Result<(), FileProblem> {
        let metadata = self.metadata.insert(gguf::read(path)?);
        metadata.has_reranker_name |=
            path.file_stem().is_some_and(|stem| gguf::is_reranker_name(&stem.to_string_lossy()));
        let missing: Vec<usize> =
            (1..).zip(sizes).filter(|(_, size)| size.is_none()).map(|(number, _)| number).collect();
        if !missing.is_empty() {
            return Err(FileProblem::MissingParts { missing, count: paths.len() });
        }
        if part.is_some_and(|part| part.number != 1) {
            let first = paths.first().cloned().unwrap_or_default();
            return Err(FileProblem::NotFirst { first });
        }
        // llama-server derives the names of the other parts from this one's, which it cannot after a renaming.
        if let (None, Some(count @ 2..)) = (part, metadata.split_count) {
            return Err(FileProblem::Renamed { count });
        }
        for (number, path) in (1..).zip(paths).skip(1) {
            let more = gguf::read(path).map_err(|source| FileProblem::Part { number, source })?;
            metadata.tensor_count += more.tensor_count;
            metadata.has_classifier |= more.has_classifier;
            metadata.parameters = metadata.parameters.saturating_add(more.parameters);
            metadata.tensor_bytes = metadata.tensor_bytes.saturating_add(more.tensor_bytes);
            metadata.shape.weights.merge(&more.shape.weights);
        }
        match content_other_than_model(&metadata.architecture, metadata.general_type.as_deref()) {
            Some(what) => Err(FileProblem::NoModel { what }),
            None => Ok(()),
        }
    }
}

/// Returns what a file of this architecture and `general.type` holds instead of a model, if it holds none.
pub(super) fn content_other_than_model(architecture: &str, general_type: Option<&str>) -> Option<String> {
    match (general_type, architecture) {
        // Projectors made before `general.type` existed only have the architecture.
        (Some("mmproj"), _) | (_, "clip") => Some("a multimodal projector (mmproj)".to_owned()),
        (Some("adapter"), _) => Some("a LoRA adapter".to_owned()),
        (Some("imatrix"), _) => Some("an importance matrix".to_owned()),
        (None | Some("model"), "") => Some("a GGUF without an architecture".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::sample::GgufSample;

    fn refused(path: &Path) -> String {
        check_readable(path).unwrap_err().to_string()
    }

    #[test]
    fn a_whole_model_passes() {
        let dir = tempfile::tempdir().unwrap();
        let path = GgufSample::chat().write(dir.path(), "tiny.gguf");
        let model = check_readable(&path).unwrap();
        assert_eq!(model.kind(), ModelKind::Chat);
        assert_eq!(model.size_bytes, std::fs::metadata(&path).unwrap().len());
    }

    #[test]
    fn the_parts_of_a_model_are_counted_together() {
        let dir = tempfile::tempdir().unwrap();
        let first = GgufSample::of("bert").uint("split.count", 2).write(dir.path(), "r-00001-of-00002.gguf");
        let second = GgufSample::default().tensor("cls.weight", 0, &[4, 4]).write(dir.path(), "r-00002-of-00002.gguf");
        let model = check_readable(&first).unwrap();
        assert_eq!((model.metadata.tensor_count, model.metadata.parameters), (2, 48));
        assert_eq!(model.kind(), ModelKind::Rerank, "the ranking head may lie in a later part");
        assert!(refused(&second).contains("not the first part"));

        let bytes = std::fs::read(&second).unwrap();
        std::fs::write(&second, &bytes[..bytes.len() - 8]).unwrap();
        assert!(refused(&first).contains("its part 2 is cut short"), "{}", refused(&first));
        std::fs::remove_file(&second).unwrap();
        assert!(refused(&first).contains("part 2 of 2 is missing"));
    }

    #[test]
    fn a_renamed_part_a_projector_and_an_adapter_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let renamed = GgufSample::chat().uint("split.count", 3).write(dir.path(), "renamed.gguf");
        assert!(refused(&renamed).contains("-NNNNN-of-00003.gguf"));
        let projector = GgufSample::of("clip").write(dir.path(), "mmproj-tiny.gguf");
        assert!(refused(&projector).contains("multimodal projector"));
        let adapter = GgufSample::chat().text("general.type", "adapter").write(dir.path(), "lora.gguf");
        assert!(refused(&adapter).contains("LoRA"));
        assert!(check_readable(&GgufSample::chat().text("general.type", "model").write(dir.path(), "ok.gguf")).is_ok());
    }

    #[test]
    fn the_error_for_a_missing_file_names_its_path() {
        let error = check_readable(Path::new("/nowhere/at-all.gguf")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at-all.gguf cannot be read: No such file"), "{error}");
        assert!(!error.hint().is_empty());
        assert_eq!(error.io().unwrap().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_sentence_about_a_file_says_what_to_do_and_names_no_path() {
        let dir = tempfile::tempdir().unwrap();
        let part = GgufSample::chat().write(dir.path(), "m-00002-of-00002.gguf");
        GgufSample::chat().write(dir.path(), "m-00001-of-00002.gguf");
        let page = dir.path().join("page.gguf");
        std::fs::write(&page, "<html>").unwrap();
        let missing = dir.path().join("missing.gguf");
        let alone = GgufSample::chat().write(dir.path(), "n-00001-of-00002.gguf");
        for (path, expected) in [
            (&missing, "the model file cannot be read: No such file or directory (os error 2); check that"),
            (&page, "the model file is not a GGUF file: it begins with 3c 68 74 6d"),
            (&part, "the model file is not the first part of its model; name the first part"),
            (&alone, "the model file is incomplete: part 2 of 2 is missing; download"),
        ] {
            let sentence = check_readable(path).unwrap_err().sentence();
            assert!(sentence.starts_with(expected), "{sentence}");
            assert!(!sentence.contains(dir.path().to_str().unwrap()), "{sentence}");
        }
    }
}
