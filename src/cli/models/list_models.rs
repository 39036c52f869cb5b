//! `llamagate models`: lists the model files in `MODELS_DIR`.

use std::process::ExitCode;

use crate::cli::arguments::ListModelsArgs;
use crate::cli::command_settings::resolve_groups;
use crate::cli::output::{fail, print};
use crate::models;
use crate::settings::Environment;

/// Runs `llamagate models`.
pub(in crate::cli) fn run(arguments: ListModelsArgs, environment: Environment) -> ExitCode {
    let settings = match resolve_groups(arguments.flags.0, environment, &[&["models_dir"]]) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
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
