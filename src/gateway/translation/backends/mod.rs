//! Calls as they are written for the worker that gets them, each in the API that it speaks.
//!
//! - `apis.rs`: which dialects a worker speaks
//! - `embed_call.rs`: a call for embeddings
//! - `rerank_call.rs`: a call for scores
//! - `token_call.rs`: a call to a tokenizer

mod apis;
mod embed_call;
mod rerank_call;
mod token_call;

pub(super) use apis::{embed_dialect, least, rerank_dialect, token_dialect};
pub(super) use embed_call::EmbedCall;
pub(super) use rerank_call::RerankCallBody;
pub(super) use token_call::TokenCall;
