//! Subcommands: what each reads, prints and exits with. The flags of settings come from the table.
//!
//! - `arguments.rs`: the command line, and the inputs that it makes with the environment
//! - `check.rs`: `llamagate check`
//! - `health.rs`: `llamagate health`
//! - `list_models.rs`: `llamagate models`
//! - `output.rs`: what is printed, and exit codes
//! - `serve.rs`: `llamagate serve`, the default

mod arguments;
mod check;
mod health;
mod list_models;
mod output;
mod serve;

pub use arguments::detect_platform;

use crate::settings::Environment;
use arguments::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::explain(&error),
    };
    let environment = Environment::capture();
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(serve) => serve::run(serve, environment),
        Command::Check(serve) => check::run(serve, environment),
        Command::Health(flags) => health::run(flags, environment),
        Command::Models(models) => list_models::run(models, environment),
    }
}
