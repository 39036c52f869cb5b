//! How a service that runs was started, as the kernel tells it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::Parser as _;

use crate::cli::arguments::{Cli, CliCommand, ServeArgs};
use crate::cli::client::CallError;
use crate::cli::output::print_usage;
use crate::service_note::ServiceNote;
use crate::settings::Environment;

/// Bytes that are read at most of a command line. Linux allows no longer one with the usual limits.
const LONGEST_COMMAND_LINE: u64 = 6 * 1024 * 1024;

/// Goes to the folder in which a service runs, and returns the arguments with which it was started. Relative paths among
/// them, and those of the environment, are meant from there.
///
/// # Errors
/// [`CallError`] if the kernel does not tell them, the folder is gone, or this version does not know such arguments.
pub(super) fn enter(note: &ServiceNote, environment: &Environment) -> Result<ServeArgs, CallError> {
    let pid = note.pid().unwrap_or_default();
    let unknown = |error: io::Error| {
        CallError::Broken(format!("the service (pid {pid}) cannot be started as before: {error}; give its arguments"))
    };
    let process = PathBuf::from(format!("/proc/{pid}"));
    let words = command_line(&process).map_err(unknown)?;
    let folder = fs::read_link(process.join("cwd")).map_err(unknown)?;
    let no_folder = |error| io::Error::other(format!("its folder {}: {error}", folder.display()));
    std::env::set_current_dir(&folder).map_err(no_folder).map_err(unknown)?;
    let parsed = Cli::try_parse_from(words).and_then(|cli| cli.into_command(environment));
    match parsed.map_err(|error| CallError::Reported(print_usage(&error)))? {
        CliCommand::Serve(arguments) => Ok(arguments),
        _ => Err(unknown(io::Error::other("it was not started by `llamagate serve`"))),
    }
}

fn command_line(process: &Path) -> io::Result<Vec<OsString>> {
    let mut text = Vec::new();
    File::open(process.join("cmdline"))?.take(LONGEST_COMMAND_LINE + 1).read_to_end(&mut text)?;
    match text.len() as u64 > LONGEST_COMMAND_LINE {
        true => Err(io::Error::other(format!("its command line has more than {LONGEST_COMMAND_LINE} bytes"))),
        false => Ok(words(&text)),
    }
}

/// Returns the words of a command line, each of which a NUL ends. A word may be empty.
fn words(text: &[u8]) -> Vec<OsString> {
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    text.split(|byte| *byte == 0).map(|word| OsStr::from_bytes(word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(command_line: &[u8]) -> Vec<String> {
        let cli = Cli::try_parse_from(words(command_line)).unwrap_or_else(|error| panic!("{error}"));
        let command = cli.into_command(&Environment::default()).unwrap_or_else(|error| panic!("{error}"));
        let CliCommand::Serve(arguments) = command else { panic!("it is no serve") };
        arguments.words()
    }

    /// Words that are empty and words that are `serve` once got lost.
    #[test]
    fn every_argument_of_the_earlier_start_is_kept() {
        assert_eq!(again(b"llamagate\0serve\0--models-dir\0serve\0a.gguf\0"), ["--models-dir=serve", "a.gguf"]);
        assert_eq!(again(b"llamagate\0--models-dir\0serve\0serve\0a.gguf\0"), ["--models-dir=serve", "a.gguf"]);
        assert_eq!(again(b"llamagate\0serve\0--models-dir\0\0a.gguf\0"), ["--models-dir=", "a.gguf"]);
        assert_eq!(again(b"llamagate\0a.gguf\0"), ["a.gguf"]);
        assert_eq!(again(b"llamagate\0serve\0"), Vec::<String>::new());
    }
}
