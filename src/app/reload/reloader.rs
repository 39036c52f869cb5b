//! Reads the configuration and the keys again, when SIGHUP, `POST /reload` or `config_watch.rs` says so.
//!
//! Everything is read and checked before anything changes, so a mistake anywhere leaves everything as it was. A reload
//! can change the models, how they are served, and the keys; changes of other settings are logged and take effect at
//! the next start. Where every model below `MODELS_DIR` is served, that folder alone may be scanned again.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::served_file::ServedFile;
use crate::app::models::reconciler::{ModelReconciler, ReloadDifference};
use crate::download::{DownloadRegistry, Downloader};
use crate::keys::Store;
use crate::models::{ModelPlaces, Shelf};
use crate::platform::Platform;
use crate::preflight::{self, CheckedModels, MissingModel, Unservable};
use crate::settings::options::{Change, row};
use crate::settings::{Inputs, Resolved, SettingProblem, Settings, escaped, llama_variables_warning, resolve};
use crate::tls::CertificateStore;

/// Reloads the configuration and the keys.
pub(in crate::app) struct Reloader {
    inputs: Inputs,
    platform: Platform,
    followed: Followed,
    reconciler: Arc<ModelReconciler>,
    /// What is in effect. Locked for the whole reload, so that two reloads never run at once.
    current: Mutex<InEffect>,
    /// The downloads that the start waits for, and those of clients.
    pub(in crate::app) downloads: Arc<DownloadRegistry>,
    /// What is known about the files below `MODELS_DIR` and of the stores. Used on blocking threads only.
    shelf: Arc<std::sync::Mutex<Shelf>>,
    /// Locked for a scan of the models folder alone, so that an older scan is never applied after a newer one.
    scanning: Arc<Mutex<()>>,
}

/// Files besides the configuration that a reload reads again.
pub(in crate::app) struct Followed {
    /// `None` if no key is asked for.
    pub(in crate::app) keys: Option<Store>,
    /// `None` without TLS.
    pub(in crate::app) certificates: Option<Arc<CertificateStore>>,
}

/// The configuration in effect, and the models of its last check.
struct InEffect {
    resolved: Resolved,
    models: CheckedModels,
    /// Whether the models are served: not before the first ones are found.
    is_applied: bool,
    /// Number of reloads before it.
    generation: u64,
}

/// The result of reading everything again.
struct ReadAgain {
    in_effect: InEffect,
    keys_loaded: usize,
}

/// Why the models of the configuration are not served.
pub(in crate::app) enum LoadFailure {
    /// They cannot be served as configured.
    Unservable(Unservable),
    /// One is not on the disk, and did not come.
    NoDownload {
        /// The setting that names it.
        subject: String,
        fault: String,
        hint: Option<String>,
        /// Whether the same would happen at every start.
        is_of_settings: bool,
    },
}

impl From<Unservable> for LoadFailure {
    fn from(unservable: Unservable) -> Self {
        Self::Unservable(unservable)
    }
}

/// The topics of warnings that are raised here.
const LLAMA_VARIABLES_TOPIC: &str = "llama_variables";
const MODELS_TOPIC: &str = "models";

impl Reloader {
    pub(in crate::app) fn new(
        inputs: Inputs,
        platform: Platform,
        followed: Followed,
        reconciler: Arc<ModelReconciler>,
        current: Resolved,
        downloads: Arc<DownloadRegistry>,
    ) -> Self {
        let models = CheckedModels::default();
        let current = Mutex::new(InEffect { resolved: current, models, is_applied: false, generation: 0 });
        let (shelf, scanning) = (Arc::default(), Arc::default());
        Self { inputs, platform, followed, reconciler, current, downloads, shelf, scanning }
    }

