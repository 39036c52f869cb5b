//! Reads inputs, and the members that several dialects share.

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::bounds::MOST_EMBED_INPUTS;
use super::super::fields::{FieldError, Fields, list, text};
use super::canonical::{EmbedInput, InputCut, PromptName};

/// What an input may have beside its text where models read more than text (Jina, Voyage, Infinity).
const OTHER_MEDIA: &[&str] = &["audio", "bytes", "image", "image_base64", "image_url", "pdf", "url", "video"];

/// Reads the inputs of a member: a string, token ids, or an array of strings, arrays of token ids and `{"text": ...}`.
///
/// # Errors
/// The member is missing, empty, something else, or has more than [`MOST_EMBED_INPUTS`].
pub(super) fn inputs(fields: &Fields<'_>, field: &'static str) -> Result<Vec<EmbedInput>, FieldError> {
    let value = fields.get(field).ok_or_else(|| FieldError::of(field, "is missing"))?;
    match value.get().as_bytes().first() {
        Some(b'"') => return Ok(vec![EmbedInput::Text(text(field, value)?.into_owned())]),
        Some(b'[') => {}
        _ => return Err(FieldError::of(field, "must be a string or an array")),
    }
    let items = items(field, value)?;
    if items.iter().all(|item| is_number(item)) {
        return Ok(vec![EmbedInput::Tokens(tokens(field, value)?)]);
    }
    items.iter().enumerate().map(|(at, item)| one(field, at, item)).collect()
}

/// Reads the texts of a member that is an array of strings.
///
/// # Errors
/// The member is empty, something else, or has more than [`MOST_EMBED_INPUTS`].
pub(super) fn texts(field: &'static str, value: &RawValue) -> Result<Vec<EmbedInput>, FieldError> {
    let items = items(field, value)?;
    let read = items.iter().enumerate().map(|(at, item)| match text(field, item) {
        Ok(text) => Ok(EmbedInput::Text(text.into_owned())),
        Err(_) => Err(at_index(field, at, "must be a string")),
    });
    read.collect()
}

/// Returns the items of an array that is not empty.
///
/// # Errors
/// It is empty, something else, or has more than [`MOST_EMBED_INPUTS`].
pub(super) fn items<'a>(field: &'static str, value: &'a RawValue) -> Result<Vec<&'a RawValue>, FieldError> {
    let items = list(field, value)?;
    if items.is_empty() {
        return Err(FieldError::of(field, "must not be empty"));
    }
    // One input of many token ids is bounded by the size of the body.
    if items.len() > MOST_EMBED_INPUTS && !items.iter().all(|item| is_number(item)) {
        let has = items.len();
        return Err(FieldError::of(field, format_args!("has {has} entries; {MOST_EMBED_INPUTS} are allowed")));
    }
    Ok(items)
}

/// Creates the error of one item of an array.
pub(super) fn at_index(field: &str, at: usize, what: &str) -> FieldError {
    FieldError { field: Some(field.to_owned()), message: format!("{field}[{at}] {what}") }
}

fn one(field: &'static str, at: usize, item: &RawValue) -> Result<EmbedInput, FieldError> {
    match item.get().as_bytes().first() {
        Some(b'"') => Ok(EmbedInput::Text(text(field, item)?.into_owned())),
        Some(b'[') => match tokens(field, item) {
            Ok(tokens) if !tokens.is_empty() => Ok(EmbedInput::Tokens(tokens)),
            _ => Err(at_index(field, at, "must be an array of token ids")),
        },
        Some(b'{') => {
            let object = Fields::within(field, item)?;
            match object.text("text") {
                Ok(Some(text)) if !OTHER_MEDIA.iter().any(|name| object.has(name)) => {
                    Ok(EmbedInput::Text(text.into_owned()))
                }
                _ => Err(at_index(field, at, "must have a text and nothing else: only text is embedded here")),
            }
        }
        _ => Err(at_index(field, at, "must be a string, an array of token ids, or an object with a text")),
    }
}

fn tokens(field: &str, value: &RawValue) -> Result<Vec<u32>, FieldError> {
    serde_json::from_str(value.get()).map_err(|_| FieldError::of(field, "must have token ids that are whole numbers"))
}

fn is_number(value: &RawValue) -> bool {
    value.get().starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// Reads where too long inputs are cut: true or false, or Cohere's `NONE`, `START`, `END`.
///
/// # Errors
/// The member is something else.
pub(super) fn cut(fields: &Fields<'_>, field: &'static str) -> Result<Option<InputCut>, FieldError> {
    let Some(value) = fields.get(field) else { return Ok(None) };
    let cut = match value.get().trim_matches('"').to_ascii_uppercase().as_str() {
        "NONE" | "FALSE" => InputCut::Never,
        "START" => InputCut::Start,
        "END" | "TRUE" => InputCut::End,
        _ => return Err(FieldError::of(field, "must be true, false, NONE, START or END")),
    };
    Ok(Some(cut))
}

/// Reads the side of an input that is cut off, as text-embeddings-inference and vLLM say it.
///
/// # Errors
/// It is neither `left` nor `right`.
pub(super) fn side(fields: &Fields<'_>, field: &'static str) -> Result<Option<InputCut>, FieldError> {
    let Some(side) = fields.text(field)? else { return Ok(None) };
    match side.to_ascii_lowercase().as_str() {
        "right" => Ok(Some(InputCut::End)),
        "left" => Ok(Some(InputCut::Start)),
        _ => Err(FieldError::of(field, "must be left or right")),
    }
}

/// Reads the name of a prefix out of the first of these members that is there.
///
/// # Errors
/// It is no string, or two of them mean different prefixes.
pub(super) fn prompt(fields: &Fields<'_>, names: &[&'static str]) -> Result<Option<PromptName>, FieldError> {
    let mut found: Option<PromptName> = None;
    for &field in names {
        let Some(name) = fields.text(field)? else { continue };
        let this = PromptName { field, name: name.into_owned() };
        match &found {
            None => found = Some(this),
            Some(first) if first.name == this.name || (first.role().is_some() && first.role() == this.role()) => {}
            Some(first) => {
                return Err(FieldError::of(field, format_args!("contradicts {}", first.field)));
            }
        }
    }
    Ok(found)
}

/// Reads a whole number that may have several names.
///
/// # Errors
/// It is no whole number of at least 1, or two names have different numbers.
pub(super) fn dimensions(
    fields: &Fields<'_>,
    names: &[&'static str],
) -> Result<Option<(usize, &'static str)>, FieldError> {
    let mut found: Option<(usize, &'static str)> = None;
    for &field in names {
        let Some(count) = fields.count(field, 1)? else { continue };
        match found {
            None => found = Some((count, field)),
            Some((first, _)) if first == count => {}
            Some((first, other)) => {
                return Err(FieldError::of(field, format_args!("is {count}, but {other} is {first}")));
            }
        }
    }
    Ok(found)
}

/// Refuses a member that is true, with the reason.
///
/// # Errors
/// It is true, or neither true nor false.
pub(super) fn refuse_flag(fields: &Fields<'_>, field: &str, why: &str) -> Result<(), FieldError> {
    match fields.flag(field)? {
        Some(true) => Err(FieldError::of(field, format_args!("is not served here: {why}"))),
        _ => Ok(()),
    }
}

/// Writes an answer or a request.
pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    // Nothing that is written here can fail: the keys are strings and integers, and memory is the only sink.
    serde_json::to_vec(value).unwrap_or_default()
}
