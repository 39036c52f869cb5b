//! The common object: one answer that clients of Cohere v1, Jina, vLLM, LocalAI, Xinference, DashScope, Infinity, Voyage and
//! Pinecone each read as their own. They ignore the members that they do not know.
//!
//! `data` is added for those that read it in place of `results`: Voyage, Pinecone, and Continue, which sends nothing but the
//! query and the documents.

use serde::Serialize;

use super::answer::{
    AnswerUsage, CohereMeta, RankedDocument, RerankAnswer, ResultEntry, ReturnedDocument, json, results, returned,
};
use super::cut::read_cut;
use super::members::{MemberNames, read_request};
use super::request::{RerankDialect, RerankRequest};
use crate::dialect::answer_id::AnswerId;
use crate::dialect::fields::{FieldError, Fields};

const NAMES: MemberNames = MemberNames { documents: "documents", returns: "return_documents" };

#[derive(Serialize)]
struct CommonAnswer<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    results: Vec<ResultEntry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Vec<DataEntry<'a>>>,
    usage: CommonUsage,
    meta: CohereMeta,
}

/// Voyage's clients read `relevance_score`, others `score`.
#[derive(Serialize)]
struct DataEntry<'a> {
    index: usize,
    relevance_score: f64,
    score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<ReturnedDocument<'a>>,
}

#[derive(Serialize)]
struct CommonUsage {
    #[serde(flatten)]
    tokens: AnswerUsage,
    #[serde(skip_serializing_if = "Option::is_none")]
    rerank_units: Option<u64>,
}

/// Reads a request with `documents`, in one of the dialects that the common object serves.
///
/// # Errors
/// It is none, or asks for something that is not served; the error names the member.
pub(super) fn parse(fields: &Fields<'_>, dialect: RerankDialect, most: usize) -> Result<RerankRequest, FieldError> {
    let mut request = read_request(fields, dialect, NAMES, most)?;
    if dialect == RerankDialect::Pinecone {
        request.format.returns_documents = fields.flag(NAMES.returns)?.unwrap_or(true);
        if let Some(value) = fields.get("parameters") {
            let cut = read_cut(&Fields::within("parameters", value)?)?;
            request.cut = if cut.is_allowed() { cut } else { request.cut };
        }
    }
    Ok(request)
}

/// Writes the common object, with what this dialect adds to it.
pub(super) fn write(
    request: &RerankRequest,
    answer: &RerankAnswer,
    id: &AnswerId,
    ranked: &[RankedDocument],
    dialect: RerankDialect,
) -> Vec<u8> {
    let is_infinity = dialect == RerankDialect::Infinity;
    let is_pinecone = dialect == RerankDialect::Pinecone;
    let data = match dialect {
        RerankDialect::Voyage => Some(data(request, ranked, ReturnedDocument::as_text)),
        RerankDialect::Pinecone => Some(data(request, ranked, ReturnedDocument::as_object)),
        RerankDialect::Common if request.top_n.is_none() && !request.format.returns_documents => {
            Some(data(request, ranked, ReturnedDocument::as_text))
        }
        _ => None,
    };
    let form = if is_infinity { ReturnedDocument::as_text } else { ReturnedDocument::as_object };
    json(&CommonAnswer {
        id: &id.id,
        // infinity_client takes no other word.
        object: if is_infinity { "rerank" } else { "list" },
        created: id.created,
        model: &answer.model,
        results: results(request, ranked, form),
        data,
        usage: CommonUsage { tokens: answer.usage(), rerank_units: is_pinecone.then_some(1) },
        meta: CohereMeta::of("1", request),
    })
}

fn data<'a>(
    request: &'a RerankRequest,
    ranked: &[RankedDocument],
    form: fn(&'a super::request::RerankDocument) -> ReturnedDocument<'a>,
) -> Vec<DataEntry<'a>> {
    let entry = |ranked: &RankedDocument| DataEntry {
        index: ranked.index,
        relevance_score: ranked.score,
        score: ranked.score,
        document: returned(request, *ranked, form),
    };
    ranked.iter().map(entry).collect()
}
