//! The models as the configuration describes them, wherever that is written.
//!
//! - `draft.rs`: what the configuration says of one model, and which of its sources wins
//! - `model.rs`: the types that the rest of the program takes
//! - `models_table.rs`: the models as `llamagate check` prints them

pub(super) mod draft;
mod model;
pub(super) mod models_table;

pub(super) use model::known_id;
pub use model::{Catalogue, LocalSettings, ModelSettings, RemoteSettings, Rewrite, Start};
