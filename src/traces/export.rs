//! The task that sends finished spans to the collector, several at a time.
//!
//! Spans that the collector does not take are counted and dropped: the exporter has tried them as often as its deadline
//! allowed.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    Compression, ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::bounds::{COLLECTOR_CONNECT_TIMEOUT, COLLECTOR_IDLE, LAST_EXPORT_WAIT};
use super::collector::CollectorClient;
use super::span_queue::SpanQueue;
use super::trace_settings::TraceSettings;
use super::tracer::Tracer;
use crate::dial::Trust;
use crate::http_client::{ClientOptions, HttpClient};
use crate::telemetry::metrics::Metrics;

/// The export, before its task runs.
pub struct SpanExport {
    queue: Arc<SpanQueue>,
    exporter: SpanExporter,
    delay: Duration,
    metrics: Arc<Metrics>,
    /// The spans of the export that is on its way.
    in_flight: AtomicU64,
}

/// Creates the tracer that these settings ask for, and the export of its spans. `instance` tells this service from others
/// of its name.
///
/// # Errors
/// TLS cannot be set up.
pub fn export_spans(
    settings: &TraceSettings,
    instance: &str,
    metrics: &Arc<Metrics>,
) -> io::Result<(Tracer, SpanExport)> {
    let options = ClientOptions {
        connect_timeout: COLLECTOR_CONNECT_TIMEOUT,
        keep_idle: Some(COLLECTOR_IDLE),
        follow_redirects: false,
        use_proxy: true,
    };
    let client = HttpClient::new(&Trust::Machine.for_addresses([settings.url.as_str()]), &options)?;
    let mut exporter = exporter(settings, &client).map_err(io::Error::other)?;
    exporter.set_resource(&resource(settings, instance));
    let queue = Arc::new(SpanQueue::new(settings.queue_size, settings.batch_size, Arc::clone(metrics)));
    let tracer = Tracer::new(settings.sampler.clone(), Arc::clone(&queue));
    Ok((
        tracer,
        SpanExport {
            queue,
            exporter,
            delay: settings.delay,
            metrics: Arc::clone(metrics),
            in_flight: AtomicU64::new(0),
        },
    ))
}

/// Creates the exporter. It reads the compression from the environment too; where a flag or the configuration file says
/// something else, [`CollectorClient`] puts that right.
///
/// # Errors
/// The address cannot be used.
fn exporter(settings: &TraceSettings, client: &HttpClient) -> Result<SpanExporter, ExporterBuildError> {
    let builder = || {
        SpanExporter::builder()
            .with_http()
            .with_http_client(CollectorClient::new(client.clone(), settings))
            .with_endpoint(settings.url.as_str())
            .with_headers(settings.headers.clone())
            .with_timeout(settings.timeout)
            .with_protocol(Protocol::HttpBinary)
    };
    let packed = || builder().with_compression(Compression::Gzip).build();
    // Without a compression it reads that of the environment, and fails if it has none of that name.
    if settings.is_packed { packed() } else { builder().build().or_else(|_| packed()) }
}

fn resource(settings: &TraceSettings, instance: &str) -> Resource {
    let given = settings.attributes.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    let own = [("service.version", env!("CARGO_PKG_VERSION")), ("service.instance.id", instance)];
    let own = own.map(|(name, value)| KeyValue::new(name, value.to_owned()));
    // The later of two values of one name counts: what is given goes before what is known, but not before the name that
    // OTEL_SERVICE_NAME sets.
    let service = KeyValue::new("service.name", settings.service_name.clone());
    let is_named = settings.attributes.iter().any(|(name, _)| name == "service.name");
    let is_default = settings.service_name == crate::settings::options::DEFAULT_SERVICE_NAME;
    let service = (!(is_named && is_default)).then_some(service);
    Resource::builder_empty().with_attributes(own.into_iter().chain(given).chain(service)).build()
}

impl SpanExport {
    /// Sends spans until `stop` is cancelled, and those that wait then, for a bounded time. Nothing wakes it while no request
    /// is traced.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.queue.filled.notified() => {}
                () = stop.cancelled() => break,
            }
            tokio::select! {
                () = tokio::time::sleep(self.delay) => {}
                () = self.queue.full.notified() => {}
                () = stop.cancelled() => break,
            }
            let mut sending = pin!(self.send_all());
            tokio::select! {
                () = &mut sending => {}
                () = stop.cancelled() => return self.end(sending).await,
            }
        }
        self.end(self.send_all()).await;
    }

    /// Sends what is left, for a bounded time, and counts what could not be sent.
    async fn end(&self, sending: impl Future<Output = ()>) {
        if tokio::time::timeout(LAST_EXPORT_WAIT, sending).await.is_err() {
            let unsent = self.in_flight.load(Ordering::Relaxed) + self.queue.clear();
            self.metrics.trace_spans_dropped.inc_by(unsent);
            warn!(unsent, "the last spans could not be sent in time and are lost");
        }
    }

    async fn send_all(&self) {
        loop {
            let batch = self.queue.take();
            if batch.is_empty() {
                return;
            }
            let count = batch.len() as u64;
            self.in_flight.store(count, Ordering::Relaxed);
            let outcome = self.exporter.export(batch).await;
            self.in_flight.store(0, Ordering::Relaxed);
            match outcome {
                Ok(()) => _ = self.metrics.trace_spans_exported.inc_by(count),
                Err(error) => {
                    debug!(%error, "spans could not be exported");
                    self.metrics.trace_spans_dropped.inc_by(count);
                    self.metrics.trace_export_failures.inc();
                }
            }
        }
    }
}
