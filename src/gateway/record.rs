//! The account of one request: opened when it arrives, closed by being dropped.
//!
//! Whatever ends a request (its last byte, a refusal, a client that leaves, a panic) drops the record, and the drop
//! writes the access-log line and the metrics. Nobody closes it by hand.

use crate::telemetry::access::{AccessLog, Entry, millis};
use crate::telemetry::metrics::{CodeLabels, KeyLabels, Metrics, ModelLabels, RequestLabels, RouteLabels};
use http::StatusCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where records are written when they close.
pub struct Books {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The access log.
    pub access: AccessLog,
}

/// The status of a request whose client left before an answer began; nginx's number for it.
const CLIENT_CLOSED: u16 = 499;

/// What is known of a request so far.
pub(super) struct Record {
    books: Arc<Books>,
    time: jiff::Timestamp,
    started: Instant,
    request_id: String,
    method: http::Method,
    path: String,
    /// The path of the route table, once it is found there.
    pub(super) route: Option<&'static str>,
    /// Whether it is a request for llama-server, which is what the `gateway_` metrics count.
    pub(super) counted: bool,
    pub(super) key_id: Option<String>,
    pub(super) model: Option<String>,
    pub(super) status: Option<StatusCode>,
    pub(super) code: Option<&'static str>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) queued: Option<Duration>,
    first_byte: Option<Duration>,
    /// Whether the answer went out to its end.
    pub(super) complete: bool,
}

impl Record {
    pub(super) fn open(books: Arc<Books>, request_id: String, method: http::Method, path: String) -> Self {
        Self {
            books,
            time: jiff::Timestamp::now(),
            started: Instant::now(),
            request_id,
            method,
            path,
            route: None,
            counted: false,
            key_id: None,
            model: None,
            status: None,
            code: None,
            bytes_in: 0,
            bytes_out: 0,
            queued: None,
            first_byte: None,
            complete: false,
        }
    }

    /// Notes that so many more bytes of the answer's body go out.
    pub(super) fn sends(&mut self, bytes: usize) {
        if self.first_byte.is_none() && bytes > 0 {
            self.first_byte = Some(self.started.elapsed());
        }
        self.bytes_out += bytes as u64;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if cfg!(feature = "bare") {
            return;
        }
        let total = self.started.elapsed();
        let status = self.status.map_or(CLIENT_CLOSED, |status| status.as_u16());
        if !self.complete && self.code.is_none() {
            self.code = Some("client_closed");
        }
        self.count(status, total);
        self.books.access.write(&Entry {
            time: self.time,
            request_id: &self.request_id,
            key_id: self.key_id.as_deref(),
            method: self.method.as_str(),
            path: &self.path,
            model: self.model.as_deref(),
            status,
            code: self.code,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            queue_ms: self.queued.map(millis),
            ttfb_ms: self.first_byte.map(millis),
            total_ms: millis(total),
            prompt_tokens: None,
            completion_tokens: None,
        });
    }
}

impl Record {
    fn count(&self, status: u16, total: Duration) {
        let metrics = &self.books.metrics;
        let route = self.route.unwrap_or("other");
        let model = self.model.clone().unwrap_or_else(|| "other".to_owned());
        if let Some(code) = self.code {
            metrics.refusals.get_or_create(&CodeLabels { code }).inc();
        }
        if status == 401 || status == 403 {
            metrics.unauthorized.inc();
        }
        metrics.by_route.get_or_create(&RequestLabels { model: model.clone(), route, status }).inc();
        if let Some(key) = &self.key_id {
            metrics.authenticated.inc();
            let labels = KeyLabels { key: key.clone(), status_class: class(status) };
            metrics.key_requests.get_or_create(&labels).inc();
        }
        if !self.counted {
            return;
        }
        metrics.requests.inc();
        let well = status < 400 && self.code.is_none();
        if well {
            metrics.success.inc()
        } else {
            metrics.error.inc()
        };
        metrics.bytes_sent.inc_by(self.bytes_out);
        if let Some(queued) = self.queued {
            let labels = ModelLabels { model };
            metrics.queue_seconds.get_or_create(&labels).observe(queued.as_secs_f64());
            if let Some(first_byte) = self.first_byte {
                metrics.first_byte_seconds.get_or_create(&labels).observe(first_byte.as_secs_f64());
            }
            let labels = RouteLabels { model: labels.model, route };
            metrics.request_seconds.get_or_create(&labels).observe(total.as_secs_f64());
        }
    }
}

fn class(status: u16) -> &'static str {
    match status / 100 {
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "other",
    }
}
