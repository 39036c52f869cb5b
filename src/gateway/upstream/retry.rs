//! Retries and fallbacks: how often a request is tried, and where next, at another worker of its model or another
//! model.
//!
//! A request that a worker may have begun to process is retried only if its route is idempotent. After a failed local
//! worker, which the request may have killed, it is retried once. No attempt begins after `REQUEST_TIMEOUT`, which
//! counts from the first attempt. A request whose model gets new workers in a reload goes on there.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use getrandom::u32 as random;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::fleet::{Fingerprint, Member, Model, ModelInfo, Unavailable, WorkerKind};
use crate::gateway::accounting::record::Record;
use crate::gateway::admission::auth::Caller;
use crate::gateway::admission::rate;
use crate::gateway::bounds::{RETRY_AFTER_UNKNOWN, RETRY_PAUSE_FIRST};
use crate::gateway::queue::ModelQueue;
use crate::gateway::queue::model_queues::{ModelQueues, Snapshot};
use crate::gateway::queue::ticket::{Moved, QueueEntry, Ticket};
use crate::gateway::queue::unavailable::refusal_of;
use crate::gateway::queue::wait::LeaseWait;
use crate::gateway::request::proxied_request::{ProxiedRequest, RequestReaders};
use crate::gateway::routes::route::Route;
use crate::models::ModelKind;
use crate::pause_clock::{self, ActiveInstant};
use crate::refusal::{Refusal, Shape};
use crate::settings::options::Settings;
use crate::short_value::number_value;

/// The id of the model that answered or failed.
pub(crate) const X_LLAMAGATE_MODEL: HeaderName = HeaderName::from_static("x-llamagate-model");
/// The number of the worker that answered or failed.
pub(crate) const X_LLAMAGATE_WORKER: HeaderName = HeaderName::from_static("x-llamagate-worker");
/// How many attempts were made.
pub(crate) const X_LLAMAGATE_ATTEMPTS: HeaderName = HeaderName::from_static("x-llamagate-attempts");

/// The settings for retries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryPolicy {
    /// `NUM_RETRIES`
    max_retries: u32,
    /// `RETRY_DELAY`
    longest_pause: Duration,
    /// `REQUEST_TIMEOUT`
    request_timeout: Duration,
}

/// The attempts of one request.
pub(crate) struct Retry {
    policy: RetryPolicy,
    route: &'static Route,
    required_kind: Option<ModelKind>,
    readers: RequestReaders,
    model_queues: Arc<ModelQueues>,
    model_queue: Arc<ModelQueue>,
    /// The adapter of this model that the request gets.
    adapter: Option<String>,
    /// Whether a fallback may be an adapter of a model.
    may_take_adapter: bool,
    /// Names of the models to fall back to, in their configured order.
    fallbacks: VecDeque<String>,
    /// Numbers of the workers of this model that have failed.
    failed_workers: Vec<u32>,
    /// Numbers of the workers of this model whose API has nothing for this request.
    unfit_workers: Vec<u32>,
    attempts: u32,
    /// The number of the worker of the last attempt.
    worker: u32,
    /// Whether that worker is a remote backend.
    is_remote: bool,
    /// Whether a local worker has failed that may have begun to process the request, and may have died of it.
    is_suspected: bool,
    /// When `REQUEST_TIMEOUT` ends; `None` before the first attempt.
    deadline: Option<ActiveInstant>,
    /// The same for all calls of a translated request.
    shared_deadline: Option<Arc<OnceLock<ActiveInstant>>>,
}

/// Whether a failed attempt may be followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryRule {
    /// The worker cannot have begun to process the request.
    Always,
    /// The worker may have begun to process it.
    IfIdempotent,
    /// The request itself is at fault.
    Never,
}

impl RetryRule {
    /// Returns the rule for a request that failed at a worker that may have begun to process it, or cannot have.
    pub(super) fn of(may_have_begun: bool) -> Self {
        if may_have_begun { Self::IfIdempotent } else { Self::Always }
    }
}

impl RetryPolicy {
    /// Reads the policy from the settings.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            max_retries: settings.routing.num_retries,
            longest_pause: settings.routing.retry_delay.0,
            request_timeout: settings.limits.request_timeout.0,
        }
    }
}

