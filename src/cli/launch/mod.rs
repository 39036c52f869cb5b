//! `llamagate launch`: points a coding agent at a service, by the agent's own configuration.
//!
//! The configuration is changed only where it must be, and only after a yes. The page of each agent in `docs/clients/`
//! says what is written.
//!
//! - `agent.rs`: the agents: where each has its configuration, and what it needs in it
//! - `args.rs`: the arguments
//! - `command.rs`: asks the service, shows the change, and writes it
//! - `diff.rs`: what changes in a file, line by line
//! - `json_edit.rs`: sets a member of a JSON text and leaves the rest as it is
//! - `mask.rs`: secrets in a configuration, as it is shown
//! - `yaml_edit.rs`: sets keys of a YAML text and leaves the rest as it is

mod agent;
mod args;
mod command;
mod diff;
mod json_edit;
mod mask;
mod yaml_edit;

pub(super) use args::LaunchArgs;
pub(super) use command::run;
