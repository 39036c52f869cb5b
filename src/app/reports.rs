//! Reports of the running service in its own log: that it is ready, and how many log lines were lost.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::fleet::Fleet;
use crate::gateway::Accounting;
use crate::telemetry::bounds::REPORT_INTERVAL;
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

/// Reports lost log lines at most once a minute, until `stop` is cancelled. Owns the log's guard, which keeps its
/// writers alive.
pub(super) async fn report_lost_lines(
    accounting: Arc<Accounting>,
    log: Arc<LogGuard>,
    worker_errors: Arc<WriteErrors>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(REPORT_INTERVAL);
    loop {
        // One more round after the stop, so that losses of the last minute are reported.
        let is_last = stop.run_until_cancelled(ticks.tick()).await.is_none();
        let of_log = log.files.iter().map(|(name, lost)| (*name, &lost.errors, lost.dropped.dropped_lines() as u64));
        let others =
            [("access", &accounting.access.errors, accounting.access.dropped_lines()), ("llama", &worker_errors, 0)];
        for (folder, errors, dropped) in of_log.chain(others) {
            let lost = errors.lost().saturating_add(dropped);
            let gauge = accounting.metrics.log_lines_lost.get_or_create(&FolderLabels { folder }).clone();
            gauge.set(i64::try_from(lost).unwrap_or(i64::MAX));
            if let Some(report) = errors.report_due(jiff::Timestamp::now()) {
                warn!("{report}");
            }
        }
        if is_last {
            return;
        }
    }
}
