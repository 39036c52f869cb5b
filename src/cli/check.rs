//! `llamagate check`: prints the configuration and all problems with it. Starts nothing.

use std::process::ExitCode;

use super::arguments::{ServeArgs, detect_platform};
use super::output::{brought_names_section, models_section, print, print_stderr, report_problems, settings_table};
use crate::preflight;
use crate::settings::{Environment, resolve};

/// Runs `llamagate check`.
pub(super) fn run(arguments: ServeArgs, environment: Environment) -> ExitCode {
    let inputs = arguments.into_inputs(environment);
    let platform = detect_platform(&inputs.environment);
    let resolved = match resolve(&inputs, &platform) {
        Ok(resolved) => resolved,
        Err(problems) => return report_problems(&problems),
    };
    print(&format!("platform: {}\n{}", platform.kind, settings_table(&resolved)));
    print(&brought_names_section(&resolved));
    let inspected = preflight::inspect(&resolved.config, &inputs.environment);
    let mut catalogue = resolved.config.catalogue.clone();
    if let Ok((_, models)) = &inspected {
        // Show also the id and kind that were read from the model files.
        for (model, found) in catalogue.models.iter_mut().zip(models) {
            (model.id, model.kind) = (Some(found.id.clone()), Some(found.kind));
        }
    }
    print(&models_section(&catalogue));
    for warning in &resolved.warnings {
        print_stderr(&format!("warning: {warning}\n"));
    }
    match inspected {
        Ok((ready, models)) => {
            let warnings = preflight::warnings(&resolved.config.catalogue, &models);
            for warning in warnings.into_iter().chain(ready.descriptors.warning) {
                print_stderr(&format!("warning: {warning}\n"));
            }
            ExitCode::SUCCESS
        }
        Err(problems) => report_problems(&problems),
    }
}
