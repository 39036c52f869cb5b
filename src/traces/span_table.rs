//! The spans of a request, and their attributes: the one place that names either.
//!
//! Names follow OpenTelemetry's conventions for HTTP and for generative AI; what these do not know begins with `llamagate.`.
//! No attribute holds a prompt, an answer, a key or a person.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::request_trace::{RequestStage, RequestTrace, StageName};

/// What a finished request says about itself.
#[derive(Debug, Clone)]
pub struct TracedRequest<'a> {
    /// When it arrived, on the wall clock.
    pub arrived: SystemTime,
    /// The same moment on the clock of the stages.
    pub started: Instant,
    /// From its arrival to its end.
    pub total: Duration,
    /// The request method.
    pub method: &'a str,
    /// The path without the query.
    pub path: &'a str,
    /// The path in the table of routes.
    pub route: Option<&'static str>,
    /// The status that was sent.
    pub status: u16,
    /// The code of the refusal, or `client_closed`.
    pub code: Option<&'static str>,
    /// The address of the client.
    pub client: Option<std::net::IpAddr>,
    /// The id in `X-Request-Id`.
    pub request_id: &'a str,
    /// The id of the key.
    pub key_id: Option<&'a str>,
    /// The model that served it.
    pub model: Option<&'a str>,
    /// Time from the arrival to the first byte of the answer's body.
    pub first_byte: Option<Duration>,
    /// Tokens of the prompt.
    pub prompt_tokens: Option<u64>,
    /// Those of them that were in the worker's cache.
    pub cached_tokens: Option<u64>,
    /// Tokens of the answer.
    pub completion_tokens: Option<u64>,
}

/// Name, spans and meaning of every attribute.
const ATTRIBUTES: &[(&str, &str, &str)] = &[
    (METHOD, "request", "the request method"),
    (PATH, "request", "the path, without the query"),
    (ROUTE, "request", "the path in the table of routes"),
    (STATUS, "request", "the status that was sent; 499 if the client left before one was"),
    (CLIENT, "request", "the address of the client"),
    (REQUEST_ID, "request", "the id in `X-Request-Id`"),
    (KEY_ID, "request", "the id of the API key, never the key"),
    (ERROR, "all", "the code of the refusal or error that it ended with, or `client_closed`"),
    (OPERATION, "request, attempt", "`chat`, `text_completion`, `embeddings` or `rerank`"),
    (PROVIDER, "request, attempt", "`llama_cpp`"),
    (MODEL, "all but admission", "the id of the model"),
    (INPUT_TOKENS, "request", "tokens of the prompt"),
    (CACHED_TOKENS, "request", "those of them that were in the worker's cache"),
    (OUTPUT_TOKENS, "request", "tokens of the answer"),
    (FIRST_BYTE, "request", "seconds from the arrival to the first byte of the answer's body"),
    (WORKER, "attempt", "the number of the worker"),
];

/// Returns the table of attributes for `docs/TRACES.md`.
pub fn attributes_reference() -> String {
    let row = |(name, spans, meaning): &(&str, &str, &str)| format!("| `{name}` | {spans} | {meaning} |\n");
    let rows: String = ATTRIBUTES.iter().map(row).collect();
    format!("| attribute | span | meaning |\n|---|---|---|\n{rows}")
}

const METHOD: &str = "http.request.method";
const PATH: &str = "url.path";
const ROUTE: &str = "http.route";
const STATUS: &str = "http.response.status_code";
const CLIENT: &str = "client.address";
const REQUEST_ID: &str = "llamagate.request.id";
const KEY_ID: &str = "llamagate.key.id";
const ERROR: &str = "error.type";
const OPERATION: &str = "gen_ai.operation.name";
const PROVIDER: &str = "gen_ai.provider.name";
const MODEL: &str = "gen_ai.request.model";
const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
const CACHED_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
const FIRST_BYTE: &str = "gen_ai.response.time_to_first_chunk";
const WORKER: &str = "llamagate.worker";

/// The value of `gen_ai.provider.name`.
const LLAMA_CPP: &str = "llama_cpp";

/// Words in the path of a route, and the operation that it is. The first that is found counts.
const OPERATIONS: &[(&str, &str)] = &[
    ("count_tokens", ""),
    ("input_tokens", ""),
    ("rerank", "rerank"),
    ("score", "rerank"),
    ("ranking", "rerank"),
    ("embed", "embeddings"),
    ("chat", "chat"),
    ("messages", "chat"),
    ("responses", "chat"),
    ("completion", "text_completion"),
    ("infill", "text_completion"),
    ("generate", "text_completion"),
];

/// What spans say about the program that made them.
static SCOPE: LazyLock<InstrumentationScope> =
    LazyLock::new(|| InstrumentationScope::builder("llamagate").with_version(env!("CARGO_PKG_VERSION")).build());

/// Returns the spans of a request that has ended, its own first.
pub(super) fn spans(mut trace: RequestTrace, request: &TracedRequest<'_>) -> Vec<SpanData> {
    trace.end_stage(request.code);
    let own = request_span(&trace, request);
    let stages = trace.stages.iter().map(|stage| stage_span(&trace, stage, request));
    std::iter::once(own).chain(stages).collect()
}

