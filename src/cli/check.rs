//! `llamagate check`: prints the configuration and all problems with it. Starts nothing.

use std::process::ExitCode;

use super::arguments::{ServeArgs, explain_model};
use super::inputs::detect_platform;
use super::output::{
    brought_names_section, certificate_section, companions_section, models_section, print, print_stderr,
    projectors_section, report_problems, settings_table,
};
use crate::settings::catalogue::ModelSettings;
use crate::settings::values::masked_arguments;
use crate::settings::{Environment, examine, llama_variables_warning};
use crate::{app, preflight};

/// Runs `llamagate check`. With problems too it prints all that could be read.
pub(super) fn run(arguments: ServeArgs, environment: Environment) -> ExitCode {
    let model = arguments.model();
    let inputs = arguments.into_inputs(environment);
    let platform = detect_platform(&inputs.environment);
    let examined = examine(&inputs, &platform);
    let Some(resolved) = &examined.shown else { return report_problems(&examined.problems) };
    let help = app::read_llama_help(&resolved.config, &inputs.environment);
    let given = &resolved.config.settings.engine.extra_args.given;
    let extra_args = help.as_deref().map(|help| masked_arguments(given, |option| help.value_count(option)));
    print(&format!("platform: {}\n{}", platform.kind, settings_table(resolved, extra_args.as_ref())));
    print(&brought_names_section(resolved));
    let inspected = preflight::inspect(&examined, resolved, &inputs.environment, help.as_deref());
    let mut catalogue = resolved.config.catalogue.clone();
    let mut companions = String::new();
    if let Ok((_, models)) = &inspected {
        let models = models.all();
        // Show the models of the folder, and the ids and kinds that were read from files.
        catalogue.models = models
            .iter()
            .map(|found| ModelSettings { id: Some(found.id.clone()), kind: Some(found.kind), ..found.settings.clone() })
            .collect();
        companions = projectors_section(&models) + &companions_section(&models);
    }
    print(&models_section(&catalogue));
    print(&companions);
    let option_of = |name: &str| help.as_deref()?.option_of_variable(name);
    let mut warnings = resolved.warnings.clone();
    warnings.extend(llama_variables_warning(&inputs.environment, option_of));
    warnings.extend(preflight::missing_key_file_warning(resolved));
    warnings.extend(preflight::key_file_warnings(&resolved.config.settings));
    let problems = match inspected {
        Ok((ready, models)) => {
            let missing = models.missing.iter();
            warnings.extend(
                missing.map(|model| format!("{}: it is not on the disk: the start downloads it", model.subject)),
            );
            let of_models = models.warnings(&resolved.config);
            if let Some(certificate) = &ready.certificate {
                print(&certificate_section(certificate));
                warnings.extend(certificate.expiry_warning(jiff::Timestamp::now()));
            }
            warnings.extend(models.notes.into_iter().chain(of_models).chain(ready.descriptors.warning));
            Vec::new()
        }
        Err(problems) => problems,
    };
    for warning in warnings {
        print_stderr(&format!("warning: {warning}\n"));
    }
    match problems.is_empty() {
        true => ExitCode::SUCCESS,
        false => report_problems(&explain_model(model.as_deref(), problems)),
    }
}
