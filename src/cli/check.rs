//! `llamagate check`: prints the configuration and all problems with it. Starts nothing.

use std::process::ExitCode;

use super::arguments::{ServeArgs, detect_platform, explain_model};
use super::output::{
    brought_names_section, models_section, print, print_stderr, projectors_section, report_problems, settings_table,
};
use crate::settings::catalogue::ModelSettings;
use crate::settings::values::masked_arguments;
use crate::settings::{Environment, llama_variables_warning, resolve};
use crate::{app, preflight};

/// Runs `llamagate check`.
pub(super) fn run(arguments: ServeArgs, environment: Environment) -> ExitCode {
    let model = arguments.model();
    let inputs = arguments.into_inputs(environment);
    let platform = detect_platform(&inputs.environment);
    let resolved = match resolve(&inputs, &platform) {
        Ok(resolved) => resolved,
        Err(problems) => return report_problems(&problems),
    };
    let help = app::read_llama_help(&resolved.config, &inputs.environment);
    let given = &resolved.config.settings.engine.extra_args.given;
    let extra_args = help.as_deref().map(|help| masked_arguments(given, |option| help.value_count(option)));
    print(&format!("platform: {}\n{}", platform.kind, settings_table(&resolved, extra_args.as_ref())));
    print(&brought_names_section(&resolved));
    let inspected = preflight::inspect(&resolved.config, &inputs.environment, help.as_deref());
    let mut catalogue = resolved.config.catalogue.clone();
    let mut projectors = String::new();
    if let Ok((_, models)) = &inspected {
        let models = models.all();
        // Show the models of the folder, and the ids and kinds that were read from files.
        catalogue.models = models
            .iter()
            .map(|found| ModelSettings { id: Some(found.id.clone()), kind: Some(found.kind), ..found.settings.clone() })
            .collect();
        projectors = projectors_section(&models);
    }
    print(&models_section(&catalogue));
    print(&projectors);
    let option_of = |name: &str| help.as_deref()?.option_of_variable(name);
    let of_llama_server = llama_variables_warning(&inputs.environment, option_of);
    for warning in resolved.warnings.iter().chain(&of_llama_server) {
        print_stderr(&format!("warning: {warning}\n"));
    }
    match inspected {
        Ok((ready, models)) => {
            let warnings = models.warnings(&resolved.config);
            for warning in models.notes.into_iter().chain(warnings).chain(ready.descriptors.warning) {
                print_stderr(&format!("warning: {warning}\n"));
            }
            ExitCode::SUCCESS
        }
        Err(problems) => report_problems(&explain_model(model.as_deref(), problems)),
    }
}
