//! Embeddings: what clients ask for, what workers answer, and the canonical form in the middle.
//!
//! [`parse`] reads a client's request, [`shape`] makes the vectors of the worker what the client asked for, and [`write()`]
//! answers in the client's dialect. [`write_request`] and [`read_answer`] speak with the worker. Errors in a dialect's
//! shape are made in `refusal/`; prefixes, cutting by tokens and the heads of sparse and ColBERT vectors are not here.
//!
//! - `canonical.rs`: the request and the answer between the dialects
//! - `client.rs`: which dialect a path speaks, and the way to its file
//! - `inputs.rs`: reads inputs and the members that several dialects share
//! - `openai.rs`: OpenAI's dialect, with the members of Jina, Voyage, Infinity and BGE-M3 servers
//! - `cohere.rs`: Cohere's dialect, v1 and v2
//! - `tei.rs`: the dialect of Hugging Face's text-embeddings-inference
//! - `ollama.rs`: Ollama's dialect
//! - `vector.rs`: cuts and normalises vectors
//! - `encoding.rs`: writes the numbers of a vector: floats, integers, bits, base64
//! - `token_rows.rs`: reads the vectors of single tokens from a llama-server
//! - `worker.rs`: writes requests to workers, in the dialect of each
//! - `worker_answer.rs`: reads the answers of workers
//! - `tests/`: every client that is known, and bytes that mean nothing

mod canonical;
mod client;
mod cohere;
mod encoding;
mod inputs;
mod ollama;
mod openai;
mod tei;
mod token_rows;
mod vector;
mod worker;
mod worker_answer;

#[cfg(test)]
mod tests;

pub use canonical::{
    EmbedAnswer, EmbedDialect, EmbedFormat, EmbedInput, EmbedRequest, InputCut, PromptName, PromptRole, VectorKind,
    WantedVectors,
};
pub use client::{parse, write};
pub use encoding::{VectorEncoding, VectorNumber};
pub use openai::{TRANSLATED_MEMBERS, has_text_objects};
pub use token_rows::{TokenRow, TokenRows};
pub use vector::{normalize, shape};
pub use worker::{ROWS_PATH, WorkerEmbedCall, WorkerEmbedDialect, check_request, write_request, write_rows_request};
pub use worker_answer::{WorkerVectors, WorkerVectorsError, read_answer};
