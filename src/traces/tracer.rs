//! Begins traces, and takes them when they are finished.

use std::sync::Arc;

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, SpanKind, TraceContextExt as _, TraceFlags};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator, Sampler, SamplingDecision, ShouldSample as _};

use super::request_trace::{RequestTrace, TRACEPARENT, TRACESTATE};
use super::span_queue::SpanQueue;
use super::span_table::{TracedRequest, spans};

/// Decides which requests are traced.
#[derive(Default)]
pub struct Tracer(Option<Recording>);

/// Where spans go.
struct Recording {
    sampler: Sampler,
    queue: Arc<SpanQueue>,
}

impl Tracer {
    /// Creates a tracer that gives the spans of the requests that this sampler chooses to a queue.
    pub(super) fn new(sampler: Sampler, queue: Arc<SpanQueue>) -> Self {
        Self(Some(Recording { sampler, queue }))
    }

    /// Begins the trace of a request with these headers; `None` if it belongs to none.
    pub fn begin(&self, headers: &HeaderMap) -> Option<Box<RequestTrace>> {
        // Made once. Few callers tell a trace, and to look its name up would hash it, which costs more than to compare it.
        let name = TRACEPARENT;
        match &self.0 {
            None if !headers.keys().any(|found| *found == name) => None,
            None => {
                let parent = parent_of(headers);
                parent.is_valid().then(|| Box::new(RequestTrace::of_caller(parent)))
            }
            Some(recording) => Some(Box::new(recording.begin(headers))),
        }
    }

    /// Takes the trace of a request that has ended.
    pub fn finish(&self, trace: RequestTrace, request: &TracedRequest<'_>) {
        if let Some(recording) = self.0.as_ref().filter(|_| trace.is_recorded()) {
            recording.queue.add(spans(trace, request));
        }
    }
}

impl Recording {
    fn begin(&self, headers: &HeaderMap) -> RequestTrace {
        let parent = parent_of(headers);
        let ids = RandomIdGenerator::default();
        let trace_id = if parent.is_valid() { parent.trace_id() } else { ids.new_trace_id() };
        let context = parent.is_valid().then(|| Context::new().with_remote_span_context(parent.clone()));
        let sampled = self.sampler.should_sample(context.as_ref(), trace_id, "", &SpanKind::Server, &[], &[]);
        let is_sampled = sampled.decision == SamplingDecision::RecordAndSample;
        let flags = TraceFlags::default().with_sampled(is_sampled);
        let state = parent.trace_state().clone();
        RequestTrace::begin(SpanContext::new(trace_id, ids.new_span_id(), flags, false, state), parent)
    }
}

/// For fuzzing.
#[cfg(feature = "test-support")]
impl Tracer {
    /// Creates a tracer that records each request, and exports nothing.
    pub(crate) fn recording_all() -> Self {
        let metrics = Arc::new(crate::telemetry::metrics::Metrics::new("test"));
        Self::new(Sampler::AlwaysOn, Arc::new(SpanQueue::new(1, 1, metrics)))
    }
}

/// Returns the ids of the caller's span; not valid if the headers name none, or are not as W3C writes them.
fn parent_of(headers: &HeaderMap) -> SpanContext {
    // The propagator also takes ids that are too short, and a version in capital letters.
    if !headers.get(TRACEPARENT).is_some_and(|ids| is_well_formed(ids.as_bytes())) {
        return SpanContext::empty_context();
    }
    let headers = W3cHeaders { headers, state: state_of(headers) };
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &headers);
    context.span().span_context().clone()
}

/// The headers of a request as the propagator reads them.
struct W3cHeaders<'a> {
    headers: &'a HeaderMap,
    state: Option<String>,
}

impl Extractor for W3cHeaders<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            _ if key == TRACESTATE.as_str() => self.state.as_deref(),
            key => self.headers.get(key)?.to_str().ok(),
        }
    }

    fn keys(&self) -> Vec<&str> {
        self.headers.keys().map(http::HeaderName::as_str).collect()
    }
}

/// Returns the members of all lines of [`TRACESTATE`], in their order (W3C's Trace Context, section 3.3). `None` if there is no
/// line, or one that is no text: such a list is dropped as a whole.
fn state_of(headers: &HeaderMap) -> Option<String> {
    let lines: Option<Vec<&str>> = headers.get_all(TRACESTATE).iter().map(|line| line.to_str().ok()).collect();
    // An empty line is allowed, and has no member.
    let lines = lines?.into_iter().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>();
    (!lines.is_empty()).then(|| lines.join(","))
}

