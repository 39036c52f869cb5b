//! Settings: from flags, environment and configuration file to one typed, checked value.
//!
//! Owns every name, default and bound of the program, and is the only place that reads the environment.
//! Whether a model or a key file that a setting names is any good is not decided here but in `preflight.rs`.
//!
//! - `bounds.rs`: bounds of settings, and those that several modules share
//! - `catalogue/`: the models as the configuration describes them
//! - `detected.rs`: defaults that follow from where the program runs
//! - `environment.rs`: a copy of the process environment
//! - `file/`: the configuration file
//! - `notes.rs`: problems and warnings, collected while the configuration is read
//! - `options.rs`: the table of settings
//! - `problem.rs`: one mistake in the configuration
//! - `reader.rs`: from the texts of settings to typed values
//! - `reference.rs`: `docs/CONFIGURATION.md`
//! - `resolve.rs`: which source wins, and every problem at once
//! - `runpod.rs`: the queue of a RunPod endpoint, from the platform's own variables
//! - `merge/`: the catalogue, put together from all sources of models
//! - `source.rs`: what settings are resolved from
//! - `values/`: the types of settings

pub mod bounds;
pub mod catalogue;
mod detected;
mod environment;
mod file;
mod merge;
mod notes;
pub mod options;
mod problem;
mod reader;
mod reference;
mod resolve;
mod runpod;
mod source;
pub mod values;

pub use catalogue::models_table::models_table;
pub use environment::{Environment, is_executable};
pub use options::{OPTIONS, OptionRow, Settings};
pub use problem::SettingProblem;
pub use reference::configuration_reference;
#[cfg(feature = "test-support")]
pub(crate) use resolve::resolve_text;
pub use resolve::{Config, Resolved, resolve, resolve_only};
pub use runpod::RunpodQueue;
pub use source::{Inputs, ValueSource};
