//! Ollama's dialect: `/api/embed`, and the older `/api/embeddings` for a single prompt. `options` are about how the model is
//! loaded, which is not the client's to decide; they pass. How `keep_alive` is read is in `dialect/ollama/`.

use std::borrow::Cow;

use serde::Serialize;

use super::super::fields::{FieldError, Fields};
use super::super::ollama::read_keep_alive;
use super::canonical::{EmbedAnswer, EmbedDialect, EmbedFormat, EmbedInput, EmbedRequest, InputCut, WantedVectors};
use super::encoding::VectorEncoding;
use super::inputs::{inputs, json};

/// Reads a request for `/api/embed`.
///
/// # Errors
/// It is none.
pub(super) fn parse_embed(fields: &Fields<'_>) -> Result<EmbedRequest, FieldError> {
    let mut request = request(EmbedDialect::OllamaEmbed, inputs(fields, "input")?, fields)?;
    // 0 is Ollama's way to say: as many as the model has.
    request.dimensions = fields.count("dimensions", 0)?.filter(|count| *count > 0);
    if fields.flag("truncate")? == Some(false) {
        request.cut = InputCut::Never;
    }
    Ok(request)
}

/// Reads a request for `/api/embeddings`.
///
/// # Errors
/// It is none.
pub(super) fn parse_embeddings(fields: &Fields<'_>) -> Result<EmbedRequest, FieldError> {
    let prompt = EmbedInput::Text(fields.required_text("prompt")?.into_owned());
    request(EmbedDialect::OllamaEmbeddings, vec![prompt], fields)
}

fn request(dialect: EmbedDialect, inputs: Vec<EmbedInput>, fields: &Fields<'_>) -> Result<EmbedRequest, FieldError> {
    Ok(EmbedRequest {
        model: fields.text("model")?.map(Cow::into_owned),
        inputs,
        dimensions: None,
        cut: InputCut::End,
        prompt: None,
        is_normalized: true,
        keep_alive: read_keep_alive(fields)?,
        most_tokens: None,
        wanted: WantedVectors::DENSE,
        format: EmbedFormat {
            dialect,
            encodings: vec![VectorEncoding::FLOATS],
            is_list: dialect == EmbedDialect::OllamaEmbed,
            dimensions_field: "dimensions",
        },
    })
}

#[derive(Serialize)]
struct ManyAnswer<'a> {
    model: &'a str,
    embeddings: &'a [Vec<f32>],
    /// An unknown number is 0, so that the answer has the same members whichever worker gives it.
    prompt_eval_count: u64,
}

#[derive(Serialize)]
struct SingleAnswer<'a> {
    embedding: &'a [f32],
}

/// Writes the answer.
pub(super) fn write(request: &EmbedRequest, answer: &EmbedAnswer) -> Vec<u8> {
    if request.format.is_list {
        return json(&ManyAnswer {
            model: &answer.model,
            embeddings: &answer.vectors,
            prompt_eval_count: answer.prompt_tokens.unwrap_or(0),
        });
    }
    json(&SingleAnswer { embedding: answer.vectors.first().map(Vec::as_slice).unwrap_or_default() })
}
