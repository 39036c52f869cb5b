//! The operator's API: `/`, `/ping`, `/livez`, `/readyz`, `/health`, `/metrics`, `/lb/stats`, `/reload` and
//! `/keys/{id}/resume`.
//!
//! Every response is built from memory; none waits for llama-server. Access to these routes is checked before.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use tracing::error;

use crate::download::DownloadRegistry;
use crate::fleet::{Fleet, FleetReport, KeySuspensions, Model, ServiceStatus};
use crate::refusal::Refusal;
use crate::telemetry::metrics::{BudgetLabels, Metrics, TextFormat};
use crate::telemetry::occupancy::ModelOccupancy;

/// Reloads configuration and keys. Returns the number of keys, or why nothing has changed.
pub type ReloadOrder = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<usize, String>> + Send>> + Send + Sync>;

/// Returns the requests of a model that hold a slot, and those that wait for one.
pub type QueueCounts = Box<dyn Fn(&str) -> (usize, usize) + Send + Sync>;

/// Builds the responses of the operator's routes.
pub struct OperatorApi {
    /// The models and their states.
    pub fleet: Arc<Fleet>,
    /// The API keys that are suspended for crashes.
    pub key_suspensions: Arc<KeySuspensions>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The downloads.
    pub downloads: Arc<DownloadRegistry>,
    /// Returns what is left of the budgets of keys.
    pub budgets_left: Box<dyn Fn() -> Vec<(BudgetLabels, f64)> + Send + Sync>,
    /// Reloads configuration and keys.
    pub reload: ReloadOrder,
    /// The queue of each model.
    pub queue_counts: QueueCounts,
    /// The name of the detected platform.
    pub platform: String,
    /// Whether inference routes require a key.
    pub auth_enabled: bool,
    /// Returns `MAX_CONCURRENT_REQUESTS`, which a reload may change.
    pub max_concurrent: Box<dyn Fn() -> usize + Send + Sync>,
    /// `MAX_QUEUE_SIZE`, 0 for unlimited.
    pub max_queue_size: usize,
    /// Set when the service is shutting down.
    pub stopping: AtomicBool,
}

impl OperatorApi {
    /// Answers `/ping` on the gateway port and `/livez`: 200 as long as the process runs.
    pub fn alive(&self) -> Response<Bytes> {
        empty_response(StatusCode::OK)
    }

    /// Answers `/`: what answers here, and where to go on.
    pub fn root(&self) -> Response<Bytes> {
        let links = json!({"health": "/health", "models": "/v1/models", "chat": "/v1/chat/completions"});
        let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        json_response(StatusCode::OK, &json!({"name": name, "version": version, "links": links}))
    }

    /// Answers `/api/hello`, with which Claude Code looks whether its API can be reached.
    pub fn hello(&self) -> Response<Bytes> {
        json_response(StatusCode::OK, &json!({"message": "hello"}))
    }

    /// Answers `/ping` on the health port: 200 if requests are served, even if a sleeping model must be woken first;
    /// 204 while the models are loading or degraded; 503 otherwise.
    pub fn probe(&self) -> Response<Bytes> {
        // Relaxed is enough: the flag guards no other data.
        if self.stopping.load(Ordering::Relaxed) {
            return empty_response(StatusCode::SERVICE_UNAVAILABLE);
        }
        empty_response(match self.fleet.service_status() {
            ServiceStatus::Ok => StatusCode::OK,
            // A restart looks like a load to the caller: requests will soon be served again.
            ServiceStatus::Loading | ServiceStatus::Degraded => StatusCode::NO_CONTENT,
            ServiceStatus::Failed => StatusCode::SERVICE_UNAVAILABLE,
        })
    }

