//! Traces: a collector that decodes what it gets, W3C's headers on both sides, and a collector that is away.

#![expect(clippy::disallowed_methods, reason = "the collector is a program")]

use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::accounts::access_log_line;
use super::support::{
    client_program::script,
    gateway::{Backend, Builder, Gateway, python},
    process::Process,
    remote::{Remote, Reply},
    wait::{SOON, eventually, eventually_some},
};

const CHAT: &str = "/v1/chat/completions";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn parent() -> String {
    format!("00-{TRACE}-{CALLER}-01")
}

fn chat(more: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "a secret prompt"}], "max_tokens": 8});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// A program that decodes exports.
struct Collector {
    process: Process,
    port: String,
    _folder: TempDir,
}

impl Collector {
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(python());
        command.arg(script("collector.py")).args(arguments);
        let process = Process::start("collector", &mut command, folder.path());
        let port =
            eventually_some("the collector listens", SOON, || process.output().lines().next().map(str::to_owned));
        Self { process, port, _folder: folder }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the exports so far.
    fn exports(&self) -> Vec<Value> {
        let output = self.process.output();
        let complete = output.rfind('\n').map_or("", |end| &output[..end]);
        complete.lines().skip(1).map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    /// Returns all spans so far.
    fn spans(&self) -> Vec<Span> {
        let spans = |export: Value| export["spans"].as_array().unwrap().iter().map(Span::of).collect::<Vec<_>>();
        self.exports().into_iter().flat_map(spans).collect()
    }

    /// Returns the spans of the trace of this request, its own first, once they have come.
    #[track_caller]
    fn request(&self, id: &str) -> Vec<Span> {
        eventually_some(&format!("the spans of {id}"), SOON, || {
            let all = self.spans();
            let own = all.iter().find(|span| span.text("llamagate.request.id") == id)?.clone();
            let mut spans: Vec<_> =
                all.into_iter().filter(|span| span.trace == own.trace && span.id != own.id).collect();
            spans.insert(0, own);
            Some(spans)
        })
    }
}

#[derive(Debug, Clone)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: String,
    start: u64,
    end: u64,
    has_failed: bool,
    attributes: Value,
}

impl Span {
    fn of(span: &Value) -> Self {
        let text = |name: &str| span[name].as_str().unwrap().to_owned();
        let time = |name: &str| span[name].as_u64().unwrap();
        Self {
            trace: text("trace"),
            id: text("id"),
            parent: text("parent"),
            name: text("name"),
            kind: text("kind"),
            start: time("start"),
            end: time("end"),
            has_failed: span["failed"].as_bool().unwrap(),
            attributes: span["attributes"].clone(),
        }
    }

    fn text(&self, attribute: &str) -> &str {
        self.attributes[attribute].as_str().unwrap_or_default()
    }