/// Whether version, trace, span and flags are hexadecimal digits in small letters, of their lengths. A later version may have
/// more after them.
fn is_well_formed(ids: &[u8]) -> bool {
    let is_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = ids.split(|byte| *byte == b'-');
    let are_hex =
        [2, 32, 16, 2].into_iter().all(|length| parts.next().is_some_and(|part| part.len() == length && is_hex(part)));
    are_hex && (parts.next().is_none() || !ids.starts_with(b"00"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::metrics::Metrics;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(parent: &str) -> HeaderMap {
        HeaderMap::from_iter([
            (TRACEPARENT, HeaderValue::from_str(parent).unwrap()),
            ("tracestate".parse().unwrap(), HeaderValue::from_static("vendor=a,other=b")),
        ])
    }

    fn tracer(sampler: Sampler) -> Tracer {
        Tracer::new(sampler, Arc::new(SpanQueue::new(16, 4, Arc::new(Metrics::new("test")))))
    }

    #[test]
    fn without_a_collector_only_the_trace_of_the_caller_is_known() {
        let tracer = Tracer::default();
        assert!(tracer.begin(&HeaderMap::new()).is_none());
        let trace = tracer.begin(&headers(PARENT)).unwrap();
        assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(trace.ids().is_none(), "the caller's go on");
        assert!(!trace.is_recorded());
    }

    #[test]
    fn a_request_continues_the_trace_of_its_caller() {
        let trace = tracer(Sampler::AlwaysOn).begin(&headers(PARENT)).unwrap();
        let ids = trace.ids().unwrap();
        let parent = ids.parent.to_str().unwrap();
        assert!(parent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && parent.ends_with("-01"), "{parent}");
        assert_ne!(parent, PARENT);
        assert!(ids.is_continued);
    }

    /// Regression: only the first line went on to the collector.
    #[test]
    fn the_members_of_all_lines_of_tracestate_are_kept_in_their_order() {
        let state_after = |lines: &[&[u8]]| {
            let mut headers = headers(PARENT);
            headers.remove(TRACESTATE);
            for line in lines {
                headers.append(TRACESTATE, HeaderValue::from_bytes(line).unwrap());
            }
            tracer(Sampler::AlwaysOn).begin(&headers).unwrap().context.trace_state().header()
        };
        assert_eq!(state_after(&[b"vendor=a,other=b", b"third=c"]), "vendor=a,other=b,third=c");
        assert_eq!(state_after(&[b"vendor=a", b"", b" ", b"other=b"]), "vendor=a,other=b");
        assert_eq!(state_after(&[b"vendor=a", b"other=\xff"]), "", "no text");
        assert_eq!(state_after(&[]), "");
    }

    #[test]
    fn the_decision_of_the_caller_holds_where_the_sampler_says_so() {
        let not_sampled = PARENT.replace("-01", "-00");
        let by_parent = |root| Sampler::ParentBased(Box::new(root));
        for (sampler, parent, is_sampled) in [
            (Sampler::AlwaysOn, Some(not_sampled.as_str()), true),
            (by_parent(Sampler::AlwaysOn), Some(not_sampled.as_str()), false),
            (by_parent(Sampler::AlwaysOff), Some(PARENT), true),
            (by_parent(Sampler::AlwaysOff), None, false),
            (by_parent(Sampler::AlwaysOn), None, true),
            (Sampler::AlwaysOff, Some(PARENT), false),
        ] {
            let headers = parent.map(headers).unwrap_or_default();
            let trace = tracer(sampler).begin(&headers).unwrap();
            assert_eq!(trace.is_recorded(), is_sampled, "{parent:?}");
            let flags = if is_sampled { "-01" } else { "-00" };
            assert!(trace.ids().unwrap().parent.to_str().unwrap().ends_with(flags));
        }
    }

    #[test]
    fn ids_that_are_not_as_the_standard_writes_them_are_no_parent() {
        for text in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            // Found by fuzzing: its version was read without a look at its case.
            "Cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00F067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0A",
            "+0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(Tracer::default().begin(&headers(text)).is_none(), "{text}");
            let trace = tracer(Sampler::AlwaysOn).begin(&headers(text)).unwrap();
            assert_ne!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        }
    }

    proptest! {
        #[test]
        fn any_headers_are_taken(parent in "[ -~]{0,70}", state in "[ -~]{0,600}") {
            let mut headers = headers(&parent);
            headers.insert("tracestate", HeaderValue::from_str(&state).unwrap());
            let trace = tracer(Sampler::AlwaysOn).begin(&headers).unwrap();
            prop_assert_eq!(trace.ids().unwrap().parent.len(), 55);
        }
    }
}
