//! The account of one request: opened when it arrives, closed by being dropped.
//!
//! Whatever ends a request (its last byte, a refusal, a client that leaves, a panic) drops the record, and the drop
//! writes the access-log line and the metrics. Nobody closes it by hand.

use super::activity::ActivityGuard;
use super::usage::{TokenCounter, TokenCounts};
use crate::fleet::Member;
use crate::gateway::admission::rate::Meter;
use crate::gateway::content_kind::ContentKind;
use crate::gateway::route::Route;
use crate::refusal::QUEUE_FULL;
use crate::telemetry::access::{AccessEntry, AccessLog};
use crate::telemetry::metrics::{CodeLabels, Metrics, RequestLabels, RouteLabels, TokenLabels};
use crate::telemetry::series::{KeySeries, ModelSeries, OTHER};
use http::{HeaderMap, HeaderValue, StatusCode};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where records are written when they close.
pub struct Accounting {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The access log.
    pub access: AccessLog,
}

/// The status of a request whose client left before an answer began; nginx's number for it.
const CLIENT_CLOSED: u16 = 499;

/// What is known of a request so far. It moves from stage to stage, so it is kept in one place.
pub(crate) struct Record(Box<RecordData>);

/// What stands in a record.
pub(crate) struct RecordData {
    accounting: Arc<Accounting>,
    time: jiff::Timestamp,
    started: Instant,
    request_id: HeaderValue,
    method: http::Method,
    path: String,
    /// The path of the route table, once it is found there.
    pub(crate) route: Option<&'static str>,
    /// Whether it is a request for llama-server, which is what the `gateway_` metrics count.
    pub(crate) counted: bool,
    key: Option<Arc<KeySeries>>,
    model: Option<Arc<ModelSeries>>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) code: Option<&'static str>,
    pub(crate) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(crate) queued: Option<Duration>,
    first_byte: Option<Duration>,
    /// Whether the answer went out to its end.
    pub(crate) complete: bool,
    /// Counts the tokens of llama-server's answer.
    token_counter: Option<Box<TokenCounter>>,
    /// When a piece with text came last.
    last_text_at: Option<Instant>,
    /// The meter of the caller's key, which is charged for the tokens.
    pub(crate) meter: Option<Meter>,
    /// Who answers.
    pub(crate) worker: Option<Arc<Member>>,
    /// The headers that say of the last try that it failed.
    pub(crate) failure_headers: Option<Box<HeaderMap>>,
    /// As long as it lasts, the service is in use.
    pub(crate) activity_guard: Option<ActivityGuard>,
}

impl Record {
    pub(crate) fn open(books: Arc<Accounting>, request_id: HeaderValue, method: http::Method, path: String) -> Self {
        Self(Box::new(RecordData {
            accounting: books,
            time: jiff::Timestamp::now(),
            started: Instant::now(),
            request_id,
            method,
            path,
            route: None,
            counted: false,
            key: None,
            model: None,
            status: None,
            code: None,
            bytes_in: 0,
            bytes_out: 0,
            queued: None,
            first_byte: None,
            complete: false,
            token_counter: None,
            last_text_at: None,
            meter: None,
            worker: None,
            failure_headers: None,
            activity_guard: None,
        }))
    }
}

impl Deref for Record {
    type Target = RecordData;

    fn deref(&self) -> &RecordData {
        &self.0
    }
}

impl DerefMut for Record {
    fn deref_mut(&mut self) -> &mut RecordData {
        &mut self.0
    }
}

impl RecordData {
    /// Notes whose key it is.
    pub(crate) fn set_key(&mut self, key_id: Option<&str>) {
        self.key = key_id.map(|id| self.accounting.metrics.key(id));
    }

    /// Notes the model that it is for: a configured one.
    pub(crate) fn set_model(&mut self, model: &str) {
        self.model = Some(self.accounting.metrics.model(model));
    }

