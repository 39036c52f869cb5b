//! Reads settings from flags, the environment and the configuration file into one typed, checked value.
//!
//! Owns the name, default and bounds of every setting, and is the only module that reads the environment.
//! `preflight`, not this module, checks whether a model or a key file that a setting names can be used.
//!
//! - `bounds.rs`: bounds of settings, and bounds that several modules share
//! - `brought/`: variables of other programs
//! - `catalogue/`: the configured models
//! - `cross_checks.rs`: settings that contradict each other, or are probably not meant so
//! - `detected.rs`: defaults that depend on the platform
//! - `env_file.rs`: `ENV_FILE`, a file of variables in dotenv form
//! - `environment.rs`: a copy of the process environment
//! - `file/`: the configuration file
//! - `merge/`: builds the catalogue from all sources of models
//! - `notes.rs`: problems and warnings, collected while the configuration is read
//! - `options.rs`: the table of settings
//! - `problem.rs`: one problem in the configuration
//! - `reader.rs`: parses the texts of settings into typed values
//! - `reference.rs`: generates `docs/CONFIGURATION.md`
//! - `resolve.rs`: decides which source wins, and reports all problems at once
//! - `runpod.rs`: the job queue of a RunPod endpoint, from the platform's own variables
//! - `source.rs`: the inputs of settings, and the source of each value
//! - `values/`: the types of settings

pub mod bounds;
mod brought;
pub mod catalogue;
mod cross_checks;
mod detected;
mod env_file;
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

pub use brought::{ALIASES, AliasRow, AliasTarget, OTHER_PROGRAMS, llama_variables_warning};
pub use catalogue::models_table::{additions, models_table, remotes_table};
#[cfg(feature = "test-support")]
pub(crate) use env_file::env_file_parts;
pub use environment::{Environment, is_executable};
pub(crate) use file::{YamlNode, configuration_schema, examine_file_text, read_config_text};
pub use options::{OPTIONS, OptionRow, Settings, Sources};
pub use problem::{SettingProblem, escaped};
pub use reference::configuration_reference;
#[cfg(feature = "test-support")]
pub(crate) use resolve::resolve_text;
pub use resolve::{Config, Examined, Resolved, examine, resolve, resolve_only};
pub use runpod::RunpodQueue;
pub use source::{Inputs, ValueSource};
