//! How often a request is tried, and where next: at another worker of its model, then at another model.
//!
//! A request that a worker may have begun to process is tried again only where asking twice changes nothing; after one
//! of ours, which may have died of it, once. Nothing is tried after `REQUEST_TIMEOUT`, which counts from the first try.

use crate::awake::{self, ActiveInstant};
use crate::fleet::{Fingerprint, Member, Model, Unavailable, WorkerKind};
use crate::gateway::accounting::record::Record;
use crate::gateway::admission::auth::Caller;
use crate::gateway::admission::rate;
use crate::gateway::bounds::RETRY_PAUSE_FIRST;
use crate::gateway::queue::model_queues::{Lane, Lanes};
use crate::gateway::queue::ticket::{Place, Ticket};
use crate::gateway::queue::unavailable::refusal_of;
use crate::gateway::request::proxied_request::Asking;
use crate::gateway::route::Route;
use crate::models::ModelKind;
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
pub(crate) struct Retries {
    /// `NUM_RETRIES`
    most: u32,
    /// `RETRY_DELAY`
    longest_pause: Duration,
    /// `REQUEST_TIMEOUT`
    request_timeout: Duration,
}

/// The tries of one request.
pub(crate) struct Attempts {
    retries: Retries,
    route: &'static Route,
    needs: Option<ModelKind>,
    lanes: Arc<Lanes>,
    lane: Arc<Lane>,
    /// Names of models that may take over, as they are configured.
    fallbacks: VecDeque<String>,
    /// Workers of this lane that have failed.
    avoid: Vec<u32>,
    made: u32,
    /// The worker of the last one.
    worker: u32,
    /// Whether somebody else runs that.
    is_remote: bool,
    /// Whether a worker of ours has failed that may have begun to process it, and may have died of it.
    is_suspect: bool,
    deadline: Option<ActiveInstant>,
}

impl Retries {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            most: settings.routing.num_retries,
            longest_pause: settings.routing.retry_delay.0,
            request_timeout: settings.limits.request_timeout.0,
        }
    }
}

impl Attempts {
    /// Finds the model that a request means, or who takes over from it, and a place in its line.
    pub(crate) fn line_up(
        retries: Retries,
        lanes: &Arc<Lanes>,
        asking: &Asking,
        caller: &Caller,
        record: &mut Record,
    ) -> Result<(Self, Place), Refusal> {
        loop {
            // As they are now: the body may have been long in coming.
            let table = lanes.table();
            let mut find = || {
                asking.is_readable(&table)?;
                let lane = table.resolve(asking.asked.as_deref(), asking.needs, caller);
                let lane = Arc::clone(lane.map_err(|refusal| asking.explained(refusal))?);
                record.is_for(lane.model.id());
                caller.may_use(&lane.model.info())?;
                let mut attempts = Self::new(retries, asking.route, asking.needs, Arc::clone(lanes), lane);
                attempts.settle(caller)?;
                let lane = attempts.lane();
                record.is_for(lane.model.id());
                may_be_tried(&lane.model, asking.fingerprint())?;
                let charge = || rate::charge(caller.meter());
                let place = lane.queue.enter(caller.turn(), asking.route.needs_slot, charge)?;
                Ok((attempts, place))
            };
            match find() {
                // A reload came between, and the model may have another line now.
                Err(_) if !lanes.are_still(&table) => {}
                outcome => return outcome,
            }
        }
    }

    /// Of a request for the model of this lane.
    pub(crate) fn new(
        retries: Retries,
        route: &'static Route,
        needs: Option<ModelKind>,
        lanes: Arc<Lanes>,
        lane: Arc<Lane>,
    ) -> Self {
        let fallbacks = lane.model.policy().fallbacks.iter().cloned().collect();
        Self {
            retries,
            route,
            needs,
            lanes,
            lane,
            fallbacks,
            avoid: Vec::new(),
            made: 0,
            worker: 0,
            is_remote: false,
            is_suspect: false,
            deadline: None,
        }
    }

    /// Where it is tried now.
    pub(crate) fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    /// The workers of this lane that have failed at it.
    pub(crate) fn avoid(&self) -> &[u32] {
        &self.avoid
    }

    /// Goes to the first model that may serve it, if its own may not now. That refuses it where no other may either.
    pub(crate) fn settle(&mut self, caller: &Caller) -> Result<(), Refusal> {
        let refusal = match self.may_be_served() {
            Ok(()) => return Ok(()),
            Err(refusal) => refusal,
        };
        while refusal.is_transient() && self.falls_back(caller) {
            if self.may_be_served().is_ok() {
                return Ok(());
            }
        }
        Err(refusal)
    }

    fn may_be_served(&self) -> Result<(), Refusal> {
        self.lane.queue.has_room(self.route.needs_slot)?;
        may_be_served(&self.lane.model)
    }

    /// It is sent to this worker. When it is to be answered.
    pub(super) fn begins(&mut self, worker: &Member) -> ActiveInstant {
        self.made += 1;
        self.worker = worker.number;
        self.is_remote = worker.kind == WorkerKind::Remote;
        *self.deadline.get_or_insert_with(|| ActiveInstant::now() + self.retries.request_timeout)
    }

    /// Whether it would be tried again if this try failed; it may have been begun, or surely has not been.
    pub(super) fn go_on(&self, may_have_begun: bool, caller: &Caller) -> bool {
        let may_repeat = !may_have_begun || self.route.repeats && (self.is_remote || !self.is_suspect);
        may_repeat && self.has_time() && (self.has_another_worker() || self.has_another_model(caller))
    }

