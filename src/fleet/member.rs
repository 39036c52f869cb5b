//! One worker of a model as the fleet sees it: how to reach it, its slots, its breaker and quota, and its counters.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::breaker::{Breaker, BreakerState, Pass};
use super::choice::Candidate;
use super::quota::Quota;
use super::report::{ServiceStatus, WorkerReport};
use super::worker_counters::{WorkerCounters, WorkerFacts, WorkerKind, WorkerStats};
use crate::pause_clock::{self, ActiveInstant};
use crate::settings::values::BackendApi;
use crate::telemetry::files::LogFolder;
use crate::worker::{WorkerHandle, WorkerState};

/// A worker among those of its model.
pub struct Member {
    handle: WorkerHandle,
    /// The operator of the worker.
    pub kind: WorkerKind,
    /// The API that the worker speaks.
    pub api: BackendApi,
    /// The number among the workers of the model.
    pub number: u32,
    /// Maximum number of requests that hold a slot.
    slots: usize,
    /// Number of requests that hold a slot.
    slots_in_use: AtomicUsize,
    rank: Mutex<Rank>,
    /// Breaker and quota; only for remote workers. The state of a local worker is known more precisely from its
    /// supervisor.
    remote_status: Option<RemoteStatus>,
    pub(super) counters: Arc<WorkerCounters>,
}

/// The preference of a worker among those of its model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rank {
    /// For `weighted-random`.
    pub weight: f64,
    /// For `priority-failover`: the lowest is preferred.
    pub priority: u32,
}

/// Limits on the requests to a remote worker, in addition to the state of its probes.
struct RemoteStatus {
    inner: Mutex<(Breaker, Quota)>,
    /// Notified of each change.
    changes: watch::Sender<()>,
}

/// A slot of a worker, held until it is dropped.
pub(super) struct MemberSlot {
    member: Arc<Member>,
    /// Notified when the slot is released.
    freed: Arc<Notify>,
}

impl Member {
    /// Creates a member for a worker that the gateway runs, with this number of slots.
    pub fn local(handle: WorkerHandle, kind: WorkerKind, number: u32, slots: usize, rank: Rank) -> Self {
        let (in_use, rank, counters) = (AtomicUsize::new(0), Mutex::new(rank), Arc::default());
        let api = BackendApi::OpenAi;
        Self { handle, kind, api, number, slots, slots_in_use: in_use, rank, remote_status: None, counters }
    }

    /// Creates a member for a remote worker.
    pub fn remote(handle: WorkerHandle, number: u32, slots: usize, rank: Rank, breaker: Breaker, quota: Quota) -> Self {
        let status = RemoteStatus { inner: Mutex::new((breaker, quota)), changes: watch::channel(()).0 };
        Self { remote_status: Some(status), ..Self::local(handle, WorkerKind::Remote, number, slots, rank) }
    }

    /// Returns the member with another API than OpenAI's.
    #[must_use]
    pub fn speaking(self, api: BackendApi) -> Self {
        Self { api, ..self }
    }

    /// Sets the rank, which applies from the next choice on.
    pub fn set_rank(&self, rank: Rank) {
        *self.rank.lock().unwrap_or_else(PoisonError::into_inner) = rank;
    }

    pub(super) fn handle(&self) -> &WorkerHandle {
        &self.handle
    }

    pub(super) fn is_remote(&self) -> bool {
        self.kind == WorkerKind::Remote
    }

    /// Returns the reported state.
    pub fn report(&self) -> WorkerReport {
        let status = self.handle().status();
        WorkerReport {
            worker: self.number,
            kind: self.kind,
            state: status.state,
            asleep: status.asleep,
            slots: self.slot_count(),
            restarts: status.restarts,
            load: self.handle().load(),
            last_exit: status.last_exit,
            last_error: status.last_error,
        }
    }

    /// Returns the folder of the worker's log files; `None` for a remote worker.
    pub fn log_folder(&self) -> Option<&LogFolder> {
        self.handle().log_folder()
    }

