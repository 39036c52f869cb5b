//! `llamagate serve`: runs the service, from the arguments to the exit code.
//!
//! Owns the reports about a service that cannot be started: to the user, to the log and to the platform. The service
//! itself is in `app/`.

use std::process::ExitCode;
use std::sync::Arc;

use super::arguments::{ServeArgs, explain_model};
use super::inputs::detect_platform;
use super::output::{
    EXIT_BACKEND, brought_names_section, fatal, models_section, print, print_stderr, report_problems, settings_table,
    summary,
};
use super::runtime;
use crate::settings::bounds::CONNECTION_GRACE;
use crate::settings::{Environment, Examined, Inputs, RunpodQueue, SettingProblem, examine, resolve_only};
use crate::telemetry::log;
use crate::{app, platform, preflight, runpod};

/// Runs the service until it ends.
pub(super) fn run(arguments: ServeArgs, environment: Environment) -> ExitCode {
    // Before the configuration is read, so that an early signal is not lost. One thread is enough for everything but
    // requests, which have threads of their own.
    let (runtime, mut signals) = match runtime::with_signals() {
        Ok(started) => started,
        Err(problem) => return fatal(&problem),
    };
    let model = arguments.model();
    let inputs = arguments.into_inputs(environment);
    let platform = detect_platform(&inputs.environment);
    let examined = examine(&inputs, &platform);
    if examined.shown.as_ref().is_some_and(|resolved| resolved.config.settings.service.debug_shell) {
        print_examined(&examined, &inputs);
        print_stderr("DEBUG_SHELL is set: nothing is started, waiting for a signal\n");
        runtime.block_on(signals.stop.recv());
        return ExitCode::SUCCESS;
    }
    let report_to_platform = |queue: Option<RunpodQueue>, reason: &str| {
        if let Some(queue) = queue {
            runtime.block_on(runpod::report_failed_start(&queue, reason));
        }
    };
    if !examined.problems.is_empty() {
        let problems = problems_of(&examined, &inputs);
        let code = report_problems(&problems);
        fatal(&summary(&problems));
        report_to_platform(runpod_queue(&inputs, &platform), &summary(&problems));
        return code;
    }
    let Some(resolved) = examined.shown.as_ref() else { return fatal("a default is invalid") };
    // Kept until the end, because dropping it writes the lines that are still queued.
    let guard = Arc::new(log::start(&resolved.config.settings.logs));
    for line in &resolved.brought_names {
        tracing::info!("{line}");
    }
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
    if resolved.config.settings.engine.mock_backend {
        tracing::warn!("MOCK_BACKEND is set: no llama-server is started; requests that need it get 503");
    }
    if let Some(warning) = preflight::missing_key_file_warning(resolved) {
        tracing::warn!("{warning}");
    }
    let ready = match preflight::ready(&resolved.config, &inputs.environment) {
        Ok(ready) => ready,
        // Report all problems at once, including those of the model files, which are normally checked after the start.
        Err(_) => {
            let problems = explain_model(model.as_deref(), problems_of(&examined, &inputs));
            let queue = RunpodQueue::read(&resolved.config.settings, &inputs.environment).ok().flatten();
            report_to_platform(queue, &summary(&problems));
            return fail_misconfigured(&problems);
        }
    };
    if let Some(warning) = &ready.descriptors.warning {
        tracing::warn!("{warning}");
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), platform = %platform.kind, data_dir = %resolved.config.settings.files.data_dir.display(), "llamagate starts");
    let queue = ready.queue.clone();
    let resolved = resolved.clone();
    let startup = app::Startup { inputs, resolved, ready, platform, log: Arc::clone(&guard) };
    let outcome = runtime.block_on(app::run(startup, signals));
    if let Err(error) = &outcome {
        report_to_platform(queue, &error.to_string());
    }
    // A thread that hangs in a system call must not keep the process alive.
    runtime.shutdown_timeout(CONNECTION_GRACE);
    match outcome {
        Ok(app::RunOutcome::Stopped) => ExitCode::SUCCESS,
        Ok(app::RunOutcome::BackendFailed) => ExitCode::from(EXIT_BACKEND),
        Ok(app::RunOutcome::Broken) => ExitCode::FAILURE,
        Ok(app::RunOutcome::Misconfigured(problems)) => fail_misconfigured(&explain_model(model.as_deref(), problems)),
        Err(error) => {
            tracing::error!("fatal: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Checks the configuration as [`run`] does.
///
/// # Errors
/// The exit code of a bad configuration; the problems are printed.
pub(super) fn check(arguments: ServeArgs, environment: Environment) -> Result<(), ExitCode> {
    let model = arguments.model();
    let inputs = arguments.into_inputs(environment);
    let examined = examine(&inputs, &detect_platform(&inputs.environment));
    let problems = explain_model(model.as_deref(), problems_of(&examined, &inputs));
    if problems.is_empty() { Ok(()) } else { Err(report_problems(&problems)) }
}

/// Returns the RunPod queue, whatever else is wrong with the configuration.
fn runpod_queue(inputs: &Inputs, platform: &platform::Platform) -> Option<RunpodQueue> {
    let (settings, _) = resolve_only(inputs, platform, &["runpod_mode"]).ok()?;
    RunpodQueue::read(&settings, &inputs.environment).ok()?
}

/// Prints the settings and all problems with them.
fn print_examined(examined: &Examined, inputs: &Inputs) {
    if let Some(resolved) = &examined.shown {
        print(&settings_table(resolved, None));
        print(&brought_names_section(resolved));
        print(&models_section(&resolved.config.catalogue));
    }
    let problems = problems_of(examined, inputs);
    if !problems.is_empty() {
        report_problems(&problems);
    }
}

/// Returns all problems that the checks find.
fn problems_of(examined: &Examined, inputs: &Inputs) -> Vec<SettingProblem> {
    let Some(resolved) = &examined.shown else { return examined.problems.clone() };
    let help = app::read_llama_help(&resolved.config, &inputs.environment);
    preflight::inspect(examined, resolved, &inputs.environment, help.as_deref()).err().unwrap_or_default()
}

/// Prints the problems and logs the `fatal: ` line. Returns the exit code.
fn fail_misconfigured(problems: &[SettingProblem]) -> ExitCode {
    let code = report_problems(problems);
    tracing::error!("fatal: {}", summary(problems));
    code
}
