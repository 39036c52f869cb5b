//! The end: what the service waits for once it runs, and why it stops.
//!
//! The order of the stop itself is in `app.rs`.

use super::reload::Reload;
use super::signals::Signals;
use crate::fleet::Fleet;
use crate::preflight::Unservable;
use crate::settings::Problem;
use crate::worker::Loss;
use std::sync::Arc;
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
    Misconfigured(Vec<Problem>),
}

/// Has the models served, and waits for a signal to stop, for nobody to use the service any more, or for all workers to be
/// given up; reloads on the way. With the reason where nobody can serve any more.
pub(super) async fn until_the_end(
    signals: &mut Signals,
    fleet: &Fleet,
    reload: &Arc<Reload>,
    stocking: impl Future<Output = Result<(), Unservable>>,
    unused: impl Future<Output = ()>,
) -> (Outcome, Option<String>) {
    let lost = fleet.is_lost();
    tokio::pin!(lost, stocking, unused);
    let mut is_stocked = false;
    loop {
        tokio::select! {
            stocked = &mut stocking, if !is_stocked => match stocked {
                Ok(()) => is_stocked = true,
                Err(Unservable { broken: Some(file), .. }) => {
                    error!(file = file.name, "fatal: {}", file.sentence);
                    return (Outcome::BackendFailed, Some(file.sentence));
                }
                Err(Unservable { problems, .. }) => {
                    return (Outcome::Misconfigured(problems), Some("its configuration is not usable".to_owned()));
                }
            },
            signal = signals.stop.recv() => {
                info!("{signal} received, stopping");
                return (Outcome::Stopped, None);
            }
            () = &mut unused => {
                info!("no request for SHUTDOWN_TIMEOUT, stopping");
                return (Outcome::Stopped, None);
            }
            loss = &mut lost => {
                let Loss::GivenUp(exit) = loss else {
                    error!("fatal: a worker is no longer watched; this is a defect, please report it");
                    return (Outcome::Broken, Some("a worker is no longer watched".to_owned()));
                };
                let (program, model, hint) =
                    exit.map_or_else(Default::default, |exit| (exit.program, exit.model, exit.hint));
                let hint = hint.unwrap_or_else(|| "no cause found in its log".to_owned());
                error!(model, "fatal: {program} could not be kept running: {hint}");
                return (Outcome::BackendFailed, Some(hint));
            }
            _ = signals.hangup.recv(), if is_stocked => {
                if let Err(problem) = reload.run().await {
                    error!("SIGHUP received, but all stays as it was: {problem}");
                }
            }
        }
    }
}
