//! One of a model's workers, as the fleet sees it: how to reach it, how much it may be given, and what came of that.

use super::breaker::{Breaker, BreakerState, Pass};
use super::choice::Candidate;
use super::quota::Quota;
use super::report::ServiceStatus;
use super::worker_counters::{WorkerCounters, WorkerFacts, WorkerKind, WorkerStats};
use crate::pause_clock::ActiveInstant;
use crate::worker::{WorkerHandle, WorkerState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
/// A quota goes by the kernel's clock, paused or not.
use tokio::time::Instant as Clock;

/// A worker among those of its model.
pub struct Member {
    handle: WorkerHandle,
    /// Who runs it.
    pub kind: WorkerKind,
    /// Its number among the workers of its model.
    pub number: u32,
    /// How many requests may hold one of its slots.
    slots: usize,
    /// How many do.
    slots_in_use: AtomicUsize,
    rank: Mutex<Rank>,
    /// Only of one that somebody else runs: whoever runs a worker knows more of it than its failures tell.
    remote_status: Option<RemoteStatus>,
    pub(super) tally: Arc<WorkerCounters>,
}

/// What is preferred among workers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rank {
    /// For `weighted-random`.
    pub weight: f64,
    /// For `priority-failover`: the lowest comes first.
    pub priority: u32,
}

/// Whether a worker may be sent requests, beside what its owner says.
struct RemoteStatus {
    inner: Mutex<(Breaker, Quota)>,
    /// Sent to at each change.
    changes: watch::Sender<()>,
}

/// One of a worker's slots, until it is dropped.
pub(super) struct Slot {
    member: Arc<Member>,
    /// Told when it is given back.
    freed: Arc<Notify>,
}

impl Member {
    /// A worker that the gateway runs, with so many slots.
    pub fn local(handle: WorkerHandle, kind: WorkerKind, number: u32, slots: usize, rank: Rank) -> Self {
        let (taken, rank, tally) = (AtomicUsize::new(0), Mutex::new(rank), Arc::default());
        Self { handle, kind, number, slots, slots_in_use: taken, rank, remote_status: None, tally }
    }

    /// One that somebody else runs.
    pub fn remote(handle: WorkerHandle, number: u32, slots: usize, rank: Rank, breaker: Breaker, quota: Quota) -> Self {
        let standing = RemoteStatus { inner: Mutex::new((breaker, quota)), changes: watch::channel(()).0 };
        Self { remote_status: Some(standing), ..Self::local(handle, WorkerKind::Remote, number, slots, rank) }
    }

    /// Prefers it otherwise from now on.
    pub fn set_rank(&self, rank: Rank) {
        *self.rank.lock().unwrap_or_else(PoisonError::into_inner) = rank;
    }

    pub(super) fn handle(&self) -> &WorkerHandle {
        &self.handle
    }

    pub(super) fn is_remote(&self) -> bool {
        self.kind == WorkerKind::Remote
    }

    /// Whether it was started with the service, and has neither been ready nor failed; of one that somebody else runs,
    /// whether its first probe has not told how it is.
    pub(super) fn is_awaited(&self) -> bool {
        let is_lost = self.handle.loss().is_some();
        let status = self.handle.status();
        let is_on_its_way = match self.is_remote() {
            true => matches!(status.state, WorkerState::Stopped | WorkerState::Starting),
            // One that was left to be started by its first request still sleeps while it is being woken.
            false => !status.asleep && !status.has_been_ready && status.failed_loads == 0,
        };
        is_on_its_way && !is_lost
    }

    /// Whether requests may be sent to it now.
    pub(super) fn is_open(&self, now: ActiveInstant) -> bool {
        let allows = |standing: &RemoteStatus| {
            let (breaker, quota) = &*standing.lock();
            breaker.is_open_for_requests(now) && quota.has_remaining(Clock::now())
        };
        self.handle.is_open() && self.remote_status.as_ref().is_none_or(allows)
    }

    /// How many of its slots may be used now: while it is only tried, one more than are taken.
    pub(super) fn slots(&self, now: ActiveInstant) -> usize {
        let is_tried = |standing: &RemoteStatus| standing.lock().0.state(now) != BreakerState::Closed;
        if self.remote_status.as_ref().is_some_and(is_tried) { self.slots_in_use() + 1 } else { self.slots }
    }

    /// How many requests it would serve at once, be it that the first wakes it.
    pub(super) fn capacity(&self, now: ActiveInstant) -> usize {
        let serves = match self.is_remote() {
            true => self.is_open(now),
            false => ServiceStatus::of(self.handle.state()) == ServiceStatus::Ok,
        };
        if serves { self.slots(now) } else { 0 }
    }