    /// The model that it is for, as far as that is known.
    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_deref().map(|model| model.id.as_str()).filter(|id| *id != OTHER)
    }

    /// Notes that llama-server answers.
    pub(crate) fn set_response(&mut self, status: StatusCode, route: &Route, kind: ContentKind) {
        self.status = Some(status);
        self.token_counter = match kind {
            _ if !route.is_post || !status.is_success() => None,
            ContentKind::Stream => Some(Box::new(TokenCounter::for_stream(route.stream_end))),
            ContentKind::Json => Some(Box::new(TokenCounter::for_json())),
            ContentKind::Other => None,
        };
    }

    /// What counts the tokens of llama-server's answer, if they are counted.
    pub(crate) fn token_counter(&mut self) -> Option<&mut TokenCounter> {
        self.token_counter.as_deref_mut()
    }

    /// Records that a piece with text has come.
    pub(crate) fn record_text(&mut self, now: Instant) {
        if let Some(before) = self.last_text_at.replace(now)
            && let Some(model) = &self.model
        {
            model.inter_token.observe(now.saturating_duration_since(before).as_secs_f64());
        }
    }

    /// Whether the client asked for the head of an answer alone.
    pub(crate) fn is_head_request(&self) -> bool {
        self.method == http::Method::HEAD
    }

    /// Notes that so many more bytes of the answer's body go out.
    pub(crate) fn add_bytes_out(&mut self, bytes: usize) {
        if self.first_byte.is_none() && bytes > 0 {
            self.first_byte = Some(self.started.elapsed());
        }
        self.bytes_out += bytes as u64;
    }
}

impl Drop for RecordData {
    fn drop(&mut self) {
        if cfg!(feature = "bare") {
            return;
        }
        let total = self.started.elapsed();
        let status = self.status.map_or(CLIENT_CLOSED, |status| status.as_u16());
        if !self.complete && self.code.is_none() {
            self.code = Some("client_closed");
        }
        let tokens = self.token_counter.as_deref().map(TokenCounter::counts).unwrap_or_default();
        self.update_metrics(status, total);
        self.charge_tokens(tokens);
        self.accounting.access.write(&AccessEntry {
            time: self.time,
            request_id: self.request_id.to_str().unwrap_or_default(),
            key_id: self.key.as_deref().map(|key| &*key.id),
            method: self.method.as_str(),
            path: &self.path,
            model: self.model.as_deref().map(|model| model.id.as_str()),
            status,
            code: self.code,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            queue_ms: self.queued.map(Into::into),
            ttfb_ms: self.first_byte.map(Into::into),
            total_ms: total.into(),
            prompt_tokens: tokens.prompt,
            completion_tokens: tokens.completion,
        });
    }
}

impl RecordData {
    fn update_metrics(&self, status: u16, total: Duration) {
        let metrics = &self.accounting.metrics;
        let route = self.route.unwrap_or(OTHER);
        let model = self.model.as_ref().map_or_else(|| metrics.other(), |model| model.id.clone());
        if let Some(code) = self.code {
            metrics.refusals.get_or_create(&CodeLabels { code }).inc();
            // Here, and not where a line is found full: another model may have served it.
            if code == QUEUE_FULL {
                metrics.queue_rejections.inc();
            }
        }
        if status == 401 || status == 403 {
            metrics.unauthorized.inc();
        }
        metrics.by_route.get_or_create(&RequestLabels { model: model.clone(), route, status }).inc();
        if let Some(key) = &self.key {
            metrics.authenticated.inc();
            key.count(&metrics.key_requests, status);
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
        let (Some(queued), Some(series)) = (self.queued, &self.model) else { return };
        series.queue.observe(queued.as_secs_f64());
        if let Some(first_byte) = self.first_byte {
            series.first_byte.observe(first_byte.as_secs_f64());
        }
        metrics.request_seconds.get_or_create(&RouteLabels { model, route }).observe(total.as_secs_f64());
    }

    /// Counts what the request has cost, and has it paid.
    fn charge_tokens(&self, tokens: TokenCounts) {
        let Some(model) = &self.model else { return };
        let metrics = &self.accounting.metrics;
        let labels = || {
            let key = self.key.as_ref().map_or_else(|| metrics.no_key(), |key| key.label.clone());
            TokenLabels { model: model.id.clone(), key }
        };
        if let Some(prompt) = tokens.prompt {
            metrics.prompt_tokens.get_or_create(&labels()).inc_by(prompt);
        }
        if let Some(completion) = tokens.completion {
            metrics.completion_tokens.get_or_create(&labels()).inc_by(completion);
        }
        let spent = tokens.prompt.unwrap_or(0).saturating_add(tokens.completion.unwrap_or(0));
        if let Some(meter) = self.meter.as_ref().filter(|_| spent > 0) {
            meter.charge_tokens(spent);
        }
        if let Some(worker) = &self.worker {
            worker.spend(spent);
        }
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
