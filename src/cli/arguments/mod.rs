//! The command line: subcommands and their arguments.
//!
//! Owns which subcommands there are, and where their flags may stand. The arguments of a subcommand with a folder of its own
//! are in that folder.
//!
//! - `import.rs`: the arguments of `import`
//! - `misplaced.rs`: subcommands that were read as MODEL
//! - `models.rs`: the arguments of the commands about models on the disk
//! - `records.rs`: the arguments of `usage` and `audit`
//! - `rpc.rs`: the arguments of `rpc`
//! - `serve.rs`: the arguments of `serve`, which `check` and `start` share
//! - `service.rs`: the arguments of the commands about a service in the background

mod import;
mod misplaced;
mod models;
mod records;
mod rpc;
mod serve;
mod service;

pub(super) use import::ImportArgs;
pub(super) use models::{FitArgs, ListModelsArgs, PullArgs, RemoveArgs};
pub(super) use records::{AuditArgs, UsageArgs};
pub(super) use rpc::RpcArgs;
pub(super) use serve::{ServeArgs, explain_model};
pub(super) use service::{StartArgs, StatusArgs, StopArgs};

use std::collections::BTreeMap;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use super::chat::ChatArgs;
use super::generate::{CompletionsArgs, InitArgs, ManArgs, SchemaArgs};
use super::inputs::{Flags, PLACE_FLAGS, PlaceFlags, RPC_FLAGS};
use super::launch::LaunchArgs;
use super::live::{LogsArgs, PsArgs, TopArgs};
use crate::models::list::printable;
use crate::settings::Environment;
use misplaced::{LARGEST_TYPO, check_misplaced};

/// A gateway for llama.cpp's llama-server: starts, watches and restarts it, and forwards requests to it
#[derive(Parser)]
#[command(name = "llamagate", version, about)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<CliCommand>,
    #[command(flatten)]
    pub(super) serve: ServeArgs,
}

#[derive(clap::Subcommand)]
pub(super) enum CliCommand {
    /// Start llama-server, watch it, and serve the gateway and the health port (the default)
    Serve(ServeArgs),
    /// Print the resolved configuration and all problems with it; start nothing
    Check(ServeArgs),
    /// Ask the health port of the service on this machine; exit with 0 if it is serving or loading
    Health(Flags),
    /// List the models on this machine: those of MODELS_DIR, of the hub's cache, of Ollama and of LM Studio
    List(ListModelsArgs),
    /// List the model files in MODELS_DIR
    Models(ListModelsArgs),
    /// Download a model from the hub, or what is missing of it
    Pull(PullArgs),
    /// Remove models from the disk, after showing what goes and how much that frees
    Rm(RemoveArgs),
    /// Tell whether a model fits into memory, from its header alone; exit with 0 if it does
    Fit(FitArgs),
    /// Show what each key, person and model has used, from the file of a service on this machine, or over HTTP
    Usage(UsageArgs),
    /// Show what administrators have done, the newest first, from the file of a service on this machine, or over HTTP
    Audit(AuditArgs),
    /// Talk to a model of a service: a conversation in a terminal, or one question
    Chat(ChatArgs),
    /// Point a coding agent at a service: shows what changes in its configuration, and writes it after a yes
    Launch(LaunchArgs),
    /// Show the models of a service, what they do, and who waits
    Ps(PsArgs),
    /// Watch the models of a service while they work, until q or Ctrl-C
    Top(TopArgs),
    /// Show the end of a worker's log, or of the access log, and with -f what follows
    Logs(LogsArgs),
    /// Start the service in the background, or the systemd user unit llamagate.service if there is one
    Start(StartArgs),
    /// Stop the service of this user, after the requests in flight
    Stop(StopArgs),
    /// Stop the service and start it again; without arguments, with the arguments it was started with
    Restart(StartArgs),
    /// Tell whether a service runs: its address, process, uptime and models; exit with 3 if none does
    Status(StatusArgs),
    /// Start llama.cpp's rpc-server and watch it: this machine computes parts of the models of another one
    Rpc(RpcArgs),
    /// Write a first llamagate.yaml, after two questions or from flags
    Init(InitArgs),
    /// Print the JSON Schema of llamagate.yaml, for editors
    Schema(SchemaArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Print a manual page
    Man(ManArgs),
    /// Convert a configuration of llama-swap, or presets of llama-server's router, into a llamagate.yaml
    Import(ImportArgs),
}

/// The flags of settings that a subcommand has.
struct FlagsOfSettings<'a> {
    /// Those that were given after it.
    given: &'a mut BTreeMap<&'static str, String>,
    /// `None`: all of them.
    known: Option<&'static [&'static str]>,
}

