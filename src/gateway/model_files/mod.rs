//! The routes that change which models are on the disk: downloads and removals.
//!
//! Owns what clients are told of it. The downloads themselves run in `crate::download`, whether a client listens or not.
//!
//! - `events.rs`: a download as server-sent events
//! - `ollama.rs`: Ollama's `pull`
//! - `orders.rs`: what the bodies of these requests say
//! - `refused.rs`: what an order that is not carried out becomes
//! - `removal.rs`: the removal of a model

mod events;
mod ollama;
mod orders;
mod refused;
mod removal;

pub(super) use orders::named_in;
pub use removal::{NotRemoved, RemovalOrder};

use std::sync::Arc;

use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::json;

use super::admission::auth::Caller;
use super::queue::model_queues::Snapshot;
use super::response::local_answer::{LAST_EVENT_ID, LocalAnswer, empty_response, json_response};
use super::routes::route::FilesRoute;
use crate::download::{DownloadRegistry, Ordered};
use crate::refusal::Refusal;
use refused::refusal_of;

/// Returns how many of the orders about model files this body may be, for fuzzing.
#[cfg(feature = "test-support")]
pub(super) fn orders_in(body: &[u8]) -> usize {
    let orders =
        [orders::read_download(body).is_ok(), orders::read_pull(body).is_ok(), orders::read_delete(body).is_ok()];
    orders.into_iter().filter(|is_order| *is_order).count()
}

/// A request about model files.
pub(super) struct FilesRequest<'a> {
    pub(super) route: FilesRoute,
    /// What the path has at the place of `{id}`.
    pub(super) id: &'a str,
    pub(super) headers: &'a HeaderMap,
    /// Its body; empty if the route has none.
    pub(super) body: &'a [u8],
    /// Who asks.
    pub(super) caller: &'a Caller,
    /// The models that are served.
    pub(super) models: &'a Snapshot,
}

/// Answers requests about model files.
pub(super) struct ModelFiles {
    downloads: Arc<DownloadRegistry>,
    remove_model: RemovalOrder,
}

impl ModelFiles {
    pub(super) fn new(downloads: Arc<DownloadRegistry>, remove_model: RemovalOrder) -> Self {
        Self { downloads, remove_model }
    }

    /// Answers a request.
    ///
    /// # Errors
    /// A refusal if the request is not right, or if what it asks for cannot be done.
    pub(super) async fn respond(&self, request: FilesRequest<'_>) -> Result<LocalAnswer, Refusal> {
        let FilesRequest { route, id, headers, body, caller, models } = request;
        Ok(LocalAnswer::Whole(match route {
            FilesRoute::Download => self.download(body, caller).await?,
            FilesRoute::Downloads => {
                let mut data = self.downloads.statuses();
                data.retain(|status| caller.check_name(&status.report.model).is_ok());
                json_response(StatusCode::OK, &json!({"object": "list", "data": data}))
            }
            FilesRoute::OneDownload => {
                self.check_download(id, caller)?;
                json_response(StatusCode::OK, &self.downloads.find(id).map_err(refusal_of)?.status())
            }
            FilesRoute::CancelDownload => {
                self.check_download(id, caller)?;
                json_response(StatusCode::OK, &self.downloads.cancel(id).await.map_err(refusal_of)?)
            }
            FilesRoute::DownloadEvents => {
                self.check_download(id, caller)?;
                return self.follow(id, headers);
            }
            FilesRoute::Remove => {
                let bytes_freed = removal::remove(&self.remove_model, id, caller, models).await?;
                let removed = json!({"id": id, "object": "model", "deleted": true, "bytes_freed": bytes_freed});
                json_response(StatusCode::OK, &removed)
            }
            FilesRoute::OllamaDelete => {
                let name = orders::read_delete(body)?;
                let bare = name.strip_suffix(ollama::LATEST).unwrap_or(&name);
                let name = if models.find(&name).is_some() { &name } else { bare };
                removal::remove(&self.remove_model, name, caller, models).await?;
                empty_response(StatusCode::OK)
            }
            FilesRoute::OllamaPull => return ollama::pull(&self.downloads, body, caller, models).await,
        }))
    }

    /// Answers the order of a download.
    async fn download(&self, body: &[u8], caller: &Caller) -> Result<Response<Bytes>, Refusal> {
        let model = orders::read_download(body)?;
        caller.check_name(&model)?;
        let (status, download) = match self.downloads.order(&model).await.map_err(refusal_of)? {
            Ordered::Comes(download) => (StatusCode::ACCEPTED, download),
            Ordered::IsThere(download) => (StatusCode::OK, download),
        };
        let mut response = json_response(status, &download.status());
        if let Ok(location) = HeaderValue::try_from(format!("/v1/models/downloads/{}", download.id())) {
            response.headers_mut().insert(LOCATION, location);
        }
        Ok(response)
    }

    /// Checks that the caller's key may use the model of a download, if there is one with this id.
    fn check_download(&self, id: &str, caller: &Caller) -> Result<(), Refusal> {
        self.downloads.find(id).map_or(Ok(()), |download| caller.check_name(&download.name().to_string()))
    }

    fn follow(&self, id: &str, headers: &HeaderMap) -> Result<LocalAnswer, Refusal> {
        let last = headers.get(LAST_EVENT_ID).map(|last| last.to_str().unwrap_or_default());
        let follower = self.downloads.follow(id, last).map_err(refusal_of)?;
        Ok(match follower {
            Some(follower) => events::response(follower),
            // With which a client of such events stops to ask (HTML standard, section 9.2.3).
            None => LocalAnswer::Whole(empty_response(StatusCode::NO_CONTENT)),
        })
    }
}
