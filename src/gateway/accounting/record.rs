//! The record of one request: opened when the request arrives, closed when the record is dropped.
//!
//! Every end of a request (its last byte, a refusal, a client that disconnects, a panic) drops the record, and the drop
//! writes the access-log line and the metrics. There is no explicit close, so no path can forget it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode};

use super::activity::ActivityGuard;
use super::recent_acts::RecentActs;
use super::slot_use::{HeldSlot, SlotUse};
use super::usage::{TokenCounter, TokenCounts};
use super::verdict::Verdict;
use crate::boxed::boxed;
use crate::fleet::{Member, WorkerKind};
use crate::gateway::admission::budget::reservation::BudgetReservation;
use crate::gateway::admission::rate::Meter;
use crate::gateway::content_kind::ContentKind;
use crate::gateway::routes::route::Route;
use crate::ledger::UsageLedger;
use crate::pause_clock;
use crate::refusal::{QUEUE_FULL, Refusal};
use crate::telemetry::access::{AccessEntry, AccessLog};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::series::{KeySeries, ModelSeries, OTHER};
use crate::traces::{RequestTrace, Tracer};

/// The outputs that records are written to when they close.
pub struct Accounting {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The access log.
    pub access: AccessLog,
    /// The usage ledger.
    pub ledger: UsageLedger,
    /// The last acts of administrators.
    pub acts: RecentActs,
    /// The spans of requests.
    pub tracer: Tracer,
}

/// The logged status of a request whose client disconnected before a response began, as in nginx.
const CLIENT_CLOSED: u16 = 499;

/// The code of such a request, and of one whose client left before its end.
pub(super) const CLIENT_LEFT: &str = "client_closed";

/// What is known about a request so far. Boxed, because it moves through every stage of the pipeline.
pub(crate) struct Record(Box<RecordData>);

/// The contents of a [`Record`].
pub(crate) struct RecordData {
    pub(super) accounting: Arc<Accounting>,
    pub(super) time: jiff::Timestamp,
    pub(super) started: Instant,
    pub(super) request_id: HeaderValue,
    pub(super) method: http::Method,
    pub(super) path: Cow<'static, str>,
    /// The trace that the request belongs to, if it does to one.
    pub(super) trace: Option<Box<RequestTrace>>,
    /// The address of the client, if it is known.
    pub(crate) client: Option<IpAddr>,
    /// As whom the certificate of the client shows it, if it has shown one.
    pub(crate) certificate: Option<Arc<str>>,
    /// The path in the route table, once the request is matched.
    pub(crate) route: Option<&'static str>,
    /// Whether the request is for llama-server; only those count in the `gateway_` metrics.
    pub(crate) counted: bool,
    /// Whether a worker would serve it; only those count as usage.
    pub(crate) is_for_worker: bool,
    pub(super) key: Option<Arc<KeySeries>>,
    /// The person behind the key.
    pub(crate) person: Option<Arc<str>>,
    pub(super) model: Option<Arc<ModelSeries>>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) code: Option<&'static str>,
    /// Bytes of the request body that were read.
    pub(crate) bytes_in: u64,
    /// Bytes of the response body that were sent.
    pub(super) bytes_out: u64,
    /// Time spent in queues, once the request holds a slot.
    pub(crate) queued: Option<Duration>,
    pub(super) slots: SlotUse,
    /// Time from the arrival to the first byte of the response body.
    pub(super) first_byte: Option<Duration>,
    /// Whether the response was sent to its end.
    pub(crate) complete: bool,
    /// Counts the tokens of llama-server's response.
    pub(super) token_counter: Option<Box<TokenCounter>>,
    /// Whether the worker may not report its tokens, as llama-server does.
    pub(super) is_foreign: bool,
    /// Whether the response is text that has been generated.
    pub(super) is_generated: bool,
    /// The length of the text in a stream of such a server.
    pub(crate) streamed_text: u64,
    /// When the last piece with text arrived.
    pub(super) last_text_at: Option<Instant>,
    /// The act of an administrator that the request is.
    pub(super) act: Option<Box<NamedAct>>,
    /// The meter of the caller's key, charged for the tokens.
    pub(crate) meter: Option<Meter>,
    /// What the request may use of the budgets of its key, until it ends.
    pub(crate) reservation: Option<BudgetReservation>,
    /// The worker that serves the request, charged for the tokens.
    pub(crate) worker: Option<Arc<Member>>,
    /// The `x-llamagate-*` headers of the last failed attempt, for an error response that follows from it.
    pub(crate) failure_headers: Option<Box<HeaderMap>>,
    /// Keeps the service in use while the record lives.
    pub(crate) activity_guard: Option<ActivityGuard>,
    /// Where it is said how the answer has ended, if others share it.
    pub(crate) verdict: Option<Arc<Verdict>>,
    /// Whether the worker has sent an error as an event of its stream.
    pub(crate) has_error_event: bool,
    /// What the worker calls of a translated request have reported.
    pub(super) calls: Option<Arc<Mutex<CallTotals>>>,
    /// Whether this is the record of one such call, which reports to `calls` and writes nothing.
    pub(super) is_call: bool,
}

