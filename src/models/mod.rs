//! Model files: what a GGUF says about itself, which models a folder holds, and which file a name means.
//!
//! Nothing here starts a process, talks HTTP or keeps a file open.
//!
//! - `check.rs`: whether llama-server can be given a model
//! - `columns.rs`: tables with aligned columns
//! - `error.rs`: why there is no model to serve, and what to do about it
//! - `estimate.rs`: how much memory a model will need
//! - `gguf/`: what one file says about itself
//! - `hub/`: Hugging Face's cache, in which a repository is looked for
//! - `kind.rs`: what a model is for
//! - `list.rs`: the models of a folder, for people and for programs
//! - `quant.rs`: the names and sizes of quantisations
//! - `resolve.rs`: from a name to the file that it means
//! - `sample.rs`: small GGUF files for tests
//! - `split.rs`: models in several files, and the id that a file's name makes
//! - `folder_walk.rs`: the GGUF files below a folder

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
