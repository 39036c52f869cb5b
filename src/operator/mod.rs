//! The operator's surface: `/ping`, `/livez`, `/readyz`, `/health`, `/metrics`, `/lb/stats` and `/reload`.
//!
//! Everything is answered from memory; no answer waits for llama-server. Who may ask is decided before.

use crate::fleet::{Fleet, FleetReport, ServiceStatus};
use crate::refusal::Refusal;
use crate::telemetry::metrics::{Metrics, TextFormat};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::error;

/// Reads the configuration and the keys again. The number of keys, or why nothing has changed.
pub type ReloadOrder = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<usize, String>> + Send>> + Send + Sync>;

/// Requests of a model that hold a slot, and requests that wait for one.
pub type QueueCounts = Box<dyn Fn(&str) -> (usize, usize) + Send + Sync>;

/// Answers the operator.
pub struct OperatorApi {
    /// The models and their states.
    pub fleet: Arc<Fleet>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Reads everything again.
    pub reload: ReloadOrder,
    /// The line of each model.
    pub queue_counts: QueueCounts,
    /// The name of the detected platform.
    pub platform: String,
    /// Whether inference routes ask for a key.
    pub auth_enabled: bool,
    /// `MAX_CONCURRENT_REQUESTS`, which a reload may change.
    pub max_concurrent: Box<dyn Fn() -> usize + Send + Sync>,
    /// `MAX_QUEUE_SIZE`, 0 for unlimited.
    pub max_queue_size: usize,
    /// Set when the service is being stopped.
    pub stopping: AtomicBool,
}

impl OperatorApi {
    /// `/ping` on the gateway port, `/livez`: the process lives.
    pub fn alive(&self) -> Response<Bytes> {
        empty(StatusCode::OK)
    }

    /// `/ping` on the health port: 200 when a request would be served, be it that it wakes a model, 204 while loading,
    /// 503 otherwise.
    pub fn probe(&self) -> Response<Bytes> {
        if self.stopping.load(Ordering::Relaxed) {
            return empty(StatusCode::SERVICE_UNAVAILABLE);
        }
        empty(match self.fleet.service_status() {
            ServiceStatus::Ok => StatusCode::OK,
            // A restart is a load to whoever asks: requests are served again in a moment.
            ServiceStatus::Loading | ServiceStatus::Degraded => StatusCode::NO_CONTENT,
            ServiceStatus::Failed => StatusCode::SERVICE_UNAVAILABLE,
        })
    }

    /// `/readyz`: 200 only when ready; a model that sleeps is not.
    pub fn ready(&self) -> Response<Bytes> {
        let ready = self.fleet.is_ready() && !self.stopping.load(Ordering::Relaxed);
        empty(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE })
    }

    /// `/health`: the state of everything, without paths, keys or arguments.
    pub fn health(&self) -> Response<Bytes> {
        // In one look: a worker may change its state at any moment.
        let FleetReport { best, shown, models } = self.fleet.report();
        let status = if best == ServiceStatus::Ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        json_response(
            status,
            &json!({
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
            }),
        )
    }

    /// `/metrics`, in the format that is asked for.
    pub fn metrics(&self, parts: &Parts) -> Response<Bytes> {
        match wanted_format(parts) {
            None => json_response(StatusCode::OK, &self.metrics.json()),
            Some(format) => {
                let mut response = Response::new(Bytes::from(self.metrics.text(format)));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
                response
            }
        }
    }

    /// `GET /lb/stats`: each worker of each model, and the model's line.
    pub fn lb_stats(&self) -> Response<Bytes> {
        let shelf = self.fleet.snapshot();
        let models = shelf.models().iter().map(|model| {
            let (active, waiting) = (self.queue_counts)(model.id());
            json!({
                "id": model.id(),
                "strategy": model.policy().strategy,
                "queue": {"active": active, "waiting": waiting},
                "workers": model.stats(),
            })
        });
        json_response(StatusCode::OK, &json!({"models": models.collect::<Vec<_>>()}))
    }

    /// `POST /reload`: reads configuration and keys again. On any error nothing changes.
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

fn wanted_format(parts: &Parts) -> Option<TextFormat> {
    let accept = parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let by_query = parts.uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "format=prometheus"));
    if accept.contains("application/openmetrics-text") {
        Some(TextFormat::OpenMetrics)
    } else if accept.contains("text/plain") || by_query {
        Some(TextFormat::Prometheus)
    } else {
        None
    }
}

fn empty(status: StatusCode) -> Response<Bytes> {
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
