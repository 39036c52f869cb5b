//! The trace of one request, while the request lives: its ids, and when each of its stages began and ended.

use std::time::Instant;

use http::{HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId};
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};

use super::bounds::MOST_STAGES;

/// W3C's header with the ids of trace and span.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// W3C's header with what other programs add to a trace.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A part of a request's journey that has a span of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageName {
    /// From the arrival up to the queue, or to the answer if nothing has to be waited for.
    Admission,
    /// The wait for a slot and a worker.
    Queue,
    /// The part of that wait in which the model was loading.
    Load,
    /// One attempt at a worker, up to the end of its answer.
    Attempt,
    /// The part of an attempt in which its answer streams.
    Stream,
}

/// The ids that a request to a worker carries.
#[derive(Debug, Clone)]
pub struct TraceIds {
    /// [`TRACEPARENT`]
    pub parent: HeaderValue,
    /// Whether the trace is that of the caller, whose [`TRACESTATE`] goes on then.
    pub is_continued: bool,
}

/// One stage.
#[derive(Debug, Clone)]
pub(super) struct RequestStage {
    pub(super) name: StageName,
    pub(super) id: SpanId,
    /// The stage that it is a part of; `None` for the request itself.
    pub(super) part_of: Option<SpanId>,
    pub(super) begun: Instant,
    /// `None` while it lasts.
    pub(super) ended: Option<Instant>,
    /// The id of the model, for the wait and the attempt.
    pub(super) model: Option<String>,
    /// The number of the worker, for an attempt.
    pub(super) worker: Option<u32>,
    /// The code of the refusal that it ended with.
    pub(super) failure: Option<&'static str>,
}

/// The trace of one request.
#[derive(Debug)]
pub struct RequestTrace {
    /// The ids of the request's own span.
    pub(super) context: SpanContext,
    /// Those of the span of the caller; not valid if the caller has none.
    pub(super) parent: SpanContext,
    /// Whether spans are made; if not, the caller's ids go on unchanged.
    is_on: bool,
    pub(super) stages: Vec<RequestStage>,
}

impl RequestTrace {
    /// Returns the trace of a request whose caller has this one, where no spans are made.
    pub(super) fn of_caller(parent: SpanContext) -> Self {
        Self { context: parent.clone(), parent, is_on: false, stages: Vec::new() }
    }

    /// Returns the trace of a request that begins now.
    pub(super) fn begin(context: SpanContext, parent: SpanContext) -> Self {
        let mut trace = Self { context, parent, is_on: true, stages: Vec::new() };
        trace.enter(StageName::Admission, None);
        trace
    }

    /// Returns the trace of a call that is made for this request. [`RequestTrace::take_over`] adds what it records.
    pub fn for_call(&self) -> Self {
        Self { context: self.context.clone(), parent: self.parent.clone(), is_on: self.is_on, stages: Vec::new() }
    }

    /// Adds the stages of a call.
    pub fn take_over(&mut self, mut call: Self) {
        call.end_stage(None);
        self.end_stage(None);
        let room = MOST_STAGES.saturating_sub(self.stages.len());
        self.stages.extend(call.stages.into_iter().take(room));
    }

    /// Returns the id of the trace.
    pub fn trace_id(&self) -> String {
        self.context.trace_id().to_string()
    }

    /// Whether spans are recorded.
    pub fn is_recorded(&self) -> bool {
        self.is_on && self.context.is_sampled()
    }

    /// Begins a stage now, which ends the one before it.
    pub fn enter(&mut self, name: StageName, model: Option<&str>) {
        self.end_stage(None);
        self.push(name, None, Instant::now(), model);
    }

    /// Begins an attempt at a worker now. Up to `ready_at`, when the worker had loaded its model, the request has waited for
    /// that.
    pub fn enter_attempt(&mut self, model: &str, worker: u32, ready_at: Option<Instant>) {
        if let (Some(ready_at), Some(wait)) = (ready_at, self.current().filter(|stage| stage.name == StageName::Queue))
            && ready_at > wait.begun
        {
            let (begun, part_of) = (wait.begun, wait.id);
            self.end_stage(None);
            self.push(StageName::Load, Some(part_of), begun, Some(model));
            if let Some(load) = self.current_mut() {
                load.ended = Some(ready_at.min(Instant::now()));
            }
        }
        self.enter(StageName::Attempt, Some(model));
        if let Some(attempt) = self.current_mut() {
            attempt.worker = Some(worker);
        }
    }

    /// Ends the stage that lasts, if one does, with the code of the refusal that ended it.
    pub fn end_stage(&mut self, failure: Option<&'static str>) {
        if let Some(stage) = self.current_mut() {
            stage.ended = Some(Instant::now());
            stage.failure = failure;
        }
    }

    /// Records that the answer of the attempt that lasts has streamed since `begun`, and ends both now with this code.
    pub fn record_stream(&mut self, begun: Instant, failure: Option<&'static str>) {
        if let Some((id, model)) = self.current().map(|attempt| (attempt.id, attempt.model.clone())) {
            self.end_stage(failure);
            self.push(StageName::Stream, Some(id), begun, model.as_deref());
            self.end_stage(failure);
        }
    }

    /// Returns the ids that a request to a worker carries: the stage that lasts is the caller of what happens there. `None`
    /// if no spans are made.
    pub fn ids(&self) -> Option<TraceIds> {
        if !self.is_on {
            return None;
        }
        let span = self.current().map_or_else(|| self.context.span_id(), |stage| stage.id);
        let flags = self.context.trace_flags().to_u8();
        let ids = format!("00-{}-{span}-{flags:02x}", self.context.trace_id());
        Some(TraceIds { parent: HeaderValue::try_from(ids).ok()?, is_continued: self.parent.is_valid() })
    }

    fn push(&mut self, name: StageName, part_of: Option<SpanId>, begun: Instant, model: Option<&str>) {
        if !self.is_recorded() || self.stages.len() >= MOST_STAGES {
            return;
        }
        let id = RandomIdGenerator::default().new_span_id();
        let model = model.map(str::to_owned);
        self.stages.push(RequestStage { name, id, part_of, begun, ended: None, model, worker: None, failure: None });
    }

    fn current(&self) -> Option<&RequestStage> {
        self.stages.last().filter(|stage| stage.ended.is_none())
    }

    fn current_mut(&mut self) -> Option<&mut RequestStage> {
        self.stages.last_mut().filter(|stage| stage.ended.is_none())
    }
}

impl StageName {
    /// Returns the name of the span.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Queue => "queue",
            Self::Load => "load",
            Self::Attempt => "attempt",
            Self::Stream => "stream",
        }
    }
}
