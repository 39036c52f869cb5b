//! `llamagate init`: writes a first configuration, after two questions or from flags.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _, stdin};
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::args::{Audience, InitArgs};
use super::schema::unwritten;
use super::{first_config, schema};
use crate::cli::files;
use crate::cli::output::{EXIT_CONFIG, fail, print, print_stderr};

/// Bytes that are read at most of an answer.
const LONGEST_ANSWER: u64 = 4 * 1024;

/// Runs `llamagate init`.
pub(in crate::cli) fn run(arguments: InitArgs) -> ExitCode {
    let InitArgs { model, audience, output, force, json } = arguments;
    let is_asked = stdin().is_terminal() && !json;
    if audience.is_none() && !is_asked {
        print_stderr(
            "error: there is no terminal to ask on\n    hint: give --for local or --for network, and --model\n",
        );
        return ExitCode::from(EXIT_CONFIG);
    }
    if !force && output.symlink_metadata().is_ok() {
        // Before the questions: answers that lead to nothing are a waste.
        return fail(&unwritten(&output, &std::io::ErrorKind::AlreadyExists.into()));
    }
    let is_model_asked = is_asked && audience.is_none();
    let model = model.or_else(|| if is_model_asked { ask_model() } else { None });
    let Some(audience) = audience.or_else(ask_audience) else {
        return fail("nothing is written: answer 1 or 2");
    };
    let schema_path = output.with_extension("schema.json");
    let schema_name = schema_path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = model.as_deref().map(file_of);
    let id = file.as_deref().map(id_of);
    let text = first_config::text(id.as_deref().zip(file.as_deref()), audience, &schema_name);
    // The schema is only generated text, and that of another version is of no use.
    for (path, text, is_forced) in [(&output, text, force), (&schema_path, schema::text(), true)] {
        if let Err(error) = files::write(path, &text, is_forced) {
            return fail(&unwritten(path, &error));
        }
    }
    if json {
        print(&format!("{}\n", json!({"config": output, "schema": schema_path, "model": id})));
    } else {
        print(&next_steps(&output, audience));
    }
    ExitCode::SUCCESS
}

fn ask_model() -> Option<String> {
    let question = "Which model? A file, a name below MODELS_DIR, or ORG/NAME:QUANT of the hub.\n\
                    Empty: every model that is found.\n> ";
    ask(question).filter(|answer| !answer.is_empty())
}

fn ask_audience() -> Option<Audience> {
    let answer =
        ask("Who may use it?\n  1  programs on this machine, without a key\n  2  the network, with keys\n[1]> ")?;
    match answer.as_str() {
        "" | "1" | "local" => Some(Audience::Local),
        "2" | "network" => Some(Audience::Network),
        _ => None,
    }
}

/// Asks on the terminal. Returns `None` if there is no answer.
fn ask(question: &str) -> Option<String> {
    print_stderr(question);
    let mut answer = String::new();
    let read = BufReader::new(stdin().lock().take(LONGEST_ANSWER)).read_line(&mut answer).ok()?;
    (read > 0).then(|| answer.trim().to_owned())
}

/// Returns the model as the configuration names it: a file of the current folder by its whole path.
fn file_of(model: &str) -> String {
    let path = Path::new(model);
    match path.is_file().then(|| std::path::absolute(path).ok()).flatten() {
        Some(whole) => whole.to_string_lossy().into_owned(),
        None => model.to_owned(),
    }
}

/// Returns the name for clients: the last part of the file, without what only files have.
fn id_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    let name = name.split(['#', '?', ':']).next().unwrap_or(name);
    name.strip_suffix(".gguf").unwrap_or(name).to_owned()
}

fn next_steps(path: &Path, audience: Audience) -> String {
    let path = path.display();
    let key = match audience {
        Audience::Local => "",
        Audience::Network => "  keyctl generate --name me\n",
    };
    format!("{path} is written. Next:\n{key}  llamagate check --config {path}\n  llamagate serve --config {path}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_a_short_name() {
        for (file, id) in [
            ("/models/qwen3-4b.gguf", "qwen3-4b"),
            ("bartowski/Qwen3-4B-GGUF:Q4_K_M", "Qwen3-4B-GGUF"),
            ("https://x/y/a.gguf#sha256=00", "a"),
            ("plain", "plain"),
        ] {
            assert_eq!(id_of(file), id);
        }
    }
}
