//! What OpenTelemetry's variables ask for.

use std::collections::HashMap;
use std::time::Duration;

use opentelemetry_sdk::trace::Sampler;
use url::Url;

use crate::settings::options::Traces;
use crate::settings::values::{CollectorCompression, TraceExporter, TraceSampler};

/// Below the address of a collector: where it takes spans.
const TRACES_PATH: &str = "/v1/traces";

/// How spans are made and sent.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// The whole address for spans.
    pub(super) url: Url,
    pub(super) headers: HashMap<String, String>,
    pub(super) timeout: Duration,
    pub(super) is_packed: bool,
    pub(super) sampler: Sampler,
    pub(super) service_name: String,
    pub(super) attributes: Vec<(String, String)>,
    /// The longest wait of a span for its export.
    pub(super) delay: Duration,
    pub(super) queue_size: usize,
    pub(super) batch_size: usize,
}

impl TraceSettings {
    /// Reads the settings; `None` if nothing is to be exported.
    pub fn read(traces: &Traces) -> Option<Self> {
        let is_on = !traces.otel_sdk_disabled && traces.otel_traces_exporter == TraceExporter::Otlp;
        let url = url(traces).filter(|_| is_on)?;
        let headers = [&traces.otel_exporter_otlp_traces_headers, &traces.otel_exporter_otlp_headers];
        let headers = headers.into_iter().flatten().next().map(|headers| headers.0.clone());
        let queue_size = traces.otel_bsp_max_queue_size.get();
        Some(Self {
            url,
            headers: headers.unwrap_or_default().into_iter().collect(),
            timeout: traces.otel_exporter_otlp_traces_timeout.0,
            is_packed: traces.otel_exporter_otlp_traces_compression == CollectorCompression::Gzip,
            sampler: sampler(traces),
            service_name: traces.otel_service_name.clone(),
            attributes: traces.otel_resource_attributes.0.clone(),
            delay: traces.otel_bsp_schedule_delay.0,
            queue_size,
            batch_size: traces.otel_bsp_max_export_batch_size.get().min(queue_size),
        })
    }
}

fn url(traces: &Traces) -> Option<Url> {
    if let Some(whole) = &traces.otel_exporter_otlp_traces_endpoint {
        return Some(whole.0.clone());
    }
    let mut url = traces.otel_exporter_otlp_endpoint.as_ref()?.0.clone();
    let path = format!("{}{TRACES_PATH}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Some(url)
}

fn sampler(traces: &Traces) -> Sampler {
    let share = Sampler::TraceIdRatioBased(traces.otel_traces_sampler_arg.0);
    match traces.otel_traces_sampler {
        TraceSampler::AlwaysOn => Sampler::AlwaysOn,
        TraceSampler::AlwaysOff => Sampler::AlwaysOff,
        TraceSampler::Ratio => share,
        TraceSampler::ParentOrOn => Sampler::ParentBased(Box::new(Sampler::AlwaysOn)),
        TraceSampler::ParentOrOff => Sampler::ParentBased(Box::new(Sampler::AlwaysOff)),
        TraceSampler::ParentOrRatio => Sampler::ParentBased(Box::new(share)),
    }
}
