//! The subcommands: their arguments, output and exit codes. The flags of settings are generated from the table of
//! settings.
//!
//! - `arguments.rs`: the command line
//! - `check.rs`: `llamagate check`
//! - `client/`: the HTTP API as the subcommands ask it
//! - `command_settings.rs`: the settings of the commands that start no service
//! - `fit.rs`: `llamagate fit`
//! - `health.rs`: `llamagate health`
//! - `list.rs`: `llamagate list`
//! - `import.rs`: `llamagate import`
//! - `inputs.rs`: the flags of settings, and the inputs that they and the environment make up
//! - `list_models.rs`: `llamagate models`
//! - `download_progress.rs`: shows how far a download is
//! - `output.rs`: printing and exit codes
//! - `pull.rs`: `llamagate pull`
//! - `remove.rs`: `llamagate rm`
//! - `serve.rs`: `llamagate serve`, the default
//! - `usage/`: `llamagate usage` and `llamagate audit`

mod arguments;
mod check;
mod client;
mod command_settings;
mod download_progress;
mod fit;
mod health;
mod import;
mod inputs;
mod list;
mod list_models;
mod output;
mod pull;
mod remove;
mod serve;
mod usage;

pub use inputs::detect_platform;

use std::process::ExitCode;

use clap::Parser;

use crate::settings::Environment;
use arguments::{Cli, CliCommand};

/// Parses the command line and runs the subcommand. Returns the exit code of the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::print_usage(&error),
    };
    let environment = Environment::capture();
    let command = match cli.into_command(&environment) {
        Ok(command) => command,
        Err(error) => return output::print_usage(&error),
    };
    match command {
        CliCommand::Serve(serve) => serve::run(serve, environment),
        CliCommand::Check(serve) => check::run(serve, environment),
        CliCommand::Health(flags) => health::run(flags, environment),
        CliCommand::List(list) => list::run(list, environment),
        CliCommand::Models(models) => list_models::run(models, environment),
        CliCommand::Pull(pull) => pull::run(pull, environment),
        CliCommand::Rm(remove) => remove::run(remove, environment),
        CliCommand::Fit(fit) => fit::run(fit, environment),
        CliCommand::Usage(usage) => usage::run(usage, environment),
        CliCommand::Audit(audit) => usage::run_audit(audit, environment),
        CliCommand::Import(import) => import::run(&import, &environment),
    }
}
