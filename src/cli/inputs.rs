//! The inputs of settings that flags and the environment make up.
//!
//! Owns the flags of settings, which the table of settings names, and how they are combined with the environment.

use std::collections::BTreeMap;
use std::path::Path;

use clap::{Arg, ArgMatches, Args, FromArgMatches};

use crate::settings::{Environment, Inputs, OPTIONS, OptionRow, Sources};
use crate::{gateway, platform};

/// The values of settings that were given as flags, by key.
#[derive(Default)]
pub(super) struct Flags(pub(super) BTreeMap<&'static str, String>);

/// As [`Flags`], of the settings of [`PLACE_FLAGS`] only.
#[derive(Default)]
pub(super) struct PlaceFlags(pub(super) BTreeMap<&'static str, String>);

/// As [`Flags`], of the settings of [`RPC_FLAGS`] only.
#[derive(Default)]
pub(super) struct RpcFlags(pub(super) BTreeMap<&'static str, String>);

/// The settings that `llamagate rpc` reads.
pub(super) const RPC_FLAGS: &[&str] = &[
    "config_file",
    "env_file",
    "data_dir",
    "host",
    "port_health",
    "health_check_path",
    "rpc_server",
    "threads",
    "load_timeout",
    "restart_limit",
    "restart_window",
    "log_level",
    "log_format",
    "log_to_file",
    "log_file",
    "log_dir",
    "log_keep",
    "log_max_size",
    "instance_id",
];

/// The settings that tell where a service on this machine is.
pub(super) const PLACE_FLAGS: &[&str] = &["config_file", "env_file", "data_dir", "host", "port"];

/// Adds a flag for each of these settings. The commands defer it until they are run, or their help is asked for: most
/// subcommands have a flag for every setting, and to make all of these took longer than the rest of a start.
fn add_flags(command: clap::Command, rows: impl Iterator<Item = &'static OptionRow>) -> clap::Command {
    rows.fold(command, |command, row| {
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
        command.arg(arg)
    })
}

impl Args for PlaceFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.defer(|command| add_flags(command, flag_rows().filter(|row| PLACE_FLAGS.contains(&row.key))))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for PlaceFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Flags::from_arg_matches(matches).map(|flags| Self(flags.0))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for RpcFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.defer(|command| add_flags(command, flag_rows().filter(|row| RPC_FLAGS.contains(&row.key))))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for RpcFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Flags::from_arg_matches(matches).map(|flags| Self(flags.0))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Flags {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.defer(|command| add_flags(command, flag_rows()))
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

/// Returns the inputs that the settings are resolved from, with the variables of `ENV_FILE`.
pub(super) fn resolve_inputs(flags: BTreeMap<&'static str, String>, environment: Environment) -> Inputs {
    let mut inputs = Inputs { flags, environment, reserved_paths: gateway::reserved_paths(), ..Inputs::default() };
    inputs.read_env_file();
    inputs
}
