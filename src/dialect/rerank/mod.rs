//! Reranking: what its clients send and read, and what rerankers take and answer.
//!
//! A request of any client becomes a [`RerankRequest`], and the answer of any worker becomes one score for each document.
//! This file only chooses the dialect. Errors in the shape of a dialect are made in `refusal`, and what is sent where is
//! decided in the gateway.
//!
//! - `request.rs`: the canonical request
//! - `answer.rs`: the canonical answer: its order, and the parts that several dialects write alike
//! - `members.rs`: reads the members that several dialects have alike
//! - `documents.rs`: reads the documents
//! - `cut.rs`: reads what may be cut
//! - `scale.rs`: logits and probabilities
//! - `common.rs`: the object that Cohere v1, Jina, vLLM, DashScope, Infinity, Voyage and Pinecone read as their own
//! - `cohere.rs`: Cohere v2
//! - `tei.rs`: Text Embeddings Inference
//! - `mixedbread.rs`: mixedbread
//! - `score.rs`: vLLM's scores of pairs
//! - `nim.rs`: NVIDIA NIM
//! - `words/`: rerankers that answer with words
//! - `worker.rs`: requests to workers
//! - `worker_scores.rs`: answers of workers

mod answer;
mod cohere;
mod common;
mod cut;
mod documents;
mod members;
mod mixedbread;
mod nim;
mod request;
mod scale;
mod score;
mod tei;
#[cfg(test)]
mod tests;
pub mod words;
mod worker;
mod worker_scores;

use crate::dialect::answer_id::AnswerId;
use crate::dialect::fields::{FieldError, Fields};

pub use answer::{RankedDocument, RerankAnswer, ScoreError};
pub use cut::{CutSide, DocumentCut};
pub use request::{RerankCall, RerankDialect, RerankDocument, RerankFormat, RerankRequest, RerankRoute};
pub use scale::{ScoreScale, to_probabilities};
pub use worker::{WorkerRerankDialect, WorkerRerankRequest};
pub use worker_scores::{WorkerScores, read_answer};

/// Reads a request in the dialect that its path and its members tell. Takes any bytes.
///
/// # Errors
/// It is no request in that dialect, or asks for something that is not served; the error names the member.
pub fn parse(route: &RerankRoute<'_>, body: &[u8]) -> Result<RerankRequest, FieldError> {
    let fields = Fields::parse(body)?;
    match dialect_of(route, &fields)? {
        RerankDialect::VllmScore => score::parse(&fields, route.most_documents),
        RerankDialect::Nim => nim::parse(&fields, route.most_documents),
        RerankDialect::CohereV2 => cohere::parse(&fields, route.most_documents),
        RerankDialect::Tei => tei::parse(&fields, route.most_documents),
        RerankDialect::Mixedbread => mixedbread::parse(&fields, route.most_documents),
        common => common::parse(&fields, common, route.most_documents),
    }
}

/// Returns the dialect of a request that may be wrong in it; `None` if it is no JSON object.
pub fn find_dialect(route: &RerankRoute<'_>, body: &[u8]) -> Option<RerankDialect> {
    let fields = Fields::parse(body).ok()?;
    let of_both = if fields.has("texts") { RerankDialect::Tei } else { RerankDialect::Mixedbread };
    Some(dialect_of(route, &fields).unwrap_or(of_both))
}

/// Writes the answer to a request in the dialect of the request.
///
/// # Errors
/// There is not one finite score for each document.
pub fn write(request: &RerankRequest, answer: &RerankAnswer, id: &AnswerId) -> Result<Vec<u8>, ScoreError> {
    let ranked = answer.ranked(request)?;
    Ok(match request.format.dialect {
        RerankDialect::VllmScore => score::write(answer, id, &ranked),
        RerankDialect::Nim => nim::write(request, answer, &ranked),
        RerankDialect::CohereV2 => cohere::write(request, id, &ranked),
        RerankDialect::Tei => tei::write(request, &ranked),
        RerankDialect::Mixedbread => mixedbread::write(request, answer, &ranked),
        common => common::write(request, answer, id, &ranked, common),
    })
}

fn dialect_of(route: &RerankRoute<'_>, fields: &Fields<'_>) -> Result<RerankDialect, FieldError> {
    match route.path.trim_end_matches('/') {
        "/score" | "/v1/score" => return Ok(RerankDialect::VllmScore),
        "/v1/ranking" => return Ok(RerankDialect::Nim),
        "/v2/rerank" => return Ok(RerankDialect::CohereV2),
        _ => {}
    }
    for (name, dialect) in [("texts", RerankDialect::Tei), ("input", RerankDialect::Mixedbread)] {
        let others = ["documents", "texts", "input"].into_iter().filter(|other| *other != name);
        if fields.has(name) {
            return match others.into_iter().find(|other| fields.has(other)) {
                Some(other) => Err(FieldError::of(name, format_args!("and {other} must not both be sent"))),
                None => Ok(dialect),
            };
        }
    }
    Ok(if route.is_pinecone {
        RerankDialect::Pinecone
    } else if fields.has("top_k") || fields.has("truncation") {
        RerankDialect::Voyage
    } else if fields.has("raw_scores") {
        RerankDialect::Infinity
    } else {
        RerankDialect::Common
    })
}
