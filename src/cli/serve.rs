//! `llamagate serve`: from the arguments to the service, and from its end to the exit status.
//!
//! Owns who is told what when the service cannot be started: the user, the log, the platform. The service is `app/`'s.

use super::arguments::{Serve, detect_platform};
use super::output::{EXIT_BACKEND, complain, fatal, print, refuse, shelf, summary, table};
use crate::settings::bounds::CONNECTION_GRACE;
use crate::settings::{Environment, Inputs, Resolved, RunpodQueue, SettingProblem, resolve, resolve_only};
use crate::telemetry::log;
use crate::{app, platform, preflight, runpod};
use std::process::ExitCode;
use std::sync::Arc;

/// Runs the service until its end.
pub(super) fn run(serve: Serve, environment: Environment) -> ExitCode {
    // One thread needs no scheduler that shares work between several.
    let mut runtime = match std::thread::available_parallelism() {
        Ok(one) if one.get() == 1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fatal(&format!("no runtime: {error}")),
    };
    let signals = {
        let _inside = runtime.enter();
        app::Signals::listen()
    };
    let mut signals = match signals {
        Ok(signals) => signals,
        Err(error) => return fatal(&format!("signals cannot be heard: {error}")),
    };
    let platform = detect_platform(&environment);
    let inputs = serve.into_inputs(environment);
    let resolved = resolve(&inputs, &platform);
    if wants_shell(&resolved, &inputs, &platform) {
        show(&resolved, &inputs);
        complain("DEBUG_SHELL is set: nothing is started, waiting for a signal\n");
        runtime.block_on(signals.stop.recv());
        return ExitCode::SUCCESS;
    }
    let tell_platform = |queue: Option<RunpodQueue>, reason: &str| {
        if let Some(queue) = queue {
            runtime.block_on(runpod::report_failed_start(&queue, reason));
        }
    };
    let resolved = match resolved {
        Ok(resolved) => resolved,
        Err(problems) => {
            let code = refuse(&problems);
            fatal(&summary(&problems));
            tell_platform(queue_of(&inputs, &platform), &summary(&problems));
            return code;
        }
    };
    // Kept until the last word is said.
    let guard = Arc::new(log::start(&resolved.config.settings.logs));
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
    if resolved.config.settings.engine.mock_backend {
        tracing::warn!("MOCK_BACKEND is set: no llama-server is started, and what asks for one is refused with 503");
    }
    let ready = match preflight::ready(&resolved.config, &inputs.environment) {
        Ok(ready) => ready,
        // All problems at once: those of the models too, which are looked at later otherwise.
        Err(_) => {
            let problems = preflight::inspect(&resolved.config, &inputs.environment).err().unwrap_or_default();
            let queue = RunpodQueue::read(&resolved.config.settings, &inputs.environment).ok().flatten();
            tell_platform(queue, &summary(&problems));
            return give_up(&problems);
        }
    };
    if let Some(warning) = &ready.descriptors.warning {
        tracing::warn!("{warning}");
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), platform = %platform.kind, data_dir = %resolved.config.settings.files.data_dir.display(), "llamagate starts");
    let queue = ready.queue.clone();
    let startup = app::Startup { inputs, resolved, ready, platform, log: Arc::clone(&guard) };
    let outcome = runtime.block_on(app::run(startup, signals));
    if let Err(error) = &outcome {
        tell_platform(queue, &error.to_string());
    }
    // A thread that hangs in a system call must not keep the program from ending.
    runtime.shutdown_timeout(CONNECTION_GRACE);
    match outcome {
        Ok(app::Outcome::Stopped) => ExitCode::SUCCESS,
        Ok(app::Outcome::BackendFailed) => ExitCode::from(EXIT_BACKEND),
        Ok(app::Outcome::Broken) => ExitCode::FAILURE,
        Ok(app::Outcome::Misconfigured(problems)) => give_up(&problems),
        Err(error) => {
            tracing::error!("fatal: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The queue that jobs were to be taken from, whatever else is wrong.
fn queue_of(inputs: &Inputs, platform: &platform::Platform) -> Option<RunpodQueue> {
    let (settings, _) = resolve_only(inputs, platform, &["runpod_mode"]).ok()?;
    RunpodQueue::read(&settings, &inputs.environment).ok()?
}

/// Whether somebody wants to look around, be it in a service whose other settings are wrong.
fn wants_shell(
    resolved: &Result<Resolved, Vec<SettingProblem>>,
    inputs: &Inputs,
    platform: &platform::Platform,
) -> bool {
    match resolved {
        Ok(resolved) => resolved.config.settings.service.debug_shell,
        Err(_) => resolve_only(inputs, platform, &["debug_shell"]).is_ok_and(|(found, _)| found.service.debug_shell),
    }
}

/// Shows the settings and all that is wrong.
fn show(resolved: &Result<Resolved, Vec<SettingProblem>>, inputs: &Inputs) {
    let problems = match resolved {
        Ok(resolved) => {
            print(&(table(resolved) + &shelf(&resolved.config.catalogue)));
            preflight::inspect(&resolved.config, &inputs.environment).err().unwrap_or_default()
        }
        Err(problems) => problems.clone(),
    };
    if !problems.is_empty() {
        refuse(&problems);
    }
}

/// The same once there is a log.
fn give_up(problems: &[SettingProblem]) -> ExitCode {
    let code = refuse(problems);
    tracing::error!("fatal: {}", summary(problems));
    code
}
