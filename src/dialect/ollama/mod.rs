//! Ollama's dialect: chats and completions, and what its clients read about models.
//!
//! [`parse`] reads a request, [`OllamaRequest::body`] writes it for a worker that speaks OpenAI's API, and an
//! [`AnswerWriter`] turns what the worker answers, whole or event by event, into Ollama's lines. Embeddings in this dialect
//! are in `dialect/embed/ollama.rs`, and errors in its shape are made in `refusal/`.
//!
//! - `request.rs`: a request between the dialects, and its form for a worker
//! - `client.rs`: the way from a path to the file that reads its requests
//! - `chat.rs`: reads a request for `/api/chat`
//! - `generate.rs`: reads a request for `/api/generate`
//! - `common.rs`: the members that both have: format, thinking, tools, log probabilities
//! - `messages.rs`: messages with pictures and calls of tools
//! - `options.rs`: the options of sampling
//! - `keep_alive.rs`: how long a model stays loaded
//! - `worker_answer.rs`: reads the answers and the events of workers
//! - `tool_calls.rs`: puts the calls of tools together
//! - `answer.rs`: turns answers and events into lines
//! - `line.rs`: writes one line
//! - `models.rs`: writes lists and descriptions of models
//! - `tests/`: requests and answers of every kind, and streams in any pieces

mod answer;
mod chat;
mod client;
mod common;
mod generate;
mod keep_alive;
mod line;
mod messages;
mod models;
mod options;
mod request;
mod tool_calls;
mod worker_answer;

#[cfg(test)]
mod tests;

pub use answer::{AnswerWriter, Moment};
pub use client::parse;
pub use keep_alive::KeepAlive;
pub(super) use keep_alive::read as read_keep_alive;
pub use models::{LoadedModel, ModelCapability, ModelCard, loaded, read_shown, show, tags};
pub use request::{OllamaForm, OllamaRequest};
