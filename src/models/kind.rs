//! Detects what a model is for from its GGUF metadata. A `kind` in the configuration takes precedence.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::gguf::Metadata;

/// `pooling_type` of a model with a ranking head (`LLAMA_POOLING_TYPE_RANK`).
const POOLING_RANK: u32 = 4;
/// `pooling_type` mean, cls and last, which produce one vector for a text.
const POOLING_VECTOR: std::ops::RangeInclusive<u32> = 1..=3;

/// Architectures that llama.cpp always runs as encoders.
const ENCODERS: [&str; 11] = [
    "bert",
    "modern-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "neo-bert",
    "jina-bert-v2",
    "jina-bert-v3",
    "eurobert",
    "gemma-embedding",
    "llama-embed",
    "t5encoder",
];

/// What a model is for. Decides llama-server's flags and which routes may use the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// Generates text.
    Chat,
    /// Turns a text into a vector.
    Embedding,
    /// Scores how well a document answers a query.
    Rerank,
}

impl ModelKind {
    /// Detects the kind: rerank with a ranking head, else embedding with pooling, an encoder architecture or non-causal
    /// attention, else chat.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let pooling = |wanted: &dyn Fn(u32) -> bool| metadata.pooling_type.is_some_and(wanted);
        if metadata.has_classifier
            || pooling(&|p| p == POOLING_RANK)
            || metadata.classifier_pooling_type == Some(POOLING_RANK)
        {
            Self::Rerank
        } else if pooling(&|p| POOLING_VECTOR.contains(&p)) || is_encoder(metadata) {
            Self::Embedding
        } else {
            Self::Chat
        }
    }

    /// Returns the kind that llama-server's own arguments ask for, such as `--embedding`; `None` if they ask for none.
    #[must_use]
    pub fn of_arguments(arguments: &[String]) -> Option<Self> {
        let kind_of = |argument: &String| match argument.replace('_', "-").as_str() {
            "--embedding" | "--embeddings" => Some(Self::Embedding),
            "--rerank" | "--reranking" => Some(Self::Rerank),
            _ => None,
        };
        // A reranker is an embedding model with a ranking head, so llama-server accepts both switches together.
        let kinds = || arguments.iter().filter_map(kind_of);
        kinds().find(|kind| *kind == Self::Rerank).or_else(|| kinds().next())
    }

    /// Returns the word that settings, listings and responses use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embedding => "embedding",
            Self::Rerank => "rerank",
        }
    }
}

/// Whether the model processes a text as a whole, and so needs no KV cache.
pub(super) fn is_encoder(metadata: &Metadata) -> bool {
    ENCODERS.contains(&metadata.architecture.as_str()) || metadata.causal == Some(false)
}

impl fmt::Display for ModelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::sample::GgufSample;

    fn kind(sample: GgufSample) -> ModelKind {
        ModelKind::of(&sample.parse().unwrap())
    }

    #[test]
    fn a_plain_decoder_is_for_chat() {
        assert_eq!(kind(GgufSample::chat()), ModelKind::Chat);
        assert_eq!(kind(GgufSample::chat().uint("llama.pooling_type", 0)), ModelKind::Chat);
        assert_eq!(kind(GgufSample::of("pangu-embedded")), ModelKind::Chat, "a name with embed in it proves nothing");
    }

    #[test]
    fn pooling_encoders_and_non_causal_attention_embed() {
        for pooling in 1..=3 {
            assert_eq!(kind(GgufSample::chat().uint("llama.pooling_type", pooling)), ModelKind::Embedding);
        }
        for architecture in ENCODERS {
            assert_eq!(kind(GgufSample::of(architecture)), ModelKind::Embedding);
        }
        assert_eq!(kind(GgufSample::chat().flag("llama.attention.causal", false)), ModelKind::Embedding);
        assert_eq!(kind(GgufSample::chat().flag("llama.attention.causal", true)), ModelKind::Chat);
    }

    #[test]
    fn llama_servers_own_switches_tell_the_kind_in_each_spelling() {
        let kind = |words: &[&str]| ModelKind::of_arguments(&words.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(kind(&["--pooling", "last", "--embedding"]), Some(ModelKind::Embedding));
        assert_eq!(kind(&["--embeddings"]), Some(ModelKind::Embedding));
        assert_eq!(kind(&["--embedding", "--rerank"]), Some(ModelKind::Rerank));
        assert_eq!(kind(&["--reranking"]), Some(ModelKind::Rerank));
        assert_eq!(kind(&["--pooling", "last", "-fa", "on"]), None);
    }

    #[test]
    fn a_ranking_head_takes_precedence_over_everything_else() {
        assert_eq!(kind(GgufSample::of("bert").tensor("cls.weight", 0, &[4, 4])), ModelKind::Rerank);
        assert_eq!(kind(GgufSample::of("bert").uint("bert.pooling_type", 4)), ModelKind::Rerank);
        assert_eq!(kind(GgufSample::of("qwen3").tensor("cls.output.weight", 0, &[4, 2])), ModelKind::Rerank);
        assert_eq!(kind(GgufSample::chat().tensor("clsx.weight", 0, &[4])), ModelKind::Chat);
    }
}
