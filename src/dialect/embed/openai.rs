//! OpenAI's dialect, which most others extend: Jina (`task`, `normalized`, `embedding_type`, `truncate`), Voyage
//! (`input_type`, `output_dimension`, `output_dtype`, `truncation`), Infinity (`modality`), vLLM (`truncate_prompt_tokens`,
//! `truncation_side`), text-embeddings-inference (`normalize`, `truncation_direction`), and servers of BGE-M3
//! (`embedding_type`, `return_dense`, `return_sparse`, `return_colbert`, FlagEmbedding's `return_colbert_vecs`). One answer serves them all.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::fields::{FieldError, Fields, list, text};
use super::canonical::{EmbedAnswer, EmbedDialect, EmbedFormat, EmbedRequest, InputCut, VectorKind, WantedVectors};
use super::encoding::{Encoded, VectorEncoding, VectorNumber};
use super::inputs::{cut, dimensions, inputs, json, prompt, refuse_flag, side};

/// Members that llama-server ignores, although they change what the client expects. With none of them, its own answer is
/// right.
pub const TRANSLATED_MEMBERS: &[&str] = &[
    "dimensions",
    "embedding_type",
    "encoding_type",
    "input_type",
    "late_chunking",
    "modality",
    "normalize",
    "normalized",
    "output_dimension",
    "output_dtype",
    "prompt_name",
    "return_colbert",
    "return_colbert_vecs",
    "return_dense",
    "return_multivector",
    "return_sparse",
    "task",
    "truncate",
    "truncate_prompt_tokens",
    "truncation",
    "truncation_direction",
    "truncation_side",
];

/// Returns whether a value of `input` is an array in which an object has a `text`. An object without one is llama-server's
/// own form of an image.
pub fn has_text_objects(input: &[u8]) -> bool {
    let items: Vec<&RawValue> = serde_json::from_slice(input).unwrap_or_default();
    items.iter().any(|item| Fields::within("input", item).is_ok_and(|item| item.has("text")))
}

/// Reads a request.
///
/// # Errors
/// It is none, or asks for something that is not served.
pub(super) fn parse(fields: &Fields<'_>) -> Result<EmbedRequest, FieldError> {
    refuse_flag(fields, "late_chunking", "each input is embedded on its own")?;
    refuse_flag(fields, "return_multivector", "ask for embedding_type colbert")?;
    if let Some(modality) = fields.text("modality")?.filter(|modality| modality != "text") {
        return Err(FieldError::of("modality", format_args!("{modality} is not served here: only text is embedded")));
    }
    let kind = embedding_type(fields)?;
    let wanted = wanted(fields, kind)?;
    let encoding = encoding(fields, kind)?;
    let (count, dimensions_field) = match dimensions(fields, &["dimensions", "output_dimension"])? {
        Some((count, field)) => (Some(count), field),
        None => (None, "dimensions"),
    };
    // The SDK of OpenAI asks for base64 by itself.
    if !wanted.dense && (count.is_some() || encoding.number != VectorNumber::Float) {
        let (field, begin) = match wanted.main {
            VectorKind::Dense => ("return_dense", "false: these vectors"),
            VectorKind::Sparse | VectorKind::Colbert => ("embedding_type", "sparse and colbert"),
        };
        let what = format_args!("{begin} have no dimensions and no number type: leave those members out");
        return Err(FieldError::of(field, what));
    }
    let is_normalized = read_normalized(fields)?;
    let (cut, most_tokens) = where_to_cut(fields)?;
    if !is_normalized && encoding.number.is_scaled() {
        return Err(FieldError::of("normalized", "must be true for int8 and uint8, whose range is that of length 1"));
    }
    Ok(EmbedRequest {
        model: fields.text("model")?.map(std::borrow::Cow::into_owned),
        inputs: inputs(fields, "input")?,
        dimensions: count,
        cut,
        prompt: prompt(fields, &["input_type", "task", "prompt_name"])?,
        is_normalized,
        keep_alive: None,
        most_tokens,
        wanted,
        format: EmbedFormat {
            dialect: EmbedDialect::OpenAi,
            encodings: vec![encoding],
            is_list: true,
            dimensions_field,
        },
    })
}

/// What `embedding_type` says: Jina means the numbers, servers of BGE-M3 mean the kind of vectors.
#[derive(Clone, Copy, PartialEq)]
enum EmbeddingType {
    Dense,
    Sparse,
    Colbert,
    Number(VectorNumber),
    Base64,
}

/// Reads `embedding_type`, which LlamaIndex's client of Jina calls `encoding_type`.
fn embedding_type(fields: &Fields<'_>) -> Result<Option<EmbeddingType>, FieldError> {
    match (type_of(fields, "embedding_type")?, type_of(fields, "encoding_type")?) {
        (Some(one), Some(other)) if one != other => Err(FieldError::of("encoding_type", "contradicts embedding_type")),
        (one, other) => Ok(one.or(other)),
    }
}

