//! `llamagate pull`: downloads a model.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::download_progress::ProgressDisplay;
use crate::cli::arguments::PullArgs;
use crate::cli::command_settings::{DOWNLOADS, OWN_PLACES, print_warning, resolve_groups};
use crate::cli::output::{EXIT_CONFIG, EXIT_INTERRUPTED, EXIT_TERMINATED, fail, print, print_stderr};
use crate::cli::runtime;
use crate::download::{DownloadError, DownloadedModel, Downloader, Progress};
use crate::models::{self, RemoteName, human_size, shown_name};
use crate::settings::Environment;

/// Runs `llamagate pull`.
pub(in crate::cli) fn run(arguments: PullArgs, environment: Environment) -> ExitCode {
    let settings = match resolve_groups(arguments.flags.0, environment, &[OWN_PLACES, DOWNLOADS]) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let name = match RemoteName::parse(&arguments.name) {
        Ok(name) => name,
        Err(source) => {
            let error = DownloadError::Name { name: shown_name(&arguments.name), source };
            return report(&error, ExitCode::from(EXIT_CONFIG), arguments.json);
        }
    };
    if settings.downloads.hf_hub_offline {
        let found = name.find_file(&settings.model_places()).ok();
        let found = found.and_then(|path| Some((models::check_readable(&path).ok()?.size_bytes, path)));
        let Some((bytes, path)) = found else {
            let error = DownloadError::Offline { name: shown_name(&arguments.name) };
            return report(&error, ExitCode::from(EXIT_CONFIG), arguments.json);
        };
        print(&described(&DownloadedModel { path, bytes, fetched: 0 }, arguments.json));
        return ExitCode::SUCCESS;
    }
    let downloader = match Downloader::of_settings(&settings) {
        Ok((downloader, warning)) => {
            warning.iter().for_each(print_warning);
            downloader
        }
        Err(error) => return fail(&format!("no client for the hub: {error}")),
    };
    let runtime = match runtime::on_all_cpus() {
        Ok(runtime) => runtime,
        Err(problem) => return fail(&problem),
    };
    let progress = Arc::new(Progress::default());
    let mut stopped_with = EXIT_INTERRUPTED;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = downloader.download(&name, &progress) => outcome,
            never = ProgressDisplay::start(arguments.json).run(Arc::clone(&progress)) => match never {},
            _ = tokio::signal::ctrl_c() => Err(DownloadError::Stopped),
            () = terminated() => {
                stopped_with = EXIT_TERMINATED;
                Err(DownloadError::Stopped)
            }
        }
    });
    // Pieces that are being written end in the background; a short wait is enough for those.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    if let Some(warning) = progress.warning() {
        print_warning(&format!("{warning}: the one on the disk is used"));
    }
    match outcome {
        Ok(model) => print(&described(&model, arguments.json)),
        Err(error @ DownloadError::Stopped) => return report(&error, ExitCode::from(stopped_with), arguments.json),
        Err(error) if error.is_of_settings() => return report(&error, ExitCode::from(EXIT_CONFIG), arguments.json),
        Err(error) => return report(&error, ExitCode::FAILURE, arguments.json),
    }
    ExitCode::SUCCESS
}

/// Waits for SIGTERM; for ever where it cannot be handled, because then it ends the program itself.
async fn terminated() {
    match signal(SignalKind::terminate()) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

fn described(model: &DownloadedModel, is_json: bool) -> String {
    let path: &Path = &model.path;
    if is_json {
        let DownloadedModel { bytes, fetched, .. } = model;
        return format!("{}\n", json!({"state": "done", "path": path, "bytes": bytes, "fetched": fetched}));
    }
    let how = match model.fetched {
        0 => "all of it was there".to_owned(),
        fetched => format!("{} downloaded", human_size(fetched)),
    };
    print_stderr(&format!("{} ({how})\n", human_size(model.bytes)));
    format!("{}\n", path.display())
}

fn report(error: &DownloadError, code: ExitCode, is_json: bool) -> ExitCode {
    let hint = error.hint();
    if is_json {
        let state = if matches!(error, DownloadError::Stopped) { "stopped" } else { "failed" };
        print(&format!("{}\n", json!({"state": state, "error": error.to_string(), "hint": hint})));
    } else {
        let hint = hint.map(|hint| format!("\n    hint: {hint}")).unwrap_or_default();
        print_stderr(&format!("error: {error}{hint}\n"));
    }
    code
}
