//! `llamagate models`: lists the model files in `MODELS_DIR`.

use std::process::ExitCode;

use super::arguments::{ListModelsArgs, detect_platform, resolve_inputs};
use super::output::{fail, print, print_stderr, report_problems};
use crate::models;
use crate::settings::{Environment, resolve_only};

/// Runs `llamagate models`.
pub(super) fn run(arguments: ListModelsArgs, environment: Environment) -> ExitCode {
    let inputs = resolve_inputs(arguments.flags.0, environment);
    let platform = detect_platform(&inputs.environment);
    let (settings, warnings) = match resolve_only(&inputs, &platform, &["models_dir"]) {
        Ok(settings) => settings,
        Err(problems) => return report_problems(&problems),
    };
    for warning in &warnings {
        print_stderr(&format!("warning: {warning}\n"));
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
