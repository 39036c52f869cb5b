//! `llamagate schema`: the JSON Schema of the configuration file.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use super::args::SchemaArgs;
use crate::cli::files;
use crate::cli::output::{fail, print};
use crate::models::list::printable;
use crate::settings::configuration_schema;

/// Runs `llamagate schema`.
pub(in crate::cli) fn run(arguments: &SchemaArgs) -> ExitCode {
    match arguments.output.as_deref().filter(|path| *path != Path::new("-")) {
        None => print(&text()),
        Some(path) => {
            if let Err(error) = files::write(path, &text(), arguments.force) {
                return fail(&unwritten(path, &error));
            }
        }
    }
    ExitCode::SUCCESS
}

/// Returns the schema as a file has it.
pub(super) fn text() -> String {
    format!("{:#}\n", configuration_schema())
}

/// Returns why a file is not written, and what to do.
pub(super) fn unwritten(path: &Path, error: &io::Error) -> String {
    let hint = if error.kind() == io::ErrorKind::AlreadyExists { "\n    hint: --force replaces it" } else { "" };
    format!("{} cannot be written: {error}{hint}", printable(&path.display().to_string()))
}
