//! The arguments that one llama-server understands, according to its own `--help`: names change between versions.
//!
//! Pure; `process/help.rs` runs the program.
//!
//! - `companions.rs`: the arguments for what goes with a model
//! - `help.rs`: parses the help
//! - `own_flags.rs`: the flags that the gateway passes, as this llama-server knows them
//! - `unknown.rs`: words that a llama-server would not take

pub(super) mod companions;
pub(super) mod help;
pub(super) mod own_flags;
pub(super) mod unknown;
