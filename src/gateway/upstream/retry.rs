//! How often a request is tried, and where next: at another worker of its model, then at another model.
//!
//! A request that a worker may have begun to process is tried again only where asking twice changes nothing; after one
//! of ours, which may have died of it, once. Nothing is tried after `REQUEST_TIMEOUT`, which counts from the first try.

use crate::fleet::{Fingerprint, Member, Model, Unavailable, WorkerKind};
use crate::gateway::accounting::record::Record;
use crate::gateway::admission::auth::Caller;
use crate::gateway::admission::rate;
use crate::gateway::bounds::RETRY_PAUSE_FIRST;
use crate::gateway::queue::model_queues::{ModelQueue, ModelQueues};
use crate::gateway::queue::ticket::{QueueEntry, Ticket};
use crate::gateway::queue::unavailable::refusal_of;
use crate::gateway::request::proxied_request::ProxiedRequest;
use crate::gateway::route::Route;
use crate::models::ModelKind;
use crate::pause_clock::{self, ActiveInstant};
use crate::refusal::{Refusal, Shape};
use crate::settings::options::Settings;
use bytes::Bytes;
use getrandom::u32 as random;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// The id of the model that has answered, or failed.
const X_LLAMAGATE_MODEL: HeaderName = HeaderName::from_static("x-llamagate-model");
/// The number of its worker.
const X_LLAMAGATE_WORKER: HeaderName = HeaderName::from_static("x-llamagate-worker");
/// How often the request was sent.
const X_LLAMAGATE_ATTEMPTS: HeaderName = HeaderName::from_static("x-llamagate-attempts");

/// How often requests are tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryPolicy {
    /// `NUM_RETRIES`
    max_retries: u32,
    /// `RETRY_DELAY`
    longest_pause: Duration,
    /// `REQUEST_TIMEOUT`
    request_timeout: Duration,
}

/// The tries of one request.
pub(crate) struct Retry {
    policy: RetryPolicy,
    route: &'static Route,
    required_kind: Option<ModelKind>,
    model_queues: Arc<ModelQueues>,
    model_queue: Arc<ModelQueue>,
    /// Names of models that may take over, as they are configured.
    fallbacks: VecDeque<String>,
    /// Workers of this lane that have failed.
    failed_workers: Vec<u32>,
    attempts: u32,
    /// The worker of the last one.
    worker: u32,
    /// Whether somebody else runs that.
    is_remote: bool,
    /// Whether a worker of ours has failed that may have begun to process it, and may have died of it.
    is_suspected: bool,
    deadline: Option<ActiveInstant>,
}

impl RetryPolicy {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            max_retries: settings.routing.num_retries,
            longest_pause: settings.routing.retry_delay.0,
            request_timeout: settings.limits.request_timeout.0,
        }
    }
}

impl Retry {
    /// Finds the model that a request means, or who takes over from it, and a place in its line.
    pub(crate) fn enqueue(
        retries: RetryPolicy,
        lanes: &Arc<ModelQueues>,
        asking: &ProxiedRequest,
        caller: &Caller,
        record: &mut Record,
    ) -> Result<(Self, QueueEntry), Refusal> {
        loop {
            // As they are now: the body may have been long in coming.
            let table = lanes.snapshot();
            let mut find = || {
                asking.check_readable(&table)?;
                let lane = table.resolve(asking.requested_model.as_deref(), asking.required_kind, caller);
                let lane = Arc::clone(lane.map_err(|refusal| asking.explain_refusal(refusal))?);
                record.set_model(lane.model.id());
                caller.check_model(&lane.model.info())?;
                let mut attempts = Self::new(retries, asking.route, asking.required_kind, Arc::clone(lanes), lane);
                attempts.select_servable_model(caller)?;
                let lane = attempts.model_queue();
                record.set_model(lane.model.id());
                check_retry(&lane.model, asking.fingerprint())?;
                let charge = || rate::charge(caller.meter());
                let place = lane.queue.enter(caller.queue_key(), asking.route.needs_slot, charge)?;
                Ok((attempts, place))
            };
            match find() {
                // A reload came between, and the model may have another line now.
                Err(_) if !lanes.is_current(&table) => {}
                outcome => return outcome,
            }
        }
    }

