//! Traces of requests: whose trace a request belongs to, what each stage took, and the export of both to an OpenTelemetry
//! collector.
//!
//! Without a collector nothing is recorded: a `traceparent` goes on unchanged, and only the access log names its trace.
//! Where a stage begins and ends is said by the stages themselves, in `gateway`.
//!
//! - `bounds.rs`: waits and sizes that no user needs to choose
//! - `collector.rs`: the HTTP client of exports
//! - `export.rs`: the task that sends finished spans
//! - `request_trace.rs`: the trace of one request, while the request lives
//! - `span_queue.rs`: finished spans that wait for their export
//! - `span_table.rs`: the spans of a request, and their attributes
//! - `trace_settings.rs`: what OpenTelemetry's variables ask for
//! - `tracer.rs`: begins traces, and takes them when they are finished

mod bounds;
mod collector;
mod export;
mod request_trace;
mod span_queue;
mod span_table;
mod trace_settings;
mod tracer;

pub use export::{SpanExport, export_spans};
pub use request_trace::{RequestTrace, StageName, TRACEPARENT, TRACESTATE, TraceIds};
pub use span_table::{TracedRequest, attributes_reference};
pub use trace_settings::TraceSettings;
pub use tracer::Tracer;