    /// Serves the models of the configuration in effect. Those that are named and not on the disk are downloaded before.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the models if they cannot be served, or why one did not come.
    pub(in crate::app) async fn load_models(self: Arc<Self>) -> Result<(), LoadFailure> {
        let environment = self.inputs.environment.clone();
        let mut downloaded: Vec<MissingModel> = Vec::new();
        loop {
            // Held while files are read, and not while they come: a reload answers meanwhile.
            let mut current = self.current.lock().await;
            let config = current.resolved.config.clone();
            let help = self.reconciler.llama_help(&config).await;
            let option_of = |name: &str| help.as_deref()?.option_of_variable(name);
            if let Some(warning) = llama_variables_warning(&environment, option_of) {
                self.reconciler.metrics.warnings.raise(LLAMA_VARIABLES_TOPIC, "", &warning);
            }
            let (shelf, settings, environment) =
                (Arc::clone(&self.shelf), config.settings.clone(), environment.clone());
            // On a blocking thread: model files may be on slow network volumes.
            let check = move || preflight::models(&config, &environment, help.as_deref(), &mut lock(&shelf));
            let checked = tokio::task::spawn_blocking(check);
            // The join fails only if the runtime shuts down; then there is nothing left to report.
            let Ok(found) = checked.await else { return Ok(()) };
            let found = found?;
            if found.missing.is_empty() {
                (current.models, current.is_applied) = (found, true);
                current.apply(&self.reconciler);
                return Ok(());
            }
            drop(current);
            // What came may have moved a reference that another model was found by, so there may be another round.
            if found.missing.iter().all(|model| downloaded.contains(model)) {
                return Err(Unservable { problems: found.missing_problems(), broken: None }.into());
            }
            self.download(&settings, &found.missing).await?;
            downloaded.extend(found.missing);
        }
    }

    /// Downloads these models, one after the other.
    async fn download(&self, settings: &Settings, missing: &[MissingModel]) -> Result<(), LoadFailure> {
        let (downloader, warning) = Downloader::of_settings(settings).map_err(|error| LoadFailure::NoDownload {
            subject: "HF_ENDPOINT".to_owned(),
            fault: format!("no client for the hub: {error}"),
            hint: None,
            is_of_settings: false,
        })?;
        if let Some(warning) = warning {
            warn!("{warning}");
        }
        for MissingModel { subject, name, locally, .. } in missing {
            let outcome = self.downloads.bring(downloader.clone(), name).await;
            outcome.map_err(|failure| LoadFailure::NoDownload {
                subject: subject.clone(),
                fault: format!("{locally}; and {}", failure.message),
                hint: failure.hint.map(str::to_owned),
                is_of_settings: failure.is_of_settings,
            })?;
        }
        Ok(())
    }

    /// Reads configuration and keys again and applies them. Returns the number of keys.
    ///
    /// # Errors
    ///
    /// Returns why the reload failed, in which case nothing has changed.
    pub(in crate::app) async fn reload(self: &Arc<Self>) -> Result<usize, String> {
        let mut current = self.current.lock().await;
        let reloader = Arc::clone(self);
        let had_config_file = current.resolved.config_file.is_some();
        // On a blocking thread: files may be on slow network volumes.
        let read = tokio::task::spawn_blocking(move || reloader.read(had_config_file)).await;
        let ReadAgain { in_effect, keys_loaded } = read.map_err(|_| "the reload was interrupted".to_owned())??;
        for key in restart_only_changes(&current.resolved, &in_effect.resolved) {
            warn!("{} has changed, which takes effect at the next start", key.to_ascii_uppercase());
        }
        self.order_certificate(&in_effect.resolved);
        let new = in_effect.resolved.warnings.iter().filter(|warning| !current.resolved.warnings.contains(warning));
        for warning in new {
            warn!("{warning}");
        }
        let ReloadDifference { kept, changed, started, removed } = in_effect.apply(&self.reconciler);
        info!(keys_loaded, kept, changed, started, removed, "configuration and keys reloaded");
        *current = InEffect { generation: current.generation + 1, ..in_effect };
        self.downloads.set_settings(Arc::new(current.resolved.config.settings.clone()));
        Ok(keys_loaded)
    }

    /// Has a certificate ordered at once if it is due, or if it is for other names than the settings say.
    fn order_certificate(&self, resolved: &Resolved) {
        let domains = resolved.config.settings.tls.tls_acme_domains.names();
        let store = self.followed.certificates.as_deref();
        let begins_or_ends = match store {
            // The names of before are kept until the next start.
            Some(store) if domains.is_empty() => store.has_ca(),
            Some(store) => !store.order_for(domains),
            None => !domains.is_empty(),
        };
        if begins_or_ends {
            warn!("TLS_ACME_DOMAINS begins or ends to name domains, which takes effect at the next start");
        }
    }

