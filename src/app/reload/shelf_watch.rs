//! Scans the models folder when a request names an unknown model, when a model has been downloaded, and when a worker
//! cannot load its model: its file may be gone.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::reloader::Reloader;
use crate::download::AfterDownload;
use crate::fleet::Fleet;
use crate::gateway::Rescan;

/// Returns what follows a download: a scan of the models folder.
pub(in crate::app) fn scan_after_download(reloader: &Arc<Reloader>) -> AfterDownload {
    // The reloader owns the downloads.
    let reloader = Arc::downgrade(reloader);
    Box::new(move || {
        let reloader = reloader.upgrade();
        Box::pin(async move {
            if let Some(reloader) = reloader {
                reloader.rescan().await;
            }
        })
    })
}

/// Scans the models folder when there is a reason to, until `stop` is cancelled.
pub(in crate::app) async fn watch_shelf(
    reloader: Arc<Reloader>,
    rescan: Arc<Rescan>,
    fleet: Arc<Fleet>,
    stop: CancellationToken,
) {
    let scan_on_demand = async {
        loop {
            rescan.ordered().await;
            reloader.rescan().await;
            rescan.finish();
        }
    };
    let scan_after_failures = async {
        let mut failed_before = 0;
        loop {
            // Created before the loads are counted, so that none in between is missed.
            let changes = fleet.changed();
            let failed = fleet.failed_loads();
            if failed > failed_before {
                reloader.rescan().await;
            }
            // Those of a model that has left the folder no longer count.
            failed_before = failed.min(fleet.failed_loads());
            changes.await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = scan_on_demand => {}
        () = scan_after_failures => {}
    }
}
