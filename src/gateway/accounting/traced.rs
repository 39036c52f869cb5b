//! The trace of a request: which stage its record says it is in, and its spans when the record closes.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::HeaderMap;

use super::record::{Record, RecordData};
use super::usage::{TokenCounter, TokenCounts};
use crate::fleet::Lease;
use crate::traces::{RequestTrace, StageName, TraceIds, TracedRequest};

impl Record {
    /// Begins the trace of a request with these headers, if it belongs to one.
    pub(crate) fn begin_trace(&mut self, headers: &HeaderMap) {
        let trace = self.accounting.tracer.begin(headers);
        self.trace = trace;
    }
}

impl RecordData {
    /// Records that the request waits for its model from now on.
    pub(crate) fn begin_wait(&mut self) {
        if let Some(trace) = &mut self.trace {
            trace.enter(StageName::Queue, self.model.as_deref().map(|model| model.id.as_str()));
        }
    }

    /// Records that an attempt at the leased worker begins now.
    pub(crate) fn begin_attempt(&mut self, lease: &Lease) {
        if let Some(trace) = &mut self.trace {
            let model = self.model.as_deref().map_or("", |model| model.id.as_str());
            trace.enter_attempt(model, lease.member().number, lease.endpoint().ready_at());
        }
    }

    /// Records that the attempt has failed with this code.
    pub(crate) fn fail_attempt(&mut self, code: &'static str) {
        if let Some(trace) = &mut self.trace {
            trace.end_stage(Some(code));
        }
    }

    /// Returns the ids that a request to a worker carries in place of the client's; `None` if those go on.
    pub(crate) fn trace_ids(&self) -> Option<TraceIds> {
        self.trace.as_deref().and_then(RequestTrace::ids)
    }

    /// Ends the trace of a call, and gives it to the request that it was made for.
    pub(super) fn report_trace(&mut self) {
        let Some(mut trace) = self.trace.take().filter(|trace| trace.is_recorded()) else { return };
        let Some(calls) = &self.calls else { return };
        let mut totals = calls.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut totals.trace {
            Some(before) => before.take_over(*trace),
            None => {
                trace.end_stage(None);
                totals.trace = Some(trace);
            }
        }
    }

    /// Takes over the stages of the calls of this request.
    pub(super) fn take_traces(&mut self) {
        if let (Some(trace), Some(calls)) = (&mut self.trace, &self.calls)
            && let Some(of_calls) = calls.lock().unwrap_or_else(PoisonError::into_inner).trace.take()
        {
            trace.take_over(*of_calls);
        }
    }

    /// Makes the spans of the request.
    pub(super) fn finish_trace(&mut self, tokens: TokenCounts, status: u16, total: Duration) {
        let Some(mut trace) = self.trace.take().filter(|trace| trace.is_recorded()) else { return };
        let is_stream = self.token_counter.as_deref().is_some_and(TokenCounter::is_stream);
        if let Some(first_byte) = self.first_byte.filter(|_| is_stream) {
            trace.record_stream(self.started + first_byte, self.code);
        }
        let accounting = Arc::clone(&self.accounting);
        let request = TracedRequest {
            arrived: self.time.into(),
            started: self.started,
            total,
            method: self.method.as_str(),
            path: &self.path,
            route: self.route,
            status,
            code: self.code,
            client: self.client,
            request_id: self.request_id.to_str().unwrap_or_default(),
            key_id: self.key.as_deref().map(|key| &*key.id),
            model: self.model.as_deref().map(|model| model.id.as_str()),
            first_byte: self.first_byte,
            prompt_tokens: tokens.prompt,
            cached_tokens: tokens.cached,
            completion_tokens: tokens.completion,
        };
        accounting.tracer.finish(*trace, &request);
    }
}
