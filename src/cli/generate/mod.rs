//! What the program writes about itself: completions, manual pages, the schema of its configuration, a first configuration.
//!
//! - `args.rs`: the arguments
//! - `completions.rs`: `llamagate completions`
//! - `first_config.rs`: the text of a first configuration
//! - `init.rs`: `llamagate init`
//! - `man.rs`: `llamagate man`
//! - `schema.rs`: `llamagate schema`

mod args;
mod completions;
mod first_config;
mod init;
mod man;
mod schema;

pub(super) use args::{CompletionsArgs, InitArgs, ManArgs, SchemaArgs};
pub(super) use completions::run as run_completions;
pub(super) use init::run as run_init;
pub(super) use man::run as run_man;
pub(super) use schema::run as run_schema;
