//! The subcommands: their arguments, output and exit codes. The flags of settings are generated from the table of
//! settings.
//!
//! - `arguments/`: the command line
//! - `chat/`: `llamagate chat`
//! - `check.rs`: `llamagate check`
//! - `client/`: the HTTP API as the subcommands ask it
//! - `command_settings.rs`: the settings of the commands that start no service
//! - `files/`: files that subcommands write
//! - `generate/`: what the program writes about itself: completions, manual pages, a schema, a first configuration
//! - `health.rs`: `llamagate health`
//! - `launch/`: `llamagate launch`
//! - `import.rs`: `llamagate import`
//! - `inputs.rs`: the flags of settings, and the inputs that they and the environment make up
//! - `live/`: `llamagate ps`, `top` and `logs`
//! - `models/`: `llamagate list`, `models`, `pull`, `rm` and `fit`
//! - `control/`: `llamagate start`, `stop`, `restart` and `status`
//! - `output.rs`: printing and exit codes
//! - `rpc.rs`: `llamagate rpc`
//! - `runtime.rs`: the runtimes of the subcommands, and the signals of those that run until one stops them
//! - `serve.rs`: `llamagate serve`, the default
//! - `usage/`: `llamagate usage` and `llamagate audit`

mod arguments;
mod chat;
mod check;
mod client;
mod command_settings;
mod control;
mod files;
mod generate;
mod health;
mod import;
mod inputs;
mod launch;
mod live;
mod models;
mod output;
mod rpc;
mod runtime;
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
        CliCommand::List(list) => models::run_list(list, environment),
        CliCommand::Models(models) => models::run_list_models(models, environment),
        CliCommand::Pull(pull) => models::run_pull(pull, environment),
        CliCommand::Rm(remove) => models::run_remove(remove, environment),
        CliCommand::Fit(fit) => models::run_fit(fit, environment),
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
