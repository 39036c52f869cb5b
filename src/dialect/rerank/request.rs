//! The canonical request: what is asked of a reranker, whichever dialect the client speaks.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::cut::DocumentCut;

/// What a request says beside its body, and its bounds.
#[derive(Debug, Clone, Copy)]
pub struct RerankRoute<'a> {
    /// The path, without the query.
    pub path: &'a str,
    /// Whether the headers are those of a Pinecone client.
    pub is_pinecone: bool,
    /// Most documents of a request, from `MAX_RERANK_DOCUMENTS`.
    pub most_documents: usize,
}

/// A request to score documents against a query.
#[derive(Debug, Clone)]
pub struct RerankRequest {
    /// The name of the model, if the client named one.
    pub model: Option<String>,
    /// The query. A document that has its own is scored against that.
    pub query: String,
    /// At least one document.
    pub documents: Vec<RerankDocument>,
    /// How many of the best documents the answer holds; all if none. At least 1, and perhaps more than there are.
    pub top_n: Option<usize>,
    /// What may be cut off documents that are too long.
    pub cut: DocumentCut,
    /// The task, for models whose template has one; others refuse it.
    pub instruction: Option<String>,
    /// Whether the client reads logits.
    pub wants_raw_scores: bool,
    /// How the answer is written.
    pub format: RerankFormat,
}

/// One document of a request.
#[derive(Debug, Clone)]
pub struct RerankDocument {
    /// What is scored.
    pub text: String,
    /// The object that the client sent, to give it back; none where it sent the text alone.
    pub given: Option<Box<RawValue>>,
    /// The document's own query, in requests that hold pairs.
    pub query: Option<String>,
}

/// How the answer to a request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RerankFormat {
    /// The dialect of the client.
    pub dialect: RerankDialect,
    /// Whether the answer repeats the documents.
    pub returns_documents: bool,
}

/// What clients of rerankers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RerankDialect {
    /// The object with `results` that Cohere v1, Jina, vLLM and others read.
    Common,
    /// The same with `data`, which Voyage's clients read.
    Voyage,
    /// The same with `document` as text, which Infinity's clients read.
    Infinity,
    /// The same with `data` whose documents are objects, which Pinecone's clients read.
    Pinecone,
    /// Cohere v2.
    CohereV2,
    /// Text Embeddings Inference.
    Tei,
    /// mixedbread.
    Mixedbread,
    /// vLLM's scores of pairs.
    VllmScore,
    /// NVIDIA NIM.
    Nim,
}

impl RerankDialect {
    /// Returns the name of the member that holds the documents, for errors.
    pub fn documents_name(self) -> &'static str {
        match self {
            Self::Tei => "texts",
            Self::Mixedbread => "input",
            Self::VllmScore => "text_2",
            Self::Nim => "passages",
            Self::Common | Self::Voyage | Self::Infinity | Self::Pinecone | Self::CohereV2 => "documents",
        }
    }
}

/// What can be asked of a worker at once: one query and documents.
#[derive(Debug, PartialEq, Eq)]
pub struct RerankCall<'a> {
    /// The query.
    pub query: &'a str,
    /// The positions of its documents in the request, ascending.
    pub documents: Vec<usize>,
}

impl RerankRequest {
    /// Returns the calls that the request needs if a worker is asked for one document at a time.
    pub fn calls_by_document(&self) -> Vec<RerankCall<'_>> {
        let numbered = self.documents.iter().enumerate();
        numbered.map(|(at, document)| RerankCall { query: self.query_of(document), documents: vec![at] }).collect()
    }

    /// Returns the calls that the request needs, one for each query, in the order in which the queries come.
    pub fn calls(&self) -> Vec<RerankCall<'_>> {
        let mut calls: Vec<RerankCall<'_>> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (at, document) in self.documents.iter().enumerate() {
            let query = self.query_of(document);
            let place = *places.entry(query).or_insert(calls.len());
            match calls.get_mut(place) {
                Some(call) => call.documents.push(at),
                None => calls.push(RerankCall { query, documents: vec![at] }),
            }
        }
        calls
    }

    fn query_of<'a>(&'a self, document: &'a RerankDocument) -> &'a str {
        document.query.as_deref().unwrap_or(&self.query)
    }
}
