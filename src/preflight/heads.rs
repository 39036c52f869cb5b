//! Reads the heads of a model for embeddings, and checks that they belong to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checked::{CheckedModel, ModelFlaw};
use crate::embedding_heads::{EmbeddingHeads, Head};
use crate::models::ModelKind;
use crate::settings::catalogue::HeadFiles;
use crate::settings::{SettingProblem, Settings};

/// Reads the heads that `heads` of a model names; `None` without one.
///
/// # Errors
///
/// They cannot be found or used, or the model cannot have any.
pub(super) fn read_heads(settings: &Settings, model: &CheckedModel) -> Result<Option<Arc<EmbeddingHeads>>, ModelFlaw> {
    let (Some(local), Some(file)) = (&model.settings.local, &model.file) else { return Ok(None) };
    let Some(HeadFiles { sparse, colbert }) = &local.heads else { return Ok(None) };
    let section = format!("models.{}.heads", model.id);
    let refuse = |subject: String, fault: String, hint: &str| {
        Err(ModelFlaw {
            problem: SettingProblem { subject, fault, hint: Some(hint.to_owned()) },
            missing: None,
            broken: None,
        })
    };
    if model.kind != ModelKind::Embedding {
        let hint = "leave them out, or set kind: embedding";
        return refuse(
            section,
            format!("the model is for {}, and only one for embeddings has heads", model.kind),
            hint,
        );
    }
    if !model.settings.remotes.is_empty() {
        let hint = "give the entries of model_list another name";
        return refuse(section, "remote backends serve this model too, and have no heads".to_owned(), hint);
    }
    let words = local.engine.extra_args.words.iter();
    if let Some(pooling) = words.clone().zip(words.skip(1)).find(|(word, _)| *word == "--pooling").map(|(_, kind)| kind)
        && pooling != "none"
    {
        let fault = format!("heads need the vectors of all tokens, and the arguments have --pooling {pooling}");
        return refuse(section, fault, "leave --pooling out of args and EXTRA_ARGS");
    }
    let metadata = &file.model.metadata;
    let Some(width) = metadata.embedding_length.and_then(|width| usize::try_from(width).ok()) else {
        return refuse(section, "the model's file does not say how long its vectors are".to_owned(), "leave them out");
    };
    let find =
        |name: &Option<PathBuf>| name.as_ref().map(|name| find_file(&settings.files.models_dir, &file.path, name));
    let (sparse_file, colbert_file) = (find(sparse), find(colbert));
    let read =
        EmbeddingHeads::read(sparse_file.as_deref(), colbert_file.as_deref(), width, metadata.special_tokens.clone());
    match read {
        Ok(heads) => Ok(Some(Arc::new(heads))),
        Err((head, problem)) => {
            let name = if head == Head::Sparse { sparse } else { colbert };
            let name = name.as_deref().unwrap_or(Path::new("")).display().to_string();
            let hint = "scripts/bge-m3-heads.py makes the files of BGE-M3; name them in the model's folder or under \
                        MODELS_DIR, or give their full paths";
            refuse(format!("{section}.{head}: {name:?}"), format!("the file {problem}"), hint)
        }
    }
}

/// Returns the path of a file: an absolute one, else in the model's folder, else under `MODELS_DIR`.
fn find_file(models_dir: &Path, model: &Path, name: &Path) -> PathBuf {
    let beside = model.parent().map(|dir| dir.join(name)).filter(|path| path.is_file());
    beside.unwrap_or_else(|| models_dir.join(name))
}
