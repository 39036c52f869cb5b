//! The end: what the service waits for once it runs, and why it stops.
//!
//! The order of the stop itself is in `mod.rs`.

use super::reload::Reloader;
use super::signals::Signals;
use crate::fleet::Fleet;
use crate::gateway::Gateway;
use crate::preflight::Unservable;
use crate::settings::SettingProblem;
use crate::worker::WorkerLoss;
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, info};

/// How the service ended.
#[derive(Debug)]
pub enum Outcome {
    /// It was asked to.
    Stopped,
    /// No worker could be kept running.
    BackendFailed,
    /// Something in here failed that must not.
    Broken,
    /// The models cannot be served as they are configured.
    Misconfigured(Vec<SettingProblem>),
}

/// Why the service stops.
pub(super) struct Ending {
    pub(super) outcome: Outcome,
    /// What makes it impossible to serve anything, if something does.
    pub(super) reason: Option<String>,
}

impl Ending {
    fn because(outcome: Outcome, reason: impl Into<String>) -> Self {
        Self { outcome, reason: Some(reason.into()) }
    }
}

/// Has the models served, and waits for a signal to stop, for nobody to use the service any more, or for all workers to be
/// given up; reloads on the way. `least_quiet` is `SHUTDOWN_TIMEOUT`, or none where the service runs without requests.
pub(super) async fn wait_for_end(
    signals: &mut Signals,
    fleet: &Fleet,
    reload: &Arc<Reloader>,
    gateway: &Gateway,
    least_quiet: Option<Duration>,
) -> Ending {
    let lost = fleet.lost();
    let stocking = Arc::clone(reload).stock();
    let unused = async {
        match least_quiet {
            Some(least) => gateway.idle_for(least).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(lost, stocking, unused);
    let mut is_stocked = false;
    loop {
        tokio::select! {
            stocked = &mut stocking, if !is_stocked => match stocked {
                Ok(()) => is_stocked = true,
                Err(Unservable { broken: Some(file), .. }) => {
                    error!(file = file.name, "fatal: {}", file.sentence);
                    return Ending::because(Outcome::BackendFailed, file.sentence);
                }
                Err(Unservable { problems, .. }) => {
                    return Ending::because(Outcome::Misconfigured(problems), "its configuration is not usable");
                }
            },
            signal = signals.stop.recv() => {
                info!("{signal} received, stopping");
                return Ending { outcome: Outcome::Stopped, reason: None };
            }
            () = &mut unused => {
                info!("no request for SHUTDOWN_TIMEOUT, stopping");
                return Ending { outcome: Outcome::Stopped, reason: None };
            }
            loss = &mut lost => {
                let WorkerLoss::GivenUp(exit) = loss else {
                    error!("fatal: a worker is no longer watched; this is a defect, please report it");
                    return Ending::because(Outcome::Broken, "a worker is no longer watched");
                };
                let (program, model, hint) =
                    exit.map_or_else(Default::default, |exit| (exit.program, exit.model, exit.hint));
                let hint = hint.unwrap_or_else(|| "no cause found in its log".to_owned());
                error!(model, "fatal: {program} could not be kept running: {hint}");
                return Ending::because(Outcome::BackendFailed, hint);
            }
            _ = signals.hangup.recv(), if is_stocked => {
                if let Err(problem) = reload.run().await {
                    error!("SIGHUP received, but all stays as it was: {problem}");
                }
            }
        }
    }
}
