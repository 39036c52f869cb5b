//! `llamagate import`: converts a configuration of another program into ours.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use super::arguments::ImportArgs;
use super::files;
use super::output::{EXIT_CONFIG, fail, print_stderr};
use crate::import::{self, Imported};
use crate::models::list::printable;
use crate::settings::{Environment, read_config_text};

/// The name of standard output in place of a file.
const STANDARD_OUTPUT: &str = "-";

/// Runs `llamagate import`. The exit status is 1 if a model could not be converted, or the new file not be written.
pub(super) fn run(arguments: &ImportArgs, environment: &Environment) -> ExitCode {
    let name = printable(&arguments.file.display().to_string());
    let text = match read_config_text(&arguments.file) {
        Ok(text) => text,
        Err(fault) => return refuse(&name, &fault, None),
    };
    let imported = match import::convert(&text, arguments.from, environment) {
        Ok(imported) => imported,
        Err(error) => return refuse(&name, &error.to_string(), error.hint()),
    };
    match arguments.output.as_deref() {
        Some(path) if path != Path::new(STANDARD_OUTPUT) => {
            if let Err(error) = files::write(path, &imported.text, arguments.force) {
                let hint = match error.kind() {
                    io::ErrorKind::AlreadyExists => "\n    hint: --force replaces it",
                    _ => "",
                };
                return fail(&format!("{} cannot be written: {error}{hint}", printable(&path.display().to_string())));
            }
        }
        _ => {
            let mut out = io::stdout().lock();
            if let Err(error) = out.write_all(imported.text.as_bytes()).and_then(|()| out.flush()) {
                return fail(&format!("standard output cannot be written: {error}"));
            }
        }
    }
    report(&imported)
}

/// Says what was converted and what was not.
fn report(imported: &Imported) -> ExitCode {
    for (id, fault) in &imported.failed {
        print_stderr(&format!("not converted: {}: {}\n", printable(id), printable(fault)));
    }
    let Imported { converted, left_out, .. } = imported;
    print_stderr(&format!(
        "{converted} model(s) converted, {} not; {left_out} setting(s) without counterpart, each with a comment\n",
        imported.failed.len()
    ));
    if imported.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn refuse(name: &str, fault: &str, hint: Option<&str>) -> ExitCode {
    let hint = hint.map(|hint| format!("\n    hint: {hint}")).unwrap_or_default();
    print_stderr(&format!("error: {name}: {}{hint}\n", printable(fault)));
    ExitCode::from(EXIT_CONFIG)
}
