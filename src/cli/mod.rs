//! The subcommands: their arguments, output and exit codes. The flags of settings are generated from the table of
//! settings.
//!
//! - `arguments/`: the command line
//! - `chat/`: `llamagate chat`
//! - `check.rs`: `llamagate check`
//! - `client/`: the HTTP API as the subcommands ask it
//! - `command_settings.rs`: the settings of the commands that start no service
//! - `files/`: files that subcommands write
//! - `fit.rs`: `llamagate fit`
//! - `generate/`: what the program writes about itself: completions, manual pages, a schema, a first configuration
//! - `health.rs`: `llamagate health`
//! - `launch/`: `llamagate launch`
//! - `list.rs`: `llamagate list`
//! - `import.rs`: `llamagate import`
//! - `inputs.rs`: the flags of settings, and the inputs that they and the environment make up
//! - `live/`: `llamagate ps`, `top` and `logs`
//! - `list_models.rs`: `llamagate models`
//! - `control/`: `llamagate start`, `stop`, `restart` and `status`
//! - `download_progress.rs`: shows how far a download is
//! - `output.rs`: printing and exit codes
//! - `pull.rs`: `llamagate pull`
//! - `remove.rs`: `llamagate rm`
//! - `rpc.rs`: `llamagate rpc`
//! - `serve.rs`: `llamagate serve`, the default
//! - `usage/`: `llamagate usage` and `llamagate audit`

mod arguments;
mod chat;
mod check;
mod client;
mod command_settings;
mod control;
mod download_progress;
mod files;
mod fit;
mod generate;
mod health;
mod import;
mod inputs;
mod launch;
mod list;
mod list_models;
mod live;
mod output;
mod pull;
mod remove;
mod rpc;
mod serve;
mod usage;

#[cfg(feature = "test-support")]
pub(crate) use client::decode_events;
pub use inputs::detect_platform;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};

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
        CliCommand::Chat(chat) => chat::run(chat, environment),
        CliCommand::Launch(launch) => launch::run(launch, environment),
        CliCommand::Ps(ps) => live::run_ps(ps, environment),
        CliCommand::Top(top) => live::run_top(top, environment),
        CliCommand::Logs(logs) => live::run_logs(logs, environment),
        CliCommand::Start(start) => control::run_start(start, environment),
        CliCommand::Stop(stop) => control::run_stop(stop, environment),
        CliCommand::Restart(start) => control::run_restart(start, environment),
        CliCommand::Status(status) => control::run_status(status, environment),
        CliCommand::Completions(shell) => generate::run_completions(&shell, Cli::command()),
        CliCommand::Man(man) => generate::run_man(&man, Cli::command()),
        CliCommand::Schema(schema) => generate::run_schema(&schema),
        CliCommand::Rpc(rpc) => rpc::run(rpc, environment),
        CliCommand::Init(init) => generate::run_init(init),
        CliCommand::Import(import) => import::run(&import, &environment),
    }
}