fn request_span(trace: &RequestTrace, request: &TracedRequest<'_>) -> SpanData {
    let operation = request.route.and_then(operation_of);
    let name = format!("{} {}", request.method, request.route.unwrap_or("other"));
    let mut attributes = vec![
        KeyValue::new(METHOD, request.method.to_owned()),
        KeyValue::new(PATH, request.path.to_owned()),
        KeyValue::new(STATUS, i64::from(request.status)),
        KeyValue::new(REQUEST_ID, request.request_id.to_owned()),
    ];
    let text = |text: &str| Value::from(text.to_owned());
    let count = |count: u64| Value::from(i64::try_from(count).unwrap_or(i64::MAX));
    attributes.extend(
        [
            (ROUTE, request.route.map(Value::from)),
            (CLIENT, request.client.map(|address| Value::from(address.to_string()))),
            (KEY_ID, request.key_id.map(text)),
            (ERROR, request.code.map(Value::from)),
            (OPERATION, operation.map(Value::from)),
            (PROVIDER, operation.map(|_| Value::from(LLAMA_CPP))),
            (MODEL, request.model.map(text)),
            (INPUT_TOKENS, request.prompt_tokens.map(count)),
            (CACHED_TOKENS, request.cached_tokens.map(count)),
            (OUTPUT_TOKENS, request.completion_tokens.map(count)),
            (FIRST_BYTE, request.first_byte.map(|time| Value::from(time.as_secs_f64()))),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| KeyValue::new(name, value))),
    );
    // A refusal is the client's fault as a rule, and an error of the service only from 500 on.
    let status = if request.status >= 500 { failed(request.code) } else { Status::Unset };
    let times = (request.arrived, request.arrived + request.total);
    let of_caller = (trace.parent.span_id(), trace.parent.is_valid());
    span(&trace.context, of_caller, SpanKind::Server, name.into(), times, attributes, status)
}

fn stage_span(trace: &RequestTrace, stage: &RequestStage, request: &TracedRequest<'_>) -> SpanData {
    let at = |moment: Instant| request.arrived + moment.saturating_duration_since(request.started);
    // The last stage is ended while the record closes, a moment after the request.
    let end = request.started + request.total;
    let ended = stage.ended.map_or(end, |ended| ended.min(end));
    let operation = request.route.and_then(operation_of).filter(|_| stage.name == StageName::Attempt);
    let values = [
        (OPERATION, operation.map(Value::from)),
        (PROVIDER, operation.map(|_| Value::from(LLAMA_CPP))),
        (MODEL, stage.model.clone().map(Value::from)),
        (WORKER, stage.worker.map(|number| Value::from(i64::from(number)))),
        (ERROR, stage.failure.map(Value::from)),
    ];
    let attributes = values.into_iter().filter_map(|(name, value)| value.map(|value| KeyValue::new(name, value)));
    let (kind, name) = match (stage.name, operation, &stage.model) {
        (StageName::Attempt, Some(operation), Some(model)) => (SpanKind::Client, format!("{operation} {model}").into()),
        (StageName::Attempt, ..) => (SpanKind::Client, stage.name.as_str().into()),
        _ => (SpanKind::Internal, Cow::Borrowed(stage.name.as_str())),
    };
    let status = stage.failure.map_or(Status::Unset, |code| failed(Some(code)));
    let id = trace.context.clone();
    let context = SpanContext::new(id.trace_id(), stage.id, id.trace_flags(), false, id.trace_state().clone());
    let part_of = (stage.part_of.unwrap_or_else(|| id.span_id()), false);
    span(&context, part_of, kind, name, (at(stage.begun), at(ended)), attributes.collect(), status)
}

fn span(
    context: &SpanContext,
    (parent_span_id, parent_span_is_remote): (SpanId, bool),
    span_kind: SpanKind,
    name: Cow<'static, str>,
    (start_time, end_time): (SystemTime, SystemTime),
    attributes: Vec<KeyValue>,
    status: Status,
) -> SpanData {
    SpanData {
        span_context: context.clone(),
        parent_span_id,
        parent_span_is_remote,
        span_kind,
        name,
        start_time,
        end_time,
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status,
        instrumentation_scope: SCOPE.clone(),
    }
}

fn failed(code: Option<&'static str>) -> Status {
    Status::error(code.unwrap_or_default())
}

/// Returns the operation of a route, in the words of the conventions for generative AI; `None` if it generates nothing.
fn operation_of(route: &str) -> Option<&'static str> {
    let found = OPERATIONS.iter().find(|(word, _)| route.contains(word));
    found.map(|(_, operation)| *operation).filter(|operation| !operation.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operation_of_a_route_is_told_by_its_path() {
        for (route, operation) in [
            ("/v1/chat/completions", Some("chat")),
            ("/v1/messages", Some("chat")),
            ("/v1/messages/count_tokens", None),
            ("/v1/chat/completions/input_tokens", None),
            ("/v1/completions", Some("text_completion")),
            ("/infill", Some("text_completion")),
            ("/api/generate", Some("text_completion")),
            ("/v2/embed", Some("embeddings")),
            ("/v1/ranking", Some("rerank")),
            ("/tokenize", None),
            ("/v1/models", None),
        ] {
            assert_eq!(operation_of(route), operation, "{route}");
        }
    }
}
