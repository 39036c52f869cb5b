//! Requests for embeddings.
//!
//! - `heads.rs`: vectors from those of single tokens, for models with heads
//! - `inputs.rs`: their inputs as they are sent: prefixed, cut
//! - `plain.rs`: tells requests that pass untouched
//! - `request.rs`: reads a request, makes its calls, and writes the answer
//! - `vector_lengths.rs`: the lengths of vectors

mod heads;
mod inputs;
mod plain;
mod request;
mod vector_lengths;

pub(super) use request::EmbedTranslation;
pub(in crate::gateway) use request::changes_answers_of;
