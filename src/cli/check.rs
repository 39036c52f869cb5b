//! `llamagate check`: prints the configuration and every problem with it. Starts nothing.

use super::arguments::{Serve, detect_platform};
use super::output::{complain, print, refuse, shelf, table};
use crate::preflight;
use crate::settings::{Environment, resolve};
use std::process::ExitCode;

/// Runs `llamagate check`.
pub(super) fn run(serve: Serve, environment: Environment) -> ExitCode {
    let platform = detect_platform(&environment);
    let inputs = serve.into_inputs(environment);
    let resolved = match resolve(&inputs, &platform) {
        Ok(resolved) => resolved,
        Err(problems) => return refuse(&problems),
    };
    print(&format!("platform: {}\n{}", platform.kind, table(&resolved)));
    let inspected = preflight::inspect(&resolved.config, &inputs.environment);
    let mut catalogue = resolved.config.catalogue.clone();
    if let Ok((_, models)) = &inspected {
        // What their files say of models is shown too.
        for (model, found) in catalogue.models.iter_mut().zip(models) {
            (model.id, model.kind) = (Some(found.id.clone()), Some(found.kind));
        }
    }
    print(&shelf(&catalogue));
    for warning in &resolved.warnings {
        complain(&format!("warning: {warning}\n"));
    }
    match inspected {
        Ok((ready, models)) => {
            let doubts = preflight::warnings(&resolved.config.catalogue, &models);
            for warning in doubts.into_iter().chain(ready.descriptors.warning) {
                complain(&format!("warning: {warning}\n"));
            }
            ExitCode::SUCCESS
        }
        Err(problems) => refuse(&problems),
    }
}
