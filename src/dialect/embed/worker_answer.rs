//! Reads the answers of workers. The numbers are read straight into vectors, without a JSON value in between; floats and
//! base64 are told apart by themselves.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use super::encoding::decode_floats;
use super::worker::WorkerEmbedDialect;

/// What a worker has answered.
#[derive(Debug, PartialEq)]
pub struct WorkerVectors {
    /// One for each input, in their order, all of the same width; all numbers are finite.
    pub vectors: Vec<Vec<f32>>,
    /// None if the worker does not say it.
    pub prompt_tokens: Option<u64>,
}

/// Why an answer is not what was asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkerVectorsError {
    /// It has another shape, or a number that is null or not finite; with what the parser says.
    #[error("the answer has no embeddings in the dialect of the backend: {0}")]
    Unreadable(String),
    /// It has too few vectors, or too many.
    #[error("the answer has {has} embeddings for {inputs} inputs")]
    Count {
        /// Vectors of the answer.
        has: usize,
        /// Inputs of the request.
        inputs: usize,
    },
    /// It has this index twice, or no input has it.
    #[error("the answer has an embedding with the index {0}, which is there already or belongs to no input")]
    Index(usize),
    /// A vector is empty, or has another width than the first.
    #[error("the embedding of input {at} has {has} numbers, that of the first has {first}")]
    Width {
        /// The place of the input, from 0.
        at: usize,
        /// Its numbers.
        has: usize,
        /// The numbers of the first vector.
        first: usize,
    },
}

/// Reads the answer to [`super::write_request`] for this many inputs.
///
/// # Errors
/// It is none, a number of it is null or not finite, or an input has not exactly one vector of the width of all others.
pub fn read_answer(
    dialect: WorkerEmbedDialect,
    body: &[u8],
    inputs: usize,
) -> Result<WorkerVectors, WorkerVectorsError> {
    let (vectors, prompt_tokens) = match dialect {
        WorkerEmbedDialect::OpenAi | WorkerEmbedDialect::Jina | WorkerEmbedDialect::Voyage => {
            let answer: ListAnswer = read(body)?;
            (in_order(answer.data, inputs)?, answer.usage.and_then(|usage| usage.prompt_tokens.or(usage.total_tokens)))
        }
        WorkerEmbedDialect::Tei => (plain(read(body)?), None),
        WorkerEmbedDialect::Cohere => {
            let answer: CohereAnswer = read(body)?;
            let billed = answer.meta.and_then(|meta| meta.billed_units).and_then(|units| units.input_tokens);
            // Cohere counts in floats: 7.0.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast saturates")]
            let tokens = billed.map(|tokens| tokens as u64);
            (plain(answer.embeddings.0), tokens)
        }
        WorkerEmbedDialect::Ollama => {
            let answer: OllamaAnswer = read(body)?;
            (plain(answer.embeddings), answer.prompt_eval_count)
        }
    };
    check(&vectors, inputs)?;
    Ok(WorkerVectors { vectors, prompt_tokens })
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, WorkerVectorsError> {
    serde_json::from_slice(body).map_err(|error| WorkerVectorsError::Unreadable(error.to_string()))
}

fn plain(vectors: Vec<Numbers>) -> Vec<Vec<f32>> {
    vectors.into_iter().map(|Numbers(numbers)| numbers).collect()
}

/// Sorts entries by their index. Entries without one are in order.
fn in_order(entries: Vec<Entry>, inputs: usize) -> Result<Vec<Vec<f32>>, WorkerVectorsError> {
    if entries.len() != inputs {
        return Err(WorkerVectorsError::Count { has: entries.len(), inputs });
    }
    let mut vectors: Vec<Option<Vec<f32>>> = vec![None; inputs];
    for (at, entry) in entries.into_iter().enumerate() {
        let index = entry.index.unwrap_or(at);
        match vectors.get_mut(index) {
            Some(place) if place.is_none() => *place = Some(entry.embedding.0),
            _ => return Err(WorkerVectorsError::Index(index)),
        }
    }
    // As many entries as places, and none of them twice: no place is empty.
    Ok(vectors.into_iter().flatten().collect())
}

fn check(vectors: &[Vec<f32>], inputs: usize) -> Result<(), WorkerVectorsError> {
    if vectors.len() != inputs {
        return Err(WorkerVectorsError::Count { has: vectors.len(), inputs });
    }
    let first = vectors.first().map_or(0, Vec::len);
    for (at, vector) in vectors.iter().enumerate() {
        if vector.len() != first || vector.is_empty() {
            return Err(WorkerVectorsError::Width { at, has: vector.len(), first });
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct ListAnswer {
    data: Vec<Entry>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Entry {
    index: Option<usize>,
    embedding: Numbers,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    total_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CohereAnswer {
    embeddings: CohereEmbeddings,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    billed_units: Option<BilledUnits>,
}

#[derive(Deserialize)]
struct BilledUnits {
    input_tokens: Option<f64>,
}

#[derive(Deserialize)]
struct OllamaAnswer {
    embeddings: Vec<Numbers>,
    prompt_eval_count: Option<u64>,
}

/// The numbers of a vector: an array of them, or their bytes in base64.
struct Numbers(Vec<f32>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Vec<f32>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an array of numbers, or base64")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<f32>, E> {
                let numbers = decode_floats(text).ok_or_else(|| E::custom("an embedding is no base64 of floats"))?;
                if numbers.iter().all(|number| number.is_finite()) { Ok(numbers) } else { Err(not_finite()) }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Vec<f32>, A::Error> {
                let mut read = Vec::new();
                while let Some(number) = numbers.next_element::<f32>()? {
                    if !number.is_finite() {
                        return Err(not_finite());
                    }
                    read.push(number);
                }
                Ok(read)
            }
        }
        deserializer.deserialize_any(Either).map(Numbers)
    }
}

fn not_finite<E: de::Error>() -> E {
    E::custom("a number of an embedding is not finite")
}

/// v2 has a list for each type, of which floats are asked for; v1 has only the list.
struct CohereEmbeddings(Vec<Numbers>);

impl<'de> Deserialize<'de> for CohereEmbeddings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Vec<Numbers>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("embeddings as floats")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, vectors: A) -> Result<Vec<Numbers>, A::Error> {
                Deserialize::deserialize(de::value::SeqAccessDeserializer::new(vectors))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<Numbers>, A::Error> {
                #[derive(Deserialize)]
                struct ByType {
                    #[serde(alias = "float_")]
                    float: Vec<Numbers>,
                }
                ByType::deserialize(de::value::MapAccessDeserializer::new(map)).map(|by_type| by_type.float)
            }
        }
        deserializer.deserialize_any(Either).map(CohereEmbeddings)
    }
}
