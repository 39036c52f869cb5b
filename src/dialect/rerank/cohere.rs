//! Cohere v2, `/v2/rerank`: the request of v1, and the answer without what other clients read.

use serde::Serialize;

use super::answer::{CohereMeta, RankedDocument, ResultEntry, ReturnedDocument, json, results};
use super::members::{MemberNames, read_request};
use super::request::{RerankDialect, RerankRequest};
use crate::dialect::answer_id::AnswerId;
use crate::dialect::fields::{FieldError, Fields};

const NAMES: MemberNames = MemberNames { documents: "documents", returns: "return_documents" };

#[derive(Serialize)]
struct CohereAnswer<'a> {
    id: &'a str,
    results: Vec<ResultEntry<'a>>,
    meta: CohereMeta,
}

/// Reads a request; it may hold the members of v1 too, since LiteLLM and vLLM's clients send them.
///
/// # Errors
/// It is none, or asks for something that is not served; the error names the member.
pub(super) fn parse(fields: &Fields<'_>, most: usize) -> Result<RerankRequest, FieldError> {
    read_request(fields, RerankDialect::CohereV2, NAMES, most)
}

/// Writes the answer.
pub(super) fn write(request: &RerankRequest, id: &AnswerId, ranked: &[RankedDocument]) -> Vec<u8> {
    let results = results(request, ranked, ReturnedDocument::as_object);
    json(&CohereAnswer { id: &id.id, results, meta: CohereMeta::of("2", request) })
}
