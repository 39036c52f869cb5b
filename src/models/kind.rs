//! Detects what a model is for from its GGUF metadata. A `kind` in the configuration takes precedence.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::gguf::{Metadata, YesNoTokens};

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

/// The architecture of rerankers that were trained to say whether a document answers a query: Qwen3-Reranker. llama.cpp's
/// converter can make a ranking head of the last layer, and many files were made without one.
const ANSWERS_WITH_WORDS: &str = "qwen3";

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
    /// Detects the kind: rerank with a ranking head, or by the name of an architecture that can do without one
    /// ([`Metadata::yes_no_answers`]), else embedding with pooling, an encoder architecture or non-causal attention, else
    /// chat.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        if has_ranking_head(metadata) || answers_with_words(metadata) && metadata.has_reranker_name {
            Self::Rerank
        } else if metadata.pools_vectors() || is_encoder(metadata) {
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
            None => metadata.pools_vectors(),
        };
        let found = Self::of(metadata);
        match self {
            Self::Rerank if !answers_with_words(metadata) => None,
            Self::Rerank if metadata.yes_no.is_none() => Some(KindContradiction {
                fault: "its file has no ranking head, and no tokens \"yes\" and \"no\" to answer with instead",
                hint: "use a file of Qwen3-Reranker, or of another reranker",
            }),
            Self::Rerank => Self::of_arguments(arguments).map(|_| KindContradiction {
                fault: "its file has no ranking head, so that its documents are scored by completions, which llama-server \
                        refuses with --reranking or --embeddings",
                hint: "take them out of args and EXTRA_ARGS, and set kind: rerank",
            }),
            Self::Embedding if has_ranking_head(metadata) && !pools_vectors => Some(KindContradiction {
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

impl Metadata {
    /// Returns whether the file says how the vectors of tokens become one.
    #[must_use]
    pub fn pools_vectors(&self) -> bool {
        self.pooling_type.is_some_and(|pooling| POOLING_VECTOR.contains(&pooling))
    }

    /// Returns the tokens with which a reranker without a ranking head answers for a document. How it is asked is in
    /// `dialect/rerank/words/`.
    #[must_use]
    pub fn yes_no_answers(&self) -> Option<YesNoTokens> {
        self.yes_no.filter(|_| answers_with_words(self))
    }
}

/// Whether a reranker of this architecture answers with words. Without the tensors of a ranking head, llama-server gives
/// numbers that mean nothing, whatever pooling the file names.
fn answers_with_words(metadata: &Metadata) -> bool {
    metadata.architecture == ANSWERS_WITH_WORDS && !metadata.has_classifier
}

/// Whether the model computes a score for a text.
fn has_ranking_head(metadata: &Metadata) -> bool {
    let has_pooling = [metadata.pooling_type, metadata.classifier_pooling_type].contains(&Some(POOLING_RANK));
    metadata.has_classifier || has_pooling && !answers_with_words(metadata)
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
    use crate::models::sample::{GgufSample, string};

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

    fn with_tokens(sample: GgufSample, tokens: &[&str]) -> GgufSample {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| string(token)).collect();
        sample.array("tokenizer.ggml.tokens", 8, tokens.len() as u64, &bytes)
    }

    fn reranker() -> GgufSample {
        with_tokens(GgufSample::of("qwen3").text("general.name", "Qwen3 Reranker 0.6B"), &["a", "no", "yes", "yet"])
    }

    #[test]
    fn a_reranker_without_a_head_is_known_by_architecture_and_name() {
        let of = |sample: GgufSample| {
            let metadata = sample.parse().unwrap();
            (ModelKind::of(&metadata), metadata.yes_no_answers().is_some())
        };
        assert_eq!(of(reranker()), (ModelKind::Rerank, true));
        assert_eq!(of(reranker().uint("qwen3.pooling_type", 4)), (ModelKind::Rerank, true), "a pooling is no head");
        assert_eq!(of(reranker().uint("qwen3.pooling_type", 3)), (ModelKind::Rerank, true));
        assert_eq!(of(reranker().tensor("cls.output.weight", 0, &[4, 2])), (ModelKind::Rerank, false));
        let tokens = ["yes", "no"];
        let named = |name: &str| GgufSample::of("qwen3").text("general.name", name);
        assert_eq!(of(with_tokens(named("Qwen3 0.6B"), &tokens)), (ModelKind::Chat, true));
        assert_eq!(
            of(with_tokens(named("Qwen3 Embedding").uint("qwen3.pooling_type", 3), &tokens)).0,
            ModelKind::Embedding
        );
        let llama = GgufSample::chat().text("general.name", "Reranker");
        assert_eq!(of(with_tokens(llama, &tokens)), (ModelKind::Chat, false), "made for other answers, or none");
        assert!(!of(with_tokens(GgufSample::of("bert").uint("bert.pooling_type", 4), &tokens)).1);
    }

    #[test]
    fn the_answers_are_the_first_tokens_that_are_these_words_alone() {
        let tokens = |tokens: &[&str]| with_tokens(GgufSample::of("qwen3"), tokens).parse().unwrap().yes_no;
        let found = tokens(&["", "non", "no", "\u{120}yes", "Yes", "yes", "yes", "no"]);
        assert_eq!(found, Some(YesNoTokens { yes: 5, no: 2 }));
        assert_eq!((tokens(&["yes", "not"]), tokens(&["y", "no"]), tokens(&[])), (None, None, None));
        assert_eq!(with_tokens(GgufSample::of("qwen3"), &["yes", "x"]).parse().unwrap().vocabulary_size, Some(2));
    }

    #[test]
    fn what_such_a_reranker_cannot_do_is_said_before_the_start() {
        let fault = |sample: GgufSample, arguments: &str| {
            let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
            ModelKind::Rerank.contradiction(&sample.parse().unwrap(), &arguments).map(|found| found.fault)
        };
        assert_eq!(fault(reranker(), "-fa on"), None);
        assert!(fault(reranker(), "--rerank").unwrap().contains("scored by completions"));
        assert!(fault(reranker(), "--embeddings").unwrap().contains("scored by completions"));
        let headed = reranker().tensor("cls.output.weight", 0, &[4, 2]);
        assert_eq!(fault(headed, "--reranking"), None);
        assert!(fault(GgufSample::of("qwen3"), "").unwrap().contains("no tokens \"yes\" and \"no\""));
        // Vectors of it are as good as those of any decoder.
        let embedding =
            |arguments: &[String]| ModelKind::Embedding.contradiction(&reranker().parse().unwrap(), arguments);
        assert_eq!(embedding(&[]), None);
        assert_eq!(ModelKind::Chat.contradiction(&reranker().parse().unwrap(), &[]), None);
    }
}
