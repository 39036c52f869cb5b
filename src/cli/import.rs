//! `llamagate import`: converts a configuration of another program into ours.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::arguments::ImportArgs;
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
            if let Err(error) = write(path, &imported.text, arguments.force) {
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

/// Writes the new file, and only where there is none unless `is_forced`. A file that is there is replaced as a whole.
fn write(path: &Path, text: &str, is_forced: bool) -> io::Result<()> {
    if !is_forced {
        return write_new(path, text);
    }
    // What a link leads to is replaced, and not the link.
    let found = path.canonicalize();
    let path = found.as_deref().unwrap_or(path);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary: PathBuf = path.with_file_name(name);
    write_new(&temporary, text)?;
    if let Ok(metadata) = path.metadata() {
        // A file system without modes has none to keep.
        let _ = fs::set_permissions(&temporary, metadata.permissions());
    }
    fs::rename(&temporary, path).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).inspect_err(|_| {
        // Half a configuration is worse than none.
        let _ = fs::remove_file(path);
    })
}