fn type_of(fields: &Fields<'_>, field: &'static str) -> Result<Option<EmbeddingType>, FieldError> {
    let Some(value) = fields.get(field) else { return Ok(None) };
    // Jina takes a list too.
    let name = match value.get().as_bytes().first() {
        Some(b'[') => match list(field, value)?.as_slice() {
            [only] => text(field, only)?,
            _ => return Err(FieldError::of(field, "must have one entry: several types at once are not served here")),
        },
        _ => text(field, value)?,
    };
    let kind = match name.as_ref() {
        "dense" => EmbeddingType::Dense,
        "sparse" => EmbeddingType::Sparse,
        "colbert" => EmbeddingType::Colbert,
        "base64" => EmbeddingType::Base64,
        name => EmbeddingType::Number(VectorNumber::of(name).ok_or_else(|| {
            let known = "float, base64, int8, uint8, binary, ubinary, dense, sparse or colbert";
            FieldError::of(field, format_args!("must be {known}"))
        })?),
    };
    Ok(Some(kind))
}

/// Reads which kinds of vectors are wanted: the one that `embedding_type` names, dense without it, and those that other
/// members add.
fn wanted(fields: &Fields<'_>, kind: Option<EmbeddingType>) -> Result<WantedVectors, FieldError> {
    const FLAG_NAME: &str = "return_colbert_vecs";
    let main = match kind {
        Some(EmbeddingType::Sparse) => VectorKind::Sparse,
        Some(EmbeddingType::Colbert) => VectorKind::Colbert,
        _ => VectorKind::Dense,
    };
    let is_named = |this: VectorKind| kind.is_some() && main == this;
    let is_wanted = |field: &str, this: VectorKind| match fields.flag(field)? {
        Some(false) if is_named(this) => Err(FieldError::of(field, "contradicts embedding_type")),
        flag => Ok(is_named(this) || flag.unwrap_or(main == this)),
    };
    let wanted = WantedVectors {
        dense: is_wanted("return_dense", VectorKind::Dense)?,
        sparse: is_wanted("return_sparse", VectorKind::Sparse)?,
        colbert: is_wanted("return_colbert", VectorKind::Colbert)? | is_wanted(FLAG_NAME, VectorKind::Colbert)?,
        main,
        has_flag_names: fields.has(FLAG_NAME),
        ..WantedVectors::NONE
    };
    if !wanted.dense && !wanted.sparse && !wanted.colbert {
        return Err(FieldError::of("return_dense", "must be true, unless return_sparse or return_colbert is"));
    }
    Ok(wanted)
}

fn encoding(fields: &Fields<'_>, kind: Option<EmbeddingType>) -> Result<VectorEncoding, FieldError> {
    let mut is_base64 = match fields.text("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(FieldError::of("encoding_format", "must be float or base64")),
    };
    let dtype = fields.text("output_dtype")?;
    let dtype = dtype.as_deref().map(|name| {
        let what = "must be float, int8, uint8, binary or ubinary";
        VectorNumber::of(name).ok_or_else(|| FieldError::of("output_dtype", what))
    });
    let dtype = dtype.transpose()?;
    let of_type = match kind {
        Some(EmbeddingType::Number(number)) => Some(number),
        Some(EmbeddingType::Base64) => {
            is_base64 = true;
            None
        }
        // The SDK of OpenAI asks for base64 by itself. Only dense vectors can be packed.
        Some(EmbeddingType::Sparse | EmbeddingType::Colbert) => {
            is_base64 = false;
            None
        }
        Some(EmbeddingType::Dense) | None => None,
    };
    match (dtype, of_type) {
        (Some(dtype), Some(of_type)) if dtype != of_type => {
            let (dtype, of_type) = (dtype.name(), of_type.name());
            Err(FieldError::of("output_dtype", format_args!("is {dtype}, but embedding_type is {of_type}")))
        }
        (Some(number), _) => Ok(VectorEncoding { number, is_base64 }),
        (None, Some(VectorNumber::Float) | None) => Ok(VectorEncoding { number: VectorNumber::Float, is_base64 }),
        // Jina answers integers whatever `encoding_format` says, and the SDK of OpenAI, which asks for base64 by itself,
        // would read packed bytes as floats.
        (None, Some(number)) => Ok(VectorEncoding { number, is_base64: false }),
    }
}

/// Reads whether vectors have length 1. Jina calls it `normalized`, text-embeddings-inference `normalize`.
fn read_normalized(fields: &Fields<'_>) -> Result<bool, FieldError> {
    match (fields.flag("normalized")?, fields.flag("normalize")?) {
        (Some(one), Some(other)) if one != other => Err(FieldError::of("normalize", "contradicts normalized")),
        (one, other) => Ok(one.or(other).unwrap_or(true)),
    }
}

