//! The routes with which people choose a model: the search on the hub, the quantisations of a repository, and whether a
//! model fits.
//!
//! Owns what is asked of the hub at once, and what clients are told. The hub is asked in `crate::download`, and what fits is
//! decided in `crate::fit`. Nothing is written to the disk. Each lookup has a blocking thread: it looks at the disk, and reads
//! texts of some MiB, which would hold up what else a serving thread does.
//!
//! - `bounds.rs`: how much is asked at once, and for how long
//! - `fitting.rs`: whether a model fits
//! - `lookups.rs`: the threads of lookups
//! - `query.rs`: the parameters of the routes
//! - `refused.rs`: what a question without an answer becomes

mod bounds;
mod fitting;
mod lookups;
mod query;
mod refused;

pub use fitting::{ServedFileLookup, ServedModelFile};

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::admission::auth::Caller;
use super::response::local_answer::json_response;
use super::routes::route::HubRoute;
use crate::download::{DownloadRegistry, FoundModel, HubQuery, RepositoryDetails, SearchResult};
use crate::models::{self, ModelPlaces, RemoteName, RepositoryId};
use crate::refusal::Refusal;
use crate::telemetry::metrics::Metrics;
use fitting::Fitting;
use lookups::LookupThreads;
use query::{FitQuery, RepositoryQuery};
use refused::{refusal_of, refusal_of_order};

/// Answers the routes about models that could be here.
pub(super) struct HubApi {
    threads: LookupThreads,
    places: Arc<LookupPlaces>,
}

/// Where a lookup looks.
struct LookupPlaces {
    downloads: Arc<DownloadRegistry>,
    fitting: Fitting,
}

impl HubApi {
    /// Creates the API. Must be called on the runtime that outlives all requests.
    pub(super) fn new(downloads: Arc<DownloadRegistry>, metrics: Arc<Metrics>, served_file: ServedFileLookup) -> Self {
        let fitting = Fitting::new(Arc::clone(&downloads), metrics, served_file);
        Self { threads: LookupThreads::new(), places: Arc::new(LookupPlaces { downloads, fitting }) }
    }

    /// Answers a request. `id` is what its path has at the place of `{id}`.
    ///
    /// # Errors
    /// A refusal if a parameter is wrong, the caller may not use the model, or there is no answer.
    pub(super) async fn respond(
        &self,
        route: HubRoute,
        id: &str,
        parts: &Parts,
        caller: &Caller,
    ) -> Result<Response<Bytes>, Refusal> {
        let places = Arc::clone(&self.places);
        let body = match route {
            HubRoute::Search => {
                let query = query::read_search(parts)?;
                let found = self.threads.look_up(move || async move { places.search(&query).await }).await?;
                let mut data = found.repositories;
                data.retain(|repository| caller.check_name(&repository.id).is_ok());
                json!({"object": "list", "data": data, "has_more": found.has_more})
            }
            HubRoute::Repository => {
                let RepositoryQuery { fits, ctx } = RepositoryQuery::read(parts)?;
                let repository = repository_of(id)?;
                caller.check_name(id)?;
                let fit = fits.then_some(ctx);
                self.threads.look_up(move || async move { places.describe(&repository, fit).await }).await?
            }
            HubRoute::Fit => {
                let query = FitQuery::read(parts)?;
                caller.check_name(&query.model)?;
                self.threads.look_up(move || async move { places.fitting.answer(&query).await }).await?
            }
        };
        Ok(json_response(StatusCode::OK, &body))
    }
}

impl LookupPlaces {
    /// Searches the hub.
    async fn search(&self, query: &HubQuery) -> Result<SearchResult, Refusal> {
        let downloader = self.downloads.downloader(&query.words).map_err(refusal_of_order)?;
        downloader.search(query).await.map_err(|error| refusal_of("q", error))
    }

    /// Describes a repository, and with `fit` says of each model whether it fits with this context.
    async fn describe(&self, repository: &RepositoryId, fit: Option<Option<u64>>) -> Result<Value, Refusal> {
        let begin = Instant::now();
        let downloader = self.downloads.downloader(&repository.to_string()).map_err(refusal_of_order)?;
        let details = downloader.describe(repository).await.map_err(|error| refusal_of("id", error))?;
        let RepositoryDetails { repository: found, models, has_more } = &details;
        let fits = match fit {
            Some(ctx) => self.fitting.of_all(&downloader, models, ctx, begin).await?,
            None => vec![None; models.len()],
        };
        let places = self.downloads.settings().model_places();
        let entries = models.iter().zip(fits).map(|(model, fit)| {
            let mut entry = json!(model);
            entry["here"] = json!(is_here(&places, model));
            if let Some(fit) = fit {
                entry["fit"] = fit;
            }
            entry
        });
        let mut body = json!(found);
        body["object"] = json!("repository");
        body["models"] = entries.collect();
        body["has_more"] = json!(has_more);
        Ok(body)
    }
}

/// Reads the name of a repository.
fn repository_of(id: &str) -> Result<RepositoryId, Refusal> {
    match RemoteName::parse(id) {
        Ok(RemoteName::Model { repository, quant: None }) => Ok(repository),
        _ => Err(Refusal::InvalidParameter {
            field: "id".to_owned(),
            message: "the path does not name a repository as ORG/NAME".to_owned(),
        }),
    }
}

/// Returns whether the model is on the disk.
fn is_here(places: &ModelPlaces, model: &FoundModel) -> bool {
    models::find(places, &model.model).is_ok()
}