impl<'a> FlagsOfSettings<'a> {
    fn of_place(flags: &'a mut PlaceFlags) -> Option<Self> {
        Some(Self { given: &mut flags.0, known: Some(PLACE_FLAGS) })
    }

    fn has(&self, key: &str) -> bool {
        self.known.is_none_or(|known| known.contains(&key))
    }
}

impl CliCommand {
    /// Returns the flags of settings that the subcommand has, or `None` if it has none.
    fn flags_of_settings(&mut self) -> Option<FlagsOfSettings<'_>> {
        let all = |flags| Some(FlagsOfSettings { given: flags, known: None });
        match self {
            Self::Serve(serve) | Self::Check(serve) => all(&mut serve.flags.0),
            Self::Health(flags) => all(&mut flags.0),
            Self::List(list) | Self::Models(list) => all(&mut list.flags.0),
            Self::Pull(pull) => all(&mut pull.flags.0),
            Self::Rm(remove) => all(&mut remove.flags.0),
            Self::Fit(fit) => all(&mut fit.flags.0),
            Self::Usage(usage) => all(&mut usage.flags.0),
            Self::Audit(audit) => all(&mut audit.flags.0),
            Self::Chat(chat) => FlagsOfSettings::of_place(&mut chat.client.flags),
            Self::Launch(launch) => FlagsOfSettings::of_place(&mut launch.client.flags),
            Self::Ps(ps) => FlagsOfSettings::of_place(&mut ps.client.flags),
            Self::Top(top) => FlagsOfSettings::of_place(&mut top.client.flags),
            Self::Logs(logs) => FlagsOfSettings::of_place(&mut logs.client.flags),
            Self::Start(start) | Self::Restart(start) => all(&mut start.serve.flags.0),
            Self::Stop(stop) => FlagsOfSettings::of_place(&mut stop.flags),
            Self::Status(status) => FlagsOfSettings::of_place(&mut status.flags),
            Self::Rpc(rpc) => Some(FlagsOfSettings { given: &mut rpc.flags.0, known: Some(RPC_FLAGS) }),
            Self::Import(_) | Self::Init(_) | Self::Schema(_) | Self::Completions(_) | Self::Man(_) => None,
        }
    }
}

impl Cli {
    /// Returns the subcommand, by default `serve`, with the flags that were given before it.
    ///
    /// # Errors
    ///
    /// A usage error if something before the subcommand does not belong to it, or if MODEL is a subcommand that was
    /// misspelt or given in the wrong place.
    pub(super) fn into_command(self, environment: &Environment) -> Result<CliCommand, clap::Error> {
        let Self { command, serve } = self;
        let Some(mut command) = command else {
            check_misplaced(&serve, environment, LARGEST_TYPO, Self::command)?;
            return Ok(CliCommand::Serve(serve));
        };
        if let Some(model) = serve.model {
            let order = format!("MODEL comes after the subcommand: {}", printable(&model));
            return Err(usage_error(ErrorKind::ArgumentConflict, &order));
        }
        let mut flags = command.flags_of_settings();
        for (key, value) in serve.flags.0 {
            let flag = key.replace('_', "-");
            let flags = flags.as_mut().filter(|flags| flags.has(key));
            let Some(FlagsOfSettings { given, .. }) = flags else {
                let misplaced = format!("--{flag} has no effect on this subcommand");
                return Err(usage_error(ErrorKind::ArgumentConflict, &misplaced));
            };
            if given.insert(key, value).is_some() {
                let twice = format!("--{flag} is given twice");
                return Err(usage_error(ErrorKind::ArgumentConflict, &twice));
            }
        }
        let serve = match &command {
            CliCommand::Serve(serve) | CliCommand::Check(serve) => Some(serve),
            CliCommand::Start(start) | CliCommand::Restart(start) => Some(&start.serve),
            _ => None,
        };
        if let Some(serve) = serve {
            check_misplaced(serve, environment, 0, Self::command)?;
        }
        Ok(command)
    }
}

fn usage_error(kind: ErrorKind, message: &str) -> clap::Error {
    Cli::command().error(kind, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_settings_are_made_only_for_a_command_that_is_used() {
        let has_flag = |program: &clap::Command| {
            let list = program.find_subcommand("list").unwrap();
            list.get_arguments().any(|argument| argument.get_id() == "data_dir")
        };
        let mut program = Cli::command();
        assert!(!has_flag(&program));
        program.build();
        assert!(has_flag(&program));
    }
}
