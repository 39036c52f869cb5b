//! The main wait: loads the models, handles signals, and returns why the service stops.
//!
//! The order of the shutdown itself is in `mod.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::{error, info};

use super::reload::reloader::{LoadFailure, Reloader};
use super::signals::Signals;
use crate::cores::CoreThreads;
use crate::download::DownloadRegistry;
use crate::fleet::Fleet;
use crate::gateway::Gateway;
use crate::gateway::bounds::RESCAN_WAIT;
use crate::pause_clock;
use crate::preflight::Unservable;
use crate::settings::SettingProblem;
use crate::telemetry::files::look_at_log_files;
use crate::worker::WorkerLoss;

/// How a run of the service ended.
#[derive(Debug)]
pub enum RunOutcome {
    /// A signal or `SHUTDOWN_TIMEOUT` stopped it.
    Stopped,
    /// No worker could be kept running.
    BackendFailed,
    /// An internal invariant was broken.
    Broken,
    /// The models cannot be served as configured.
    Misconfigured(Vec<SettingProblem>),
}

/// The outcome of the run and the reason that is reported to the platform.
pub(super) struct StopCause {
    pub(super) outcome: RunOutcome,
    /// Why no request can be served any more; `None` after a regular stop.
    pub(super) reason: Option<String>,
}

impl StopCause {
    /// Returns how a service ends whose models could not be loaded, and logs it where that is no problem of settings.
    fn of_load(failure: LoadFailure) -> Self {
        let problems = match failure {
            LoadFailure::Unservable(Unservable { broken: Some(file), .. }) => {
                error!(file = file.name, "fatal: {}", file.sentence);
                return Self::new(RunOutcome::BackendFailed, file.sentence);
            }
            LoadFailure::Unservable(Unservable { problems, .. }) => problems,
            LoadFailure::NoDownload { subject, fault, hint, is_of_settings: true } => {
                vec![SettingProblem { subject, fault, hint }]
            }
            LoadFailure::NoDownload { subject, fault, hint, is_of_settings: false } => {
                let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
                error!(model = subject, "fatal: the model could not be downloaded: {fault}{hint}");
                return Self::new(RunOutcome::BackendFailed, fault);
            }
        };
        Self::new(RunOutcome::Misconfigured(problems), "its configuration is not usable")
    }

    fn new(outcome: RunOutcome, reason: impl Into<String>) -> Self {
        Self { outcome, reason: Some(reason.into()) }
    }
}

/// Loads the models, then waits for a stop signal, for `idle_limit` without a request, or for the loss of all workers.
/// Reloads on SIGHUP, and has log files opened again that were renamed.
///
/// `idle_limit` is `SHUTDOWN_TIMEOUT`, or `None` if the service runs on without requests.
pub(super) async fn wait_for_stop(
    signals: &mut Signals,
    cores: &CoreThreads,
    fleet: &Fleet,
    reloader: &Arc<Reloader>,
    gateway: &Gateway,
    idle_limit: Option<Duration>,
) -> StopCause {
    let lost = fleet.lost();
    let loading = Arc::clone(reloader).load_models();
    let idle = async {
        match idle_limit {
            Some(limit) => idle_for(limit, gateway, &reloader.downloads).await,
            None => std::future::pending().await,
        }
    };
    // At most one, in a task of its own: a volume that does not answer holds up a reload, but no stop.
    let mut reloads = JoinSet::new();
    tokio::pin!(lost, loading, idle);
    let mut is_loaded = false;
    loop {
        tokio::select! {
            loaded = &mut loading, if !is_loaded => match loaded {
                Ok(()) => is_loaded = true,
                Err(failure) => return StopCause::of_load(failure),
            },
            () = cores.failed() => {
                error!("fatal: a serving thread has ended; this is a defect, please report it");
                return StopCause::new(RunOutcome::Broken, "a serving thread has ended");
            }
            signal = signals.stop.recv() => {
                info!("{signal} received, stopping");
                return StopCause { outcome: RunOutcome::Stopped, reason: None };
            }
            () = &mut idle => {
                info!("no request for SHUTDOWN_TIMEOUT, stopping");
                return StopCause { outcome: RunOutcome::Stopped, reason: None };
            }
            loss = &mut lost => {
                // The last model may only have left the models folder, or have been replaced there.
                let _ = pause_clock::timeout(RESCAN_WAIT, reloader.rescan()).await;
                if !fleet.is_lost() {
                    lost.set(fleet.lost());
                    continue;
                }
                let WorkerLoss::GivenUp(exit) = loss else {
                    error!("fatal: a worker is no longer watched; this is a defect, please report it");
                    return StopCause::new(RunOutcome::Broken, "a worker is no longer watched");
                };
                let (program, model, hint) =
                    exit.map_or_else(Default::default, |exit| (exit.program, exit.model, exit.hint));
                let hint = hint.unwrap_or_else(|| "no cause found in its log".to_owned());
                error!(model, "fatal: {program} could not be kept running: {hint}");
                return StopCause::new(RunOutcome::BackendFailed, hint);
            }
            // Not while the models are loading: `loading` holds the reloader's lock.
            _ = signals.hangup.recv(), if is_loaded && reloads.is_empty() => {
                look_at_log_files();
                let reloader = Arc::clone(reloader);
                reloads.spawn(async move { reloader.reload().await });
            }
            Some(outcome) = reloads.join_next() => if let Ok(Err(problem)) = outcome {
                error!("SIGHUP received, but all stays as it was: {problem}");
            },
        }
    }
}

/// Waits until no model has been used for this time, and no download is under way.
async fn idle_for(limit: Duration, gateway: &Gateway, downloads: &DownloadRegistry) {
    loop {
        gateway.idle_for(limit).await;
        if !downloads.is_busy() {
            return;
        }
        downloads.idle().await;
    }
}