/// What an administrator asks for.
pub(super) struct NamedAct {
    pub(super) route: &'static Route,
    pub(super) target: String,
}

/// The sums over the worker calls of one translated request.
#[derive(Default)]
pub(super) struct CallTotals {
    tokens: TokenCounts,
    /// The tokens to charge.
    pub(super) spent: u64,
    model: Option<Arc<ModelSeries>>,
    slots: SlotUse,
    /// The longest wait of a call.
    queued: Option<Duration>,
    /// The headers that name the worker of the last call that failed.
    failure_headers: Option<Box<HeaderMap>>,
    /// The stages of the calls that have ended, if they are recorded.
    pub(super) trace: Option<Box<RequestTrace>>,
}

impl Record {
    /// Opens the record of a request that arrives now, which is `time` on the wall clock.
    pub(crate) fn open(
        accounting: Arc<Accounting>,
        time: jiff::Timestamp,
        request_id: HeaderValue,
        method: http::Method,
        path: Cow<'static, str>,
    ) -> Self {
        Self(boxed(|| RecordData {
            accounting,
            time,
            started: pause_clock::fresh_kernel_now().into_std(),
            request_id,
            method,
            path,
            trace: None,
            client: None,
            certificate: None,
            route: None,
            counted: false,
            is_for_worker: false,
            key: None,
            person: None,
            model: None,
            status: None,
            code: None,
            bytes_in: 0,
            bytes_out: 0,
            queued: None,
            slots: SlotUse::default(),
            first_byte: None,
            complete: false,
            token_counter: None,
            is_foreign: false,
            is_generated: false,
            streamed_text: 0,
            last_text_at: None,
            act: None,
            meter: None,
            reservation: None,
            worker: None,
            failure_headers: None,
            activity_guard: None,
            verdict: None,
            has_error_event: false,
            calls: None,
            is_call: false,
        }))
    }

    /// Makes this the record of a translated request, which is served by calls.
    pub(crate) fn begin_calls(&mut self) {
        self.calls = Some(Arc::default());
    }

    /// Opens the record of a call to a worker that is made for this request. It adds what it counts to this one.
    pub(crate) fn open_call(&self) -> Self {
        let (accounting, id) = (Arc::clone(&self.accounting), self.request_id.clone());
        let mut call = Self::open(accounting, self.time, id, self.method.clone(), Cow::Borrowed(""));
        (call.calls, call.is_call) = (self.calls.clone(), true);
        call.trace = self.trace.as_deref().map(|trace| Box::new(trace.for_call()));
        call
    }
}

impl Deref for Record {
    type Target = RecordData;

    fn deref(&self) -> &RecordData {
        &self.0
    }
}

impl DerefMut for Record {
    fn deref_mut(&mut self) -> &mut RecordData {
        &mut self.0
    }
}

impl RecordData {
    /// Returns when the request arrived, on the wall clock.
    pub(crate) fn arrived(&self) -> jiff::Timestamp {
        self.time
    }

    /// Records the id of the caller's key.
    pub(crate) fn set_key(&mut self, key_id: Option<&str>) {
        self.key = key_id.map(|id| self.accounting.metrics.key(id));
    }

    /// Records the configured model that the request is for.
    pub(crate) fn set_model(&mut self, model: &str) {
        // Several stages say which one it is, and mostly the same.
        if self.model() != Some(model) {
            self.model = Some(self.accounting.metrics.model(model));
        }
    }

