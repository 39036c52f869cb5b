//! Reads the members that several dialects have alike, so that each has one meaning.

use super::cut::read_cut;
use super::documents::{read_documents, text_within};
use super::request::{RerankDialect, RerankFormat, RerankRequest};
use crate::dialect::fields::{FieldError, Fields};

/// What a dialect calls the members that others name differently.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemberNames {
    /// The documents.
    pub(super) documents: &'static str,
    /// Whether the answer repeats them.
    pub(super) returns: &'static str,
}

/// Reads a request.
///
/// # Errors
/// A member is missing, has a value that it cannot have, or is not served.
pub(super) fn read_request(
    fields: &Fields<'_>,
    dialect: RerankDialect,
    names: MemberNames,
    most_documents: usize,
) -> Result<RerankRequest, FieldError> {
    refuse_what_is_not_served(fields)?;
    let query = fields.get("query").ok_or_else(|| FieldError::of("query", "is missing"))?;
    Ok(RerankRequest {
        model: read_model(fields)?,
        query: text_within("query", query)?.into_owned(),
        documents: read_documents(fields, names.documents, most_documents)?,
        top_n: read_top_n(fields)?,
        cut: read_cut(fields)?,
        instruction: read_instruction(fields)?,
        wants_raw_scores: read_raw_scores(fields)?,
        format: RerankFormat { dialect, returns_documents: fields.flag(names.returns)?.unwrap_or(false) },
    })
}

/// Refuses what dialects define and no model here can do.
///
/// # Errors
/// A member asks for it.
pub(super) fn refuse_what_is_not_served(fields: &Fields<'_>) -> Result<(), FieldError> {
    // As vLLM refuses it without a scheduler that knows priorities; 0 is the default of vLLM and of Cohere.
    if fields.get("priority").is_some_and(|value| value.get() != "0") {
        return Err(FieldError::of("priority", "is not served here: all requests of a model wait in one queue"));
    }
    fields.refuse("mm_processor_kwargs", "only texts are scored")?;
    fields.refuse("additional_data", "it means something to vLLM's plugins only")?;
    fields.refuse("label_token_ids", "the model's own labels are used")
}

/// Reads the name of the model.
///
/// # Errors
/// It is no string.
pub(super) fn read_model(fields: &Fields<'_>) -> Result<Option<String>, FieldError> {
    Ok(fields.text("model")?.map(std::borrow::Cow::into_owned))
}

/// Reads how many documents the answer holds: `top_n`, or `top_k`.
///
/// # Errors
/// One of them is not a whole number of at least 1, or they differ.
fn read_top_n(fields: &Fields<'_>) -> Result<Option<usize>, FieldError> {
    match (fields.count("top_n", 1)?, fields.count("top_k", 1)?) {
        (Some(top_n), Some(top_k)) if top_n != top_k => {
            Err(FieldError::of("top_k", format_args!("is {top_k}, but top_n is {top_n}")))
        }
        (top_n, top_k) => Ok(top_n.or(top_k)),
    }
}

/// Reads the task: `instruction` (vLLM), or `instruct` (DashScope).
///
/// # Errors
/// One of them is no string, or they differ.
pub(super) fn read_instruction(fields: &Fields<'_>) -> Result<Option<String>, FieldError> {
    match (fields.text("instruction")?, fields.text("instruct")?) {
        (Some(one), Some(other)) if one != other => Err(FieldError::of("instruct", "differs from instruction")),
        (one, other) => Ok(one.or(other).map(std::borrow::Cow::into_owned)),
    }
}

/// Reads whether the client wants logits: `raw_scores` (TEI, Infinity), or the opposite of vLLM's `use_activation`, which
/// older versions call `activation` or `softmax`.
///
/// # Errors
/// One of them is not true or false, or they contradict each other.
pub(super) fn read_raw_scores(fields: &Fields<'_>) -> Result<bool, FieldError> {
    let mut wanted: Option<(bool, &str)> = fields.flag("raw_scores")?.map(|is_raw| (is_raw, "raw_scores"));
    for name in ["use_activation", "activation", "softmax"] {
        let Some(is_raw) = fields.flag(name)?.map(|is_activated| !is_activated) else { continue };
        match wanted {
            Some((other, named)) if other != is_raw => {
                return Err(FieldError::of(name, format_args!("contradicts {named}")));
            }
            _ => wanted = Some((is_raw, name)),
        }
    }
    Ok(wanted.is_some_and(|(is_raw, _)| is_raw))
}
