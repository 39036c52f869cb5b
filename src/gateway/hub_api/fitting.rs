//! Whether a model fits: one that is served, one on the disk, or one that could be downloaded.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

use super::bounds::{FITS_TIME, FITTED_FAMILIES, LOOK_WAIT};
use super::query::FitQuery;
use super::refused::{refusal_of, refusal_of_fit, refusal_of_order};
use crate::download::{DownloadRegistry, Downloader, FoundModel};
use crate::fit::{FitMachine, KnownModel, ModelSource, NoFit};
use crate::models::{RemoteName, shown_name};
use crate::refusal::Refusal;
use crate::telemetry::metrics::Metrics;

/// Finds the file of the model that is served under this name.
pub type ServedFileLookup = Box<dyn Fn(String) -> Pin<Box<dyn Future<Output = Option<PathBuf>> + Send>> + Send + Sync>;

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

    /// Says whether a model fits.
    ///
    /// # Errors
    /// The name means no model, or it cannot be read, or the memory is not known.
    pub(super) async fn answer(&self, query: &FitQuery) -> Result<Value, Refusal> {
        let name = &query.model;
        // Clients name models, not files of the machine.
        if Path::new(name).is_absolute() || name.split('/').any(|part| part == "..") {
            let message = format!("'{}' is no name of a model", shown_name(name));
            return Err(Refusal::InvalidParameter { field: "model".to_owned(), message });
        }
        let machine = self.machine(query.memory, query.ctx).await?;
        let model = match self.source(name).await? {
            ModelSource::Disk(path) => self.on_disk(name, move || KnownModel::of_file(&path)).await?,
            ModelSource::Network(remote) => {
                let downloader = self.downloads.downloader(name).map_err(refusal_of_order)?;
                downloader.read_header_soon(&remote).await.map_err(refusal_of)?.into()
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
    ) -> Result<Vec<Option<Value>>, Refusal> {
        let machine = self.machine(None, ctx).await?;
        let (mut headers, until) = (HashMap::<&str, KnownModel>::new(), Instant::now() + FITS_TIME);
        // The smallest model is first, and its header is as long as any other.
        for model in models.iter().filter(|model| model.size_bytes.is_some()) {
            let Ok(name) = RemoteName::parse(&model.model) else { continue };
            if headers.contains_key(&*model.family) || headers.len() == FITTED_FAMILIES {
                continue;
            }
            match timeout_at(until, downloader.read_header_soon(&name)).await {
                Ok(Ok(header)) => _ = headers.insert(&model.family, header.into()),
                Ok(Err(error)) if headers.is_empty() => return Err(refusal_of(error)),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        let fit = |model: &FoundModel| {
            let known = headers.get(&*model.family)?.requantized(model.size_bytes?, model.projector_bytes);
            Some(machine.compare(&known).as_json(&model.model))
        };
        Ok(models.iter().map(fit).collect())
    }

    /// Returns what models are compared with: the memory in bytes that is `given`, else the budget of the service, else what
    /// is free.
    ///
    /// # Errors
    /// The memory is not known.
    pub(super) async fn machine(&self, given: Option<u64>, ctx: Option<u64>) -> Result<FitMachine, Refusal> {
        let settings = self.downloads.settings();
        let budget = u64::try_from(self.metrics.memory_budget.get()).ok().filter(|budget| *budget > 0);
        let machine = self.on_disk("", move || FitMachine::of_settings(&settings, given)).await?;
        let machine = match (given, budget) {
            (None, Some(budget)) => machine.with_budget(budget),
            _ => machine,
        };
        Ok(ctx.map_or(machine, |ctx| machine.with_ctx(ctx)))
    }

    async fn source(&self, name: &str) -> Result<ModelSource, Refusal> {
        let served = timeout(LOOK_WAIT, (self.served_file)(name.to_owned())).await.ok().flatten();
        if let Some(path) = served {
            return Ok(ModelSource::Disk(path));
        }
        let (places, wanted) = (self.downloads.settings().model_places(), name.to_owned());
        self.on_disk(name, move || ModelSource::find(&places, &wanted)).await
    }

    /// Does something that may block, within a time.
    async fn on_disk<T: Send + 'static>(
        &self,
        name: &str,
        look: impl FnOnce() -> Result<T, NoFit> + Send + 'static,
    ) -> Result<T, Refusal> {
        let late = || NoFit::Machine(format!("this machine gave no answer in {} s", LOOK_WAIT.as_secs()));
        let found = timeout(LOOK_WAIT, spawn_blocking(look)).await.ok().and_then(Result::ok);
        found.unwrap_or_else(|| Err(late())).map_err(|error| refusal_of_fit(name, error))
    }
}