    /// Whether it is surely the last: nothing of the request need be kept.
    pub(crate) fn is_last(&self) -> bool {
        let only = self.lane.model.members().count() <= 1;
        self.fallbacks.is_empty() && (only || self.made > self.retries.most)
    }

    fn has_another_worker(&self) -> bool {
        let avoid: Vec<u32> = self.avoid.iter().copied().chain([self.worker]).collect();
        self.made <= self.retries.most && self.lane.model.has_another(&avoid)
    }

    fn has_another_model(&self, caller: &Caller) -> bool {
        let takes_over =
            |name: &String| self.fallback(name, caller).is_some_and(|lane| may_be_served(&lane.model).is_ok());
        self.fallbacks.iter().any(takes_over)
    }

    fn has_time(&self) -> bool {
        self.deadline.is_none_or(|deadline| deadline > ActiveInstant::now())
    }

    /// A try has failed: the place in the line for the next one, if there is one.
    pub(crate) async fn after_failure(
        &mut self,
        may_have_begun: bool,
        ticket: Ticket,
        caller: &Caller,
    ) -> Option<Place> {
        if !self.go_on(may_have_begun, caller) {
            return None;
        }
        self.is_suspect |= may_have_begun && !self.is_remote;
        if !self.has_another_worker() {
            drop(ticket);
            return self.at_another_model(caller);
        }
        self.avoid.push(self.worker);
        let aside = ticket.step_aside();
        self.pause().await;
        Some(aside.back_in_line(caller.turn()))
    }

    /// Its line has no worker for it: its place in that of another model, if there is one.
    pub(crate) fn after_refusal(&mut self, refusal: &Refusal, caller: &Caller) -> Option<Place> {
        (refusal.is_transient() && self.has_time()).then(|| self.at_another_model(caller))?
    }

    fn at_another_model(&mut self, caller: &Caller) -> Option<Place> {
        while self.falls_back(caller) {
            let place = self.lane.queue.enter(caller.turn(), self.route.needs_slot, || Ok(()));
            if let (Ok(()), Ok(place)) = (may_be_served(&self.lane.model), place) {
                return Some(place);
            }
        }
        None
    }

    /// Goes to the next model that may take over. False if there is none.
    fn falls_back(&mut self, caller: &Caller) -> bool {
        while let Some(name) = self.fallbacks.pop_front() {
            if let Some(lane) = self.fallback(&name, caller) {
                self.lane = lane;
                self.avoid.clear();
                return true;
            }
        }
        false
    }

    /// The lane of another model of this name, if there is one now and the caller may use it.
    fn fallback(&self, name: &str, caller: &Caller) -> Option<Arc<Lane>> {
        let table = self.lanes.table();
        let lane = table.resolve(Some(name), self.needs, caller).ok()?;
        let is_usable = !Arc::ptr_eq(lane, &self.lane) && caller.may_use(&lane.model.info()).is_ok();
        is_usable.then(|| Arc::clone(lane))
    }

    /// A wait in line, which after the first try is not longer than what is left of its time.
    pub(crate) async fn in_time<T>(&self, wait: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        match self.deadline {
            None => wait.await,
            Some(deadline) => awake::timeout_at(deadline, wait).await.unwrap_or(Err(Refusal::BackendTimeout)),
        }
    }

    /// A part of `RETRY_DELAY` by chance, so that those who failed together do not come back together.
    async fn pause(&self) {
        let longest = longest_pause(self.made).min(self.retries.longest_pause);
        let part = random().map_or(1.0, |number| f64::from(number) / f64::from(u32::MAX));
        let left = self.deadline.map_or(Duration::MAX, |deadline| deadline - ActiveInstant::now());
        awake::sleep(longest.mul_f64(part).min(left)).await;
    }

    /// Notes whose failure the last try was: what comes after may be another's.
    pub(crate) fn note_failure(&self, record: &mut Record) {
        let mut headers = HeaderMap::new();
        self.tell(&mut headers);
        record.failed = Some(Box::new(headers));
    }

    /// Says in the head of an answer whose it is.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        tell_model(self.lane.model.id(), headers);
        headers.insert(X_LLAMAGATE_WORKER, self.worker.into());
        headers.insert(X_LLAMAGATE_ATTEMPTS, self.made.into());
    }
}

/// The longest pause after so many tries.
fn longest_pause(made: u32) -> Duration {
    RETRY_PAUSE_FIRST.saturating_mul(1 << made.saturating_sub(1).min(16))
}

/// The answer to a request that is refused. If it failed, its head says where.
pub(crate) fn failure(refusal: &Refusal, shape: Shape, record: &mut Record) -> Response<Bytes> {
    let mut response = refusal.response(shape);
    if matches!(
        refusal.status(),
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    ) {
        let headers = response.headers_mut();
        match (record.failed.take(), record.model()) {
            (Some(told), _) => headers.extend(*told),
            (None, Some(model)) => tell_model(model, headers),
            (None, None) => {}
        }
    }
    response
}

fn tell_model(id: &str, headers: &mut HeaderMap) {
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(X_LLAMAGATE_MODEL, id);
    }
}

/// Whether a request for the model may go on: to a worker that is ready, or into the line for one that will be.
fn may_be_served(model: &Model) -> Result<(), Refusal> {
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
fn may_be_tried(model: &Model, fingerprint: Option<Fingerprint>) -> Result<(), Refusal> {
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
