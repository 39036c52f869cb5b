//! The canonical answer: its order, its checks, and the parts that several dialects write alike.

use std::cmp::Ordering;

use serde::Serialize;
use serde_json::value::RawValue;

use super::request::{RerankDialect, RerankDocument, RerankRequest};

/// Documents that Cohere counts as one search.
const DOCUMENTS_IN_A_SEARCH: usize = 100;

/// The answer to a request.
#[derive(Debug, Clone)]
pub struct RerankAnswer {
    /// The name of the model, as the client reads it.
    pub model: String,
    /// One score for each document, in the order of the request, on the scale that the client reads.
    pub scores: Vec<f64>,
    /// Tokens that the worker read, if it says.
    pub prompt_tokens: Option<u64>,
}

/// One entry of an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankedDocument {
    /// The position of the document in the request.
    pub index: usize,
    /// Its score.
    pub score: f64,
}

/// Scores that cannot be given to a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// The answer of a worker is not in a shape that is known.
    #[error("the answer holds no list of scores: {0}")]
    Unreadable(String),
    /// A document has no score.
    #[error("the answer has no score for document {0}")]
    Missing(usize),
    /// A document has two scores.
    #[error("the answer has two scores for document {0}")]
    Repeated(usize),
    /// There is a score for a document that was not sent.
    #[error("the answer has a score for document {index}, but {documents} were sent")]
    NotSent {
        /// The position of the document.
        index: usize,
        /// How many documents were sent.
        documents: usize,
    },
    /// The score of a document is no finite number.
    #[error("the score of document {0} is no number")]
    NotFinite(usize),
}

impl RerankAnswer {
    /// Returns the entries of the answer: the best first, equal ones in the order of the request, at most `top_n`. Scores
    /// of pairs keep the order of the request, because their clients read them by position.
    ///
    /// # Errors
    /// There is not one finite score for each document.
    pub fn ranked(&self, request: &RerankRequest) -> Result<Vec<RankedDocument>, ScoreError> {
        let documents = request.documents.len();
        if self.scores.len() < documents {
            return Err(ScoreError::Missing(self.scores.len()));
        }
        if self.scores.len() > documents {
            return Err(ScoreError::NotSent { index: documents, documents });
        }
        if let Some(at) = self.scores.iter().position(|score| !score.is_finite()) {
            return Err(ScoreError::NotFinite(at));
        }
        let numbered = self.scores.iter().enumerate();
        let mut ranked: Vec<RankedDocument> = numbered.map(|(index, &score)| RankedDocument { index, score }).collect();
        if request.format.dialect != RerankDialect::VllmScore {
            ranked.sort_by(|one, other| other.score.partial_cmp(&one.score).unwrap_or(Ordering::Equal));
        }
        ranked.truncate(request.top_n.unwrap_or(usize::MAX));
        Ok(ranked)
    }

    /// Returns the tokens that were read.
    pub(super) fn usage(&self) -> AnswerUsage {
        let tokens = self.prompt_tokens.unwrap_or(0);
        AnswerUsage { prompt_tokens: tokens, total_tokens: tokens }
    }
}

/// Writes a value as JSON. Scores were checked before, since JSON has no word for others than finite ones.
pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    // Names, strings and numbers cannot fail to be written to memory.
    serde_json::to_vec(value).unwrap_or_default()
}

/// Tokens that were read, 0 where the worker does not say: clients of Voyage and Infinity need the member.
#[derive(Debug, Serialize)]
pub(super) struct AnswerUsage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// An entry as Cohere, Jina, vLLM and others read it.
#[derive(Debug, Serialize)]
pub(super) struct ResultEntry<'a> {
    index: usize,
    relevance_score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<ReturnedDocument<'a>>,
}

/// A document in an answer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum ReturnedDocument<'a> {
    /// The text alone.
    Text(&'a str),
    /// An object with the text.
    Object {
        /// The text.
        text: &'a str,
    },
    /// The object that the client sent.
    Given(&'a RawValue),
}

impl<'a> ReturnedDocument<'a> {
    /// Returns the text that was scored.
    pub(super) fn as_text(document: &'a RerankDocument) -> Self {
        Self::Text(&document.text)
    }

    /// Returns an object: the one that the client sent, or one around the text that it sent.
    pub(super) fn as_object(document: &'a RerankDocument) -> Self {
        document.given.as_deref().map_or(Self::Object { text: &document.text }, Self::Given)
    }

    /// Returns what the client sent.
    pub(super) fn as_given(document: &'a RerankDocument) -> Self {
        document.given.as_deref().map_or(Self::Text(&document.text), Self::Given)
    }
}

/// Returns the document of an entry in the given form, if the client asked for documents.
pub(super) fn returned<'a>(
    request: &'a RerankRequest,
    entry: RankedDocument,
    form: fn(&'a RerankDocument) -> ReturnedDocument<'a>,
) -> Option<ReturnedDocument<'a>> {
    if request.format.returns_documents { request.documents.get(entry.index).map(form) } else { None }
}

/// Returns the entries as Cohere, Jina, vLLM and others read them.
pub(super) fn results<'a>(
    request: &'a RerankRequest,
    ranked: &[RankedDocument],
    form: fn(&'a RerankDocument) -> ReturnedDocument<'a>,
) -> Vec<ResultEntry<'a>> {
    let entry = |ranked: &RankedDocument| ResultEntry {
        index: ranked.index,
        relevance_score: ranked.score,
        document: returned(request, *ranked, form),
    };
    ranked.iter().map(entry).collect()
}

/// What Cohere's clients read beside the entries.
#[derive(Debug, Serialize)]
pub(super) struct CohereMeta {
    api_version: CohereVersion,
    billed_units: BilledUnits,
}

#[derive(Debug, Serialize)]
struct CohereVersion {
    version: &'static str,
}

#[derive(Debug, Serialize)]
struct BilledUnits {
    search_units: usize,
}

impl CohereMeta {
    /// Returns what stands beside the entries of this version of Cohere's API.
    pub(super) fn of(version: &'static str, request: &RerankRequest) -> Self {
        let search_units = request.documents.len().div_ceil(DOCUMENTS_IN_A_SEARCH);
        Self { api_version: CohereVersion { version }, billed_units: BilledUnits { search_units } }
    }
}
