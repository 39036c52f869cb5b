//! The command line: subcommands, their arguments and flags, and the inputs that they and the environment make up.

use std::collections::BTreeMap;
use std::path::Path;

use clap::{Arg, ArgMatches, Args, FromArgMatches, Parser};

use crate::settings::{Environment, Inputs, OPTIONS, OptionRow, Sources};
use crate::{gateway, models, platform};

/// A gateway for llama.cpp's llama-server: starts, watches and restarts it, and forwards requests to it
#[derive(Parser)]
#[command(name = "llamagate", version, about, args_conflicts_with_subcommands = true)]
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
    /// List the model files in MODELS_DIR
    Models(ListModelsArgs),
}

#[derive(Args)]
pub(super) struct ServeArgs {
    /// Model file: a path, a name under MODELS_DIR, or ORG/NAME[:QUANT] in HF_HUB_CACHE
    model: Option<String>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Args)]
pub(super) struct ListModelsArgs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) flags: Flags,
}

/// The values of settings that were given as flags, by key.
#[derive(Default)]
pub(super) struct Flags(pub(super) BTreeMap<&'static str, String>);

impl Args for Flags {
    fn augment_args(mut command: clap::Command) -> clap::Command {
        for row in flag_rows() {
            let mut arg = Arg::new(row.key)
                .long(row.flag())
                .value_name(row.key.to_ascii_uppercase())
                .help(row.doc.replace('`', ""))
                .help_heading(row.group)
                .allow_hyphen_values(row.key == "extra_args");
            if row.key == "config_file" {
                arg = arg.visible_alias("config");
            }
            if row.is_bool {
                arg = arg.num_args(0..=1).default_missing_value("true");
            }
            command = command.arg(arg);
        }
        command
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |key| matches.try_get_one::<String>(key).ok().flatten().cloned();
        Ok(Self(flag_rows().filter_map(|row| Some((row.key, given(row.key)?))).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Returns the settings that have a flag.
fn flag_rows() -> impl Iterator<Item = &'static OptionRow> {
    OPTIONS.iter().filter(|row| row.sources != Sources::Variable)
}

/// Detects the platform of this machine.
pub fn detect_platform(environment: &Environment) -> platform::Platform {
    platform::detect(|name| environment.get(name), Path::new("/"))
}

impl ServeArgs {
    /// Combines the arguments with the environment. MODEL is a path if a file of this name exists, or if it contains a
    /// slash and is not ORG/NAME; otherwise it is a name under MODELS_DIR.
    pub(super) fn into_inputs(self, environment: Environment) -> Inputs {
        let mut flags = self.flags.0;
        if let Some(model) = self.model {
            let is_repository = models::Repository::named(&model).is_some();
            let is_path = Path::new(&model).is_file() || (model.contains('/') && !is_repository);
            flags.remove(if is_path { "model_name" } else { "model_path" });
            flags.insert(if is_path { "model_path" } else { "model_name" }, model);
        }
        resolve_inputs(flags, environment)
    }
}

/// Returns the inputs that the settings are resolved from, with the variables of `ENV_FILE`.
pub(super) fn resolve_inputs(flags: BTreeMap<&'static str, String>, environment: Environment) -> Inputs {
    let mut inputs =
        Inputs { flags, environment, env_file_problems: Vec::new(), reserved_paths: gateway::reserved_paths() };
    inputs.read_env_file();
    inputs
}
