//! LoRA adapters: whether a file is one, and for which models.

use std::path::Path;

use crate::models::error::{FileProblem, ModelError};
use crate::models::gguf::{self, Metadata};

/// `general.type` of an adapter.
const ADAPTER: &str = "adapter";
/// `adapter.type` of the adapters that llama-server takes.
const LORA: &str = "lora";

/// A LoRA adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoraAdapter {
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// Reads the adapter at `path`, and checks that it is made for a model like this one.
///
/// # Errors
///
/// [`ModelError::File`] if it cannot be read, is no LoRA adapter, or is one for another architecture.
pub fn read_adapter(path: &Path, model: &Metadata) -> Result<LoraAdapter, ModelError> {
    let refused = |problem| ModelError::File { path: path.to_owned(), problem: Box::new(problem) };
    let metadata = gguf::read(path).map_err(|error| refused(FileProblem::Gguf(error)))?;
    if metadata.general_type.as_deref() != Some(ADAPTER) || metadata.adapter_type.as_deref() != Some(LORA) {
        return Err(refused(FileProblem::NoAdapter));
    }
    if metadata.architecture != model.architecture {
        let (of, needed) = (metadata.architecture, model.architecture.clone());
        return Err(refused(FileProblem::OtherArchitecture { of, needed }));
    }
    let size_bytes = std::fs::metadata(path).map_or(0, |file| file.len());
    Ok(LoraAdapter { size_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::sample::GgufSample;

    #[test]
    fn only_a_lora_adapter_of_the_same_architecture_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let model = Metadata { architecture: "llama".to_owned(), ..Metadata::default() };
        let adapter = |architecture: &str, kind: &str| {
            GgufSample::of(architecture).text("general.type", "adapter").text("adapter.type", kind)
        };
        let good = adapter("llama", "lora").write(dir.path(), "good.gguf");
        assert_eq!(read_adapter(&good, &model).unwrap().size_bytes, good.metadata().unwrap().len());
        let broken = dir.path().join("broken.gguf");
        std::fs::write(&broken, "<html>").unwrap();
        for (path, fault) in [
            (GgufSample::chat().write(dir.path(), "model.gguf"), "is no LoRA adapter"),
            (adapter("llama", "ia3").write(dir.path(), "ia3.gguf"), "is no LoRA adapter"),
            (adapter("qwen3", "lora").write(dir.path(), "other.gguf"), "is made for qwen3, and the model is llama"),
            (broken, "is not a GGUF file"),
            (dir.path().join("none.gguf"), "cannot be read"),
        ] {
            let refused = read_adapter(&path, &model).unwrap_err().to_string();
            assert!(refused.contains(fault), "{refused}");
        }
    }
}
