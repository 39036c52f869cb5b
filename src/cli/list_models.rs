//! `llamagate models`: lists the model files in `MODELS_DIR`.

use super::arguments::{Models, detect_platform, resolve_inputs};
use super::output::{complain, fail, print, refuse};
use crate::models;
use crate::settings::{Environment, resolve_only};
use std::process::ExitCode;

/// Runs `llamagate models`.
pub(super) fn run(arguments: Models, environment: Environment) -> ExitCode {
    let platform = detect_platform(&environment);
    let inputs = resolve_inputs(arguments.flags.0, environment);
    let (settings, passed_over) = match resolve_only(&inputs, &platform, &["models_dir"]) {
        Ok(settings) => settings,
        Err(problems) => return refuse(&problems),
    };
    for problem in &passed_over {
        complain(&format!("warning: {problem}\n"));
    }
    match models::list(&settings.files.models_dir) {
        Ok(found) if arguments.json => match serde_json::to_string_pretty(&found) {
            Ok(json) => print(&(json + "\n")),
            Err(error) => return fail(&error.to_string()),
        },
        Ok(found) => print(&models::table(&found)),
        Err(error) => return fail(&format!("{error}\n    hint: {}", error.hint())),
    }
    ExitCode::SUCCESS
}