    /// Returns the share of its KV cache that requests in progress use, from 0 to 1; `None` if it is no llama-server on
    /// this machine.
    pub fn kv_cache_usage(&self) -> Option<f64> {
        self.handle().kv_cache_usage()
    }

    /// Whether the initial load still waits for this worker. A local worker is awaited if it was started with the
    /// service and has neither been ready nor failed; a remote worker until its first probe has a result.
    pub(super) fn is_awaited(&self) -> bool {
        let is_lost = self.handle.loss().is_some();
        let status = self.handle.status();
        let is_starting = match self.is_remote() {
            true => matches!(status.state, WorkerState::Stopped | WorkerState::Starting),
            // A worker that sleeps until its first request still has `asleep` set while it is being woken.
            false => !status.asleep && !status.has_been_ready && status.failed_loads == 0,
        };
        is_starting && !is_lost
    }

    /// Whether requests may be sent to the worker now.
    pub(super) fn is_open(&self, now: ActiveInstant) -> bool {
        let allows = |status: &RemoteStatus| {
            let (breaker, quota) = &*status.lock();
            breaker.is_open_for_requests(now) && quota.has_remaining(pause_clock::kernel_now())
        };
        self.handle.is_open() && self.remote_status.as_ref().is_none_or(allows)
    }

    /// Returns the number of slots.
    pub fn slot_count(&self) -> usize {
        self.slots
    }

    /// Returns how many slots may be used now. While the breaker tries the worker, that is one more than are in use.
    pub(super) fn slots(&self, now: ActiveInstant) -> usize {
        let is_on_trial = |status: &RemoteStatus| status.lock().0.state(now) != BreakerState::Closed;
        if self.remote_status.as_ref().is_some_and(is_on_trial) { self.slots_in_use() + 1 } else { self.slots }
    }

    /// Returns how many requests the worker could serve at once, including a sleeping worker that the first of them
    /// wakes.
    pub(super) fn capacity(&self, now: ActiveInstant) -> usize {
        let can_serve = match self.is_remote() {
            true => self.is_open(now),
            false => ServiceStatus::of(self.handle.state()) == ServiceStatus::Ok,
        };
        if can_serve { self.slots(now) } else { 0 }
    }

    /// Returns the number of slots in use.
    pub(super) fn slots_in_use(&self) -> usize {
        self.slots_in_use.load(Ordering::SeqCst)
    }

    pub(super) fn candidate(&self, index: usize, now: ActiveInstant) -> Candidate {
        let rank = *self.rank.lock().unwrap_or_else(PoisonError::into_inner);
        Candidate {
            index,
            in_flight: self.slots_in_use(),
            slots: self.slots(now),
            weight: rank.weight,
            priority: rank.priority,
            first_byte: self.counters.first_byte(),
        }
    }

    /// Takes a slot if one is free. `freed` is notified when it is released.
    pub(super) fn take_slot(self: &Arc<Self>, now: ActiveInstant, freed: &Arc<Notify>) -> Option<MemberSlot> {
        let slots = self.slots(now);
        let more = |in_use: usize| (in_use < slots).then_some(in_use + 1);
        // One atomic step: two requests must not both take the last slot.
        self.slots_in_use.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(MemberSlot { member: Arc::clone(self), freed: Arc::clone(freed) })
    }

    /// Takes one request from the breaker and the quota. Returns `None` if the request may not be sent, and
    /// `Some(None)` for a local worker, which has neither.
    pub(super) fn take_pass(&self, now: ActiveInstant) -> Option<Option<Pass>> {
        let Some(status) = &self.remote_status else { return Some(None) };
        let (pass, is_spent) = {
            // One lock for both, so that a request is never counted by one and refused by the other.
            let (breaker, quota) = &mut *status.lock();
            let quota_now = pause_clock::kernel_now();
            if !breaker.is_open_for_requests(now) || !quota.take(quota_now) {
                return None;
            }
            (breaker.begin(now), !quota.has_remaining(quota_now))
        };
        if is_spent {
            // Wakes the waiting requests, so that they wait until the quota allows more.
            status.changes.send_replace(());
        }
        pass.map(Some)
    }

