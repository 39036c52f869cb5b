//! Every metric, in one struct: the only place that names one (contract, section 7).
//!
//! Nothing here asks llama-server anything, so a scrape never touches it.

pub use super::labels::{
    CodeLabels, FolderLabels, KeyLabels, ModelLabels, PhaseLabels, RequestLabels, RouteLabels, StateLabels,
    TokenLabels, WorkerLabels,
};

use super::labels::Label;
use super::series::{KeySeries, ModelFamilies, ModelSeries, NO_KEY, Named, OTHER, Timings};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

type Seconds = Counter<f64, AtomicU64>;

/// Upper bounds of the buckets of request and queue times, in seconds.
const REQUEST_BUCKETS: [f64; 17] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// Upper bounds of the buckets of the time between two tokens, in seconds.
const TOKEN_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
    platform: String,
}

macro_rules! metrics {
    ($( $field:ident: $type:ty = $make:expr, $name:literal, $labels:literal, $help:literal; )+) => {
        /// The metrics of one running service.
        pub struct Metrics {
            registry: Registry,
            started: Instant,
            models: Named<ModelSeries>,
            keys: Named<KeySeries>,
            other: Label,
            no_key: Label,
            $( #[doc = $help] pub $field: $type, )+
        }

        /// Name, kind and labels, and meaning of every metric, for `docs/METRICS.md`.
        const TABLE: &[(&str, &str, &str, &str)] = &[ $( ($name, stringify!($type), $labels, $help) ),+ ];

        impl Metrics {
            /// All at zero. `platform` is the name of the detected one.
            pub fn new(platform: &str) -> Self {
                let mut registry = Registry::default();
                $(
                    let $field: $type = $make;
                    registry.register($name, $help, $field.clone());
                )+
                let build = Family::<BuildLabels, Gauge>::default();
                build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION"), platform: platform.to_owned() }).set(1);
                registry.register("llamagate_build_info", "Version and platform", build);
                Self { registry, started: Instant::now(), models: Named::default(), keys: Named::default(), other: Label::new(OTHER), no_key: Label::new(NO_KEY), $( $field, )+ }
            }
        }
    };
}

fn timings<L: Clone + std::hash::Hash + Eq>(make: fn() -> Histogram) -> Timings<L>
where
    fn() -> Histogram: MetricConstructor<Histogram>,
{
    Family::new_with_constructor(make)
}

/// So many bytes as the value of a gauge.
pub fn bytes(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn by_request() -> Histogram {
    Histogram::new(REQUEST_BUCKETS)
}

fn by_token() -> Histogram {
    Histogram::new(TOKEN_BUCKETS)
}

metrics! {
    requests: Counter = Counter::default(), "gateway_requests", "", "Requests on inference routes, refused ones included";
    success: Counter = Counter::default(), "gateway_requests_success", "", "Requests that were answered with a status below 400, to the end";
    error: Counter = Counter::default(), "gateway_requests_error", "", "Requests that were refused, failed or cut";
    active: Gauge = Gauge::default(), "gateway_requests_active", "", "Requests that hold a slot";
    authenticated: Counter = Counter::default(), "gateway_requests_authenticated", "", "Requests with a good key";
    unauthorized: Counter = Counter::default(), "gateway_requests_unauthorized", "", "Requests refused with 401 or 403";
    bytes_sent: Counter = Counter::default(), "gateway_bytes_sent", "", "Bytes of answers' bodies";
    queue_depth: Gauge = Gauge::default(), "gateway_queue_depth", "", "Requests that wait for a slot";
    queue_rejections: Counter = Counter::default(), "gateway_queue_rejections", "", "Requests refused because the queue was full";
    queue_wait: Seconds = Seconds::default(), "gateway_queue_wait_seconds", "", "Time that requests waited for a slot, in seconds";
    by_route: Family<RequestLabels, Counter> = Family::default(), "llamagate_requests", "model, route, status", "Requests by model, route and status";
    refusals: Family<CodeLabels, Counter> = Family::default(), "llamagate_refusals", "code", "Refusals by code";
    request_seconds: Timings<RouteLabels> = timings(by_request), "llamagate_request_seconds", "model, route", "Time from a request's arrival to the end of its answer, in seconds";
    queue_seconds: Timings<ModelLabels> = timings(by_request), "llamagate_queue_seconds", "model", "Time that a request waited for a slot, in seconds";
    first_byte_seconds: Timings<ModelLabels> = timings(by_request), "llamagate_time_to_first_byte_seconds", "model", "Time from a request's arrival to the first byte of its answer, in seconds";
    inter_token_seconds: Timings<ModelLabels> = timings(by_token), "llamagate_inter_token_seconds", "model", "Time between two pieces of a stream that carry text, in seconds";
    prompt_tokens: Family<TokenLabels, Counter> = Family::default(), "llamagate_prompt_tokens", "model, key", "Tokens of prompts, cached ones included";
    completion_tokens: Family<TokenLabels, Counter> = Family::default(), "llamagate_completion_tokens", "model, key", "Tokens of answers; of a stream that was left, at least so many";
    key_requests: Family<KeyLabels, Counter> = Family::default(), "llamagate_key_requests", "key, status_class", "Requests by key and class of status";
    worker_state: Family<StateLabels, Gauge> = Family::default(), "llamagate_worker_state", "model, worker, state", "1 for the state that a worker is in, 0 for the others";
    worker_restarts: Family<WorkerLabels, Counter> = Family::default(), "llamagate_worker_restarts", "model, worker", "Restarts of a worker";
    workers_ready: Family<ModelLabels, Gauge> = Family::default(), "llamagate_workers_ready", "model", "Workers that can serve";
    load_seconds: Family<ModelLabels, Gauge<f64, AtomicU64>> = Family::default(), "llamagate_model_load_seconds", "model", "Time of the last load, from process start to ready, in seconds";
    load_phase_seconds: Family<PhaseLabels, Gauge<f64, AtomicU64>> = Family::default(), "llamagate_model_load_phase_seconds", "model, phase", "Time of the last load spent in a phase, in seconds: `prefetch` before the process start, then `start`, `weights` and `warm_up`, which add up to the load; what cannot be told from `weights` counts there";
    memory_budget: Gauge = Gauge::default(), "llamagate_memory_budget_bytes", "", "Memory that all loaded models together may take, in bytes; 0 if nothing is known of it";
    memory_used: Gauge = Gauge::default(), "llamagate_memory_used_bytes", "", "What loaded models, and those that are being loaded or stopped, count for in it, in bytes";
    model_memory: Family<ModelLabels, Gauge> = Family::default(), "llamagate_model_memory_bytes", "model", "What a worker of a model counts for when it is loaded, in bytes: as configured, as it took the last time, or as estimated";
    log_lines_lost: Family<FolderLabels, Gauge> = Family::default(), "llamagate_log_lines_lost", "folder", "Log lines that a full queue or disk has cost";
}

/// The two text formats of Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFormat {
    /// `text/plain; version=0.0.4`
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`
    OpenMetrics,
}

impl TextFormat {
    /// The value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Metrics {
    /// Seconds since the start.
    pub fn uptime(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Shows no number of workers for a model that is no longer served. What its requests came to stays.
    pub fn forget(&self, model: &str) {
        self.workers_ready.remove(&ModelLabels { model: model.to_owned() });
    }

    /// The series of a model.
    pub fn model(&self, id: &str) -> Arc<ModelSeries> {
        let families = ModelFamilies {
            queue: &self.queue_seconds,
            first_byte: &self.first_byte_seconds,
            inter_token: &self.inter_token_seconds,
        };
        self.models.get(id, |room| ModelSeries::new(&families, if room { id } else { OTHER }))
    }

    /// The series of a key.
    pub fn key(&self, id: &str) -> Arc<KeySeries> {
        self.keys.get(id, |room| KeySeries::new(id, if room { id } else { OTHER }))
    }

    /// `other`, as a label.
    pub fn other(&self) -> Label {
        self.other.clone()
    }

    /// The label for requests for which no key was asked.
    pub fn no_key(&self) -> Label {
        self.no_key.clone()
    }

    /// All metrics as text.
    pub fn text(&self, format: TextFormat) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode_registry(&mut out, &self.registry);
        let _ = writeln!(
            out,
            "# HELP gateway_uptime_seconds Time since the start, in seconds.\n\
             # TYPE gateway_uptime_seconds gauge\ngateway_uptime_seconds {:.3}",
            self.uptime()
        );
        match format {
            TextFormat::OpenMetrics => out + "# EOF\n",
            TextFormat::Prometheus => as_prometheus_text(&out),
        }
    }

    /// The original's JSON form. Two names appear twice, as the contract says them and as the original did.
    pub fn json(&self) -> Value {
        json!({"gateway": {
            "requests": self.requests.get(),
            "requests_total": self.requests.get(),
            "requests_success": self.success.get(),
            "requests_error": self.error.get(),
            "requests_active": self.active.get(),
            "requests_authenticated": self.authenticated.get(),
            "requests_unauthorized": self.unauthorized.get(),
            "bytes_sent": self.bytes_sent.get(),
            "queue_depth": self.queue_depth.get(),
            "queue_rejections": self.queue_rejections.get(),
            "queue_wait_seconds": self.queue_wait.get(),
            "queue_wait_seconds_total": self.queue_wait.get(),
            "uptime_seconds": self.uptime(),
        }})
    }
}

/// OpenMetrics names a counter's family without `_total`; the older text format names it as its samples.
fn as_prometheus_text(openmetrics: &str) -> String {
    let counters: Vec<&str> =
        openmetrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut out = String::with_capacity(openmetrics.len() + counters.len() * 12);
    for line in openmetrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(keyword), Some(name), Some(rest)) if counters.contains(&name) => {
                let _ = writeln!(out, "# {keyword} {name}_total {rest}");
            }
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

/// The text of `docs/METRICS.md`.
pub fn metrics_reference() -> String {
    let mut out = String::from(
        "# Metrics\n\n\
         Generated from `src/telemetry/metrics.rs`; `UPDATE_DOCS=1 cargo test --test it docs` writes it anew.\n\n\
         `GET /metrics` on the gateway port and on the health port answers JSON, or Prometheus' text with\n\
         `Accept: text/plain`, `Accept: application/openmetrics-text` or `?format=prometheus`. A scrape never touches\n\
         llama-server. Unknown routes count as `other`, and so do keys and models beyond the first 1024 of each.\n\
         Where no key is asked for, `key` is `none`. Tokens are those that an answer tells of itself.\n\n\
         | metric | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for (name, kind, labels, help) in TABLE {
        let counter = kind.contains("Counter") || *kind == "Seconds";
        let shown = if counter { format!("{name}_total") } else { (*name).to_owned() };
        let kind = if counter {
            "counter"
        } else if kind.contains("Gauge") {
            "gauge"
        } else {
            "histogram"
        };
        let labels = if labels.is_empty() { "-" } else { labels };
        let _ = writeln!(out, "| `{shown}` | {kind} | {labels} | {help}. |");
    }
    out.push_str("| `gateway_uptime_seconds` | gauge | - | Time since the start, in seconds. |\n");
    out.push_str("| `llamagate_build_info` | gauge | version, platform | Always 1. |\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_text_format_names_counters_as_their_samples() {
        let metrics = Metrics::new("local");
        metrics.requests.inc();
        let old = metrics.text(TextFormat::Prometheus);
        assert!(old.contains("# TYPE gateway_requests_total counter\ngateway_requests_total 1\n"), "{old}");
        assert!(!old.contains("# EOF"));
        let new = metrics.text(TextFormat::OpenMetrics);
        assert!(new.contains("# TYPE gateway_requests counter\ngateway_requests_total 1\n"), "{new}");
        assert!(new.ends_with("# EOF\n"));
        assert!(new.contains("llamagate_build_info{version=\""), "{new}");
    }
}
