//! Settings: from flags, environment and configuration file to one typed, checked value.
//!
//! Owns every name, default and bound of the program, and is the only place that reads the environment.
//! Whether a model or a key file that a setting names is any good is not decided here but in `preflight.rs`.

pub mod bounds;
pub mod catalogue;
mod detected;
mod environment;
mod file;
pub mod options;
mod reference;
mod resolve;
mod runpod;
mod shelf;
pub mod values;

pub use catalogue::shelf_table::shelf_table;
pub use environment::{Environment, is_executable};
pub use options::{OPTIONS, OptionRow, Settings};
pub use reference::configuration_reference;
#[cfg(feature = "test-support")]
pub(crate) use resolve::resolve_text;
pub use resolve::{Inputs, Problem, Resolved, Source, resolve, resolve_only};
pub use runpod::RunpodQueue;
