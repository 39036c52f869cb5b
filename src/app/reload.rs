//! Reads the configuration and the keys again: on SIGHUP, on `POST /reload`, and when the configuration file changes.
//!
//! Everything is read and checked before anything changes, so a mistake anywhere leaves everything as it was. A reload
//! can change the models, how they are served, and the keys; changes of other settings are logged and take effect at
//! the next start.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::model_reconciler::{ModelReconciler, ReloadDifference};
use crate::app::bounds::{CONFIG_GONE_LOOKS, CONFIG_LOOK_INTERVAL};
use crate::keys::Store;
use crate::platform::Platform;
use crate::preflight::{self, Unservable};
use crate::settings::options::{Change, row};
use crate::settings::{Inputs, Resolved, SettingProblem, escaped, llama_variables_warning, resolve};

/// Reloads the configuration and the keys.
pub(super) struct Reloader {
    inputs: Inputs,
    platform: Platform,
    keys: Option<Store>,
    reconciler: Arc<ModelReconciler>,
    /// The configuration in effect. Locked for the whole reload, so that two reloads never run at once.
    current: Mutex<Resolved>,
    file: Option<PathBuf>,
}

/// Identifies one state of a file: modification time in seconds and nanoseconds, length in bytes, inode. `None` if
/// there is no file.
type FileStamp = Option<(i64, i64, u64, u64)>;

impl Reloader {
    pub(super) fn new(
        inputs: Inputs,
        platform: Platform,
        keys: Option<Store>,
        reconciler: Arc<ModelReconciler>,
        current: Resolved,
    ) -> Self {
        let file = current.config_file.clone();
        Self { inputs, platform, keys, reconciler, current: Mutex::new(current), file }
    }

    /// Serves the models of the configuration in effect.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the models if they cannot be served.
    pub(super) async fn load_models(self: Arc<Self>) -> Result<(), Unservable> {
        let current = self.current.lock().await;
        let (config, environment) = (current.config.clone(), self.inputs.environment.clone());
        let help = self.reconciler.llama_help(&config).await;
        let option_of = |name: &str| help.as_deref()?.option_of_variable(name);
        if let Some(warning) = llama_variables_warning(&environment, option_of) {
            warn!("{warning}");
        }
        // On a blocking thread: model files may be on slow network volumes.
        let check = move || preflight::models(&config, &environment, help.as_deref());
        let checked = tokio::task::spawn_blocking(check).await;
        // The join fails only if the runtime shuts down; then there is nothing left to report.
        let Ok(found) = checked else { return Ok(()) };
        let models = found?;
        for warning in preflight::warnings(&current.config.catalogue, &models) {
            warn!("{warning}");
        }
        self.reconciler.reconcile(models, &current.config);
        Ok(())
    }

    /// Reads configuration and keys again and applies them. Returns the number of keys.
    ///
    /// # Errors
    ///
    /// Returns why the reload failed, in which case nothing has changed.
    pub(super) async fn reload(self: &Arc<Self>) -> Result<usize, String> {
        let mut current = self.current.lock().await;
        let reloader = Arc::clone(self);
        let had_config_file = current.config_file.is_some();
        // On a blocking thread: files may be on slow network volumes.
        let read = tokio::task::spawn_blocking(move || reloader.read(had_config_file)).await;
        let (resolved, models, keys_loaded) = read.map_err(|_| "the reload was interrupted".to_owned())??;
        for key in restart_only_changes(&current, &resolved) {
            warn!("{} has changed, which takes effect at the next start", key.to_ascii_uppercase());
        }
        let new = resolved.warnings.iter().filter(|warning| !current.warnings.contains(warning)).cloned();
        for warning in new.chain(preflight::warnings(&resolved.config.catalogue, &models)) {
            warn!("{warning}");
        }
        let ReloadDifference { kept, changed, started, removed } = self.reconciler.reconcile(models, &resolved.config);
        info!(keys_loaded, kept, changed, started, removed, "configuration and keys reloaded");
        *current = resolved;
        Ok(keys_loaded)
    }

    fn read(&self, had_config_file: bool) -> Result<(Resolved, Vec<preflight::CheckedModel>, usize), String> {
        let resolved = resolve(&self.inputs, &self.platform).map_err(|problems| describe(&problems))?;
        // The service would otherwise go on with the models of the environment alone.
        if had_config_file && resolved.config_file.is_none() {
            return Err("the configuration file is gone".to_owned());
        }
        let environment = &self.inputs.environment;
        let reading = self.reconciler.llama_help(&resolved.config);
        let help = Handle::current().block_on(reading);
        let models = preflight::models(&resolved.config, environment, help.as_deref());
        let models = models.map_err(|unservable| describe(&unservable.problems))?;
        // Keys last: reading them also puts them into effect, and nothing after this step can fail.
        let keys_loaded = match &self.keys {
            None => 0,
            Some(keys) => keys.reload().map_err(|problem| format!("the key file: {problem}"))?,
        };
        Ok((resolved, models, keys_loaded))
    }

    /// Reloads when the configuration file, or a file that it includes, changes, until `stop` is cancelled. Logs once when the file is gone.
    pub(super) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let Some(file) = self.file.clone() else { return };
        let mut ticks = tokio::time::interval(CONFIG_LOOK_INTERVAL);
        let mut seen = (file_stamp(&file).await, self.included_stamps().await);
        let mut missed = 0u32;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let found = file_stamp(&file).await;
            let included = self.included_stamps().await;
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
            if let Err(problem) = self.reload().await {
                error!("the configuration file has changed, but is not taken, all stays as it was: {problem}");
            }
            // The file may include others now. The stamps of the same files stay those from before the reload.
            let included = self.included_stamps().await;
            if !included.iter().map(|(file, _)| file).eq(seen.1.iter().map(|(file, _)| file)) {
                seen.1 = included;
            }
        }
    }

    /// Returns the files that the configuration in effect includes, with their stamps.
    async fn included_stamps(&self) -> Vec<(PathBuf, FileStamp)> {
        let files = self.current.lock().await.included_files.clone();
        let mut stamps = Vec::with_capacity(files.len());
        for file in files {
            let stamp = file_stamp(&file).await;
            stamps.push((file, stamp));
        }
        stamps
    }
}

async fn file_stamp(file: &Path) -> FileStamp {
    let metadata = tokio::fs::metadata(file).await.ok()?;
    Some((metadata.mtime(), metadata.mtime_nsec(), metadata.size(), metadata.ino()))
}

/// Returns the settings that have changed but take effect only at the next start.
fn restart_only_changes(before: &Resolved, current: &Resolved) -> Vec<&'static str> {
    let needs_restart = |key: &str| row(key).is_some_and(|row| row.change == Change::Restart);
    let pairs = before.rows.iter().zip(&current.rows);
    pairs.filter(|((key, old, _), (_, new, _))| old != new && needs_restart(key)).map(|((key, ..), _)| *key).collect()
}

fn describe(problems: &[SettingProblem]) -> String {
    let mut text = format!("{} problem(s) with the configuration", problems.len());
    for problem in problems {
        // Writing to a string cannot fail.
        let _ = write!(text, "; {}: {}", escaped(&problem.subject), escaped(&problem.fault));
        if let Some(hint) = &problem.hint {
            let _ = write!(text, " ({})", escaped(hint));
        }
    }
    text
}
