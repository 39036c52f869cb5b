//! The routes with which people choose a model: the search on the hub, the quantisations of a repository, and whether a
//! model fits.
//!
//! Owns what is asked of the hub at once, and what clients are told. The hub is asked in `crate::download`, and what fits is
//! decided in `crate::fit`. Nothing is written to the disk.
//!
//! - `bounds.rs`: how much is asked at once, and for how long
//! - `fitting.rs`: whether a model fits
//! - `query.rs`: the parameters of the routes
//! - `refused.rs`: what a question without an answer becomes

mod bounds;
mod fitting;
mod query;
mod refused;

pub use fitting::ServedFileLookup;

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::admission::auth::Caller;
use super::response::local_answer::json_response;
use super::routes::route::HubRoute;
use crate::download::{DownloadRegistry, FoundModel, RepositoryDetails};
use crate::models::{self, ModelPlaces, RemoteName, RepositoryId};
use crate::refusal::Refusal;
use crate::telemetry::metrics::Metrics;
use bounds::{LOOK_WAIT, LOOKUPS_FULL_RETRY, MOST_LOOKUPS};
use fitting::Fitting;
use query::{FitQuery, RepositoryQuery};
use refused::{refusal_of, refusal_of_order};

/// Answers the routes about models that could be here.
pub(super) struct HubApi {
    downloads: Arc<DownloadRegistry>,
    fitting: Fitting,
    turns: Semaphore,
}

impl HubApi {
    pub(super) fn new(downloads: Arc<DownloadRegistry>, metrics: Arc<Metrics>, served_file: ServedFileLookup) -> Self {
        let fitting = Fitting::new(Arc::clone(&downloads), metrics, served_file);
        Self { downloads, fitting, turns: Semaphore::new(MOST_LOOKUPS) }
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
        let body = match route {
            HubRoute::Search => {
                let query = query::read_search(parts)?;
                let _turn = self.turn()?;
                let downloader = self.downloads.downloader(&query.words).map_err(refusal_of_order)?;
                let found = downloader.search(&query).await.map_err(refusal_of)?;
                let mut data = found.repositories;
                data.retain(|repository| caller.check_name(&repository.id).is_ok());
                json!({"object": "list", "data": data, "has_more": found.has_more})
            }
            HubRoute::Repository => {
                let RepositoryQuery { fits, ctx } = RepositoryQuery::read(parts)?;
                let repository = repository_of(id)?;
                caller.check_name(id)?;
                let _turn = self.turn()?;
                self.describe(&repository, fits.then_some(ctx)).await?
            }
            HubRoute::Fit => {
                let query = FitQuery::read(parts)?;
                caller.check_name(&query.model)?;
                let _turn = self.turn()?;
                self.fitting.answer(&query).await?
            }
        };
        Ok(json_response(StatusCode::OK, &body))
    }

    fn turn(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        self.turns.try_acquire().map_err(|_| Refusal::TooManyLookups(LOOKUPS_FULL_RETRY))
    }

    /// Describes a repository, and with `fit` says of each model whether it fits with this context.
    async fn describe(&self, repository: &RepositoryId, fit: Option<Option<u64>>) -> Result<Value, Refusal> {
        let downloader = self.downloads.downloader(&repository.to_string()).map_err(refusal_of_order)?;
        let details = downloader.describe(repository).await.map_err(refusal_of)?;
        let RepositoryDetails { repository: found, models, has_more } = &details;
        let here = found_here(self.downloads.settings().model_places(), models).await;
        let fits = match fit {
            Some(ctx) => self.fitting.of_all(&downloader, models, ctx).await?,
            None => vec![None; models.len()],
        };
        let entries = models.iter().zip(here).zip(fits).map(|((model, is_here), fit)| {
            let mut entry = json!(model);
            entry["here"] = json!(is_here);
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

/// Returns which of these models are on the disk; none if it does not say so in time.
async fn found_here(places: ModelPlaces, models: &[FoundModel]) -> Vec<bool> {
    let names: Vec<String> = models.iter().map(|model| model.model.clone()).collect();
    let nothing = vec![false; names.len()];
    let look = spawn_blocking(move || names.iter().map(|name| models::find(&places, name).is_ok()).collect());
    timeout(LOOK_WAIT, look).await.ok().and_then(Result::ok).unwrap_or(nothing)
}