impl Retry {
    /// Finds the model that a request means, or one of its fallbacks, and enters the queue of that model.
    ///
    /// # Errors
    /// The refusal if there is no such model, if the caller may not use it, or if it cannot serve the request now.
    pub(crate) fn enqueue(
        policy: RetryPolicy,
        model_queues: &Arc<ModelQueues>,
        request: &ProxiedRequest,
        caller: &Caller,
        record: &mut Record,
    ) -> Result<(Self, QueueEntry), Refusal> {
        loop {
            // The current models: a reload may have come while the body was arriving.
            let snapshot = model_queues.current();
            let mut find = || {
                request.check_readable(&snapshot)?;
                let (model_queue, others) = find_models(&snapshot, request, caller)?;
                let model_queue = Arc::clone(model_queue);
                record.set_model(model_queue.model.id());
                let info = model_queue.model.info();
                let asked = request.requested_model.as_deref();
                caller.check_model_as(&info, asked)?;
                request.check_answers_wanted(&info)?;
                let adapter = asked.and_then(|asked| info.adapter_in(asked));
                request.check_adapter(&info, adapter)?;
                if request.names_adapters() {
                    // Numbers may mean any of them.
                    let may_use = |adapter| caller.check_model_as(&info, Some(&info.id_with(adapter)));
                    info.adapters.names().try_for_each(may_use)?;
                }
                let (route, needs, readers) = (request.route, request.required_kind, request.readers(&info));
                let mut retry = Self::new(policy, route, needs, readers, Arc::clone(model_queues), model_queue);
                retry.adapter = adapter.map(str::to_owned);
                retry.may_take_adapter = request.may_take_adapter();
                if let Some(shared) = &request.shared_deadline {
                    retry.deadline = shared.get().copied();
                    retry.shared_deadline = Some(Arc::clone(shared));
                }
                // The rest of the pool comes before the fallbacks of its first model, which may name it again.
                retry.fallbacks.retain(|name| others.iter().all(|other| other.model.id() != name));
                for other in others.into_iter().rev() {
                    retry.fallbacks.push_front(other.model.id().to_owned());
                }
                // Without fallbacks there is nothing to select, and what follows refuses the same.
                if retry.fallbacks.is_empty() {
                    retry.check_readers(&info)?;
                } else {
                    retry.select_servable_model(caller)?;
                    record.set_model(retry.model_queue().model.id());
                }
                let ModelQueue { model, queue } = &**retry.model_queue();
                let admit = |has_slots: bool| {
                    if !has_slots {
                        check_workers(model)?;
                    }
                    check_retry(model, request.fingerprint())?;
                    if request.is_charged() { rate::charge(caller.meter()) } else { Ok(()) }
                };
                let entry = queue.enter(caller.turn(), request.route.needs_slot, retry.batch(), admit)?;
                Ok((retry, entry))
            };
            match find() {
                // A reload came in between, so the model may have another queue now: try again.
                Err(_) if !model_queues.is_current(&snapshot) => {}
                outcome => return outcome,
            }
        }
    }

    /// Returns the state before the first attempt at this model.
    pub(crate) fn new(
        policy: RetryPolicy,
        route: &'static Route,
        required_kind: Option<ModelKind>,
        readers: RequestReaders,
        model_queues: Arc<ModelQueues>,
        model_queue: Arc<ModelQueue>,
    ) -> Self {
        let fallbacks = model_queue.model.policy().fallbacks.iter().cloned().collect();
        Self {
            policy,
            route,
            required_kind,
            readers,
            model_queues,
            model_queue,
            adapter: None,
            may_take_adapter: false,
            fallbacks,
            failed_workers: Vec::new(),
            unfit_workers: Vec::new(),
            attempts: 0,
            worker: 0,
            is_remote: false,
            is_suspected: false,
            deadline: None,
            shared_deadline: None,
        }
    }

    /// Returns the queue of the model that the next attempt uses.
    pub(crate) fn model_queue(&self) -> &Arc<ModelQueue> {
        &self.model_queue
    }

    /// Returns the adapter of the model that the next attempt asks for.
    pub(crate) fn adapter(&self) -> Option<&str> {
        self.adapter.as_deref()
    }

    /// Returns which other requests a worker can compute together with this one.
    fn batch(&self) -> Option<u32> {
        self.model_queue.model.info().adapters.batch(self.adapter())
    }

    /// Returns the numbers of the workers of this model that have failed at this request.
    pub(crate) fn failed_workers(&self) -> &[u32] {
        &self.failed_workers
    }

    /// Returns the numbers of the workers of this model whose API has nothing for this request.
    pub(crate) fn unfit_workers(&self) -> &[u32] {
        &self.unfit_workers
    }

