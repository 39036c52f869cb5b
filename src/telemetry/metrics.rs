//! All metrics in one struct: the only place that names a metric.
//!
//! Nothing here contacts llama-server, so a scrape never reaches it.

pub use super::labels::{
    BudgetLabels, CertificateLabels, CodeLabels, DownloadStateLabels, DraftLabels, FolderLabels, KeyLabels,
    ModelLabels, OutcomeLabels, PhaseLabels, ReasonLabels, RequestLabels, RouteLabels, RpcServerLabels, StateLabels,
    SuspendedKeyLabels, TokenLabels, WorkerLabels,
};

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::labels::Label;
use super::recent_work::RecentWork;
use super::series::{KeySeries, ModelFamilies, ModelSeries, NO_KEY, Named, OTHER, RequestSeries, Timings};
use super::series_list::SeriesList;
use super::warnings::Warnings;

type Seconds = Counter<f64, AtomicU64>;

/// Upper bounds of the buckets for request and queue times, in seconds.
const REQUEST_BUCKETS: [f64; 17] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// Upper bounds of the buckets for the time between two tokens, in seconds.
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
            pub(super) models: Named<ModelSeries>,
            keys: Named<KeySeries>,
            download_models: Named<Counter>,
            /// The series of requests that are for no configured model.
            pub(super) other: RequestSeries,
            /// The series of requests that need no key.
            pub(super) no_key: KeySeries,
            /// `llamagate_refusals_total`, by code.
            pub(super) refusal_counts: SeriesList<&'static str, Counter>,
            /// The models whose occupancy is in the metrics.
            pub(super) occupied_models: Mutex<BTreeSet<String>>,
            /// What works worse than it should.
            pub warnings: Warnings,
            /// What requests have done in the last quarter of an hour.
            pub recent_work: RecentWork,
            $( #[doc = $help] pub $field: $type, )+
        }

        /// Name, kind and labels, and meaning of every metric, for `docs/METRICS.md`.
        const TABLE: &[(&str, &str, &str, &str)] = &[ $( ($name, stringify!($type), $labels, $help) ),+ ];

        impl Metrics {
            /// Creates all metrics at zero. `platform` is the name of the detected platform.
            pub fn new(platform: &str) -> Self {
                let mut registry = Registry::default();
                $(
                    let $field: $type = $make;
                    registry.register($name, $help, $field.clone());
                )+
                let build = Family::<BuildLabels, Gauge>::default();
                build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION"), platform: platform.to_owned() }).set(1);
                registry.register("llamagate_build_info", "Version and platform", build);
                let started = Instant::now();
                Self { registry, started, recent_work: RecentWork::since(started), models: Named::default(), keys: Named::default(), download_models: Named::default(), other: RequestSeries::new(Label::new(OTHER)), no_key: KeySeries::new(NO_KEY, NO_KEY), refusal_counts: SeriesList::default(), occupied_models: Mutex::default(), warnings: Warnings::default(), $( $field, )+ }
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

/// Converts a number of bytes to the value of a gauge.
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
    requests: Counter = Counter::default(), "gateway_requests", "", "Requests on inference routes, including refused ones";
    success: Counter = Counter::default(), "gateway_requests_success", "", "Requests whose response had a status below 400 and was complete";
    error: Counter = Counter::default(), "gateway_requests_error", "", "Requests that were refused, failed or were cut off";
    active: Gauge = Gauge::default(), "gateway_requests_active", "", "Requests that hold a slot";
    authenticated: Counter = Counter::default(), "gateway_requests_authenticated", "", "Requests with a valid key";
    unauthorized: Counter = Counter::default(), "gateway_requests_unauthorized", "", "Requests refused with 401 or 403";
    bytes_sent: Counter = Counter::default(), "gateway_bytes_sent", "", "Bytes of response bodies that were sent";
    queue_depth: Gauge = Gauge::default(), "gateway_queue_depth", "", "Requests that wait for a slot";
    queue_rejections: Counter = Counter::default(), "gateway_queue_rejections", "", "Requests refused because the queue was full";
    queue_wait: Seconds = Seconds::default(), "gateway_queue_wait_seconds", "", "Time that requests waited for a slot, in seconds";
    requests_waiting: Family<ModelLabels, Gauge> = Family::default(), "llamagate_requests_waiting", "model", "Requests of the model that wait for a slot; the sum is `gateway_queue_depth`";
    requests_running: Family<ModelLabels, Gauge> = Family::default(), "llamagate_requests_running", "model", "Requests of the model that hold a slot; the sum is `gateway_requests_active`";
    kv_cache_usage: Family<ModelLabels, Gauge<f64, AtomicU64>> = Family::default(), "llamagate_kv_cache_usage_ratio", "model", "Share of the KV caches of the model's llama-servers that requests in progress use, from 0 to 1, as they told it at most 5 s ago. Prompts that are kept for later requests do not count. Not for a llama-server that does not tell it, for remote backends and other programs";
    by_route: Family<RequestLabels, Counter> = Family::default(), "llamagate_requests", "model, route, status", "Requests by model, route and status";
    refusals: Family<CodeLabels, Counter> = Family::default(), "llamagate_refusals", "code", "Refusals by code";
    request_seconds: Timings<RouteLabels> = timings(by_request), "llamagate_request_seconds", "model, route", "Time from the arrival of a request to the end of its response, in seconds";
    queue_seconds: Timings<ModelLabels> = timings(by_request), "llamagate_queue_seconds", "model", "Time that a request waited for a slot, in seconds";
    first_byte_seconds: Timings<ModelLabels> = timings(by_request), "llamagate_time_to_first_byte_seconds", "model", "Time from the arrival of a request to the first byte of its response, in seconds";
    inter_token_seconds: Timings<ModelLabels> = timings(by_token), "llamagate_inter_token_seconds", "model", "Time between two chunks of a stream that contain text, in seconds";
    prompt_tokens: Family<TokenLabels, Counter> = Family::default(), "llamagate_prompt_tokens", "model, key", "Tokens of prompts, including cached ones";
    completion_tokens: Family<TokenLabels, Counter> = Family::default(), "llamagate_completion_tokens", "model, key", "Tokens of answers; a lower bound for streams that the client left";
    draft_tokens: Family<DraftLabels, Counter> = Family::default(), "llamagate_draft_tokens", "model", "Tokens that a draft model or another way to draft has proposed, as llama-server's `timings` report them: not at `/v1/messages` and `/v1/responses`";
    draft_tokens_accepted: Family<DraftLabels, Counter> = Family::default(), "llamagate_draft_tokens_accepted", "model", "Those of them that the model has accepted";
    key_requests: Family<KeyLabels, Counter> = Family::default(), "llamagate_key_requests", "key, status_class", "Requests by key and status class";
    key_suspended: Family<SuspendedKeyLabels, Gauge> = Family::default(), "llamagate_key_suspended", "key", "1 for each API key that is suspended because workers crashed while only its requests were in flight";
    budget_left: Family<BudgetLabels, Gauge<f64, AtomicU64>> = Family::default(), "llamagate_budget_left", "key, budget", "What is left of each budget of a key, besides what requests in flight have reserved: requests, tokens or cost";
    limits_store_up: Gauge = Gauge::default(), "llamagate_limits_store_up", "", "1 while the server of `LIMITS_STORE` answers in time, 0 while each replica has limits of its own; 0 without one";
    limits_store_fallbacks: Family<ReasonLabels, Counter> = Family::default(), "llamagate_limits_store_fallbacks", "reason", "Requests for which the limits of this replica alone counted, though `LIMITS_STORE` is set: it is `away`, was `slow`, or answered with an `error`";
    limits_store_lost: Counter = Counter::default(), "llamagate_limits_store_lost", "", "Requests whose end the server of `LIMITS_STORE` was not told, because it was away for too long or did not take it";
    worker_state: Family<StateLabels, Gauge> = Family::default(), "llamagate_worker_state", "model, worker, state", "1 for the state that a worker is in, 0 for the others";
    worker_restarts: Family<WorkerLabels, Counter> = Family::default(), "llamagate_worker_restarts", "model, worker", "Restarts of a worker";
    rpc_server_up: Family<RpcServerLabels, Gauge> = Family::default(), "llamagate_rpc_server_up", "model, worker, rpc_server", "1 for each rpc-server of a model (`rpc`) that was last found to work, 0 for one that was not";
    workers_ready: Family<ModelLabels, Gauge> = Family::default(), "llamagate_workers_ready", "model", "Workers that can serve requests";
    load_seconds: Family<ModelLabels, Gauge<f64, AtomicU64>> = Family::default(), "llamagate_model_load_seconds", "model", "Duration of the last load, from process start to ready, in seconds";
    load_phase_seconds: Family<PhaseLabels, Gauge<f64, AtomicU64>> = Family::default(), "llamagate_model_load_phase_seconds", "model, phase", "Time that the last load spent in each phase, in seconds: `prefetch` before the process start, then `start`, `weights` and `warm_up`, which add up to the load; time that cannot be told apart from `weights` counts as `weights`";
    memory_budget: Gauge = Gauge::default(), "llamagate_memory_budget_bytes", "", "Memory that all loaded models together may use, in bytes; 0 if it is unknown";
    memory_used: Gauge = Gauge::default(), "llamagate_memory_used_bytes", "", "Memory of the budget that is taken by models that are loaded, loading or stopping, in bytes";
    model_memory: Family<ModelLabels, Gauge> = Family::default(), "llamagate_model_memory_bytes", "model", "Memory that a loaded worker of the model takes of the budget, in bytes: as configured, as measured at its last load, or as estimated";
    cache_hits: Counter = Counter::default(), "llamagate_cache_hits", "", "Requests that were answered from the cache, or joined an equal request in flight";
    cache_misses: Counter = Counter::default(), "llamagate_cache_misses", "", "Requests whose answer might have been in the cache and was not";
    cache_entries: Gauge = Gauge::default(), "llamagate_cache_entries", "", "Answers in the cache";
    cache_bytes: Gauge = Gauge::default(), "llamagate_cache_bytes", "", "Memory that these answers take, in bytes";
    cache_disk_entries: Gauge = Gauge::default(), "llamagate_cache_disk_entries", "", "Answers in `cache.db`";
    cache_disk_dropped: Counter = Counter::default(), "llamagate_cache_disk_dropped", "", "Answers that are kept in memory only, because too much waited to be written or they are too large";
    cache_disk_failures: Counter = Counter::default(), "llamagate_cache_disk_failures", "", "Attempts to use `cache.db` that failed";
    download_bytes: Family<ModelLabels, Counter> = Family::default(), "llamagate_download_bytes", "model", "Bytes of models that came over the network; `model` is the name that was asked for, without the query of an address";
    downloads: Family<DownloadStateLabels, Gauge> = Family::default(), "llamagate_downloads", "state", "Downloads by state; of those that have ended, the ones that are remembered";
    feed_listeners: Gauge = Gauge::default(), "llamagate_feed_listeners", "", "Clients that listen to the feed, `GET /events`";
    usage_events_waiting: Gauge = Gauge::default(), "llamagate_usage_events_waiting", "", "Finished requests and acts of administrators that the usage file could not take yet";
    usage_events_dropped: Counter = Counter::default(), "llamagate_usage_events_dropped", "", "Finished requests and acts of administrators that the usage file lacks, because too much waited for it";
    usage_write_failures: Counter = Counter::default(), "llamagate_usage_write_failures", "", "Attempts to write the usage file that failed; what they would have written is tried again";
    trace_spans_exported: Counter = Counter::default(), "llamagate_trace_spans_exported", "", "Spans that the OpenTelemetry collector has taken";
    trace_spans_dropped: Counter = Counter::default(), "llamagate_trace_spans_dropped", "", "Spans that were lost because too many waited for their export, or because the collector did not take them";
    trace_export_failures: Counter = Counter::default(), "llamagate_trace_export_failures", "", "Exports that the collector did not take";
    tls_expiry: Family<CertificateLabels, Gauge> = Family::default(), "llamagate_tls_certificate_expiry_timestamp_seconds", "source", "When the TLS certificate in use expires, in seconds since 1970: subtract `time()`. 0 while none has come from the CA";
    tls_reloads: Family<OutcomeLabels, Counter> = Family::default(), "llamagate_tls_reloads", "outcome", "Changes of the files of the TLS certificate by outcome: `replaced`, or `failed` if the one of before stays in use";
    tls_handshakes: Family<OutcomeLabels, Counter> = Family::default(), "llamagate_tls_handshakes", "outcome", "TLS handshakes by outcome: `done`, `failed`, `timed_out`, `challenge` for a look of the CA, or `plain_http` for clients that spoke HTTP without TLS";
    tls_acme_orders: Family<OutcomeLabels, Counter> = Family::default(), "llamagate_tls_acme_orders", "outcome", "Orders of a TLS certificate at the CA by outcome: `issued`, `failed`, or `rate_limited` if the CA takes no more for now";
    log_lines_lost: Family<FolderLabels, Gauge> = Family::default(), "llamagate_log_lines_lost", "folder", "Log lines that were lost because the queue was full or the disk did not take them";
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
    /// Returns the value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Metrics {
    /// Returns the time since the start, in seconds.
    pub fn uptime(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Removes the number of workers of a model that is no longer served. Its request counters stay.
    pub fn remove_model(&self, model: &str) {
        self.workers_ready.remove(&ModelLabels { model: model.to_owned() });
    }

    /// Sets which API keys are suspended now. Called before each scrape, because a suspension ends by itself.
    pub fn set_suspended_keys<'a>(&self, keys: impl Iterator<Item = &'a str>) {
        self.key_suspended.clear();
        for key in keys {
            self.key_suspended.get_or_create(&SuspendedKeyLabels { key: key.to_owned() }).set(1);
        }
    }

    /// Sets what is left of the budgets of keys. Called before each scrape, because a budget begins again by itself.
    pub fn set_budgets_left(&self, budgets: impl Iterator<Item = (BudgetLabels, f64)>) {
        self.budget_left.clear();
        for (labels, left) in budgets {
            self.budget_left.get_or_create(&labels).set(left);
        }
    }

    /// Returns the series of a model.
    pub fn model(&self, id: &str) -> Arc<ModelSeries> {
        let families = ModelFamilies {
            queue: &self.queue_seconds,
            first_byte: &self.first_byte_seconds,
            inter_token: &self.inter_token_seconds,
        };
        self.models.get(id, |is_within_bound| ModelSeries::new(&families, if is_within_bound { id } else { OTHER }))
    }

    /// Returns the series of a key.
    pub fn key(&self, id: &str) -> Arc<KeySeries> {
        self.keys.get(id, |is_within_bound| KeySeries::new(id, if is_within_bound { id } else { OTHER }))
    }

    /// Returns the counter of the bytes that come for the model of this name, as it may be shown.
    pub fn download_bytes_of(&self, model: &str) -> Arc<Counter> {
        self.download_models.get(model, |is_within_bound| {
            let model = if is_within_bound { model } else { OTHER };
            self.download_bytes.get_or_create_owned(&ModelLabels { model: model.to_owned() })
        })
    }

    /// Returns all metrics as text.
    pub fn text(&self, format: TextFormat) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode_registry(&mut out, &self.registry);
        // Computed at each scrape, so it is not in the registry.
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

    /// Returns the gateway's counters as JSON. Two of them appear under two names, with and without `_total`.
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

/// Converts OpenMetrics to the older text format. In OpenMetrics the name of a counter's family lacks the suffix
/// `_total` of its samples; the older format uses the sample's name for both.
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

/// Returns the text of `docs/METRICS.md`.
pub fn metrics_reference() -> String {
    let mut out = String::from(
        "# Metrics\n\n\
         Generated from `src/telemetry/metrics.rs`; `UPDATE_DOCS=1 cargo test --test it docs` regenerates it.\n\n\
         `GET /metrics` on the gateway port and on the health port returns JSON, or Prometheus text with\n\
         `Accept: text/plain`, `Accept: application/openmetrics-text` or `?format=prometheus`. A scrape never reaches\n\
         llama-server. Unknown routes count as `other`, and so do keys and models beyond the first 1024 of each.\n\
         If no key is required, `key` is `none`. Token counts are those that responses report.\n\n\
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
    fn the_older_text_format_names_counters_like_their_samples() {
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