    /// Answers `/readyz`: 200 only if requests are served at once. A service whose models all sleep until their first
    /// request is ready too.
    pub fn ready(&self) -> Response<Bytes> {
        let ready = self.fleet.is_ready() && !self.stopping.load(Ordering::Relaxed);
        empty_response(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE })
    }

    /// Answers `/health`: the state of all parts, without paths, keys or arguments.
    pub fn health(&self) -> Response<Bytes> {
        // A single snapshot, because a worker may change its state at any moment.
        let FleetReport { best, shown, models } = self.fleet.report();
        let status = if best == ServiceStatus::Ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut health = json!({
            "status": shown,
            "platform": self.platform,
            "uptime_seconds": self.metrics.uptime(),
            "models": models,
            "queue": {
                "max_concurrent": (self.max_concurrent)(),
                "max_queue_size": self.max_queue_size,
                "active": self.metrics.active.get(),
                "waiting": self.metrics.queue_depth.get(),
            },
            "authentication": {"enabled": self.auth_enabled},
            "warnings": self.metrics.warnings.texts(),
        });
        if let (Some(download), Some(members)) = (self.downloads.needed(), health.as_object_mut()) {
            members.insert("download".to_owned(), json!(download));
        }
        json_response(status, &health)
    }

    /// Answers `/metrics` in the requested format.
    pub fn metrics(&self, parts: &Parts) -> Response<Bytes> {
        self.downloads.count_states();
        self.set_occupancies();
        self.metrics.set_budgets_left((self.budgets_left)().into_iter());
        self.metrics.set_suspended_keys(self.key_suspensions.suspended().iter().map(|(key, _)| &**key));
        match requested_format(parts) {
            None => json_response(StatusCode::OK, &self.metrics.json()),
            Some(format) => {
                let mut response = Response::new(Bytes::from(self.metrics.text(format)));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
                response
            }
        }
    }

    /// Puts into the metrics how occupied each model is.
    fn set_occupancies(&self) {
        let snapshot = self.fleet.snapshot();
        self.metrics.set_occupancies(snapshot.models().iter().map(|model| {
            let (running, waiting) = (self.queue_counts)(model.id());
            (model.id(), ModelOccupancy { running, waiting, kv_cache_usage: kv_cache_usage(model) })
        }));
    }

    /// Answers `GET /lb/stats`: the workers and the queue of each model, and the suspended keys.
    pub fn lb_stats(&self) -> Response<Bytes> {
        let snapshot = self.fleet.snapshot();
        let models = snapshot.models().iter().map(|model| {
            let (active, waiting) = (self.queue_counts)(model.id());
            json!({
                "id": model.id(),
                "strategy": model.policy().strategy,
                "queue": {"active": active, "waiting": waiting},
                "workers": model.stats(),
            })
        });
        let suspended = self.key_suspensions.suspended();
        let suspended = suspended.iter().map(|(key, left)| json!({"id": &**key, "seconds_left": left.as_secs()}));
        let (models, suspended) = (models.collect::<Vec<_>>(), suspended.collect::<Vec<_>>());
        json_response(StatusCode::OK, &json!({"models": models, "suspended_keys": suspended}))
    }

    /// Answers `POST /keys/{id}/resume`: lifts the suspension of a key.
    ///
    /// # Errors
    ///
    /// 404 if no key with this id is suspended.
    pub fn resume_key(&self, id: &str) -> Result<Response<Bytes>, Refusal> {
        match self.key_suspensions.resume(id) {
            true => Ok(json_response(StatusCode::OK, &json!({"id": id, "status": "resumed"}))),
            false => Err(Refusal::KeyNotSuspended(id.to_owned())),
        }
    }

    /// Answers `POST /reload`.
    ///
    /// # Errors
    ///
    /// Returns [`Refusal::Internal`] with the reason if the reload failed; then nothing has changed.
    pub async fn reload(&self) -> Result<Response<Bytes>, Refusal> {
        match (self.reload)().await {
            Ok(loaded) => Ok(json_response(StatusCode::OK, &json!({"status": "ok", "keys_loaded": loaded}))),
            Err(problem) => {
                error!("reload failed, all stays as it was: {problem}");
                Err(Refusal::Internal(format!("Nothing was reloaded, all stays as it was: {problem}")))
            }
        }
    }
}

/// Returns the share of the KV caches of a model's llama-servers that requests in progress use, from 0 to 1; `None` if it has
/// no llama-server on this machine that tells it.
fn kv_cache_usage(model: &Model) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0.0);
    for share in model.members().filter_map(|member| member.kv_cache_usage()) {
        (sum, count) = (sum + share, count + 1.0);
    }
    (count > 0.0).then(|| sum / count)
}

fn requested_format(parts: &Parts) -> Option<TextFormat> {
    let accept = parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let by_query = parts.uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "format=prometheus"));
    // Checked first: Prometheus names both formats in `Accept` and prefers this one.
    if accept.contains("application/openmetrics-text") {
        Some(TextFormat::OpenMetrics)
    } else if accept.contains("text/plain") || by_query {
        Some(TextFormat::Prometheus)
    } else {
        None
    }
}

fn empty_response(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

fn json_response(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
