//! The dialects of rerankers, embedding servers and Ollama: what their clients send and read, and what their servers
//! take and answer.
//!
//! Each request is read into a canonical form, and each answer is written from one, so that a client's dialect and a
//! worker's dialect never meet. Everything here is pure: bytes in, values out, and back. Which dialect a route or a
//! worker speaks, how a request is split into calls, and what a call costs is decided in `gateway/translation/`.
//!
//! - `answer_id.rs`: the identity of an answer, for the dialects that give it one
//! - `bounds.rs`: bounds on what a request may hold
//! - `embed/`: embeddings
//! - `fields.rs`: reads the members of a JSON object
//! - `ollama/`: Ollama's chats, completions and lists of models
//! - `rerank/`: rerankers
//! - `tokenize.rs`: the tokens of texts
//! - `worker_tokens.rs`: what tokenizers of workers are sent, and what they answer

mod answer_id;
mod bounds;
pub mod embed;
mod fields;
pub mod ollama;
pub mod rerank;
pub mod tokenize;
mod worker_tokens;

pub use answer_id::AnswerId;
pub use bounds::{LONGEST_FIELD_NAME, MOST_EMBED_INPUTS, MOST_FIELDS};
pub use fields::{FieldError, Fields};
pub use worker_tokens::{WorkerTokenCall, WorkerTokenDialect};