    /// Returns the id of the configured model that the request is for, once it is known.
    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_deref().map(|model| model.id.as_str()).filter(|id| *id != OTHER)
    }

    /// Records that this is the act of an administrator, who may do it. `target` is what the path names.
    pub(crate) fn begin_act(&mut self, route: &'static Route, target: String) {
        self.act = Some(Box::new(NamedAct { route, target }));
    }

    /// Records what the act is meant for, if the request is one.
    pub(crate) fn set_act_target(&mut self, target: &str) {
        if let Some(act) = &mut self.act {
            target.clone_into(&mut act.target);
        }
    }

    /// Records that the request holds a slot.
    pub(crate) fn begin_slot(&mut self, slot: HeldSlot) {
        self.slots.begin(slot);
    }

    /// Records that the request holds no slot any more.
    pub(crate) fn end_slot(&mut self) {
        self.slots.end();
    }

    /// Records that a worker of this kind responds, and starts to count tokens if the response can have some.
    pub(crate) fn set_response(&mut self, status: StatusCode, route: &Route, kind: ContentKind, worker: WorkerKind) {
        self.status = Some(status);
        self.is_foreign = route.needs_slot && worker != WorkerKind::Local;
        self.is_generated = route.may_stream;
        self.token_counter = match kind {
            _ if !route.is_post() || !status.is_success() => None,
            ContentKind::Stream if worker == WorkerKind::Local => {
                Some(Box::new(TokenCounter::for_stream(route.stream_end)))
            }
            ContentKind::Stream => Some(Box::new(TokenCounter::for_foreign_stream(route.stream_end))),
            ContentKind::Json => Some(boxed(TokenCounter::for_json)),
            ContentKind::Other => None,
        };
    }

    /// Returns the counter of the response's tokens, if they are counted.
    pub(crate) fn token_counter(&mut self) -> Option<&mut TokenCounter> {
        self.token_counter.as_deref_mut()
    }

    /// Records that an event with text arrived at `now`.
    pub(crate) fn record_text(&mut self, now: Instant) {
        // The first one has no gap before it.
        if let Some(before) = self.last_text_at.replace(now)
            && let Some(model) = &self.model
        {
            model.inter_token.observe(now.saturating_duration_since(before).as_secs_f64());
        }
    }

    /// Whether this is a HEAD request.
    pub(crate) fn is_head_request(&self) -> bool {
        self.method == http::Method::HEAD
    }

    /// Adds bytes of the response body that are being sent.
    pub(crate) fn add_bytes_out(&mut self, bytes: usize) {
        if self.first_byte.is_none() && bytes > 0 {
            self.first_byte = Some(self.elapsed());
        }
        self.bytes_out += bytes as u64;
    }

    /// Returns the time since the request arrived. Many requests are answered in the poll in which they arrive, so the clock
    /// is read.
    fn elapsed(&self) -> Duration {
        pause_clock::fresh_kernel_now().into_std().saturating_duration_since(self.started)
    }
}

impl Drop for RecordData {
    fn drop(&mut self) {
        // This feature is for the benchmark alone: it shows what metrics and access log cost.
        if cfg!(feature = "bare") {
            return;
        }
        self.end_slot();
        if self.is_call {
            return self.report_call();
        }
        self.take_calls();
        let total = self.elapsed();
        let status = self.status.map_or(CLIENT_CLOSED, |status| status.as_u16());
        // Neither finished nor refused: the client disconnected.
        if !self.complete && self.code.is_none() {
            self.code = Some(CLIENT_LEFT);
        }
        if let Some(verdict) = &self.verdict {
            verdict.close(self.code.or(self.has_error_event.then(|| Refusal::BackendError.code())));
        }
        let tokens = self.tokens();
        self.update_metrics(status, total, tokens);
        let spent = self.spent_tokens(tokens);
        self.charge_tokens(tokens, spent);
        let key_id = self.key.as_deref().map(|key| &*key.id);
        let shown = |person: &Arc<str>| self.accounting.access.shown_person(key_id.unwrap_or_default(), person);
        let person = self.person.as_ref().map(shown);
        let trace_id = self.trace.as_deref().map(RequestTrace::trace_id);
        self.accounting.access.write(&AccessEntry {
            time: self.time,
            request_id: self.request_id.to_str().unwrap_or_default(),
            key_id,
            method: self.method.as_str(),
            path: &self.path,
            client: self.client,
            person: person.as_deref(),
            trace_id: trace_id.as_deref(),
            certificate: self.certificate.as_deref(),
            model: self.model.as_deref().map(|model| model.id.as_str()),
            status,
            code: self.code,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            queue_ms: self.queued.map(Into::into),
            ttfb_ms: self.first_byte.map(Into::into),
            total_ms: total.into(),
            prompt_tokens: tokens.prompt,
            completion_tokens: tokens.completion,
        });
        self.finish_trace(tokens, status, total);
        self.record_usage(tokens, spent, status);
        self.record_act(status);
    }
}

