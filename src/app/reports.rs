//! Reports of the running service: in its own log, that it is ready and how many log lines were lost; in a file, when models
//! were last used.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::bounds::LAST_USED_INTERVAL;
use super::models::reconciler::ModelReconciler;
use crate::fleet::Fleet;
use crate::gateway::Accounting;
use crate::models::LastUsed;
use crate::telemetry::bounds::LOG_LOOK_INTERVAL;
use crate::telemetry::files::WriteErrors;
use crate::telemetry::log::LogGuard;
use crate::telemetry::metrics::{FolderLabels, Metrics};

/// Logs once that requests can be served. Platforms and users search for this line: it must not change
/// (`docs/FAULTS.md`).
pub(super) async fn log_when_ready(fleet: Arc<Fleet>, metrics: Arc<Metrics>, port: u16, stop: CancellationToken) {
    if stop.run_until_cancelled(fleet.initial_load()).await == Some(true) {
        let (models, seconds) = (fleet.snapshot().models().len(), (metrics.uptime() * 10.0).round() / 10.0);
        info!(models, port, seconds, "llamagate is ready");
    }
}

/// The topic of warnings about logs that cannot be written.
const LOGS_TOPIC: &str = "logs";

/// Reports lost log lines at most once a minute, and raises a warning while a log cannot be written, until `stop` is
/// cancelled. Owns the log's guard, which keeps its writers alive.
pub(super) async fn report_lost_lines(
    accounting: Arc<Accounting>,
    log: Arc<LogGuard>,
    worker_errors: Arc<WriteErrors>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(LOG_LOOK_INTERVAL);
    let mut shown = Vec::new();
    loop {
        // One more round after the stop, so that losses of the last minute are reported.
        let is_last = stop.run_until_cancelled(ticks.tick()).await.is_none();
        let of_log = log.files.iter().map(|(name, lost)| (*name, &lost.errors, lost.dropped.dropped_lines() as u64));
        let others =
            [("access", &accounting.access.errors, accounting.access.dropped_lines()), ("llama", &worker_errors, 0)];
        let mut failing = Vec::new();
        for (folder, errors, dropped) in of_log.chain(others) {
            let lost = errors.lost().saturating_add(dropped);
            let gauge = accounting.metrics.log_lines_lost.get_or_create(&FolderLabels { folder }).clone();
            gauge.set(i64::try_from(lost).unwrap_or(i64::MAX));
            if let Some(report) = errors.report_due(jiff::Timestamp::now()) {
                warn!("{report}");
            }
            failing.extend(errors.failure().map(|reason| unwritable(folder, &reason)));
        }
        if failing != shown {
            accounting.metrics.warnings.replace(LOGS_TOPIC, &failing);
            shown = failing;
        }
        if is_last {
            return;
        }
    }
}

/// Returns the warning that the files of a log cannot be written. `log` is its name in the metrics.
fn unwritable(log: &str, reason: &str) -> String {
    let (name, setting) = match log {
        "access" => ("the access log", "LOG_DIR"),
        "llama" => ("the log of llama-server", "LOG_DIR"),
        "log_file" => ("LOG_FILE", "LOG_FILE"),
        _ => ("the log of the gateway", "LOG_DIR"),
    };
    format!("{name} cannot be written ({reason}), its lines are lost: see to the disk or the folder, or set {setting}")
}

/// Notes which models were used in `file`, once a minute if there is anything to note, until `stop` is cancelled.
/// `llamagate list` shows it.
pub(super) async fn note_last_used(reconciler: Arc<ModelReconciler>, file: PathBuf, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(LAST_USED_INTERVAL);
    let mut counted: HashMap<PathBuf, u64> = HashMap::new();
    loop {
        // One more round after the stop, for the requests of the last minute.
        let is_last = stop.run_until_cancelled(ticks.tick()).await.is_none();
        let requests = reconciler.requests_of_files();
        // The count of a model begins again with its workers.
        let is_used = |(path, count): &(&PathBuf, &u64)| **count > 0 && counted.get(*path) != Some(*count);
        let used: Vec<PathBuf> = requests.iter().filter(is_used).map(|(path, _)| path.clone()).collect();
        counted = requests;
        if !used.is_empty() {
            let file = file.clone();
            // On a blocking thread: the folder may be on a slow network volume.
            let _ = tokio::task::spawn_blocking(move || write_last_used(&file, &used)).await;
        }
        if is_last {
            return;
        }
    }
}

fn write_last_used(file: &std::path::Path, used: &[PathBuf]) {
    // Read again each time: another service may keep its notes in the same folder.
    let mut last_used = LastUsed::load(file);
    let now = jiff::Timestamp::now();
    used.iter().for_each(|path| last_used.note(path, now));
    if let Err(error) = last_used.save(file) {
        debug!(path = %file.display(), %error, "when models were last used is not kept");
    }
}
