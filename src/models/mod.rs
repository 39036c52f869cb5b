//! Model files: GGUF metadata, the models below a folder, and the file that a model name means.
//!
//! Starts no process, sends no HTTP request and keeps no file open.
//!
//! - `bounds.rs`: bounds on the models of a folder
//! - `check.rs`: checks that llama-server can load a model
//! - `columns.rs`: tables with aligned columns
//! - `companions/`: files that belong to a model and are none
//! - `error.rs`: why there is no model to serve, and what to do about it
//! - `estimate/`: how much memory a model will need
//! - `find.rs`: finds the file that a model name means, in all places
//! - `folder_walk.rs`: the GGUF files below a folder
//! - `gguf/`: the metadata of one GGUF file
//! - `hub/`: models in Hugging Face's cache, and their names
//! - `kind.rs`: what a model is for: chat, embedding or rerank
//! - `list/`: the models on this machine, as tables or for serde
//! - `places.rs`: where models lie on this machine
//! - `quant.rs`: llama.cpp's numbers for quantisations and tensor types
//! - `removal/`: removes models from the disk
//! - `resolve.rs`: finds the file below a folder that a model name means
//! - `sample.rs`: small GGUF files for tests
//! - `shelf/`: every model of a folder or a store, under a name of its own
//! - `stores/`: models of other programs on this machine
//! - `split.rs`: models in several files, and model ids from file names

pub mod bounds;
pub mod check;
pub mod columns;
mod companions;
mod error;
pub mod estimate;
mod find;
mod folder_walk;
pub mod gguf;
pub mod hub;
pub mod kind;
pub mod list;
mod places;
pub mod quant;
mod removal;
pub mod resolve;
#[cfg(test)]
pub(crate) mod sample;
mod shelf;
pub mod split;
pub mod stores;

pub use check::{InspectedModel, check_readable};
pub use companions::adapter::{LoraAdapter, read_adapter};
pub use companions::choice::projector_of;
pub use companions::names::has_draft_name;
pub use companions::projector::{
    BrokenProjector, InputModality, Projector, ProjectorSearch, find_projector, read_projector,
};
pub use error::{FileProblem, ModelError};
pub use estimate::estimate;
pub use find::{add_meaning_of_name, find, find_projector_of, id_of_found};
pub use gguf::{GgufError, Metadata, TemplateFacts, YesNoTokens};
pub use hub::name::{
    NameError, RemoteName, RepositoryId, is_plain_path, path_of_address, path_of_name, sha256_of, shown_name,
};
pub use hub::quants::{RepositoryModel, models_of_repository};
pub use hub::{HubError, Repository, choose_files};
pub use kind::{KindContradiction, ModelKind};
pub use list::{
    HeldModel, Inventory, LAST_USED_FILE, LastUsed, ListedModel, human_size, inventory, inventory_table, list, table,
};
pub use places::{ModelPlaces, PlaceKind};
pub use removal::{KeptFile, RemovalError, RemovalPlan, RemovedFile, RemovedKind};
pub use resolve::{refuse_url, resolve};
pub use shelf::{BrokenShelfFile, Shelf, ShelfModel, ShelfScan};
pub use split::id_of;
pub use stores::error::{OllamaFault, StoreError};
pub use stores::name::StoreName;