impl RecordData {
    /// Adds what this call has counted to the record of its request. The quota of its worker is charged here, because the
    /// calls of one request may be served by several.
    fn report_call(&mut self) {
        self.report_trace();
        let Some(calls) = self.calls.take() else { return };
        let tokens = self.tokens();
        let spent = self.spent_tokens(tokens);
        if let Some(worker) = &self.worker {
            worker.spend(spent);
        }
        let mut totals = calls.lock().unwrap_or_else(PoisonError::into_inner);
        totals.tokens.add(tokens);
        totals.spent = totals.spent.saturating_add(spent);
        totals.slots.add(self.slots);
        totals.model = self.model.take().or(totals.model.take());
        totals.queued = totals.queued.max(self.queued);
        totals.failure_headers = self.failure_headers.take().or(totals.failure_headers.take());
    }

    /// Takes over what the calls of this request have reported.
    pub(crate) fn take_calls(&mut self) {
        self.take_traces();
        let Some(calls) = &self.calls else { return };
        let mut totals = calls.lock().unwrap_or_else(PoisonError::into_inner);
        self.slots.add(std::mem::take(&mut totals.slots));
        self.model = totals.model.take().or(self.model.take());
        self.queued = totals.queued.or(self.queued);
        self.failure_headers = totals.failure_headers.take().or(self.failure_headers.take());
    }

    /// Adds the tokens that were read from the answer to a call, which reports none itself.
    pub(crate) fn add_call_tokens(&self, prompt: u64) {
        let Some(calls) = &self.calls else { return };
        let mut totals = calls.lock().unwrap_or_else(PoisonError::into_inner);
        totals.tokens.add(TokenCounts { prompt: Some(prompt), ..TokenCounts::default() });
        totals.spent = totals.spent.saturating_add(prompt);
    }

    /// Returns the tokens of the response, or of the responses to all calls.
    fn tokens(&self) -> TokenCounts {
        match (&self.calls, self.is_call) {
            (Some(calls), false) => calls.lock().unwrap_or_else(PoisonError::into_inner).tokens,
            _ => self.token_counter.as_deref().map(TokenCounter::counts).unwrap_or_default(),
        }
    }

    fn update_metrics(&self, status: u16, total: Duration, tokens: TokenCounts) {
        let metrics = &self.accounting.metrics;
        let route = self.route.unwrap_or(OTHER);
        if let Some(code) = self.code {
            metrics.count_refusal(code);
            // Counted here and not in the queue: after a full queue, another model may have served the request.
            if code == QUEUE_FULL {
                metrics.queue_rejections.inc();
            }
        }
        if status == 401 || status == 403 {
            metrics.unauthorized.inc();
        }
        metrics.count_request(self.model.as_deref(), route, status);
        if let Some(key) = &self.key {
            metrics.count_key(key, status);
        }
        if !self.counted {
            return;
        }
        metrics.requests.inc();
        let is_success = status < 400 && self.code.is_none();
        if is_success {
            metrics.success.inc()
        } else {
            metrics.error.inc()
        };
        metrics.bytes_sent.inc_by(self.bytes_out);
        // The histograms cover only requests that were granted a slot; the others would distort them.
        let (Some(queued), Some(series)) = (self.queued, &self.model) else { return };
        series.queue.observe(queued.as_secs_f64());
        if let Some(first_byte) = self.first_byte {
            series.first_byte.observe(first_byte.as_secs_f64());
            // An answer that is no stream is made before its first byte is sent.
            let began = if self.last_text_at.is_some() { first_byte } else { queued };
            metrics.recent_work.add(self.started, began..total, first_byte, tokens.completion.unwrap_or(0));
        }
        metrics.observe_request(series, route, total);
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