/// Reads whether inputs may be cut, where, and to how many tokens if not to the model's context. Jina calls it `truncate`,
/// Voyage `truncation`, vLLM `truncate_prompt_tokens`. None is on for who does not name it: OpenAI refuses long inputs.
fn where_to_cut(fields: &Fields<'_>) -> Result<(InputCut, Option<usize>), FieldError> {
    const TOKENS: &str = "truncate_prompt_tokens";
    let named = match (cut(fields, "truncate")?, cut(fields, "truncation")?) {
        (Some(one), Some(other)) if one != other => return Err(FieldError::of("truncation", "contradicts truncate")),
        (one, other) => one.or(other),
    };
    // vLLM: -1 is as much as the model takes.
    let takes_all = fields.get(TOKENS).is_some_and(|value| value.get() == "-1");
    let most_tokens = if takes_all { None } else { fields.count(TOKENS, 1)? };
    let asks = takes_all || most_tokens.is_some();
    if asks && named == Some(InputCut::Never) {
        return Err(FieldError::of(TOKENS, "contradicts truncate, which forbids to cut"));
    }
    let cut = named.or(asks.then_some(InputCut::End)).unwrap_or(InputCut::Never);
    let side = match (side(fields, "truncation_direction")?, side(fields, "truncation_side")?) {
        (Some(one), Some(other)) if one != other => {
            return Err(FieldError::of("truncation_side", "contradicts truncation_direction"));
        }
        (one, other) => one.or(other),
    };
    // A side says nothing of whether inputs are cut.
    let (InputCut::Start | InputCut::End, Some(side)) = (cut, side) else { return Ok((cut, most_tokens)) };
    let says_side = ["truncate", "truncation"].into_iter().find(|name| {
        fields
            .get(name)
            .is_some_and(|value| matches!(value.get().to_ascii_uppercase().as_str(), "\"START\"" | "\"END\""))
    });
    match says_side {
        Some(name) if side != cut => Err(FieldError::of(name, "contradicts the side that is to be cut off")),
        _ => Ok((side, most_tokens)),
    }
}

#[derive(Serialize)]
struct ListAnswer<'a> {
    object: &'static str,
    data: Vec<Entry<'a>>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Entry<'a> {
    object: &'static str,
    index: usize,
    embedding: Kind<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dense_embedding: Option<Encoded<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sparse_embedding: Option<&'a BTreeMap<u32, f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lexical_weights: Option<&'a BTreeMap<u32, f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    colbert_embedding: Option<&'a [Vec<f32>]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    colbert_vecs: Option<&'a [Vec<f32>]>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Kind<'a> {
    Dense(Encoded<'a>),
    Sparse(&'a BTreeMap<u32, f32>),
    Colbert(&'a [Vec<f32>]),
    /// An empty list: dense vectors are not wanted, and `embedding` is never missing.
    Nothing([f32; 0]),
}

/// Clients read both members without asking whether they are there, so an unknown number is 0.
#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// Writes the answer: `embedding` is the kind that `embedding_type` names, and each other kind that is wanted has a member of
/// its own.
pub(super) fn write(request: &EmbedRequest, answer: &EmbedAnswer) -> Vec<u8> {
    let encoding = request.format.encodings.first().copied().unwrap_or(VectorEncoding::FLOATS);
    let WantedVectors { dense: is_dense_wanted, main, has_flag_names, .. } = request.wanted;
    let data = (0..request.inputs.len()).map(|index| {
        let vector = answer.vectors.get(index).map(Vec::as_slice).unwrap_or_default();
        let mut dense = is_dense_wanted.then_some(Encoded(vector, encoding));
        let mut sparse = answer.sparse.as_ref().and_then(|all| all.get(index));
        let mut colbert = answer.colbert.as_ref().and_then(|all| all.get(index)).map(Vec::as_slice);
        let embedding = match main {
            VectorKind::Dense => dense.take().map(Kind::Dense),
            VectorKind::Sparse => sparse.take().map(Kind::Sparse),
            VectorKind::Colbert => colbert.take().map(Kind::Colbert),
        };
        Entry {
            object: "embedding",
            index,
            embedding: embedding.unwrap_or(Kind::Nothing([])),
            dense_embedding: dense,
            sparse_embedding: sparse.filter(|_| !has_flag_names),
            lexical_weights: sparse.filter(|_| has_flag_names),
            colbert_embedding: colbert.filter(|_| !has_flag_names),
            colbert_vecs: colbert.filter(|_| has_flag_names),
        }
    });
    let tokens = answer.prompt_tokens.unwrap_or(0);
    json(&ListAnswer {
        object: "list",
        data: data.collect(),
        model: &answer.model,
        usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
    })
}