    /// Selects the first fallback that can serve the request if its own model cannot.
    ///
    /// # Errors
    /// The refusal of the request's own model if no fallback can serve the request either.
    pub(crate) fn select_servable_model(&mut self, caller: &Caller) -> Result<(), Refusal> {
        let refusal = match self.check_servable() {
            Ok(()) => return Ok(()),
            Err(refusal) => refusal,
        };
        while refusal.is_transient() && self.fall_back(caller) {
            if self.check_servable().is_ok() {
                return Ok(());
            }
        }
        Err(refusal)
    }

    /// Refuses what the selected model cannot serve. `ModelQueue::can_serve` is the short form of it for a gateway with a
    /// single model, and must imply it.
    fn check_servable(&self) -> Result<(), Refusal> {
        self.check_readers(&self.model_queue.model.info())?;
        self.model_queue.queue.check_capacity(self.route.needs_slot)?;
        check_workers(&self.model_queue.model)
    }

    /// Refuses a request that this model cannot read as it is written.
    fn check_readers(&self, model: &ModelInfo) -> Result<(), Refusal> {
        if self.readers.has(model) { Ok(()) } else { Err(Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN)) }
    }

    /// Records that an attempt at this worker has begun at this time. Returns the deadline for its response.
    pub(super) fn begin_attempt(&mut self, worker: &Member, begun: ActiveInstant) -> ActiveInstant {
        self.attempts += 1;
        self.worker = worker.number;
        self.is_remote = worker.kind == WorkerKind::Remote;
        *self.deadline.get_or_insert_with(|| {
            let own = begun + self.policy.request_timeout;
            self.shared_deadline.as_ref().map_or(own, |shared| *shared.get_or_init(|| own))
        })
    }

    /// Returns whether the request would be tried again if this attempt failed by this rule.
    pub(super) fn can_retry(&self, rule: RetryRule, caller: &Caller) -> bool {
        let may_repeat = match rule {
            RetryRule::Always => true,
            RetryRule::IfIdempotent => self.route.is_idempotent && (self.is_remote || !self.is_suspected),
            RetryRule::Never => false,
        };
        may_repeat && self.has_time() && (self.has_another_worker() || self.has_another_model(caller))
    }

    /// Returns whether this attempt is certainly the last one, so that no copy of the request has to be kept. An
    /// idempotent request may have another one at any time, after a reload.
    pub(crate) fn is_last_attempt(&self) -> bool {
        let only = self.model_queue.model.members().count() <= 1;
        !self.route.is_idempotent && self.fallbacks.is_empty() && (only || self.attempts > self.policy.max_retries)
    }

    fn has_another_worker(&self) -> bool {
        let others = self.failed_workers.iter().chain(&self.unfit_workers).copied();
        let avoid: Vec<u32> = others.chain([self.worker]).collect();
        self.attempts <= self.policy.max_retries && self.model_queue.model.has_another(&avoid)
    }

    fn has_another_model(&self, caller: &Caller) -> bool {
        let can_take_over = |name: &String| {
            self.find_fallback(name, caller).is_some_and(|model_queue| check_workers(&model_queue.model).is_ok())
        };
        self.fallbacks.iter().any(can_take_over)
    }

    fn has_time(&self) -> bool {
        self.deadline.is_none_or(|deadline| deadline > ActiveInstant::now())
    }

    /// Returns the queue entry for the next attempt after a failed one, if there is to be another.
    pub(crate) async fn next_after_failure(
        &mut self,
        rule: RetryRule,
        ticket: Ticket,
        caller: &Caller,
    ) -> Option<QueueEntry> {
        if ticket.is_replaced() && rule != RetryRule::Never && self.route.is_idempotent && self.has_time() {
            return self.enter_replacement(rule, ticket, caller);
        }
        if !self.can_retry(rule, caller) {
            return None;
        }
        self.is_suspected |= rule == RetryRule::IfIdempotent && !self.is_remote;
        if !self.has_another_worker() {
            drop(ticket);
            return self.enter_fallback(caller);
        }
        self.failed_workers.push(self.worker);
        // Another request may use the slot during the pause.
        let yielded = ticket.yield_slot();
        self.pause().await;
        match yielded.requeue(caller.turn()) {
            Ok(entry) => Some(entry),
            Err(moved) => self.follow(moved, caller).ok(),
        }
    }

    /// Excludes the workers of this model with these numbers, because their API has nothing for the request. Returns
    /// whether another one can serve it, now or later.
    pub(crate) fn exclude(&mut self, unfit_workers: Vec<u32>) -> bool {
        self.unfit_workers = unfit_workers;
        self.model_queue.model.has_fit_worker(&self.unfit_workers)
    }

    /// Returns the entry of an idempotent request in the queue of the model that a reload has put in the place of its own,
    /// after an attempt failed at the old one. `None` if it may have killed a worker before, or cannot be served there.
    fn enter_replacement(&mut self, rule: RetryRule, ticket: Ticket, caller: &Caller) -> Option<QueueEntry> {
        // A worker that is stopped by the reload was not killed by the request.
        let is_accused = rule == RetryRule::IfIdempotent && !self.is_remote && ticket.stop_refusal().is_none();
        if is_accused && std::mem::replace(&mut self.is_suspected, true) {
            return None;
        }
        let moved = ticket.yield_slot().requeue(caller.turn()).err()?;
        self.follow(moved, caller).ok()
    }

    /// Goes on with the model that a reload has put in the place of this one. Returns the entry in its queue.
    ///
    /// # Errors
    /// The refusal if the new model is of another kind, or the caller may not use it.
    pub(crate) fn follow(&mut self, moved: Moved, caller: &Caller) -> Result<QueueEntry, Refusal> {
        let Moved { model_queue, entry } = moved;
        self.model_queues.snapshot().check_kind_of(&model_queue, self.required_kind, caller)?;
        let info = model_queue.model.info();
        let name = self.adapter.as_deref().map(|adapter| info.id_with(adapter));
        if let (Some(adapter), Some(name)) = (&self.adapter, &name)
            && !info.adapters.has(adapter)
        {
            return Err(self.model_queues.snapshot().model_not_found(Some(name), caller));
        }
        caller.check_model_as(&info, name.as_deref())?;
        self.model_queue = model_queue;
        self.failed_workers.clear();
        self.unfit_workers.clear();
        Ok(entry)
    }

    /// Returns an entry in the queue of a fallback after this model's queue has refused the request, if there is a
    /// fallback.
    pub(crate) fn next_after_refusal(&mut self, refusal: &Refusal, caller: &Caller) -> Option<QueueEntry> {
        (refusal.is_transient() && self.has_time()).then(|| self.enter_fallback(caller))?
    }

    fn enter_fallback(&mut self, caller: &Caller) -> Option<QueueEntry> {
        while self.fall_back(caller) {
            let entry = self.model_queue.queue.enter(caller.turn(), self.route.needs_slot, self.batch(), |_| Ok(()));
            if let (Ok(()), Ok(entry)) = (check_workers(&self.model_queue.model), entry) {
                return Some(entry);
            }
        }
        None
    }

    /// Selects the next fallback. Returns false if there is none.
    fn fall_back(&mut self, caller: &Caller) -> bool {
        while let Some(name) = self.fallbacks.pop_front() {
            if let Some(model_queue) = self.find_fallback(&name, caller) {
                self.adapter = model_queue.model.info().adapter_in(&name).map(str::to_owned);
                self.model_queue = model_queue;
                self.failed_workers.clear();
                self.unfit_workers.clear();
                return true;
            }
        }
        false
    }

    /// Returns the queue of another model with this name, if there is one now and the caller may use it.
    fn find_fallback(&self, name: &str, caller: &Caller) -> Option<Arc<ModelQueue>> {
        let snapshot = self.model_queues.snapshot();
        let model_queue = snapshot.resolve(Some(name), self.required_kind, caller).ok()?;
        let info = model_queue.model.info();
        let is_understood = self.readers.has(&info) && (self.may_take_adapter || info.adapter_in(name).is_none());
        let is_other = !Arc::ptr_eq(model_queue, &self.model_queue);
        let is_usable = is_understood && is_other && caller.check_model_as(&info, Some(name)).is_ok();
        is_usable.then(|| Arc::clone(model_queue))
    }

    /// Ends the wait after the first attempt at the deadline.
    ///
    /// # Errors
    /// The wait has those that it had, and ends at the deadline with [`Refusal::BackendTimeout`].
    pub(crate) fn within_deadline<'a>(&self, wait: LeaseWait<'a>) -> LeaseWait<'a> {
        match self.deadline {
            None => wait,
            Some(deadline) => wait.until(deadline),
        }
    }

    /// Sleeps for a random part of the backoff, so that requests that failed together are not retried together.
    async fn pause(&self) {
        let longest = longest_pause(self.attempts).min(self.policy.longest_pause);
        let fraction = random().map_or(1.0, |number| f64::from(number) / f64::from(u32::MAX));
        let left = self.deadline.map_or(Duration::MAX, |deadline| deadline - ActiveInstant::now());
        pause_clock::sleep(longest.mul_f64(fraction).min(left)).await;
    }

    /// Records the model and worker of the failed attempt for the headers of a refusal, because the next attempt may be
    /// at another worker.
    pub(crate) fn record_failure(&self, record: &mut Record) {
        let mut headers = HeaderMap::new();
        self.insert_headers(&mut headers);
        record.failure_headers = Some(Box::new(headers));
    }

    /// Adds the headers that name the model, the worker and the number of attempts.
    pub(super) fn insert_headers(&self, headers: &mut HeaderMap) {
        if let Some(id) = self.model_queue.model.id_value() {
            headers.insert(X_LLAMAGATE_MODEL, id.clone());
        }
        headers.insert(X_LLAMAGATE_WORKER, number_value(self.worker.into()));
        headers.insert(X_LLAMAGATE_ATTEMPTS, number_value(self.attempts.into()));
    }
}

