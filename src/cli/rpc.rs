//! `llamagate rpc`: supervises an rpc-server, from the arguments to the exit code.

use std::process::ExitCode;
use std::sync::Arc;

use super::arguments::RpcArgs;
use super::command_settings::{print_warning, resolve_groups};
use super::inputs::{RPC_FLAGS, detect_platform};
use super::output::{EXIT_BACKEND, EXIT_CONFIG, fatal, report_problems};
use super::runtime;
use crate::app::{self, RpcAddress, RpcArguments, RpcRole, RunOutcome};
use crate::preflight;
use crate::settings::bounds::CONNECTION_GRACE;
use crate::settings::{Environment, SettingProblem};
use crate::telemetry::log;

/// Settings of `serve` that protect or spare something there and that `llamagate rpc` does not have, each with what holds
/// in its place.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("METRICS_AUTH_ENABLED", "its health port asks for no key"),
    ("TLS_HEALTH", "its health port speaks plain HTTP"),
    ("IDLE_UNLOAD", "its rpc-server stays, and keeps memory only while a llama-server uses it"),
];

/// Runs `llamagate rpc`.
pub(super) fn run(arguments: RpcArgs, environment: Environment) -> ExitCode {
    // First, so that an early signal is not lost.
    let (runtime, signals) = match runtime::with_signals() {
        Ok(started) => started,
        Err(problem) => return fatal(&problem),
    };
    let RpcArgs { bind, every_address, device, memory, cache, arguments, flags } = arguments;
    let settings = match resolve_groups(flags.0, environment.clone(), &[RPC_FLAGS]) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    for (name, instead) in WITHOUT_EFFECT {
        if environment.get(name).is_some_and(|value| !["0", "false"].contains(&value)) {
            print_warning(&format!("{name} has no effect on `llamagate rpc`: {instead}"));
        }
    }
    let problem = |subject: &str, fault: String| SettingProblem { subject: subject.to_owned(), fault, hint: None };
    let mut problems = Vec::new();
    let address = RpcAddress::parse(&bind, every_address);
    let address = address.map_err(|error| problems.push(problem("--bind", error.to_string())));
    let told = RpcArguments::read(device, memory.as_deref(), cache, arguments);
    let told = told.map_err(|error| problems.push(problem("rpc", error.to_string())));
    let binary = preflight::find_rpc_server(&settings).map_err(|found| problems.push(found));
    let (Ok(address), Ok(arguments), Ok(binary)) = (address, told, binary) else {
        return report_problems(&problems);
    };
    // Kept until the end, because dropping it writes the lines that are still queued.
    let _guard = Arc::new(log::start(&settings.logs));
    let platform = detect_platform(&environment);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), platform = %platform.kind, "llamagate rpc starts");
    let role = RpcRole { settings, environment, platform, binary, address, arguments };
    let outcome = runtime.block_on(app::run_rpc_server(role, signals));
    // A thread that hangs in a system call must not keep the process alive.
    runtime.shutdown_timeout(CONNECTION_GRACE);
    match outcome {
        Ok(RunOutcome::Stopped) => ExitCode::SUCCESS,
        Ok(RunOutcome::BackendFailed) => ExitCode::from(EXIT_BACKEND),
        Ok(RunOutcome::Broken) => ExitCode::FAILURE,
        Ok(RunOutcome::Misconfigured(problems)) => report_problems(&problems),
        Err(error) if error.get_ref().is_some_and(|inner| inner.is::<app::BadRpcArgument>()) => {
            tracing::error!("fatal: {error}");
            ExitCode::from(EXIT_CONFIG)
        }
        Err(error) => {
            tracing::error!("fatal: {error}");
            ExitCode::FAILURE
        }
    }
}
