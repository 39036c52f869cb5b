//! The output of the subcommands on standard output and standard error, and the exit codes.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use crate::models::list::printable;
use crate::preflight::CheckedModel;
use crate::settings::catalogue::Catalogue;
use crate::settings::{Resolved, SettingProblem, additions, escaped, models_table, remotes_table};
use crate::tls::LeafFacts;

/// Exit code of a bad configuration (`EX_CONFIG` of sysexits.h).
pub(super) const EXIT_CONFIG: u8 = 78;
/// Exit code of a command that Ctrl-C has ended (128 + SIGINT).
pub(super) const EXIT_INTERRUPTED: u8 = 130;
/// Exit code of a command that SIGTERM has ended (128 + SIGTERM).
pub(super) const EXIT_TERMINATED: u8 = 143;
/// Exit code when no worker could be kept running (`EX_UNAVAILABLE`).
pub(super) const EXIT_BACKEND: u8 = 69;

/// Returns the settings with their values and sources, one per line. `extra_args` is `EXTRA_ARGS` as it may be printed, if
/// more of it may be than without llama-server's help.
pub(super) fn settings_table(resolved: &Resolved, extra_args: Option<&String>) -> String {
    let mut text = String::new();
    for (key, value, source) in &resolved.rows {
        let value = extra_args.filter(|_| *key == "extra_args").unwrap_or(value);
        let value = if value.is_empty() { "-" } else { value };
        let (name, value, source) = (key.to_ascii_uppercase(), escaped(value), escaped(&source.to_string()));
        let _ = writeln!(text, "{name:<24} {value}  ({source})");
    }
    text
}

/// Returns one line for each name of another server that was read as ours, under a heading, or nothing.
pub(super) fn brought_names_section(resolved: &Resolved) -> String {
    let lines: String = resolved.brought_names.iter().map(|line| format!("{line}\n")).collect();
    if lines.is_empty() { lines } else { format!("\nnames of other servers:\n{lines}") }
}

/// Returns what the certificate of TLS says of itself, under a heading.
pub(super) fn certificate_section(leaf: &LeafFacts) -> String {
    let (day, names) = (leaf.expiry_day(), escaped(&leaf.names.join(", ")));
    format!("\ncertificate:\nfor {names}\nvalid until {day}\nSHA-256 {}\n", leaf.shown_fingerprint())
}

/// Returns the tables of models and of remote backends, and what is added to requests to these, each under a heading and
/// only if there is any.
pub(super) fn models_section(catalogue: &Catalogue) -> String {
    let section = |heading: &str, table: String| match table.is_empty() {
        true => String::new(),
        false => format!("\n{heading}:\n{table}"),
    };
    let models = if catalogue.models.is_empty() { String::new() } else { models_table(catalogue) };
    section("models", models)
        + &section("remote backends are asked at", remotes_table(catalogue))
        + &section("added to their requests", additions(catalogue))
}

/// Returns the multimodal projectors under a heading, one line for each model that has one, or nothing.
pub(super) fn projectors_section(models: &[CheckedModel]) -> String {
    let mut text = String::new();
    for model in models {
        let Some(projector) = model.file.as_ref().and_then(|file| file.projector.as_ref()) else { continue };
        if text.is_empty() {
            text.push_str("\nprojectors:\n");
        }
        let file = projector.path.file_name().unwrap_or_default().to_string_lossy();
        let others = model.passed_over_names();
        let others = if others.is_empty() { others } else { format!(" (preferred to {others})") };
        let _ = writeln!(text, "{}  {}{}", printable(&model.id), printable(&file), printable(&others));
    }
    text
}

/// Returns what goes with each model besides its projector, under a heading, or nothing.
pub(super) fn companions_section(models: &[CheckedModel]) -> String {
    let line = |model: &CheckedModel| {
        let names = model.companion_names();
        (!names.is_empty()).then(|| format!("{}  {}\n", printable(&model.id), printable(&names.join("; "))))
    };
    let lines: String = models.iter().filter_map(line).collect();
    if lines.is_empty() { lines } else { format!("\nwhat goes with models:\n{lines}") }
}

/// Prints the problems with the configuration. Returns the exit code for them.
pub(super) fn report_problems(problems: &[SettingProblem]) -> ExitCode {
    let mut text = format!("error: {} problem(s) with the configuration\n", problems.len());
    for problem in problems {
        let _ = writeln!(text, "  {problem}");
    }
    print_stderr(&text);
    ExitCode::from(EXIT_CONFIG)
}

/// Returns one sentence about the problems, to follow the list of them.
pub(super) fn summary(problems: &[SettingProblem]) -> String {
    format!("the configuration is not usable: {} problem(s)", problems.len())
}

/// Prints the help that was asked for, or the mistake in the command line.
pub(super) fn print_usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() {
        fatal("the command line is not understood");
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_CONFIG))
}

/// Prints the `fatal: ` line of a service that ends before its log has started, in the same form as in the log.
pub(super) fn fatal(message: &str) -> ExitCode {
    print_stderr(&format!("fatal: {message}\n"));
    ExitCode::FAILURE
}

/// Prints an error. Returns the exit code 1.
pub(super) fn fail(message: &str) -> ExitCode {
    print_stderr(&format!("error: {message}\n"));
    ExitCode::FAILURE
}

/// Writes to standard output. Errors are ignored: a reader that has closed the pipe is no reason to panic.
pub(super) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Writes to standard output at once, for a command that goes on. Returns whether that is still read: a command whose pipe
/// was closed has nothing more to do.
pub(super) fn print_while_read(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// Writes to standard error. Errors are ignored.
pub(super) fn print_stderr(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