    /// Returns where models lie, and the models that are served.
    pub(in crate::app) async fn served_files(&self) -> (ModelPlaces, Vec<ServedFile>) {
        let current = self.current.lock().await;
        let InEffect { resolved, models, .. } = &*current;
        let named = models.named.iter().map(|model| ServedFile::of(model, true));
        let served = named.chain(models.shelf.iter().map(|model| ServedFile::of(model, false)));
        (resolved.config.settings.model_places(), served.collect())
    }

    /// Scans the models folder and the stores again and serves what they hold now, if they are served. Everything else stays.
    pub(in crate::app) async fn rescan(&self) {
        let alone = Arc::clone(&self.scanning).lock_owned().await;
        let (config, named, generation) = {
            let current = self.current.lock().await;
            if current.resolved.config.catalogue.shelf.is_none() || !current.is_applied {
                return;
            }
            (current.resolved.config.clone(), current.models.named.clone(), current.generation)
        };
        // Without the lock: a volume that does not answer must not hold up a reload, nor a stop.
        let (shelf, scanned) = (Arc::clone(&self.shelf), config.clone());
        // The thread has the turn: when no task waits for it any more, it goes on, and another one would pile up behind it.
        let scan =
            tokio::task::spawn_blocking(move || (preflight::find_shelf(&scanned, &named, &mut lock(&shelf)), alone));
        let Ok((scan, _alone)) = scan.await else { return };
        let (found, notes) = match scan {
            Ok(scan) => scan,
            Err(problem) => {
                warn!("the models cannot be scanned, all stays as it was: {}: {}", problem.subject, problem.fault);
                return;
            }
        };
        let mut current = self.current.lock().await;
        // A reload in between has scanned itself.
        if current.generation != generation {
            return;
        }
        for note in notes {
            warn!("{note}");
        }
        if current.models.shelf == found {
            return;
        }
        current.models.shelf = found;
        self.reconciler.metrics.warnings.replace(MODELS_TOPIC, &current.models.warnings(&config));
        let ReloadDifference { kept, changed, started, removed } =
            self.reconciler.reconcile(current.models.all(), &config);
        info!(kept, changed, started, removed, "the models on the disk have changed");
    }

    fn read(&self, had_config_file: bool) -> Result<ReadAgain, String> {
        let resolved = resolve(&self.inputs, &self.platform).map_err(|problems| describe(&problems))?;
        // The service would otherwise go on with the models of the environment alone.
        if had_config_file && resolved.config_file.is_none() {
            return Err("the configuration file is gone".to_owned());
        }
        let environment = &self.inputs.environment;
        let reading = self.reconciler.llama_help(&resolved.config);
        let help = Handle::current().block_on(reading);
        let models = preflight::models(&resolved.config, environment, help.as_deref(), &mut lock(&self.shelf));
        let models = models.map_err(|unservable| describe(&unservable.problems))?;
        // A reload answers at once, so it waits for no download.
        if !models.missing.is_empty() {
            return Err(describe(&models.missing_problems()));
        }
        let Followed { keys, certificates } = &self.followed;
        let certificate = certificates.as_ref().map(|store| store.read_again()).transpose();
        let certificate = certificate.map_err(|error| error.to_string())?;
        // Keys last: reading them also puts them into effect, and nothing after this step can fail.
        let keys_loaded = match keys {
            None => 0,
            Some(keys) => keys.reload().map_err(|problem| format!("the key file: {problem}"))?,
        };
        if let Some((store, certificate)) = certificates.as_ref().zip(certificate) {
            store.install(certificate);
        }
        Ok(ReadAgain { in_effect: InEffect { resolved, models, is_applied: true, generation: 0 }, keys_loaded })
    }

    /// Returns the files that the configuration in effect includes.
    pub(super) async fn included_files(&self) -> Vec<PathBuf> {
        self.current.lock().await.resolved.included_files.clone()
    }
}

impl InEffect {
    /// Raises warnings about the models and serves them. Returns the difference from those that were served before.
    fn apply(&self, reconciler: &ModelReconciler) -> ReloadDifference {
        let config = &self.resolved.config;
        for note in &self.models.notes {
            warn!("{note}");
        }
        reconciler.metrics.warnings.replace(MODELS_TOPIC, &self.models.warnings(config));
        reconciler.reconcile(self.models.all(), config)
    }
}

fn lock(shelf: &std::sync::Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
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