/// Finds the model that a request means, and the rest of the pool that it means if it names none.
///
/// # Errors
/// The refusal if there is no such model.
fn find_models<'a>(
    snapshot: &'a Snapshot,
    request: &ProxiedRequest,
    caller: &Caller,
) -> Result<(&'a Arc<ModelQueue>, Vec<&'a Arc<ModelQueue>>), Refusal> {
    let (asked, needs) = (request.requested_model.as_deref(), request.required_kind);
    if let Some(id) = request.only_model.as_deref() {
        let only = snapshot.find(id).ok_or_else(|| snapshot.model_not_found(asked, caller))?;
        return Ok((only, Vec::new()));
    }
    let refusal = match snapshot.resolve(asked, needs, caller) {
        Ok(model_queue) => return Ok((model_queue, Vec::new())),
        Err(refusal) => refusal,
    };
    match snapshot.pool(asked, needs, caller).split_first() {
        Some((first, others)) => Ok((*first, others.to_vec())),
        None => Err(request.explain_refusal(refusal)),
    }
}

/// Returns the longest backoff after this many attempts: it doubles with each.
fn longest_pause(attempts: u32) -> Duration {
    RETRY_PAUSE_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(16))
}

/// Returns the response to a refused request. If a worker failed or has refused it, the headers name its model and the
/// worker.
pub(crate) fn refusal_response(refusal: &Refusal, shape: Shape, record: &mut Record) -> Response<Bytes> {
    let mut response = refusal.response(shape);
    let is_of_worker = matches!(
        refusal.status(),
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    );
    let is_about_request = matches!(
        refusal,
        Refusal::RequestFault(_)
            | Refusal::RouteNotAtBackend(_)
            | Refusal::NotAtBackend(_)
            | Refusal::TooLongForBackend(_)
            | Refusal::UnprocessableAtBackend(_)
    );
    if is_of_worker || is_about_request {
        let headers = response.headers_mut();
        match (record.failure_headers.take(), record.model()) {
            (Some(failure_headers), _) => headers.extend(*failure_headers),
            (None, Some(model)) => {
                if let Ok(id) = HeaderValue::from_str(model) {
                    headers.insert(X_LLAMAGATE_MODEL, id);
                }
            }
            (None, None) => {}
        }
    }
    response
}

