//! mixedbread, `/v1/reranking`: a body with `input`, and `data` as the answer.

use serde::Serialize;

use super::answer::{AnswerUsage, RankedDocument, RerankAnswer, ReturnedDocument, json, returned};
use super::members::{MemberNames, read_request};
use super::request::{RerankDialect, RerankRequest};
use crate::dialect::fields::{FieldError, Fields};

const NAMES: MemberNames = MemberNames { documents: "input", returns: "return_input" };

#[derive(Serialize)]
struct MixedbreadAnswer<'a> {
    object: &'static str,
    model: &'a str,
    data: Vec<MixedbreadEntry<'a>>,
    usage: AnswerUsage,
    top_k: usize,
    return_input: bool,
}

#[derive(Serialize)]
struct MixedbreadEntry<'a> {
    index: usize,
    score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<ReturnedDocument<'a>>,
}

/// Reads a request.
///
/// # Errors
/// It is none, or asks for something that is not served; the error names the member.
pub(super) fn parse(fields: &Fields<'_>, most: usize) -> Result<RerankRequest, FieldError> {
    read_request(fields, RerankDialect::Mixedbread, NAMES, most)
}

/// Writes the answer.
pub(super) fn write(request: &RerankRequest, answer: &RerankAnswer, ranked: &[RankedDocument]) -> Vec<u8> {
    let entry = |ranked: &RankedDocument| MixedbreadEntry {
        index: ranked.index,
        score: ranked.score,
        input: returned(request, *ranked, ReturnedDocument::as_given),
    };
    json(&MixedbreadAnswer {
        object: "list",
        model: &answer.model,
        data: ranked.iter().map(entry).collect(),
        usage: answer.usage(),
        top_k: request.top_n.unwrap_or(request.documents.len()),
        return_input: request.format.returns_documents,
    })
}
