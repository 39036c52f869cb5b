//! Cohere's dialect: `/v1/embed` and `/v2/embed`. Both read the same request, and differ in the answer.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::answer_id::AnswerId;
use super::super::fields::{FieldError, Fields, list, text};
use super::canonical::{EmbedAnswer, EmbedDialect, EmbedFormat, EmbedInput, EmbedRequest, InputCut, WantedVectors};
use super::encoding::{Encoded, VectorEncoding, VectorNumber};
use super::inputs::{at_index, cut, dimensions, items, json, prompt, texts};

/// Reads a request for `/v1/embed`.
///
/// # Errors
/// It is none, or asks for something that is not served.
pub(super) fn parse_v1(fields: &Fields<'_>) -> Result<EmbedRequest, FieldError> {
    match encodings(fields)? {
        Some(encodings) => parse(fields, EmbedDialect::CohereV1ByType, encodings),
        None => parse(fields, EmbedDialect::CohereV1, vec![VectorEncoding::FLOATS]),
    }
}

/// Reads a request for `/v2/embed`.
///
/// # Errors
/// As [`parse_v1`].
pub(super) fn parse_v2(fields: &Fields<'_>) -> Result<EmbedRequest, FieldError> {
    let encodings = encodings(fields)?.unwrap_or_else(|| vec![VectorEncoding::FLOATS]);
    parse(fields, EmbedDialect::CohereV2, encodings)
}

fn parse(
    fields: &Fields<'_>,
    dialect: EmbedDialect,
    encodings: Vec<VectorEncoding>,
) -> Result<EmbedRequest, FieldError> {
    // An empty list is what the clients of some send beside texts.
    if fields.list("images")?.is_some_and(|images| !images.is_empty()) {
        return Err(FieldError::of("images", "is not served here: only text is embedded"));
    }
    fields.refuse("max_tokens", "inputs are cut to the context of the model alone")?;
    // 0 is Cohere's default.
    if fields.get("priority").is_some_and(|value| value.get() != "0") {
        return Err(FieldError::of("priority", "is not served here: all requests of a model wait in one queue"));
    }
    let prompt = prompt(fields, &["input_type"])?;
    if prompt.as_ref().is_some_and(|prompt| prompt.name == "image") {
        return Err(FieldError::of("input_type", "image is not served here: only text is embedded"));
    }
    let inputs = match (fields.get("texts"), fields.get("inputs")) {
        (Some(_), Some(_)) => return Err(FieldError::of("inputs", "cannot stand beside texts")),
        (Some(given), None) => texts("texts", given)?,
        (None, Some(given)) => contents(given)?,
        (None, None) => return Err(FieldError::of("texts", "is missing")),
    };
    Ok(EmbedRequest {
        model: fields.text("model")?.map(Cow::into_owned),
        inputs,
        dimensions: dimensions(fields, &["output_dimension"])?.map(|(count, _)| count),
        cut: cut(fields, "truncate")?.unwrap_or(InputCut::End),
        prompt,
        is_normalized: true,
        keep_alive: None,
        most_tokens: None,
        wanted: WantedVectors::DENSE,
        format: EmbedFormat { dialect, encodings, is_list: true, dimensions_field: "output_dimension" },
    })
}

/// Reads `embedding_types`, each once.
fn encodings(fields: &Fields<'_>) -> Result<Option<Vec<VectorEncoding>>, FieldError> {
    const NAME: &str = "embedding_types";
    let Some(names) = fields.list(NAME)? else { return Ok(None) };
    let mut encodings = Vec::new();
    for name in names {
        let name = text(NAME, name)?;
        let number = VectorNumber::of(&name);
        let encoding = match (name.as_ref(), number) {
            ("base64", _) => VectorEncoding::BASE64,
            (_, Some(number)) => VectorEncoding { number, is_base64: false },
            (_, None) => {
                return Err(FieldError::of(NAME, "may have float, int8, uint8, binary, ubinary and base64"));
            }
        };
        if !encodings.contains(&encoding) {
            encodings.push(encoding);
        }
    }
    Ok(Some(encodings).filter(|encodings| !encodings.is_empty()))
}

/// Reads `inputs`: objects whose `content` has parts, of which only text is served. Parts of one input are one text.
fn contents(value: &RawValue) -> Result<Vec<EmbedInput>, FieldError> {
    const NAME: &str = "inputs";
    let read = items(NAME, value)?.into_iter().enumerate().map(|(at, item)| {
        let wrong = || at_index(NAME, at, "must have content with parts of type text: only text is embedded here");
        let item = Fields::within(NAME, item).map_err(|_| wrong())?;
        let content = item.get("content").ok_or_else(wrong)?;
        let mut parts: Vec<Cow<'_, str>> = Vec::new();
        for part in list(NAME, content).map_err(|_| wrong())? {
            let part = Fields::within(NAME, part).map_err(|_| wrong())?;
            if part.text("type").ok().flatten().is_some_and(|kind| kind != "text") {
                return Err(wrong());
            }
            parts.push(part.text("text").ok().flatten().ok_or_else(wrong)?);
        }
        if parts.is_empty() {
            return Err(wrong());
        }
        Ok(EmbedInput::Text(parts.join("\n")))
    });
    read.collect()
}

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    response_type: &'static str,
    embeddings: Embeddings<'a>,
    texts: Vec<&'a str>,
    meta: Meta,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Embeddings<'a> {
    List(Vec<Encoded<'a>>),
    ByType(BTreeMap<&'static str, Vec<Encoded<'a>>>),
}

#[derive(Serialize)]
struct Meta {
    api_version: ApiVersion,
    billed_units: BilledUnits,
}

#[derive(Serialize)]
struct ApiVersion {
    version: &'static str,
}

/// An unknown number is 0, so that the answer has the same members whichever worker gives it.
#[derive(Serialize)]
struct BilledUnits {
    input_tokens: u64,
}

/// Writes the answer.
pub(super) fn write(request: &EmbedRequest, answer: &EmbedAnswer, id: &AnswerId) -> Vec<u8> {
    let encoded = |encoding: VectorEncoding| answer.vectors.iter().map(|vector| Encoded(vector, encoding)).collect();
    let (response_type, embeddings) = match request.format.dialect {
        EmbedDialect::CohereV1 => ("embeddings_floats", Embeddings::List(encoded(VectorEncoding::FLOATS))),
        _ => {
            let by_type = request.format.encodings.iter().map(|encoding| {
                let name = if encoding.is_base64 { "base64" } else { encoding.number.name() };
                (name, encoded(*encoding))
            });
            ("embeddings_by_type", Embeddings::ByType(by_type.collect()))
        }
    };
    let texts = request.inputs.iter().filter_map(|input| match input {
        EmbedInput::Text(text) => Some(text.as_str()),
        EmbedInput::Tokens(_) => None,
    });
    let version = if request.format.dialect == EmbedDialect::CohereV2 { "2" } else { "1" };
    json(&Answer {
        id: &id.id,
        response_type,
        embeddings,
        texts: texts.collect(),
        meta: Meta {
            api_version: ApiVersion { version },
            billed_units: BilledUnits { input_tokens: answer.prompt_tokens.unwrap_or(0) },
        },
    })
}
