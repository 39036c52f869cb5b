//! Checks before the start: model files, programs, keys, file descriptors. Starts nothing.
//!
//! All problems are collected before they are returned. Also finds warnings that need the model files: configurations
//! that work, but probably not as intended.
//!
//! - `bounds.rs`: bounds on what the checks report
//! - `checked.rs`: what the checks of models return
//! - `companion_report.rs`: what people read about what goes with a model
//! - `companions.rs`: what goes with a model
//! - `heads.rs`: the heads of a model for embeddings
//! - `inspection.rs`: all checks together, on what could be read of the settings
//! - `keys.rs`: the key file
//! - `llama_server.rs`: the program, and whether it takes the arguments
//! - `memory_limit.rs`: the memory that a model is compared with
//! - `model.rs`: one model, its file and its projector
//! - `models.rs`: all models
//! - `ready.rs`: everything that needs no model file
//! - `shelf.rs`: the models below `MODELS_DIR`
//! - `warnings.rs`: models that work, but probably not as intended

mod bounds;
mod checked;
mod companion_report;
mod companions;
mod heads;
mod inspection;
mod keys;
mod llama_server;
mod memory_limit;
mod model;
mod models;
mod ready;
mod shelf;
mod warnings;

pub use checked::{BrokenFile, CheckedModel, CheckedModels, FoundCompanions, MissingModel, ModelFile, Unservable};
pub use inspection::inspect;
pub use keys::{key_file_warnings, missing_key_file_warning};
pub use llama_server::{find_rpc_server, llama_server};
pub use memory_limit::{FoundMemory, memory_limit};
pub use models::models;
pub use ready::{Prepared, ready};
pub use shelf::find_shelf;
