//! Reads the documents of a request: texts, or objects that hold the text.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::request::RerankDocument;
use crate::dialect::bounds::{LONGEST_FIELD_NAME, MOST_RANK_FIELDS};
use crate::dialect::fields::{FieldError, Fields, list, text};

/// Reads the documents that are the member `name`, with `rank_fields` if there are any.
///
/// # Errors
/// It is missing, empty, longer than `most`, or holds something without a text.
pub(super) fn read_documents(fields: &Fields<'_>, name: &str, most: usize) -> Result<Vec<RerankDocument>, FieldError> {
    let items = fields.list(name)?.ok_or_else(|| FieldError::of(name, "is missing"))?;
    check_number(name, items.len(), most)?;
    let rank_fields = read_rank_fields(fields)?;
    let numbered = items.into_iter().enumerate();
    numbered.map(|(at, item)| read_document(&format!("{name}[{at}]"), item, &rank_fields)).collect()
}

/// Checks the number of documents that the member `name` holds.
///
/// # Errors
/// There is none, or there are more than `most`.
pub(super) fn check_number(name: &str, number: usize, most: usize) -> Result<(), FieldError> {
    if number == 0 {
        return Err(FieldError::of(name, "must not be empty"));
    }
    if number > most {
        let message = format_args!("has {number} entries, more than the {most} of MAX_RERANK_DOCUMENTS");
        return Err(FieldError::of(name, message));
    }
    Ok(())
}

/// Returns the text that a value is or has as its member `text`; `field` is its name in errors.
///
/// # Errors
/// It is something else.
pub(super) fn text_within<'a>(field: &str, value: &'a RawValue) -> Result<Cow<'a, str>, FieldError> {
    match value.get().as_bytes().first() {
        Some(b'"') => text(field, value),
        Some(b'{') => text_of(field, &Fields::within(field, value)?),
        _ => Err(FieldError::of(field, "must be a string, or an object with a text")),
    }
}

fn text_of<'a>(field: &str, members: &Fields<'a>) -> Result<Cow<'a, str>, FieldError> {
    match members.get("text") {
        Some(value) => text(&format!("{field}.text"), value),
        None => Err(FieldError::of(field, "has no text; only texts are scored here")),
    }
}

fn read_rank_fields<'a>(fields: &Fields<'a>) -> Result<Vec<Cow<'a, str>>, FieldError> {
    const NAME: &str = "rank_fields";
    let Some(value) = fields.get(NAME) else { return Ok(Vec::new()) };
    let items = list(NAME, value)?;
    if items.len() > MOST_RANK_FIELDS {
        return Err(FieldError::of(NAME, format_args!("must not hold more than {MOST_RANK_FIELDS} names")));
    }
    let names = items.into_iter().map(|item| text(NAME, item)).collect::<Result<Vec<_>, _>>();
    let names = names.map_err(|_| FieldError::of(NAME, "must be an array of strings"))?;
    if names.iter().any(|name| name.len() > LONGEST_FIELD_NAME) {
        return Err(FieldError::of(NAME, format_args!("must not hold a name of more than {LONGEST_FIELD_NAME} bytes")));
    }
    Ok(names)
}

fn read_document(field: &str, item: &RawValue, rank_fields: &[Cow<'_, str>]) -> Result<RerankDocument, FieldError> {
    if !item.get().starts_with('{') {
        return Ok(RerankDocument { text: text_within(field, item)?.into_owned(), given: None, query: None });
    }
    let members = Fields::within(field, item)?;
    let text = if rank_fields.is_empty() {
        text_of(field, &members)?.into_owned()
    } else {
        text_of_fields(field, &members, rank_fields)?
    };
    Ok(RerankDocument { text, given: Some(item.to_owned()), query: None })
}

/// Returns the values of `rank_fields` one after the other, a line each, as Cohere v1 documents its order. Fields that this
/// document does not have are left out; values that are no strings are taken as JSON.
fn text_of_fields(field: &str, members: &Fields<'_>, rank_fields: &[Cow<'_, str>]) -> Result<String, FieldError> {
    let values = rank_fields.iter().filter_map(|name| members.get(name));
    let texts: Vec<Cow<'_, str>> =
        values.map(|value| text(field, value).unwrap_or(Cow::Borrowed(value.get()))).collect();
    if texts.is_empty() {
        return Err(FieldError::of(field, "has none of the members that rank_fields names"));
    }
    Ok(texts.join("\n"))
}
