//! `llamagate completions`: the completions of a shell.

use std::process::ExitCode;

use super::args::CompletionsArgs;
use crate::cli::output::print;

/// Runs `llamagate completions` for this command line.
pub(in crate::cli) fn run(arguments: &CompletionsArgs, mut program: clap::Command) -> ExitCode {
    let mut text = Vec::new();
    let name = program.get_name().to_owned();
    clap_complete::generate(arguments.shell, &mut program, name, &mut text);
    print(&String::from_utf8_lossy(&text));
    ExitCode::SUCCESS
}
