//! What the subcommands print, to standard output and standard error, and the exit codes that go with it.

use crate::settings::catalogue::Catalogue;
use crate::settings::{Resolved, SettingProblem, models_table};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

/// Exit code of a bad configuration (`EX_CONFIG` of sysexits.h).
pub(super) const EXIT_CONFIG: u8 = 78;
/// Exit code when no worker could be kept running (`EX_UNAVAILABLE`).
pub(super) const EXIT_BACKEND: u8 = 69;

pub(super) fn table(resolved: &Resolved) -> String {
    let mut text = String::new();
    for (key, value, source) in &resolved.rows {
        let value = if value.is_empty() { "-" } else { value };
        let _ = writeln!(text, "{:<24} {value}  ({source})", key.to_ascii_uppercase());
    }
    text
}

/// The models under a heading, if there are any.
pub(super) fn shelf(catalogue: &Catalogue) -> String {
    if catalogue.models.is_empty() { String::new() } else { format!("\nmodels:\n{}", models_table(catalogue)) }
}

pub(super) fn refuse(problems: &[SettingProblem]) -> ExitCode {
    let mut text = format!("error: {} problem(s) with the configuration\n", problems.len());
    for problem in problems {
        let _ = writeln!(text, "  {problem}");
    }
    complain(&text);
    ExitCode::from(EXIT_CONFIG)
}

/// The problems in a few words, which follow the listing of them.
pub(super) fn summary(problems: &[SettingProblem]) -> String {
    format!("the configuration is not usable: {} problem(s)", problems.len())
}

/// Prints help, or what of the command line is not understood.
pub(super) fn explain(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() {
        fatal("the command line is not understood");
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_CONFIG))
}

/// The last word of a service that ends before it has a log, in the form that its last word always has.
pub(super) fn fatal(message: &str) -> ExitCode {
    complain(&format!("fatal: {message}\n"));
    ExitCode::FAILURE
}

pub(super) fn fail(message: &str) -> ExitCode {
    complain(&format!("error: {message}\n"));
    ExitCode::FAILURE
}

/// Data goes to standard output; a reader that has left is no reason to panic.
pub(super) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

pub(super) fn complain(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
