//! Model files: what a GGUF says about itself, which models a folder holds, and which file a name means.
//!
//! Nothing here starts a process, talks HTTP or keeps a file open. [`gguf`] reads one file, [`split`] knows
//! how a model spreads over several, [`mod@list`] shows a folder, [`mod@resolve`] finds the file that a name means, if
//! need be in the cache that [`hub`] knows, and [`check`] says whether llama-server can be given it. [`mod@estimate`] says how much memory it will need.

pub mod check;
pub mod columns;
pub mod estimate;
pub mod gguf;
pub mod hub;
pub mod kind;
pub mod list;
pub mod quant;
pub mod resolve;
#[cfg(test)]
pub(crate) mod sample;
pub mod split;
mod walk;

pub use check::{FileProblem, Model, check_readable};
pub use estimate::estimate;
pub use gguf::{GgufError, Metadata};
pub use hub::{HubError, Repository};
pub use kind::Kind;
pub use list::{Found, human_size, list, table};
pub use resolve::{ModelError, find, resolve};
pub use split::id_of;
