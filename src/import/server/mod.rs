//! llama-server's arguments, as keys of a model.
//!
//! - `arguments.rs`: what becomes of each option
//! - `arguments_tests.rs`: its tests
//! - `options.rs`: which words mean the same option
//! - `targets.rs`: the table of options that become something else than an argument

mod arguments;
mod options;
mod targets;

pub(super) use arguments::{GivenOption, ServerKeys, is_true, may_be_secret, read_arguments, translate};
pub(super) use options::{OptionName, flag_of_key, flag_of_variable};