    /// Of a request for the model of this lane.
    pub(crate) fn new(
        retries: RetryPolicy,
        route: &'static Route,
        needs: Option<ModelKind>,
        lanes: Arc<ModelQueues>,
        lane: Arc<ModelQueue>,
    ) -> Self {
        let fallbacks = lane.model.policy().fallbacks.iter().cloned().collect();
        Self {
            policy: retries,
            route,
            required_kind: needs,
            model_queues: lanes,
            model_queue: lane,
            fallbacks,
            failed_workers: Vec::new(),
            attempts: 0,
            worker: 0,
            is_remote: false,
            is_suspected: false,
            deadline: None,
        }
    }

    /// Where it is tried now.
    pub(crate) fn model_queue(&self) -> &Arc<ModelQueue> {
        &self.model_queue
    }

    /// The workers of this lane that have failed at it.
    pub(crate) fn failed_workers(&self) -> &[u32] {
        &self.failed_workers
    }

    /// Goes to the first model that may serve it, if its own may not now. That refuses it where no other may either.
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

    fn check_servable(&self) -> Result<(), Refusal> {
        self.model_queue.queue.check_capacity(self.route.needs_slot)?;
        check_servable(&self.model_queue.model)
    }

    /// It is sent to this worker. When it is to be answered.
    pub(super) fn begin_attempt(&mut self, worker: &Member) -> ActiveInstant {
        self.attempts += 1;
        self.worker = worker.number;
        self.is_remote = worker.kind == WorkerKind::Remote;
        *self.deadline.get_or_insert_with(|| ActiveInstant::now() + self.policy.request_timeout)
    }

    /// Whether it would be tried again if this try failed; it may have been begun, or surely has not been.
    pub(super) fn can_retry(&self, may_have_begun: bool, caller: &Caller) -> bool {
        let may_repeat = !may_have_begun || self.route.is_idempotent && (self.is_remote || !self.is_suspected);
        may_repeat && self.has_time() && (self.has_another_worker() || self.has_another_model(caller))
    }

    /// Whether it is surely the last: nothing of the request need be kept.
    pub(crate) fn is_last_attempt(&self) -> bool {
        let only = self.model_queue.model.members().count() <= 1;
        self.fallbacks.is_empty() && (only || self.attempts > self.policy.max_retries)
    }

    fn has_another_worker(&self) -> bool {
        let avoid: Vec<u32> = self.failed_workers.iter().copied().chain([self.worker]).collect();
        self.attempts <= self.policy.max_retries && self.model_queue.model.has_another(&avoid)
    }

    fn has_another_model(&self, caller: &Caller) -> bool {
        let takes_over =
            |name: &String| self.find_fallback(name, caller).is_some_and(|lane| check_servable(&lane.model).is_ok());
        self.fallbacks.iter().any(takes_over)
    }

    fn has_time(&self) -> bool {
        self.deadline.is_none_or(|deadline| deadline > ActiveInstant::now())
    }

    /// A try has failed: the place in the line for the next one, if there is one.
    pub(crate) async fn next_after_failure(
        &mut self,
        may_have_begun: bool,
        ticket: Ticket,
        caller: &Caller,
    ) -> Option<QueueEntry> {
        if !self.can_retry(may_have_begun, caller) {
            return None;
        }
        self.is_suspected |= may_have_begun && !self.is_remote;
        if !self.has_another_worker() {
            drop(ticket);
            return self.enter_fallback(caller);
        }
        self.failed_workers.push(self.worker);
        let aside = ticket.yield_slot();
        self.pause().await;
        Some(aside.requeue(caller.queue_key()))
    }

    /// Its line has no worker for it: its place in that of another model, if there is one.
    pub(crate) fn next_after_refusal(&mut self, refusal: &Refusal, caller: &Caller) -> Option<QueueEntry> {
        (refusal.is_transient() && self.has_time()).then(|| self.enter_fallback(caller))?
    }

