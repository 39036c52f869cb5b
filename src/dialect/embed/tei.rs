//! The dialect of Hugging Face's text-embeddings-inference (router/src/http/types.rs): `/embed`, `/embed_all`,
//! `/embed_sparse`, `/similarity`, and `/`. Its answers are bare arrays.

use std::borrow::Cow;

use serde::Serialize;

use super::super::fields::{FieldError, Fields};
use super::canonical::{EmbedAnswer, EmbedDialect, EmbedFormat, EmbedInput, EmbedRequest, InputCut, WantedVectors};
use super::encoding::VectorEncoding;
use super::inputs::{dimensions, inputs, json, prompt, side, texts};
use super::vector::cosine;

/// Reads a request for `/embed`, `/embed_all` or `/embed_sparse`.
///
/// # Errors
/// It is none.
pub(super) fn parse(dialect: EmbedDialect, fields: &Fields<'_>) -> Result<EmbedRequest, FieldError> {
    let wanted = match dialect {
        EmbedDialect::TeiEmbedAll => WantedVectors::TOKENS,
        EmbedDialect::TeiEmbedSparse => WantedVectors::SPARSE,
        _ => WantedVectors::DENSE,
    };
    let mut request = request(dialect, wanted, inputs(fields, "inputs")?, fields)?;
    request.model = fields.text("model")?.map(Cow::into_owned);
    if wanted.dense {
        request.dimensions = dimensions(fields, &["dimensions"])?.map(|(count, _)| count);
        request.is_normalized = fields.flag("normalize")?.unwrap_or(true);
    }
    Ok(request)
}

/// Reads a request for `/similarity`: its inputs are the source sentence, then the others.
///
/// # Errors
/// It is none.
pub(super) fn parse_similarity(fields: &Fields<'_>) -> Result<EmbedRequest, FieldError> {
    let given = fields.get("inputs").ok_or_else(|| FieldError::of("inputs", "is missing"))?;
    let given = Fields::within("inputs", given)?;
    let mut sentences = vec![EmbedInput::Text(given.required_text("source_sentence")?.into_owned())];
    let others = given.get("sentences").ok_or_else(|| FieldError::of("sentences", "is missing"))?;
    sentences.extend(texts("sentences", others)?);
    let parameters = fields.get("parameters").map(|value| Fields::within("parameters", value)).transpose()?;
    let parameters = parameters.as_ref().unwrap_or(fields);
    let mut request = request(EmbedDialect::TeiSimilarity, WantedVectors::DENSE, sentences, parameters)?;
    request.model = fields.text("model")?.map(Cow::into_owned);
    Ok(request)
}

fn request(
    dialect: EmbedDialect,
    wanted: WantedVectors,
    inputs: Vec<EmbedInput>,
    parameters: &Fields<'_>,
) -> Result<EmbedRequest, FieldError> {
    let side = side(parameters, "truncation_direction")?.unwrap_or(InputCut::End);
    Ok(EmbedRequest {
        model: None,
        inputs,
        dimensions: None,
        cut: if parameters.flag("truncate")?.unwrap_or(false) { side } else { InputCut::Never },
        prompt: prompt(parameters, &["prompt_name"])?,
        is_normalized: wanted.dense,
        keep_alive: None,
        most_tokens: None,
        wanted,
        format: EmbedFormat {
            dialect,
            encodings: vec![VectorEncoding::FLOATS],
            is_list: true,
            dimensions_field: "dimensions",
        },
    })
}

/// The weight of a token.
#[derive(Serialize)]
struct SparseValue {
    index: u32,
    value: f32,
}

/// Writes the answer.
pub(super) fn write(dialect: EmbedDialect, answer: &EmbedAnswer) -> Vec<u8> {
    match dialect {
        EmbedDialect::TeiEmbedAll => json(&answer.tokens.as_deref().unwrap_or_default()),
        EmbedDialect::TeiEmbedSparse => {
            let all = answer.sparse.as_deref().unwrap_or_default().iter();
            let all = all.map(|weights| weights.iter().map(|(&index, &value)| SparseValue { index, value }).collect());
            json(&all.collect::<Vec<Vec<SparseValue>>>())
        }
        EmbedDialect::TeiSimilarity => {
            let Some((source, others)) = answer.vectors.split_first() else { return json(&[(); 0]) };
            #[expect(clippy::cast_possible_truncation, reason = "a cosine has fewer digits than f32 holds")]
            let cosines = others.iter().map(|other| cosine(source, other) as f32);
            json(&cosines.collect::<Vec<f32>>())
        }
        _ => json(&answer.vectors),
    }
}
