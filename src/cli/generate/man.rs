//! `llamagate man`: the manual pages.

use std::process::ExitCode;

use clap_mangen::Man;

use super::args::ManArgs;
use crate::cli::output::{EXIT_CONFIG, fail, print, print_stderr};
use crate::models::list::printable;

/// Runs `llamagate man` for this command line.
pub(in crate::cli) fn run(arguments: &ManArgs, mut program: clap::Command) -> ExitCode {
    if let Some(folder) = &arguments.output {
        let written = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(program, folder));
        return match written {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("{} cannot be written: {error}", printable(&folder.display().to_string()))),
        };
    }
    // Gives each subcommand its whole name, `llamagate chat`.
    program.build();
    let page = match &arguments.subcommand {
        None => program,
        Some(name) => match program.find_subcommand(name) {
            Some(found) => found.clone(),
            None => {
                print_stderr(&format!("error: there is no subcommand {:?}\n", printable(name)));
                return ExitCode::from(EXIT_CONFIG);
            }
        },
    };
    let mut text = Vec::new();
    match Man::new(page).render(&mut text) {
        Ok(()) => print(&String::from_utf8_lossy(&text)),
        Err(error) => return fail(&error.to_string()),
    }
    ExitCode::SUCCESS
}