/// Refuses a request for a model that has neither a ready worker nor one that may become ready soon.
fn check_workers(model: &Model) -> Result<(), Refusal> {
    match model.available() {
        Ok(())
        | Err(
            Unavailable::Loading
            | Unavailable::Asleep
            | Unavailable::Busy
            | Unavailable::BeingProbed
            | Unavailable::QuotaExhausted
            | Unavailable::Suspected
            | Unavailable::OnlyTriedBefore
            | Unavailable::Absent,
        ) => Ok(()),
        Err(
            unavailable @ (Unavailable::BreakerOpen | Unavailable::Down | Unavailable::Failed | Unavailable::Blocked),
        ) => Err(refusal_of(unavailable, model)),
    }
}

/// Refuses a request that has killed llama-server before.
fn check_retry(model: &Model, fingerprint: Option<Fingerprint>) -> Result<(), Refusal> {
    match fingerprint {
        Some(fingerprint) if model.is_blocked(fingerprint) => Err(Refusal::RequestKillsBackend),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pause_doubles_with_each_attempt() {
        assert_eq!(longest_pause(1), RETRY_PAUSE_FIRST);
        assert_eq!(longest_pause(2), RETRY_PAUSE_FIRST * 2);
        assert_eq!(longest_pause(4), RETRY_PAUSE_FIRST * 8);
        assert!(longest_pause(u32::MAX) > longest_pause(16));
    }
}
