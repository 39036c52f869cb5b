//! Follows the configuration file and the files that it includes.
//!
//! Owns when these files count as changed or gone. What is read then, and what becomes of it, is decided in `reloader.rs`.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::error;

use super::reloader::Reloader;
use crate::app::bounds::{CONFIG_GONE_LOOKS, CONFIG_LOOK_INTERVAL};
use crate::settings::Resolved;

/// The files of the configuration that the service starts with.
pub(in crate::app) struct ConfigFiles {
    /// The configuration file; `None` if there is none.
    file: Option<PathBuf>,
    /// The files that it includes.
    included: Vec<PathBuf>,
}

/// Identifies one state of a file: modification time in seconds and nanoseconds, length in bytes, inode. `None` if
/// there is no file.
type FileStamp = Option<(i64, i64, u64, u64)>;

impl ConfigFiles {
    /// Returns the files of this configuration.
    pub(in crate::app) fn of(resolved: &Resolved) -> Self {
        Self { file: resolved.config_file.clone(), included: resolved.included_files.clone() }
    }

    /// Reloads when the configuration file, or a file that it includes, changes, until `stop` is cancelled. Logs once when
    /// the file is gone.
    pub(in crate::app) async fn watch(self, reloader: Arc<Reloader>, stop: CancellationToken) {
        stop.run_until_cancelled(self.watch_on(&reloader)).await;
    }

    async fn watch_on(self, reloader: &Arc<Reloader>) {
        let Some(file) = self.file else { return };
        let mut ticks = tokio::time::interval(CONFIG_LOOK_INTERVAL);
        // Without a wait for the first models: a change after they are served must not be in the first stamps.
        let mut seen = (file_stamp(&file).await, stamps(&self.included).await);
        let mut missed = 0u32;
        loop {
            ticks.tick().await;
            let found = file_stamp(&file).await;
            let included = stamps(&reloader.included_files().await).await;
            // A file may be missing for a moment while an editor replaces it.
            missed = if found.is_none() { missed.saturating_add(1) } else { 0 };
            if missed == CONFIG_GONE_LOOKS {
                error!("the configuration file is gone, all stays as it was");
            }
            if found.is_none() || (found, &included) == (seen.0, &seen.1) {
                continue;
            }
            // Set even if the reload fails: it is repeated only when the file changes again, not every two seconds.
            seen = (found, included);
            if let Err(problem) = reloader.reload().await {
                error!("the configuration file has changed, but is not taken, all stays as it was: {problem}");
            }
            // The file may include others now. The stamps of the same files stay those from before the reload.
            let included = stamps(&reloader.included_files().await).await;
            if !included.iter().map(|(file, _)| file).eq(seen.1.iter().map(|(file, _)| file)) {
                seen.1 = included;
            }
        }
    }
}

async fn stamps(files: &[PathBuf]) -> Vec<(PathBuf, FileStamp)> {
    let mut stamps = Vec::with_capacity(files.len());
    for file in files {
        stamps.push((file.clone(), file_stamp(file).await));
    }
    stamps
}

async fn file_stamp(file: &Path) -> FileStamp {
    let metadata = tokio::fs::metadata(file).await.ok()?;
    Some((metadata.mtime(), metadata.mtime_nsec(), metadata.size(), metadata.ino()))
}
