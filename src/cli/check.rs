//! `llamagate check`: prints the configuration and all problems with it. Starts nothing.

use std::process::ExitCode;

use super::arguments::{ServeArgs, detect_platform};
use super::output::{brought_names_section, models_section, print, print_stderr, report_problems, settings_table};
use crate::settings::{Environment, llama_variables_warning, resolve};
use crate::{app, preflight};

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
    let help = app::read_llama_help(&resolved.config, &inputs.environment);
    let inspected = preflight::inspect(&resolved.config, &inputs.environment, help.as_deref());
    let mut catalogue = resolved.config.catalogue.clone();
    if let Ok((_, models)) = &inspected {
        // Show also the id and kind that were read from the model files.
        for (model, found) in catalogue.models.iter_mut().zip(models) {
            (model.id, model.kind) = (Some(found.id.clone()), Some(found.kind));
        }
    }
    print(&models_section(&catalogue));
    let option_of = |name: &str| help.as_deref()?.option_of_variable(name);
    let of_llama_server = llama_variables_warning(&inputs.environment, option_of);
    for warning in resolved.warnings.iter().chain(&of_llama_server) {
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
