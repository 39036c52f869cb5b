//! NVIDIA NIM, `/v1/ranking`: `passages`, and logits as the answer.

use serde::Serialize;

use super::answer::{AnswerUsage, RankedDocument, RerankAnswer, json};
use super::members::{MemberNames, read_request};
use super::request::{RerankDialect, RerankRequest};
use crate::dialect::fields::{FieldError, Fields};

const NAMES: MemberNames = MemberNames { documents: "passages", returns: "return_documents" };

#[derive(Serialize)]
struct NimAnswer {
    rankings: Vec<NimEntry>,
    usage: AnswerUsage,
}

#[derive(Serialize)]
struct NimEntry {
    index: usize,
    logit: f64,
}

/// Reads a request. Its clients read logits, as the name says.
///
/// # Errors
/// It is none, or asks for something that is not served; the error names the member.
pub(super) fn parse(fields: &Fields<'_>, most: usize) -> Result<RerankRequest, FieldError> {
    let request = read_request(fields, RerankDialect::Nim, NAMES, most)?;
    Ok(RerankRequest { wants_raw_scores: true, ..request })
}

/// Writes the answer.
pub(super) fn write(answer: &RerankAnswer, ranked: &[RankedDocument]) -> Vec<u8> {
    let rankings = ranked.iter().map(|ranked| NimEntry { index: ranked.index, logit: ranked.score }).collect();
    json(&NimAnswer { rankings, usage: answer.usage() })
}
