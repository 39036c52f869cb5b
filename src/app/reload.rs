//! Reading the configuration and the keys again: on SIGHUP, on `POST /reload`, and when the configuration file changes.
//!
//! All of it is read before anything changes, so a mistake anywhere leaves everything as it is. Models and how they are
//! served are what a reload can change, and keys; other settings hold until the next start, and that is said.

use super::model_reconciler::{ModelReconciler, ReloadDifference};
use crate::app::bounds::{CONFIG_GONE_LOOKS, CONFIG_LOOK_INTERVAL};
use crate::keys::Store;
use crate::platform::Platform;
use crate::preflight::{self, Unservable};
use crate::settings::options::{Change, row};
use crate::settings::{Inputs, Resolved, SettingProblem, resolve};
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Reads everything again.
pub(super) struct Reloader {
    inputs: Inputs,
    platform: Platform,
    keys: Option<Store>,
    shelving: Arc<ModelReconciler>,
    /// What holds now. Locked by whoever reloads: two never do at once.
    now: Mutex<Resolved>,
    file: Option<PathBuf>,
}

/// What tells one state of a file from another: when it was written, its length, and which it is.
type Stamp = Option<(i64, i64, u64, u64)>;

impl Reloader {
    pub(super) fn new(
        inputs: Inputs,
        platform: Platform,
        keys: Option<Store>,
        shelving: Arc<ModelReconciler>,
        now: Resolved,
    ) -> Self {
        let file = now.config_file.clone();
        Self { inputs, platform, keys, shelving, now: Mutex::new(now), file }
    }

    /// Serves the models of the settings that hold now. What is wrong with them, if anything is.
    pub(super) async fn stock(self: Arc<Self>) -> Result<(), Unservable> {
        let now = self.now.lock().await;
        let (config, environment) = (now.config.clone(), self.inputs.environment.clone());
        // Their files are read, some of them on network volumes.
        let looked = tokio::task::spawn_blocking(move || preflight::models(&config, &environment)).await;
        // Only a runtime that ends interrupts it.
        let Ok(found) = looked else { return Ok(()) };
        let models = found?;
        for doubt in preflight::warnings(&now.config.catalogue, &models) {
            warn!("{doubt}");
        }
        self.shelving.reconcile(models, &now.config);
        Ok(())
    }

    /// Reads everything again and serves by it. The number of keys, or why all stays as it was.
    pub(super) async fn run(self: &Arc<Self>) -> Result<usize, String> {
        let mut now = self.now.lock().await;
        let this = Arc::clone(self);
        let had_file = now.config_file.is_some();
        // Files are read, some of them on network volumes.
        let read = tokio::task::spawn_blocking(move || this.read(had_file)).await;
        let (resolved, models, keys_loaded) = read.map_err(|_| "the reload was interrupted".to_owned())??;
        for key in held_back(&now, &resolved) {
            warn!("{} has changed, which takes effect at the next start", key.to_ascii_uppercase());
        }
        for doubt in preflight::warnings(&resolved.config.catalogue, &models) {
            warn!("{doubt}");
        }
        let ReloadDifference { kept, changed, started, removed } = self.shelving.reconcile(models, &resolved.config);
        info!(keys_loaded, kept, changed, started, removed, "configuration and keys reloaded");
        *now = resolved;
        Ok(keys_loaded)
    }

    fn read(&self, had_file: bool) -> Result<(Resolved, Vec<preflight::CheckedModel>, usize), String> {
        let resolved = resolve(&self.inputs, &self.platform).map_err(|problems| listed(&problems))?;
        // What the environment names alone is another service altogether.
        if had_file && resolved.config_file.is_none() {
            return Err("the configuration file is gone".to_owned());
        }
        let environment = &self.inputs.environment;
        let models = preflight::models(&resolved.config, environment);
        let models = models.map_err(|unservable| listed(&unservable.problems))?;
        // Last: they are taken in the same step.
        let keys_loaded = match &self.keys {
            None => 0,
            Some(keys) => keys.reload().map_err(|problem| format!("the key file: {problem}"))?,
        };
        Ok((resolved, models, keys_loaded))
    }

    /// Reloads when the configuration file changes, and says once when it is gone, until `stop`.
    pub(super) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let Some(file) = self.file.clone() else { return };
        let mut ticks = tokio::time::interval(CONFIG_LOOK_INTERVAL);
        let mut seen = stamp(&file).await;
        let mut missed = 0u32;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let found = stamp(&file).await;
            // A file that is being replaced may be away for a moment.
            missed = if found.is_none() { missed.saturating_add(1) } else { 0 };
            if missed == CONFIG_GONE_LOOKS {
                error!("the configuration file is gone, all stays as it was");
            }
            if found == seen || found.is_none() {
                continue;
            }
            seen = found;
            if let Err(problem) = self.run().await {
                error!("the configuration file has changed, but is not taken, all stays as it was: {problem}");
            }
        }
    }
}

async fn stamp(file: &Path) -> Stamp {
    let metadata = tokio::fs::metadata(file).await.ok()?;
    Some((metadata.mtime(), metadata.mtime_nsec(), metadata.size(), metadata.ino()))
}

/// Settings that differ but hold until the next start.
fn held_back(before: &Resolved, now: &Resolved) -> Vec<&'static str> {
    let is_held = |key: &str| row(key).is_some_and(|row| row.change == Change::Restart);
    let pairs = before.rows.iter().zip(&now.rows);
    pairs.filter(|((key, old, _), (_, new, _))| old != new && is_held(key)).map(|((key, ..), _)| *key).collect()
}

fn listed(problems: &[SettingProblem]) -> String {
    let mut text = format!("{} problem(s) with the configuration", problems.len());
    for problem in problems {
        // Writing to a string cannot fail.
        let _ = write!(text, "; {}: {}", problem.subject, problem.fault);
        if let Some(hint) = &problem.hint {
            let _ = write!(text, " ({hint})");
        }
    }
    text
}