    /// Whether the other one is a part of this one, and lies within its time.
    fn has(&self, part: &Self) -> bool {
        part.parent == self.id && self.start <= part.start && part.start <= part.end && part.end <= self.end
    }
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

/// Adds a collector, to which spans go at once.
fn traced(builder: Builder, collector: &Collector) -> Builder {
    builder.set("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()).set("OTEL_BSP_SCHEDULE_DELAY", 1)
}

fn metric(gateway: &Gateway, name: &str) -> f64 {
    let text = gateway.health().header("Accept", "text/plain").get("/metrics").text();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_streamed_chat_of_the_real_llama_server_is_one_trace_with_its_stages() {
    let collector = Collector::start(&[]);
    let gateway =
        traced(Gateway::builder().backend(Backend::Real { model: "tiny-chat.gguf" }), &collector).start_ready();
    let client = gateway.client().header("traceparent", &parent()).header("x-request-id", "streamed");
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let events = client.stream(CHAT, &chat(options)).events();
    let usage = events.iter().rev().find(|event| !event.is_done()).unwrap().json()["usage"].clone();

    let spans = collector.request("streamed");
    let [own, admission, queue, attempt, stream] = &spans[..] else { panic!("{:?}", names(&spans)) };
    assert_eq!((&*own.trace, &*own.parent, &*own.kind), (TRACE, CALLER, "SPAN_KIND_SERVER"));
    assert_eq!(names(&spans), [&format!("POST {CHAT}"), "admission", "queue", "chat tiny-chat", "stream"]);
    assert_eq!(attempt.kind, "SPAN_KIND_CLIENT");
    assert!([admission, queue, attempt].iter().all(|stage| own.has(stage)), "{spans:?}");
    assert!(attempt.has(stream) && admission.end <= queue.start && queue.end <= attempt.start, "{spans:?}");
    assert!(spans.iter().all(|span| !span.has_failed));
    for (name, value) in [
        ("http.request.method", json!("POST")),
        ("http.route", json!(CHAT)),
        ("http.response.status_code", json!(200)),
        ("gen_ai.operation.name", json!("chat")),
        ("gen_ai.request.model", json!("tiny-chat")),
        ("gen_ai.usage.input_tokens", usage["prompt_tokens"].clone()),
        ("gen_ai.usage.output_tokens", usage["completion_tokens"].clone()),
        ("llamagate.key.id", json!("user")),
    ] {
        assert_eq!(own.attributes[name], value, "{name}");
    }
    assert_eq!(attempt.attributes["llamagate.worker"], 0);
    assert_eq!(access_log_line(&gateway, "streamed")["trace"], TRACE);
    assert!(!collector.process.output().contains("a secret prompt"));
}

#[test]
fn the_wait_for_a_load_is_a_span_of_its_own() {
    let collector = Collector::start(&[]);
    let models = [("a.gguf", json!({"load_ms": 300}))];
    let config = "models: {a: {file: a.gguf, preload: false}}\n";
    let gateway = traced(Gateway::builder().fakes(config, &models), &collector).start_ready();
    for (id, stages) in
        [("cold", vec!["admission", "queue", "load", "chat a"]), ("warm", vec!["admission", "queue", "chat a"])]
    {
        assert_eq!(gateway.client().header("x-request-id", id).post_json(CHAT, &chat(json!({}))).status(), 200);
        let spans = collector.request(id);
        assert_eq!(names(&spans)[1..], stages, "{id}");
        if let Some(load) = spans.iter().find(|span| span.name == "load") {
            assert!(spans[2].has(load) && load.end - load.start >= 300_000_000, "{spans:?}");
        }
    }
}

#[test]
fn each_attempt_is_a_span_and_the_worker_is_told_which() {
    let (failing, serving) = (Remote::start(Reply::Status(503, json!({"busy": true}))), Remote::start(Reply::Serve));
    let entry = |url: &str, order: u32| {
        format!("  - {{model_name: m, litellm_params: {{model: openai/m, api_base: \"{url}\", order: {order}}}}}\n")
    };
    let config = format!("model_list:\n{}{}", entry(&failing.url(), 1), entry(&serving.url(), 2));
    let collector = Collector::start(&[]);
    let gateway = traced(Gateway::builder().fakes(&config, &[]), &collector).set("RETRY_DELAY", "0s").start_ready();
    let client =
        gateway.client().header("traceparent", &parent()).header("tracestate", "a=1").header("x-request-id", "twice");
    assert_eq!(client.post_json(CHAT, &chat(json!({"model": "m"}))).status(), 200);
    let spans = collector.request("twice");
    let attempts: Vec<_> = spans.iter().filter(|span| span.kind == "SPAN_KIND_CLIENT").collect();
    let [first, second] = attempts[..] else { panic!("{:?}", names(&spans)) };
    assert_eq!((first.has_failed, first.text("error.type")), (true, "backend_error"));
    assert!(!second.has_failed && first.end <= second.start);
    for (remote, attempt) in [(&failing, first), (&serving, second)] {
        let received = &remote.received()[0];
        assert_eq!(received.header("traceparent").unwrap(), format!("00-{TRACE}-{}-01", attempt.id));
        assert_eq!(received.header("tracestate").unwrap(), "a=1");
    }
}

#[test]
fn calls_for_a_translated_request_belong_to_its_trace() {
    let collector = Collector::start(&[]);
    let backend = Backend::Real { model: "tiny-embedding.gguf" };
    let gateway = traced(Gateway::builder().backend(backend), &collector).start_ready();
    let body =
        json!({"model": "m", "texts": ["one", "two"], "input_type": "search_query", "embedding_types": ["float"]});
    let answer = gateway.client().header("x-request-id", "cohere").post_json("/v2/embed", &body);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let spans = collector.request("cohere");
    assert_eq!(spans[0].name, "POST /v2/embed");
    assert!(spans.iter().any(|span| span.name == "embeddings tiny-embedding"), "{:?}", names(&spans));
    assert!(spans[1..].iter().all(|span| spans[0].has(span)), "{spans:?}");
}

#[test]
fn a_refused_request_is_traced_up_to_its_refusal() {
    let collector = Collector::start(&[]);
    let gateway = traced(Gateway::builder(), &collector).start_ready();
    let client = gateway.client_with("no-such-key-0123456789").header("x-request-id", "refused");
    assert_eq!(client.post_json(CHAT, &chat(json!({}))).status(), 401);
    let spans = collector.request("refused");
    assert_eq!(names(&spans)[1..], ["admission"]);
    assert_eq!(spans[0].text("error.type"), spans[1].text("error.type"));
    assert_ne!(spans[0].text("error.type"), "");
    assert!(!spans[0].has_failed, "the fault is the client's");
}

#[test]
fn a_collector_that_is_away_costs_nothing_but_a_counter() {
    let gateway = Gateway::builder()
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        .set("OTEL_EXPORTER_OTLP_TIMEOUT", 100)
        .set("OTEL_BSP_SCHEDULE_DELAY", 1)
        .start_ready();
    for _ in 0..3 {
        assert_eq!(gateway.client().post_json(CHAT, &chat(json!({}))).status(), 200);
    }
    eventually("the failure is counted", SOON, || metric(&gateway, "llamagate_trace_export_failures_total") >= 1.0);
    eventually("the spans are counted", SOON, || metric(&gateway, "llamagate_trace_spans_dropped_total") >= 9.0);
    let output = gateway.output();
    let warnings: Vec<_> =
        output.lines().filter(|line| line.contains("spans are not taken by the collector")).collect();
    assert_eq!(warnings.len(), 1, "{output}");
    assert!(warnings[0].contains("127.0.0.1"), "{}", warnings[0]);
}

#[test]
fn spans_for_which_there_is_no_room_are_counted() {
    let collector = Collector::start(&["0", "503"]);
    let gateway = traced(Gateway::builder(), &collector).set("OTEL_BSP_MAX_QUEUE_SIZE", 2).start_ready();
    assert_eq!(gateway.client().post_json(CHAT, &chat(json!({}))).status(), 200);
    eventually("the spans are counted", SOON, || metric(&gateway, "llamagate_trace_spans_dropped_total") >= 3.0);
    assert_eq!(metric(&gateway, "llamagate_trace_spans_exported_total"), 0.0);
}

#[test]
fn the_last_spans_are_sent_when_the_service_stops() {
    let collector = Collector::start(&[]);
    let mut gateway = traced(Gateway::builder(), &collector).set("OTEL_BSP_SCHEDULE_DELAY", 3_600_000).start_ready();
    assert_eq!(gateway.client().header("x-request-id", "last").post_json(CHAT, &chat(json!({}))).status(), 200);
    assert!(gateway.stop().success());
    assert!(collector.request("last").len() >= 4);
}

#[test]
fn exports_carry_the_headers_and_attributes_of_the_operator_and_the_secret_is_shown_nowhere() {
    let collector = Collector::start(&[]);
    let gateway = traced(Gateway::builder(), &collector)
        .set("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hidden%2Dsecret")
        .set("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        .set("OTEL_SERVICE_NAME", "gpu-1")
        .set("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=other")
        .start_ready();
    assert_eq!(gateway.client().header("x-request-id", "one").post_json(CHAT, &chat(json!({}))).status(), 200);
    collector.request("one");
    let export = &collector.exports()[0];
    assert_eq!((&export["path"], &export["headers"]["api-key"]), (&json!("/v1/traces"), &json!("hidden-secret")));
    assert_eq!((&export["headers"]["content-encoding"]), &json!("gzip"));
    let service = &export["service"][0];
    assert_eq!((&service["service.name"], &service["deployment.environment.name"]), (&json!("gpu-1"), &json!("test")));
    assert_eq!(service["service.version"], env!("CARGO_PKG_VERSION"));
    assert!(!gateway.output().contains("hidden"));
    let metrics = gateway.health().get("/metrics").text();
    assert!(!metrics.contains("hidden"));
}

/// Regression: the exporter read the compression from the environment, whatever a flag said.
#[test]
fn a_flag_wins_over_the_environment_for_the_compression() {
    for (variable, flag, coding) in
        [("gzip", "none", Value::Null), ("zstd", "none", Value::Null), ("none", "gzip", json!("gzip"))]
    {
        let collector = Collector::start(&[]);
        let gateway = traced(Gateway::builder(), &collector)
            .set("OTEL_EXPORTER_OTLP_COMPRESSION", variable)
            .argument(&format!("--otel-exporter-otlp-compression={flag}"))
            .start_ready();
        assert_eq!(gateway.client().header("x-request-id", "one").post_json(CHAT, &chat(json!({}))).status(), 200);
        collector.request("one");
        let headers = &collector.exports()[0]["headers"];
        assert_eq!(headers["content-encoding"], coding, "{variable}, {flag}: {headers}");
    }
}

#[test]
fn the_sampler_decides_and_the_worker_is_told() {
    let (remote, collector) = (Remote::start(Reply::Serve), Collector::start(&[]));
    let config = format!("model_list: [{{model_name: m, litellm_params: {{api_base: '{}'}}}}]", remote.url());
    let gateway = traced(Gateway::builder().fakes(&config, &[]), &collector)
        .set("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        .set("OTEL_TRACES_SAMPLER_ARG", "0")
        .start_ready();
    let ask = |id: &str, parent: &[(&str, String)]| {
        let client = gateway.client().header("x-request-id", id);
        let client = parent.iter().fold(client, |client, (name, value)| client.header(name, value));
        assert_eq!(client.post_json(CHAT, &chat(json!({"model": "m"}))).status(), 200);
        remote.received().last().unwrap().header("traceparent").unwrap().to_owned()
    };
    assert!(ask("unsampled", &[]).ends_with("-00"));
    assert!(ask("sampled", &[("traceparent", parent())]).ends_with("-01"));
    collector.request("sampled");
    let ids: Vec<_> = collector.spans().iter().map(|span| span.text("llamagate.request.id").to_owned()).collect();
    assert!(!ids.contains(&"unsampled".to_owned()), "{ids:?}");
    assert_eq!(access_log_line(&gateway, "unsampled")["trace"].len(), 32);
}

#[test]
fn without_a_collector_the_headers_go_on_unchanged_and_none_are_made() {
    let remote = Remote::start(Reply::Serve);
    let config = format!("model_list: [{{model_name: m, litellm_params: {{api_base: '{}'}}}}]", remote.url());
    let gateway = Gateway::builder().fakes(&config, &[]).start_ready();
    let own =
        gateway.client().header("traceparent", &parent()).header("tracestate", "a=1").header("x-request-id", "given");
    assert_eq!(own.post_json(CHAT, &chat(json!({"model": "m"}))).status(), 200);
    let none = gateway.client().header("x-request-id", "none");
    assert_eq!(none.post_json(CHAT, &chat(json!({"model": "m"}))).status(), 200);
    let received = remote.received();
    assert_eq!((received[0].header("traceparent"), received[0].header("tracestate")), (Some(&*parent()), Some("a=1")));
    assert_eq!((received[1].header("traceparent"), received[1].header("tracestate")), (None, None));
    assert_eq!(access_log_line(&gateway, "given")["trace"], TRACE);
    assert!(!access_log_line(&gateway, "none").contains_key("trace"));
}

#[test]
fn settings_that_would_have_no_effect_are_refused_by_name() {
    for (name, value, words) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "4318"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", "traceidratio"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "http://127.0.0.1:4318"),
    ] {
        let (status, output) = Gateway::builder().set(name, value).run_to_exit();
        assert!(!status.success() && output.contains(name) && output.contains(words), "{output}");
    }
    for (name, value) in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
        let collector = Collector::start(&[]);
        let mut gateway = traced(Gateway::builder(), &collector).set(name, value).start_ready();
        assert_eq!(gateway.client().post_json(CHAT, &chat(json!({}))).status(), 200);
        assert!(gateway.stop().success());
        assert!(collector.exports().is_empty(), "{name}");
    }
}
