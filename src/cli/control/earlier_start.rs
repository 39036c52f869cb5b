//! How a service that runs was started, as the system tells it.

use std::io;

use clap::Parser as _;

use crate::cli::arguments::{Cli, CliCommand, ServeArgs};
use crate::cli::client::CallError;
use crate::cli::output::print_usage;
use crate::os::here;
use crate::service_note::ServiceNote;
use crate::settings::Environment;

/// Goes to the folder in which a service runs, and returns the arguments with which it was started. Relative paths among
/// them, and those of the environment, are meant from there.
///
/// # Errors
/// [`CallError`] if the system does not tell them, the folder is gone, or this version does not know such arguments.
pub(super) fn enter(note: &ServiceNote, environment: &Environment) -> Result<ServeArgs, CallError> {
    let pid = note.pid().unwrap_or_default();
    let unknown = |error: io::Error| {
        CallError::Broken(format!("the service (pid {pid}) cannot be started as before: {error}; give its arguments"))
    };
    check_exact(note.has_empty_argument(), here::is_command_line_exact()).map_err(unknown)?;
    let words = here::command_line(pid).map_err(unknown)?;
    let folder = here::working_directory(pid).map_err(unknown)?;
    let no_folder = |error| io::Error::other(format!("its folder {}: {error}", folder.display()));
    std::env::set_current_dir(&folder).map_err(no_folder).map_err(unknown)?;
    let parsed = Cli::try_parse_from(words).and_then(|cli| cli.into_command(environment));
    match parsed.map_err(|error| CallError::Reported(print_usage(&error)))? {
        CliCommand::Serve(arguments) => Ok(arguments),
        _ => Err(unknown(io::Error::other("it was not started by `llamagate serve`"))),
    }
}

/// Refuses a command line with an empty argument where the system does not tell it: other words, of which some may be secret,
/// would be taken for the last arguments.
fn check_exact(has_empty: bool, is_exact: bool) -> io::Result<()> {
    match has_empty && !is_exact {
        true => Err(io::Error::other("it has an empty argument, which this system does not tell")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first variable of the environment once counted as the last argument there.
    #[test]
    fn an_empty_argument_is_refused_where_the_system_does_not_tell_it() {
        let cases = [(false, false), (false, true), (true, false), (true, true)];
        let refused = cases.map(|(has_empty, is_exact)| check_exact(has_empty, is_exact).is_err());
        assert_eq!(refused, [false, false, true, false]);
    }

    fn again(command_line: &[&str]) -> Vec<String> {
        let cli = Cli::try_parse_from(command_line).unwrap_or_else(|error| panic!("{error}"));
        let command = cli.into_command(&Environment::default()).unwrap_or_else(|error| panic!("{error}"));
        let CliCommand::Serve(arguments) = command else { panic!("it is no serve") };
        arguments.words()
    }

    /// Words that are empty and words that are `serve` once got lost.
    #[test]
    fn every_argument_of_the_earlier_start_is_kept() {
        assert_eq!(again(&["llamagate", "serve", "--models-dir", "serve", "a.gguf"]), ["--models-dir=serve", "a.gguf"]);
        assert_eq!(again(&["llamagate", "--models-dir", "serve", "serve", "a.gguf"]), ["--models-dir=serve", "a.gguf"]);
        assert_eq!(again(&["llamagate", "serve", "--models-dir", "", "a.gguf"]), ["--models-dir=", "a.gguf"]);
        assert_eq!(again(&["llamagate", "a.gguf"]), ["a.gguf"]);
        assert_eq!(again(&["llamagate", "serve"]), Vec::<String>::new());
    }
}
