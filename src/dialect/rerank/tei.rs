//! Text Embeddings Inference: a body with `texts`, an array as the answer.

use serde::Serialize;

use super::answer::{RankedDocument, ReturnedDocument, json, returned};
use super::members::{MemberNames, read_request};
use super::request::{RerankDialect, RerankRequest};
use crate::dialect::fields::{FieldError, Fields};

const NAMES: MemberNames = MemberNames { documents: "texts", returns: "return_text" };

#[derive(Serialize)]
struct TeiEntry<'a> {
    index: usize,
    score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<ReturnedDocument<'a>>,
}

/// Reads a request; `top_n`, which LiteLLM adds, counts.
///
/// # Errors
/// It is none, or asks for something that is not served; the error names the member.
pub(super) fn parse(fields: &Fields<'_>, most: usize) -> Result<RerankRequest, FieldError> {
    read_request(fields, RerankDialect::Tei, NAMES, most)
}

/// Writes the answer.
pub(super) fn write(request: &RerankRequest, ranked: &[RankedDocument]) -> Vec<u8> {
    let entry = |ranked: &RankedDocument| TeiEntry {
        index: ranked.index,
        score: ranked.score,
        text: returned(request, *ranked, ReturnedDocument::as_text),
    };
    json(&ranked.iter().map(entry).collect::<Vec<_>>())
}
