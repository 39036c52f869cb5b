//! Model files: GGUF metadata, the models below a folder, and the file that a model name means.
//!
//! Starts no process, sends no HTTP request and keeps no file open.
//!
//! - `check.rs`: checks that llama-server can load a model
//! - `columns.rs`: tables with aligned columns
//! - `error.rs`: why there is no model to serve, and what to do about it
//! - `estimate.rs`: how much memory a model will need
//! - `folder_walk.rs`: the GGUF files below a folder
//! - `gguf/`: the metadata of one GGUF file
//! - `hub/`: models in Hugging Face's cache
//! - `kind.rs`: what a model is for: chat, embedding or rerank
//! - `list.rs`: the models below a folder, as a table or for serde
//! - `quant.rs`: llama.cpp's numbers for quantisations and tensor types
//! - `resolve.rs`: finds the file that a model name means
//! - `sample.rs`: small GGUF files for tests
//! - `split.rs`: models in several files, and model ids from file names

pub mod check;
pub mod columns;
mod error;
pub mod estimate;
mod folder_walk;
pub mod gguf;
pub mod hub;
pub mod kind;
pub mod list;
pub mod quant;
pub mod resolve;
#[cfg(test)]
pub(crate) mod sample;
pub mod split;

pub use check::{InspectedModel, check_readable};
pub use error::{FileProblem, ModelError};
pub use estimate::estimate;
pub use gguf::{GgufError, Metadata};
pub use hub::{HubError, Repository};
pub use kind::ModelKind;
pub use list::{ListedModel, human_size, list, table};
pub use resolve::{find, resolve};
pub use split::id_of;
