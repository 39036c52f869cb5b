//! Variables that people bring along from other programs: those that are read as ours, and those that have no effect.
//!
//! - `aliases.rs`: the table of names that are read as ours
//! - `llama_env.rs`: variables of llama-server, which have no effect here
//! - `names.rs`: applies the table to an environment
//! - `other_programs.rs`: variables of programs that may run beside this one, which have no effect here

pub(super) mod aliases;
mod llama_env;
mod names;
mod other_programs;

pub use aliases::{ALIASES, AliasRow, AliasTarget};
pub use llama_env::llama_variables_warning;
pub(super) use names::{BroughtNames, FileFacts};
pub use other_programs::OTHER_PROGRAMS;
pub(super) use other_programs::other_programs_warnings;
