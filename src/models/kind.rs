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

    /// Returns why llama-server cannot serve a model as this kind: nothing computes such an answer. `arguments` are
    /// those of its llama-server.
    #[must_use]
    pub fn contradiction(self, metadata: &Metadata, arguments: &[String]) -> Option<KindContradiction> {
        let pooling = arguments.iter().position(|word| word == "--pooling").and_then(|at| arguments.get(at + 1));
        let pools_vectors = match pooling {
            Some(pooling) => pooling != "rank",
            None => metadata.pooling_type.is_some_and(|pooling| POOLING_VECTOR.contains(&pooling)),
        };
        let found = Self::of(metadata);
        match self {
            Self::Embedding if found == Self::Rerank && !pools_vectors => Some(KindContradiction {
                fault: "its file has a ranking head, which computes no vectors: llama-server would answer with numbers from \
                        unused memory",
                hint: "leave the kind out, or set kind: rerank; for vectors of this file write --pooling mean, cls or last \
                       into args or EXTRA_ARGS",
            }),
            Self::Chat if ENCODERS.contains(&metadata.architecture.as_str()) => Some(KindContradiction {
                fault: "its file is an encoder, which generates no text: llama-server would abort at the first request",
                hint: match found {
                    Self::Rerank => "leave the kind out, or set kind: rerank",
                    _ => "leave the kind out, or set kind: embedding",
                },
            }),
            _ => None,
        }
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

/// Why a model cannot be of the kind that is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindContradiction {
    /// What its file says.
    pub fault: &'static str,
    /// What to do.
    pub hint: &'static str,
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

    /// Regression: a reranker as an embedding model answered with uninitialised memory, and an encoder as a model for chat
    /// aborted again and again.
    #[test]
    fn a_kind_that_the_file_cannot_have_is_a_contradiction() {
        use ModelKind::{Chat, Embedding, Rerank};
        let is_refused = |kind: ModelKind, sample: GgufSample, arguments: &str| {
            let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
            kind.contradiction(&sample.parse().unwrap(), &arguments).is_some()
        };
        let reranker = || GgufSample::of("bert").uint("bert.pooling_type", 4);
        let decoder = || GgufSample::of("qwen3").tensor("cls.output.weight", 0, &[4, 2]);
        assert!(is_refused(Embedding, reranker(), "") && is_refused(Embedding, decoder(), "--embeddings"));
        assert!(is_refused(Embedding, reranker(), "--pooling rank") && is_refused(Embedding, reranker(), "--pooling"));
        assert!(!is_refused(Embedding, reranker(), "--embeddings --pooling mean"));
        let with_vectors = GgufSample::of("bert").tensor("cls.weight", 0, &[4, 4]).uint("bert.pooling_type", 2);
        assert!(!is_refused(Embedding, with_vectors, ""), "llama-server pools what the header says");
        assert!(is_refused(Chat, reranker(), "") && is_refused(Chat, GgufSample::of("nomic-bert"), "--pooling mean"));
        assert!(!is_refused(Chat, decoder(), "") && !is_refused(Chat, GgufSample::chat(), ""));
        assert!(!is_refused(Chat, GgufSample::chat().flag("llama.attention.causal", false), ""), "diffusion models");
        for kind in [Embedding, Rerank] {
            assert!(!is_refused(kind, GgufSample::of("bert"), "") && !is_refused(kind, GgufSample::chat(), ""));
        }
        assert!(!is_refused(Rerank, reranker(), ""));
    }

    #[test]
    fn a_ranking_head_takes_precedence_over_everything_else() {
        assert_eq!(kind(GgufSample::of("bert").tensor("cls.weight", 0, &[4, 4])), ModelKind::Rerank);
        assert_eq!(kind(GgufSample::of("bert").uint("bert.pooling_type", 4)), ModelKind::Rerank);
        assert_eq!(kind(GgufSample::of("qwen3").tensor("cls.output.weight", 0, &[4, 2])), ModelKind::Rerank);
        assert_eq!(kind(GgufSample::chat().tensor("clsx.weight", 0, &[4])), ModelKind::Chat);
    }
}
