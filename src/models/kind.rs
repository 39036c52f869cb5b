//! What a model is for, told from its GGUF metadata.
//!
//! A configuration may say otherwise; this is the answer when it says nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::gguf::Metadata;

/// `pooling_type` of a model whose head ranks a pair of texts (`LLAMA_POOLING_TYPE_RANK`).
const POOLING_RANK: u32 = 4;
/// `pooling_type` mean, cls and last: one vector for a text.
const POOLING_VECTOR: std::ops::RangeInclusive<u32> = 1..=3;

/// Architectures that llama.cpp only ever runs as encoders.
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

/// What a model is for: it decides the flags of llama-server and which routes may use it.
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
    /// The kind that the metadata speaks for: a ranking head first, then pooling, encoder or non-causal attention, else chat.
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

    /// The word used in settings, listings and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embedding => "embedding",
            Self::Rerank => "rerank",
        }
    }
}

/// Whether the model sees a text as a whole, and so keeps nothing of it for the next token.
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
    use crate::models::sample::Sample;

    fn kind(sample: Sample) -> ModelKind {
        ModelKind::of(&sample.parse().unwrap())
    }

    #[test]
    fn a_plain_decoder_is_for_chat() {
        assert_eq!(kind(Sample::chat()), ModelKind::Chat);
        assert_eq!(kind(Sample::chat().uint("llama.pooling_type", 0)), ModelKind::Chat);
        assert_eq!(kind(Sample::of("pangu-embedded")), ModelKind::Chat, "a name with embed in it proves nothing");
    }

    #[test]
    fn pooling_encoders_and_non_causal_attention_embed() {
        for pooling in 1..=3 {
            assert_eq!(kind(Sample::chat().uint("llama.pooling_type", pooling)), ModelKind::Embedding);
        }
        for architecture in ENCODERS {
            assert_eq!(kind(Sample::of(architecture)), ModelKind::Embedding);
        }
        assert_eq!(kind(Sample::chat().flag("llama.attention.causal", false)), ModelKind::Embedding);
        assert_eq!(kind(Sample::chat().flag("llama.attention.causal", true)), ModelKind::Chat);
    }

    #[test]
    fn a_ranking_head_wins_over_everything_else() {
        assert_eq!(kind(Sample::of("bert").tensor("cls.weight", 0, &[4, 4])), ModelKind::Rerank);
        assert_eq!(kind(Sample::of("bert").uint("bert.pooling_type", 4)), ModelKind::Rerank);
        assert_eq!(kind(Sample::of("qwen3").tensor("cls.output.weight", 0, &[4, 2])), ModelKind::Rerank);
        assert_eq!(kind(Sample::chat().tensor("clsx.weight", 0, &[4])), ModelKind::Chat);
    }
}
