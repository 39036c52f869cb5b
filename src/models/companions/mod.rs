//! Files that belong to a model and are none themselves.
//!
//! Owns which files go with which model. Which of them a request or a setting asks for is decided elsewhere.
//!
//! - `adapter.rs`: LoRA adapters
//! - `choice.rs`: which projector of a repository belongs to a model, by names
//! - `names.rs`: which files belong to a model, as their names tell
//! - `projector.rs`: multimodal projectors, and which model each belongs to

pub(super) mod adapter;
pub(super) mod choice;
pub(super) mod names;
pub(super) mod projector;