    /// Returns a pass and records the result of its request with `record`. Notifies those who wait for this worker if
    /// the breaker changed.
    pub(super) fn return_pass(&self, pass: Pass, record: impl FnOnce(&mut Breaker, Pass, ActiveInstant)) {
        let Some(status) = &self.remote_status else { return };
        let now = ActiveInstant::now();
        let is_changed = {
            let (breaker, _) = &mut *status.lock();
            let before = breaker.state(now);
            record(breaker, pass, now);
            before != BreakerState::Closed || breaker.state(now) != before
        };
        if is_changed {
            status.changes.send_replace(());
        }
    }

    /// Whether this pass is that of the breaker's current trial.
    pub(super) fn is_trial(&self, pass: &Pass) -> bool {
        self.remote_status.as_ref().is_some_and(|status| status.lock().0.is_trial(pass))
    }

    /// Returns whether there is a quota of tokens.
    pub fn limits_tokens(&self) -> bool {
        self.remote_status.as_ref().is_some_and(|status| status.lock().1.limits_tokens())
    }

    /// Takes the tokens of a response from the quota.
    pub fn spend(&self, tokens: u64) {
        if let Some(status) = &self.remote_status {
            let is_spent = {
                let (_, quota) = &mut *status.lock();
                let quota_now = pause_clock::kernel_now();
                quota.spend(tokens, quota_now);
                !quota.has_remaining(quota_now)
            };
            if is_spent {
                status.changes.send_replace(());
            }
        }
    }

    /// Returns the time until requests may be sent again, if only time is missing: the cooldown of the breaker or the
    /// quota.
    pub(super) fn available_in(&self) -> Option<Duration> {
        let status = self.remote_status.as_ref()?;
        let (now, quota_now) = (ActiveInstant::fresh(), pause_clock::kernel_now());
        let (breaker, quota) = &*status.lock();
        let until_quota = quota.opens_at(quota_now).map(|at| at - quota_now);
        breaker.opens_at(now).map(|at| at - now).max(until_quota)
    }

    /// Whether only the quota is exhausted.
    pub(super) fn is_quota_exhausted(&self, now: ActiveInstant) -> bool {
        self.remote_status.as_ref().is_some_and(|status| {
            let (breaker, quota) = &*status.lock();
            breaker.is_open_for_requests(now) && !quota.has_remaining(pause_clock::kernel_now())
        })
    }

    /// Whether the breaker allows no request now.
    pub(super) fn is_breaker_open(&self, now: ActiveInstant) -> bool {
        self.remote_status.as_ref().is_some_and(|status| !status.lock().0.is_open_for_requests(now))
    }

    /// Returns a receiver for changes of breaker and quota; `None` for a local worker.
    pub(super) fn remote_changes(&self) -> Option<watch::Receiver<()>> {
        self.remote_status.as_ref().map(|status| status.changes.subscribe())
    }

    pub(super) fn snapshot(&self) -> WorkerStats {
        let breaker = self
            .remote_status
            .as_ref()
            .map_or(BreakerState::Closed, |status| status.lock().0.state(ActiveInstant::now()));
        let status = self.handle.status();
        let mut stats = self.counters.snapshot(WorkerFacts {
            worker: self.number,
            kind: self.kind,
            state: status.state.as_str(),
            slots: self.slots,
            breaker,
        });
        // For a process that has ended, the cause of its end says more than the errors of the requests that were in
        // flight.
        let exit_hint = status.last_exit.and_then(|exit| exit.hint);
        let (request_error, is_ready) = (stats.last_error.take(), status.state == WorkerState::Ready);
        let worker_error = if is_ready { request_error.or(exit_hint) } else { exit_hint.or(request_error) };
        stats.last_error = status.last_error.or(worker_error);
        stats
    }
}

impl RemoteStatus {
    fn lock(&self) -> MutexGuard<'_, (Breaker, Quota)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for MemberSlot {
    fn drop(&mut self) {
        let before = self.member.slots_in_use.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "a slot was given back twice");
        // After the decrement, so that a woken request finds the slot free.
        self.freed.notify_waiters();
    }
}