    fn enter_fallback(&mut self, caller: &Caller) -> Option<QueueEntry> {
        while self.fall_back(caller) {
            let place = self.model_queue.queue.enter(caller.queue_key(), self.route.needs_slot, || Ok(()));
            if let (Ok(()), Ok(place)) = (check_servable(&self.model_queue.model), place) {
                return Some(place);
            }
        }
        None
    }

    /// Goes to the next model that may take over. False if there is none.
    fn fall_back(&mut self, caller: &Caller) -> bool {
        while let Some(name) = self.fallbacks.pop_front() {
            if let Some(lane) = self.find_fallback(&name, caller) {
                self.model_queue = lane;
                self.failed_workers.clear();
                return true;
            }
        }
        false
    }

    /// The lane of another model of this name, if there is one now and the caller may use it.
    fn find_fallback(&self, name: &str, caller: &Caller) -> Option<Arc<ModelQueue>> {
        let table = self.model_queues.snapshot();
        let lane = table.resolve(Some(name), self.required_kind, caller).ok()?;
        let is_usable = !Arc::ptr_eq(lane, &self.model_queue) && caller.check_model(&lane.model.info()).is_ok();
        is_usable.then(|| Arc::clone(lane))
    }

    /// A wait in line, which after the first try is not longer than what is left of its time.
    pub(crate) async fn within_deadline<T>(
        &self,
        wait: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        match self.deadline {
            None => wait.await,
            Some(deadline) => pause_clock::timeout_at(deadline, wait).await.unwrap_or(Err(Refusal::BackendTimeout)),
        }
    }

    /// A part of `RETRY_DELAY` by chance, so that those who failed together do not come back together.
    async fn pause(&self) {
        let longest = longest_pause(self.attempts).min(self.policy.longest_pause);
        let part = random().map_or(1.0, |number| f64::from(number) / f64::from(u32::MAX));
        let left = self.deadline.map_or(Duration::MAX, |deadline| deadline - ActiveInstant::now());
        pause_clock::sleep(longest.mul_f64(part).min(left)).await;
    }

    /// Notes whose failure the last try was: what comes after may be another's.
    pub(crate) fn record_failure(&self, record: &mut Record) {
        let mut headers = HeaderMap::new();
        self.insert_headers(&mut headers);
        record.failure_headers = Some(Box::new(headers));
    }

    /// Says in the head of an answer whose it is.
    pub(super) fn insert_headers(&self, headers: &mut HeaderMap) {
        insert_model_header(self.model_queue.model.id(), headers);
        headers.insert(X_LLAMAGATE_WORKER, self.worker.into());
        headers.insert(X_LLAMAGATE_ATTEMPTS, self.attempts.into());
    }
}

/// The longest pause after so many tries.
fn longest_pause(made: u32) -> Duration {
    RETRY_PAUSE_FIRST.saturating_mul(1 << made.saturating_sub(1).min(16))
}

/// The answer to a request that is refused. If it failed, its head says where.
pub(crate) fn refusal_response(refusal: &Refusal, shape: Shape, record: &mut Record) -> Response<Bytes> {
    let mut response = refusal.response(shape);
    if matches!(
        refusal.status(),
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    ) {
        let headers = response.headers_mut();
        match (record.failure_headers.take(), record.model()) {
            (Some(told), _) => headers.extend(*told),
            (None, Some(model)) => insert_model_header(model, headers),
            (None, None) => {}
        }
    }
    response
}

fn insert_model_header(id: &str, headers: &mut HeaderMap) {
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(X_LLAMAGATE_MODEL, id);
    }
}

/// Whether a request for the model may go on: to a worker that is ready, or into the line for one that will be.
fn check_servable(model: &Model) -> Result<(), Refusal> {
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

/// Whether what is asked for may be tried at all: not if llama-server has died of it before.
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
    fn pauses_are_as_long_as_their_bound_says_and_double() {
        assert_eq!(longest_pause(1), RETRY_PAUSE_FIRST);
        assert_eq!(longest_pause(2), RETRY_PAUSE_FIRST * 2);
        assert_eq!(longest_pause(4), RETRY_PAUSE_FIRST * 8);
        assert!(longest_pause(u32::MAX) > longest_pause(16));
    }
}
