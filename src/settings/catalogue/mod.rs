//! The configured models, independent of the source that describes them.
//!
//! - `companions.rs`: what goes with a model besides its projector
//! - `draft.rs`: the unresolved settings of one model, and which source wins
//! - `model.rs`: the resolved types that the rest of the program uses
//! - `models_table.rs`: the tables of models and of remote backends that `llamagate check` prints
//! - `pool.rs`: which models share the requests that name none

mod companions;
pub(super) mod draft;
mod model;
pub(super) mod models_table;
mod pool;

pub use companions::{AdapterSetting, CompanionSettings, SpeculativeSetting};
pub use model::{
    Catalogue, EVERY_MODEL, HeadFiles, LoadMode, LocalSettings, ModelSettings, ProjectorSetting, RemoteSettings,
    Rewrite, Start, is_generation_field,
};
pub(super) use model::{TIERS, known_id};
pub use pool::{PoolPlace, PoolRole};
