//! The request for embeddings and its answer, as they stand between the dialects. How they are read and written is in
//! the file of each dialect.

use std::collections::BTreeMap;

use super::super::ollama::KeepAlive;
use super::encoding::VectorEncoding;

/// What a client wants embedded, and how it wants the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedRequest {
    /// The name of the model, if the request has one.
    pub model: Option<String>,
    /// At least one.
    pub inputs: Vec<EmbedInput>,
    /// To how many numbers each dense vector is cut.
    pub dimensions: Option<usize>,
    /// What happens to an input that is longer than the model's context.
    pub cut: InputCut,
    /// The prefix that the client asks for, by name.
    pub prompt: Option<PromptName>,
    /// Whether dense vectors have length 1.
    pub is_normalized: bool,
    /// How long the model stays loaded after the request, if it says.
    pub keep_alive: Option<KeepAlive>,
    /// To how many tokens an input is cut where the model's context has more.
    pub most_tokens: Option<usize>,
    /// The kinds of vectors of the answer.
    pub wanted: WantedVectors,
    /// How the answer is written.
    pub format: EmbedFormat,
}

/// One thing to embed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmbedInput {
    /// A text, which the model's tokenizer splits.
    Text(String),
    /// Ids of the model's own vocabulary.
    Tokens(Vec<u32>),
}

/// Where an input that is too long is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputCut {
    /// Nowhere: the request is an error.
    Never,
    /// Its beginning is left out.
    Start,
    /// Its end is left out.
    End,
}

/// A prefix, by the name that the client gave it: Cohere's and Voyage's `input_type`, Jina's `task`, TEI's `prompt_name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptName {
    /// The member that named it, for errors.
    pub field: &'static str,
    /// The name as it was sent.
    pub name: String,
}

/// The two prefixes that retrieval models know, whatever a dialect calls them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptRole {
    /// What is searched for.
    Query,
    /// What is found.
    Document,
}

impl PromptName {
    /// Returns what the name means in retrieval: `query`, `search_query`, `retrieval.query`, `nl2code.query` are queries;
    /// `document`, `search_document`, `passage`, `retrieval.passage` are documents. None for all others.
    pub fn role(&self) -> Option<PromptRole> {
        let name = self.name.to_ascii_lowercase();
        match name.rsplit(['.', '_', '-']).next() {
            Some("query") => Some(PromptRole::Query),
            Some("document" | "passage") => Some(PromptRole::Document),
            _ => None,
        }
    }
}

/// Which kinds of vectors the answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedVectors {
    /// One vector for each input.
    pub dense: bool,
    /// A weight for each token id that matters.
    pub sparse: bool,
    /// A normalised vector for each token, out of the model's ColBERT head.
    pub colbert: bool,
    /// The vector of each token as the model gives it, without pooling.
    pub tokens: bool,
    /// Which of them OpenAI's `embedding` holds; the others have members of their own.
    pub main: VectorKind,
    /// Whether those members are named as in FlagEmbedding, whose names the client has used.
    pub has_flag_names: bool,
}

/// A kind of vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VectorKind {
    /// One vector for each input.
    Dense,
    /// A weight for each token id that matters.
    Sparse,
    /// A vector for each token.
    Colbert,
}

impl WantedVectors {
    /// None yet.
    pub(super) const NONE: Self = Self {
        dense: false,
        sparse: false,
        colbert: false,
        tokens: false,
        main: VectorKind::Dense,
        has_flag_names: false,
    };
    /// Only dense vectors.
    pub const DENSE: Self = Self { dense: true, ..Self::NONE };
    /// Only sparse vectors.
    pub const SPARSE: Self = Self { sparse: true, main: VectorKind::Sparse, ..Self::NONE };
    /// Only ColBERT vectors.
    pub const COLBERT: Self = Self { colbert: true, main: VectorKind::Colbert, ..Self::NONE };
    /// Only the vectors of tokens.
    pub const TOKENS: Self = Self { tokens: true, ..Self::NONE };
}

/// How the answer is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedFormat {
    /// Whose shape the answer has.
    pub dialect: EmbedDialect,
    /// How dense vectors are written: one entry, or several in Cohere's dialect.
    pub encodings: Vec<VectorEncoding>,
    /// Whether the answer is a list of vectors; else it is the vector of the only input.
    pub is_list: bool,
    /// What the dialect calls [`EmbedRequest::dimensions`], for errors.
    pub dimensions_field: &'static str,
}

/// The dialect of a client: one for each shape of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbedDialect {
    /// OpenAI's list, which Jina, Voyage, Infinity and vLLM have too.
    OpenAi,
    /// `embeddings` is a list of vectors.
    CohereV1,
    /// `embeddings` has a list for each encoding.
    CohereV1ByType,
    /// As [`EmbedDialect::CohereV1ByType`], of version 2.
    CohereV2,
    /// A list of vectors.
    TeiEmbed,
    /// A list of vectors for each input: one a token.
    TeiEmbedAll,
    /// A list of weights for each input.
    TeiEmbedSparse,
    /// How similar the first input is to each other input.
    TeiSimilarity,
    /// `/api/embed`
    OllamaEmbed,
    /// `/api/embeddings`
    OllamaEmbeddings,
}

impl EmbedDialect {
    /// Returns how its client knows the input at this place, for errors.
    pub fn input_name(self, at: usize) -> String {
        match self {
            Self::OpenAi | Self::OllamaEmbed => format!("input[{at}]"),
            Self::CohereV1 | Self::CohereV1ByType | Self::CohereV2 => format!("texts[{at}]"),
            Self::TeiEmbed | Self::TeiEmbedAll | Self::TeiEmbedSparse => format!("inputs[{at}]"),
            Self::TeiSimilarity => match at.checked_sub(1) {
                None => "source_sentence".to_owned(),
                Some(at) => format!("sentences[{at}]"),
            },
            Self::OllamaEmbeddings => "prompt".to_owned(),
        }
    }
}

/// The answer to an [`EmbedRequest`]. Each list has one entry for each input, in their order; all numbers are finite.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EmbedAnswer {
    /// The name by which the client knows the model.
    pub model: String,
    /// Dense vectors as [`super::shape`] returns them; empty if none are wanted.
    pub vectors: Vec<Vec<f32>>,
    /// None if the worker does not say it.
    pub prompt_tokens: Option<u64>,
    /// Weights by token id, if wanted.
    pub sparse: Option<Vec<BTreeMap<u32, f32>>>,
    /// Rows of the ColBERT head, if wanted.
    pub colbert: Option<Vec<Vec<Vec<f32>>>>,
    /// Vectors of tokens without pooling, if wanted.
    pub tokens: Option<Vec<Vec<Vec<f32>>>>,
}
