//! vLLM's scores of pairs, `/score`: one text with each of several, or pairs of two lists. The answer keeps their order.

use std::borrow::Cow;

use serde::Serialize;

use super::answer::{AnswerUsage, RankedDocument, RerankAnswer, json};
use super::cut::read_cut;
use super::documents::{check_number, text_within};
use super::members::{read_instruction, read_model, read_raw_scores, refuse_what_is_not_served};
use super::request::{RerankDialect, RerankDocument, RerankFormat, RerankRequest};
use crate::dialect::answer_id::AnswerId;
use crate::dialect::fields::{FieldError, Fields, list};

/// What vLLM's versions call the two sides.
const SIDES: [(&str, &str); 4] =
    [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")];

#[derive(Serialize)]
struct ScoreAnswer<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    data: Vec<ScoreEntry>,
    usage: AnswerUsage,
}

#[derive(Serialize)]
struct ScoreEntry {
    index: usize,
    object: &'static str,
    score: f64,
}

/// Reads a request: one text and any number of others, or two lists of the same length.
///
/// # Errors
/// It is none, or asks for something that is not served; the error names the member.
pub(super) fn parse(fields: &Fields<'_>, most: usize) -> Result<RerankRequest, FieldError> {
    refuse_what_is_not_served(fields)?;
    let (first, second) =
        SIDES.into_iter().find(|(first, second)| fields.has(first) && fields.has(second)).unwrap_or(SIDES[0]);
    let queries = read_side(fields, first, most)?;
    let documents = read_side(fields, second, most)?;
    let is_shared = queries.len() == 1;
    if !is_shared && queries.len() != documents.len() {
        let numbers = format_args!(
            "has {} entries, but {second} has {}: one, or as many as those",
            queries.len(),
            documents.len()
        );
        return Err(FieldError::of(first, numbers));
    }
    let query = queries.first().map_or_else(String::new, |query| query.clone().into_owned());
    let mut own = queries.into_iter().map(Cow::into_owned);
    let mut own_query = || if is_shared { None } else { own.next() };
    Ok(RerankRequest {
        model: read_model(fields)?,
        query,
        documents: documents
            .into_iter()
            .map(|text| RerankDocument { text: text.into_owned(), given: None, query: own_query() })
            .collect(),
        top_n: None,
        cut: read_cut(fields)?,
        instruction: read_instruction(fields)?,
        wants_raw_scores: read_raw_scores(fields)?,
        format: RerankFormat { dialect: RerankDialect::VllmScore, returns_documents: false },
    })
}

/// Reads one text, or a list of them.
fn read_side<'a>(fields: &Fields<'a>, name: &str, most: usize) -> Result<Vec<Cow<'a, str>>, FieldError> {
    let value = fields.get(name).ok_or_else(|| FieldError::of(name, "is missing"))?;
    if !value.get().starts_with('[') {
        return Ok(vec![text_within(name, value)?]);
    }
    let items = list(name, value)?;
    check_number(name, items.len(), most)?;
    let numbered = items.into_iter().enumerate();
    numbered.map(|(at, item)| text_within(&format!("{name}[{at}]"), item)).collect()
}

/// Writes the answer, in the order of the request.
pub(super) fn write(answer: &RerankAnswer, id: &AnswerId, ranked: &[RankedDocument]) -> Vec<u8> {
    let entry = |ranked: &RankedDocument| ScoreEntry { index: ranked.index, object: "score", score: ranked.score };
    json(&ScoreAnswer {
        id: &id.id,
        object: "list",
        created: id.created,
        model: &answer.model,
        data: ranked.iter().map(entry).collect(),
        usage: answer.usage(),
    })
}
