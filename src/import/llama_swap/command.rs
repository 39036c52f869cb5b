//! Command lines of llama-swap: how they are split, and what becomes of the command of another server than llama-server.

use crate::import::acceptance::{KeyPlace, check};
use crate::import::section::{DraftSection, DraftValue, PORT};
use crate::import::server::may_be_secret;
use crate::settings::values::{dashed, is_secret, looks_like_an_option};

use super::macros::{MacroScope, is_secret_variable};

/// Options of container runtimes that set a variable.
const VARIABLE_OPTIONS: &[&str] = &["-e", "--env"];

/// Why a variable is left out.
const SECRET_VARIABLE: &str = "it may be a secret; a command inherits HF_* of the service, and no other secrets";

/// Splits a command line, without its comments, and with the macros of this scope in place.
///
/// # Errors
///
/// A macro is refused, or a quote is not closed.
pub(super) fn split_command(text: &str, scope: &MacroScope<'_>) -> Result<Vec<String>, String> {
    let text = without_comments(&scope.expand(&without_comments(text))?);
    shlex::split(&text).ok_or_else(|| "cmd cannot be split into words: a quote is not closed".to_owned())
}

/// Returns a text without the lines that begin with `#`, and without blanks before line breaks.
fn without_comments(text: &str) -> String {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.trim_start().starts_with('#'));
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns whether a command starts a llama-server.
pub(super) fn is_llama_server(words: &[String]) -> bool {
    let program = words.first().map_or("", String::as_str);
    program.rsplit(['/', '\\']).next().is_some_and(|name| name.starts_with("llama-server"))
}

/// Returns the `command` of another server, with `{port}` in it. Secrets are left out. `variables` are those that are set
/// for it, as `NAME=VALUE`; `port` is where the source says that it listens.
///
/// # Errors
///
/// The command names no port, or our loader does not take it.
pub(super) fn other_command(
    words: Vec<String>,
    variables: &[String],
    port: Option<u16>,
    section: &mut DraftSection,
) -> Result<Vec<String>, String> {
    let mut command = without_secrets(words, section);
    if !command.iter().skip(1).any(|word| word.contains(PORT)) {
        let Some(port) = port else {
            return Err("its command has no ${PORT}, and a server here is told its port".to_owned());
        };
        let mut words = command.iter_mut().skip(1);
        if !words.any(|word| replace_port(word, port)) {
            return Err(format!("its command has neither ${{PORT}} nor the port {port} of proxy"));
        }
        section.note(format!("{PORT} stands for the port {port} in command: the gateway chooses the port"));
    }
    let variables = kept_variables(variables, section);
    if !variables.is_empty() {
        command = ["env".to_owned()].into_iter().chain(variables).chain(command).collect();
    }
    check(KeyPlace::Command, "command", &DraftValue::Words(command.clone()))?;
    Ok(command)
}

/// Returns the variables that may be written into a file.
fn kept_variables(variables: &[String], section: &mut DraftSection) -> Vec<String> {
    let mut kept = Vec::new();
    for variable in variables {
        match variable.split_once('=') {
            Some((name, _)) if is_secret_variable(name) || may_be_secret_value(variable) => {
                section.left_out(format!("env {name}"), SECRET_VARIABLE);
            }
            Some((name, _)) if !name.is_empty() && !name.starts_with('-') => kept.push(variable.clone()),
            _ => section.left_out("a line of env", "it is not NAME=VALUE"),
        }
    }
    kept
}

fn may_be_secret_value(variable: &str) -> bool {
    variable.split_once('=').is_some_and(|(_, value)| may_be_secret(value))
}

/// Takes out the options whose values are secrets, and other words that may be some.
fn without_secrets(words: Vec<String>, section: &mut DraftSection) -> Vec<String> {
    let mut kept: Vec<String> = Vec::with_capacity(words.len());
    let mut rest = words.into_iter();
    while let Some(word) = rest.next() {
        let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        let is_option = looks_like_an_option(name);
        if is_option && is_secret(&dashed(name)) {
            if value.is_none() {
                rest.next();
            }
            section.left_out(name, "a secret is not written into a file, and the gateway sends no key to a command");
        } else if !is_option && value.is_some() && is_secret_variable(name) {
            // `docker run -e NAME` passes on a variable of the service.
            if kept.last().is_some_and(|last| VARIABLE_OPTIONS.contains(&last.as_str())) {
                kept.push(name.to_owned());
            }
            section.left_out(format!("the value of {name}"), SECRET_VARIABLE);
        } else if may_be_secret(&word) || value.is_some_and(may_be_secret) {
            if kept.len() > 1 && kept.last().is_some_and(|last| looks_like_an_option(last)) {
                kept.pop();
            }
            section.left_out("a word of cmd", "it may be a secret, and is not written into a file");
        } else {
            kept.push(word);
        }
    }
    kept
}

/// Replaces a port that stands in a word as a number of its own; the first one, as in `-p 8080:8080`.
fn replace_port(word: &mut String, port: u16) -> bool {
    let number = port.to_string();
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '.');
    let found = word
        .match_indices(&number)
        .map(|(at, _)| at)
        .find(|at| !is_digit(word[..*at].chars().next_back()) && !is_digit(word[at + number.len()..].chars().next()));
    if let Some(at) = found {
        word.replace_range(at..at + number.len(), PORT);
    }
    found.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(line: &str, variables: &[&str], port: Option<u16>) -> (Result<String, String>, String) {
        let variables: Vec<String> = variables.iter().map(|variable| (*variable).to_owned()).collect();
        let mut section = DraftSection::default();
        let command = other_command(shlex::split(line).unwrap(), &variables, port, &mut section);
        let mut comments = String::new();
        section.print(0, &mut comments);
        (command.map(|words| words.join(" ")), comments)
    }

    #[test]
    fn a_command_gets_the_port_of_the_gateway() {
        let text = |line: &str, port| converted(line, &[], port).0;
        assert_eq!(text("vllm serve m --port {port}", None).unwrap(), "vllm serve m --port {port}");
        assert_eq!(text("x --port 8080 -n 80801", Some(8080)).unwrap(), "x --port {port} -n 80801");
        assert_eq!(text("docker run -p 8080:8080 i", Some(8080)).unwrap(), "docker run -p {port}:8080 i");
        assert!(text("x --port 8080", None).is_err() && text("x -n 80801 v8080", Some(8080)).is_err());
        assert!(text("", Some(1)).is_err() && text("{port}", Some(1)).is_err());
    }

    #[test]
    fn variables_go_before_a_command_and_secrets_nowhere() {
        let line =
            "docker run -e HF_TOKEN=sesame --env A=1 --api-key sesame --password=sesame -x sk-sesame -p {port}:1 i";
        let (command, comments) = converted(line, &["CUDA_VISIBLE_DEVICES=0,1", "API_KEY=sesame", "oops"], None);
        assert_eq!(command.unwrap(), "env CUDA_VISIBLE_DEVICES=0,1 docker run -e HF_TOKEN --env A=1 -p {port}:1 i");
        assert!(!comments.contains("sesame"), "{comments}");
        assert_eq!(comments.matches("left out").count(), 6, "{comments}");
    }
}
