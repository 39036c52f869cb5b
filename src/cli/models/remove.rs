//! `llamagate rm`: removes models from the disk.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _, stdin};
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::arguments::RemoveArgs;
use crate::cli::command_settings::{OWN_PLACES, STORES, resolve_groups};
use crate::cli::output::{EXIT_CONFIG, print, print_stderr};
use crate::models::list::printable;
use crate::models::{ModelPlaces, RemovalError, RemovalPlan, RemovedKind, human_size, shown_name};
use crate::settings::Environment;

/// Most bytes that are read of an answer.
const LONGEST_ANSWER: u64 = 64;

/// A model that is to go.
struct Removal {
    name: String,
    plan: RemovalPlan,
}

/// Why nothing, or not all, was removed.
enum Refused {
    /// A model cannot go.
    Model { name: String, error: RemovalError },
    /// There is no terminal to ask on.
    NoTerminal,
    /// The answer was no.
    Declined,
}

/// Runs `llamagate rm`.
pub(in crate::cli) fn run(arguments: RemoveArgs, environment: Environment) -> ExitCode {
    let settings = match resolve_groups(arguments.flags.0.clone(), environment, &[OWN_PLACES, STORES]) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let places = settings.model_places();
    let removals = match plan_all(&arguments.names, &places) {
        Ok(removals) => removals,
        Err(refused) => return report(&[], &refused, arguments.json),
    };
    // JSON is for programs: the one that is asked sees the plan on standard error.
    let question = if arguments.json { described(&removals) } else { String::new() };
    if !arguments.json {
        print(&described(&removals));
    }
    let outcome = match arguments.dry_run {
        true => Ok("planned"),
        false => remove_all(&removals, &places, arguments.yes, &question),
    };
    match outcome {
        Ok(state) => {
            if arguments.json {
                print(&format!("{}\n", as_json(&removals, state)));
            }
            ExitCode::SUCCESS
        }
        Err(refused) => report(&removals, &refused, arguments.json),
    }
}

/// Plans all removals before any of them begins, so that a wrong name removes nothing.
fn plan_all(names: &[String], places: &ModelPlaces) -> Result<Vec<Removal>, Refused> {
    let mut removals: Vec<Removal> = Vec::with_capacity(names.len());
    for name in names {
        if removals.iter().any(|one| one.name == *name) {
            continue;
        }
        let planned = plan(name, places).and_then(|plan| plan.check_unused().map(|()| plan));
        let plan = planned.map_err(|error| Refused::Model { name: name.clone(), error })?;
        removals.push(Removal { name: name.clone(), plan });
    }
    Ok(removals)
}

/// Plans one removal. As with `serve`, a file of the current folder comes before a name.
fn plan(name: &str, places: &ModelPlaces) -> Result<RemovalPlan, RemovalError> {
    match Path::new(name).symlink_metadata().is_ok_and(|found| !found.is_dir()) {
        true => RemovalPlan::of_file(places, Path::new(name)),
        false => RemovalPlan::of(places, name),
    }
}

/// Removes the models one after the other. Without an agreement it asks, and shows `question` before.
fn remove_all(
    removals: &[Removal],
    places: &ModelPlaces,
    is_agreed: bool,
    question: &str,
) -> Result<&'static str, Refused> {
    if !is_agreed {
        ask(question)?;
    }
    for (at, removal) in removals.iter().enumerate() {
        let failed = |error| Refused::Model { name: removal.name.clone(), error };
        // What the models before it had in common with this one goes with the last of them.
        let again = (at > 0).then(|| plan(&removal.name, places)).transpose().map_err(failed)?;
        again.as_ref().unwrap_or(&removal.plan).remove().map_err(failed)?;
    }
    Ok("removed")
}

/// Asks on the terminal.
fn ask(question: &str) -> Result<(), Refused> {
    if !stdin().is_terminal() {
        return Err(Refused::NoTerminal);
    }
    print_stderr(&format!("{question}Remove? [y/N] "));
    let mut answer = String::new();
    let read = BufReader::new(stdin().lock().take(LONGEST_ANSWER)).read_line(&mut answer);
    let is_yes = read.is_ok() && ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str());
    if is_yes { Ok(()) } else { Err(Refused::Declined) }
}

/// Returns what goes and what stays, for people.
fn described(removals: &[Removal]) -> String {
    let mut text = String::new();
    for Removal { name, plan } in removals {
        let _ = writeln!(text, "{}:", printable(&shown_name(name)));
        for file in &plan.files {
            let what = match file.kind {
                RemovedKind::Link => "link".to_owned(),
                RemovedKind::File => human_size(file.bytes),
                RemovedKind::Part => format!("{}, not finished", human_size(file.bytes)),
            };
            let _ = writeln!(text, "  removes {} ({what})", printable(&file.path.display().to_string()));
        }
        for kept in &plan.kept {
            let _ = writeln!(text, "  keeps {}: it {}", printable(&kept.path.display().to_string()), kept.reason);
        }
    }
    let _ = writeln!(text, "frees {}", human_size(freed(removals)));
    text
}

fn freed(removals: &[Removal]) -> u64 {
    removals.iter().map(|one| one.plan.bytes_freed).fold(0, u64::saturating_add)
}

fn as_json(removals: &[Removal], state: &str) -> Value {
    let models: Vec<Value> = removals
        .iter()
        .map(|Removal { name, plan }| {
            let RemovalPlan { files, bytes_freed, kept, .. } = plan;
            json!({"name": shown_name(name), "files": files, "bytes_freed": bytes_freed, "kept": kept})
        })
        .collect();
    json!({"state": state, "models": models, "bytes_freed": freed(removals)})
}

/// Says why nothing more was removed. Returns the exit code for that.
fn report(removals: &[Removal], refused: &Refused, is_json: bool) -> ExitCode {
    let (message, hint, code) = match refused {
        Refused::Model { name, error } => {
            let code = if error.is_of_name() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE };
            (format!("{:?} is not removed: {error}", shown_name(name)), error.hint(), code)
        }
        Refused::NoTerminal => {
            let message = "nothing is removed: there is no terminal to ask on".to_owned();
            (message, Some("give --yes, or look first with --dry-run"), ExitCode::from(EXIT_CONFIG))
        }
        Refused::Declined => ("nothing is removed".to_owned(), None, ExitCode::FAILURE),
    };
    if is_json {
        let mut answer = as_json(removals, "failed");
        answer["error"] = json!(message);
        answer["hint"] = json!(hint);
        print(&format!("{answer}\n"));
    } else {
        let hint = hint.map(|hint| format!("\n    hint: {hint}")).unwrap_or_default();
        print_stderr(&format!("error: {message}{hint}\n"));
    }
    code
}