    /// How many of its slots are in use.
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
            first_byte: self.tally.first_byte(),
        }
    }

    /// Takes one of its slots if one is free; `freed` is told when it is given back.
    pub(super) fn take_slot(self: &Arc<Self>, now: ActiveInstant, freed: &Arc<Notify>) -> Option<Slot> {
        let slots = self.slots(now);
        let more = |taken: usize| (taken < slots).then_some(taken + 1);
        self.slots_in_use.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Slot { member: Arc::clone(self), freed: Arc::clone(freed) })
    }

    /// Counts a request against what it may be asked for. None if it may not be sent; without a standing there is
    /// nothing to give back.
    pub(super) fn take_pass(&self, now: ActiveInstant) -> Option<Option<Pass>> {
        let Some(standing) = &self.remote_status else { return Some(None) };
        let (pass, is_spent) = {
            let (breaker, quota) = &mut *standing.lock();
            let clock = Clock::now();
            if !breaker.is_open_for_requests(now) || !quota.take(clock) {
                return None;
            }
            (breaker.begin(now), !quota.has_remaining(clock))
        };
        if is_spent {
            // Whoever waits does so until there is more.
            standing.changes.send_replace(());
        }
        pass.map(Some)
    }

    /// Gives a pass back with what came of it. Whoever waits for this worker hears of it.
    pub(super) fn return_pass(&self, pass: Pass, came: impl FnOnce(&mut Breaker, Pass, ActiveInstant)) {
        let Some(standing) = &self.remote_status else { return };
        let now = ActiveInstant::now();
        let is_other = {
            let (breaker, _) = &mut *standing.lock();
            let before = breaker.state(now);
            came(breaker, pass, now);
            before != BreakerState::Closed || breaker.state(now) != before
        };
        if is_other {
            standing.changes.send_replace(());
        }
    }

    /// Whether this pass is the one with which it is tried.
    pub(super) fn is_trial(&self, pass: &Pass) -> bool {
        self.remote_status.as_ref().is_some_and(|standing| standing.lock().0.is_trial(pass))
    }

    /// Counts what an answer has cost against what it may be asked for.
    pub fn spend(&self, tokens: u64) {
        if let Some(standing) = &self.remote_status {
            let is_spent = {
                let (_, quota) = &mut *standing.lock();
                let clock = Clock::now();
                quota.spend(tokens, clock);
                !quota.has_remaining(clock)
            };
            if is_spent {
                standing.changes.send_replace(());
            }
        }
    }

    /// In how long it may be sent requests again, if it may not now and time alone decides.
    pub(super) fn available_in(&self) -> Option<Duration> {
        let (now, clock) = (ActiveInstant::now(), Clock::now());
        let (breaker, quota) = &*self.remote_status.as_ref()?.lock();
        let of_quota = quota.opens_at(clock).map(|at| at - clock);
        breaker.opens_at(now).map(|at| at - now).max(of_quota)
    }

    /// Whether it has been asked for as much as it may, and would serve otherwise.
    pub(super) fn is_quota_exhausted(&self, now: ActiveInstant) -> bool {
        self.remote_status.as_ref().is_some_and(|standing| {
            let (breaker, quota) = &*standing.lock();
            breaker.is_open_for_requests(now) && !quota.has_remaining(Clock::now())
        })
    }

    /// Whether it has failed too often to be sent more for now.
    pub(super) fn is_breaker_open(&self, now: ActiveInstant) -> bool {
        self.remote_status.as_ref().is_some_and(|standing| !standing.lock().0.is_open_for_requests(now))
    }

    /// What happens to its standing from now on.
    pub(super) fn remote_changes(&self) -> Option<watch::Receiver<()>> {
        self.remote_status.as_ref().map(|standing| standing.changes.subscribe())
    }

    pub(super) fn snapshot(&self) -> WorkerStats {
        let breaker = self
            .remote_status
            .as_ref()
            .map_or(BreakerState::Closed, |standing| standing.lock().0.state(ActiveInstant::now()));
        let status = self.handle.status();
        let mut shown = self.tally.snapshot(WorkerFacts {
            worker: self.number,
            kind: self.kind,
            state: status.state.as_str(),
            slots: self.slots,
            breaker,
        });
        // Of a process that has ended, its end says more than the requests that met it.
        let end = status.last_exit.and_then(|exit| exit.hint);
        let (of_requests, is_up) = (shown.last_error.take(), status.state == WorkerState::Ready);
        let of_process = if is_up { of_requests.or(end) } else { end.or(of_requests) };
        shown.last_error = status.last_error.or(of_process);
        shown
    }
}

impl RemoteStatus {
    fn lock(&self) -> MutexGuard<'_, (Breaker, Quota)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let before = self.member.slots_in_use.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "a slot was given back twice");
        self.freed.notify_waiters();
    }
}
