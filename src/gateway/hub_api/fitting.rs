//! Whether a model fits: one that is served, one on the disk, or one that could be downloaded.
//!
//! All of it may block: it is called on the thread of a lookup.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::bounds::{FITS_TIME, FITTED_FAMILIES, MOST_UNREAD_HEADERS, SERVED_WAIT};
use super::query::FitQuery;
use super::refused::{refusal_of, refusal_of_fit, refusal_of_order};
use crate::download::{DownloadRegistry, Downloader, FoundModel};
use crate::fit::{FitMachine, KnownModel, ModelSource};
use crate::models::{RemoteName, shown_name};
use crate::refusal::Refusal;
use crate::settings::options::{Engine, Settings};
use crate::telemetry::metrics::Metrics;

/// The file of a served model, and what it is served with.
#[derive(Debug, Clone)]
pub struct ServedModelFile {
    /// The file, or its first part.
    pub path: PathBuf,
    /// The settings of its llama-server; `None` if those of all models hold.
    pub engine: Option<Engine>,
}

/// Finds the file of the model that is served under this name.
pub type ServedFileLookup =
    Box<dyn Fn(String) -> Pin<Box<dyn Future<Output = Option<ServedModelFile>> + Send>> + Send + Sync>;

/// Compares models with this machine.
pub(super) struct Fitting {
    downloads: Arc<DownloadRegistry>,
    metrics: Arc<Metrics>,
    served_file: ServedFileLookup,
}

impl Fitting {
    pub(super) fn new(downloads: Arc<DownloadRegistry>, metrics: Arc<Metrics>, served_file: ServedFileLookup) -> Self {
        Self { downloads, metrics, served_file }
    }

    /// Says whether a model fits: a served one with the settings that it is served with.
    ///
    /// # Errors
    /// The name means no model, or it cannot be read, or the memory is not known.
    pub(super) async fn answer(&self, query: &FitQuery) -> Result<Value, Refusal> {
        let name = &query.model;
        // Clients name models, not files of the machine.
        if Path::new(name).is_absolute() || name.split('/').any(|part| part == "..") {
            return Err(wrong_model(format!("'{}' is no name of a model", shown_name(name))));
        }
        let served = self.served(name).await?;
        let engine = served.as_ref().and_then(|served| served.engine.as_ref());
        let machine = self.machine(engine, query.memory, query.ctx)?;
        let source = match served {
            Some(served) => Ok(ModelSource::Disk(served.path)),
            None => ModelSource::find(&self.downloads.settings().model_places(), name),
        };
        let model = match source.map_err(|error| refusal_of_fit(name, error))? {
            ModelSource::Disk(path) => KnownModel::of_file(&path).map_err(|error| refusal_of_fit(name, error))?,
            // A question must not become a connection to any host that a client names.
            ModelSource::Network(RemoteName::Address { .. }) => {
                return Err(wrong_model(
                    "only models of this machine and of the hub are compared, and no addresses of files".to_owned(),
                ));
            }
            ModelSource::Network(remote) => {
                let downloader = self.downloads.downloader(name).map_err(refusal_of_order)?;
                let header = downloader.read_header_soon(&remote).await;
                header.map_err(|error| refusal_of("model", error))?.into()
            }
        };
        Ok(machine.compare(&model).as_json(&shown_name(name)))
    }

    /// Says of each model of a repository whether it fits. The header of one quantisation tells that of all quantisations of
    /// the same model, by the sizes of their files; `None` for a model that no header was read of.
    ///
    /// # Errors
    /// The memory is not known, or no header can be read.
    pub(super) async fn of_all(
        &self,
        downloader: &Downloader,
        models: &[FoundModel],
        ctx: Option<u64>,
        begin: Instant,
    ) -> Result<Vec<Option<Value>>, Refusal> {
        let machine = self.machine(None, None, ctx)?;
        let headers = read_headers(downloader, models, begin + FITS_TIME).await?;
        let fit = |model: &FoundModel| {
            let known = headers.get(&*model.family)?.requantized(model.size_bytes?, model.projector_bytes);
            Some(machine.compare(&known).as_json(&model.model))
        };
        Ok(models.iter().map(fit).collect())
    }

    /// Returns what models are compared with: the memory in bytes that is `given`, else the budget of the service, else what
    /// is free; and the settings of a model's `engine`, else those of all models. May block.
    ///
    /// # Errors
    /// The memory is not known.
    fn machine(&self, engine: Option<&Engine>, given: Option<u64>, ctx: Option<u64>) -> Result<FitMachine, Refusal> {
        let mut settings = Settings::clone(&self.downloads.settings());
        if let Some(engine) = engine {
            settings.engine = engine.clone();
        }
        let budget = u64::try_from(self.metrics.memory_budget.get()).ok().filter(|budget| *budget > 0);
        let machine = FitMachine::of_settings(&settings, given, budget).map_err(|error| refusal_of_fit("", error))?;
        Ok(ctx.map_or(machine, |ctx| machine.with_ctx(ctx)))
    }

    /// Finds the file of the model that is served under this name.
    ///
    /// # Errors
    /// It is not known in time which models are served.
    async fn served(&self, name: &str) -> Result<Option<ServedModelFile>, Refusal> {
        let served = timeout(SERVED_WAIT, (self.served_file)(name.to_owned())).await;
        served.map_err(|_| {
            let waited = SERVED_WAIT.as_secs();
            Refusal::Internal(format!(
                "a reload goes on for {waited} s, and until its end the served models are not known"
            ))
        })
    }
}

/// Reads a header of each of the first different models, until this instant. The smallest file is first, and its header is as
/// long as any other.
///
/// # Errors
/// None can be read: what was wrong with the first.
async fn read_headers<'m>(
    downloader: &Downloader,
    models: &'m [FoundModel],
    until: Instant,
) -> Result<HashMap<&'m str, KnownModel>, Refusal> {
    let (mut headers, mut failures) = (HashMap::<&str, KnownModel>::new(), Vec::new());
    for model in models.iter().filter(|model| model.size_bytes.is_some()) {
        if headers.len() == FITTED_FAMILIES || failures.len() == MOST_UNREAD_HEADERS {
            break;
        }
        let Ok(name) = RemoteName::parse(&model.model) else { continue };
        if headers.contains_key(&*model.family) {
            continue;
        }
        match timeout_at(until, downloader.read_header_soon(&name)).await {
            Ok(Ok(header)) => _ = headers.insert(&model.family, header.into()),
            // Another file, also of the same model, may be sound.
            Ok(Err(error)) => failures.push(refusal_of("id", error)),
            Err(_) => {
                failures.push(Refusal::HubUnanswered("no header of a model came in time".to_owned()));
                break;
            }
        }
    }
    match failures.into_iter().next() {
        Some(refusal) if headers.is_empty() => Err(refusal),
        _ => Ok(headers),
    }
}

fn wrong_model(message: String) -> Refusal {
    Refusal::InvalidParameter { field: "model".to_owned(), message }
}
