//! One life of a ready worker, as requests see it: what it is serving, and the signs that it may be failing.
//!
//! [`DialTarget`] owns where it is reached; `in_flight.rs` owns what one request says about it. The one lock here
//! decides the race between a request that begins and a worker that is closed as idle.
//!
//! - `abandoned.rs`: requests that were given up before their response; one of them may have caused a hang
//! - `crash_suspects.rs`: requests that were in flight when a worker crashed
//! - `in_flight.rs`: one request at a worker, and what its outcome says about the worker
//! - `key_suspensions.rs`: API keys that are suspended for crashes that only their requests can have caused

pub(super) mod abandoned;
pub(super) mod crash_suspects;
pub(super) mod in_flight;
pub(super) mod key_suspensions;

#[cfg(test)]
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

#[cfg(test)]
use http::HeaderValue;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

#[cfg(test)]
use crate::dial::BadLocal;
use crate::dial::DialTarget;
use crate::pause_clock::ActiveInstant;
use crate::worker::bounds::{ABANDONED_BEFORE_CRASH, COMPUTE_ERRORS_UNTIL_RESTART};
use crate::worker::change_signal::ChangeSignal;
use abandoned::AbandonedRequests;
use crash_suspects::{CrashSuspects, Fingerprint, RequestIdentity, only_key};

/// A ready worker: where it is reached, and what it is serving.
pub struct Endpoint {
    /// Where its requests go.
    pub target: DialTarget,
    /// When the worker was ready for the first time.
    ready_at: OnceLock<Instant>,
    serving: Mutex<Serving>,
    /// Failures to compute in a row.
    compute_errors: AtomicU32,
    /// Doubts raised since its start.
    doubts: AtomicU64,
    /// How many of the doubts have been cleared.
    cleared_doubts: AtomicU64,
    /// Whether it gets no new requests because it seems to hang.
    is_paused: AtomicBool,
    /// Notified when its owner has to check it.
    attention: Notify,
    /// Cancelled when it has ended or is being ended.
    gone: CancellationToken,
    /// Notified when a suspect is no longer in flight.
    suspect_left: Notify,
    /// Notified when it is closed and nothing is in flight.
    drained: Notify,
    /// Notified when it becomes idle.
    change_signal: Arc<ChangeSignal>,
    crash_suspects: Arc<CrashSuspects>,
}

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestClass {
    /// To be computed; with its fingerprint, if known.
    Inference(Option<Fingerprint>),
    /// Reads state only. It does not count as use: it neither wakes a worker nor keeps it awake.
    ReadOnly,
}

/// Why a request may not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAccepted {
    /// The endpoint accepts no new requests.
    Closed,
    /// The request is a suspect and another suspect is in flight: after a crash it would be unknown which one caused
    /// it.
    Suspected,
}

/// The requests of a llama-server, in flight and recently ended.
struct Serving {
    /// Inference requests in flight.
    in_flight: usize,
    /// Read-only requests in flight.
    read_only: usize,
    /// How many requests have begun.
    begun: u64,
    /// Whether a request in flight was a suspect when it began.
    has_suspect: bool,
    abandoned: AbandonedRequests,
    /// The inference requests in flight, with their sequence numbers.
    requests: Vec<(u64, RequestIdentity)>,
    /// The requests whose connection it broke, until it answers a probe. Never more than can be in flight at once: no new
    /// request is sent while it is doubted.
    broken: Vec<RequestIdentity>,
    /// The requests that it failed to compute in a row.
    failed_to_compute: Vec<RequestIdentity>,
    /// Since when no inference request is in flight.
    idle_since: Option<ActiveInstant>,
    /// Whether it accepts no new requests: for good, or until its owner reopens it.
    is_closed: bool,
}

impl Endpoint {
    /// Creates an endpoint for a local llama-server on the loopback interface.
    #[cfg(test)]
    pub(super) fn new(
        address: SocketAddr,
        authorization: HeaderValue,
        crash_suspects: Arc<CrashSuspects>,
    ) -> Result<Self, BadLocal> {
        Ok(Self::at(DialTarget::local(address, Some(authorization))?, crash_suspects))
    }

    /// Creates an endpoint for a worker at `target`.
    pub(super) fn at(target: DialTarget, crash_suspects: Arc<CrashSuspects>) -> Self {
        let serving = Serving {
            in_flight: 0,
            read_only: 0,
            begun: 0,
            has_suspect: false,
            abandoned: AbandonedRequests::default(),
            requests: Vec::new(),
            broken: Vec::new(),
            failed_to_compute: Vec::new(),
            idle_since: Some(ActiveInstant::now()),
            is_closed: false,
        };
        Self {
            target,
            ready_at: OnceLock::new(),
            serving: Mutex::new(serving),
            compute_errors: AtomicU32::new(0),
            doubts: AtomicU64::new(0),
            cleared_doubts: AtomicU64::new(0),
            is_paused: AtomicBool::new(false),
            attention: Notify::new(),
            gone: CancellationToken::new(),
            suspect_left: Notify::new(),
            drained: Notify::new(),
            change_signal: Arc::default(),
            crash_suspects,
        }
    }

    /// Sets the signal that is notified when the endpoint becomes idle.
    pub(super) fn with_signal(self, change_signal: Arc<ChangeSignal>) -> Self {
        Self { change_signal, ..self }
    }

    /// Returns when a local worker was ready for the first time.
    pub fn ready_at(&self) -> Option<Instant> {
        self.ready_at.get().copied()
    }

    /// Cancelled when the worker has ended or is being ended, even if its connections stay open.
    pub fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Whether a suspect is in flight.
    pub fn has_suspect(&self) -> bool {
        self.serving().has_suspect
    }

    /// Waits until no suspect is in flight.
    pub async fn no_suspect_in_flight(&self) {
        loop {
            let mut left = pin!(self.suspect_left.notified());
            // Enabled before the check: a suspect that leaves between the two wakes this task.
            left.as_mut().enable();
            if !self.serving().has_suspect {
                return;
            }
            left.await;
        }
    }

    /// Whether it accepts new requests: it is not doubted, paused, about to be restarted or closed.
    pub(super) fn is_open(&self) -> bool {
        !self.is_doubted()
            && !self.is_paused.load(Ordering::SeqCst)
            && !self.cannot_compute()
            && !self.serving().is_closed
    }

    /// Returns since when it is idle, or `None` while any request is in flight, read-only ones included.
    pub(super) fn idle_since(&self) -> Option<ActiveInstant> {
        let serving = self.serving();
        serving.idle_since.filter(|_| serving.read_only == 0)
    }

    /// Closes the endpoint if it has been idle for at least `least`; returns whether it has been.
    pub(super) fn close_if_idle(&self, least: Duration) -> bool {
        let mut serving = self.serving();
        let is_idle = serving.read_only == 0 && serving.idle_since.is_some_and(|since| since.elapsed() >= least);
        serving.is_closed |= is_idle;
        is_idle
    }

    /// Closes all these endpoints if none of them has requests; returns whether none has. Otherwise closes none.
    pub(super) fn close_all_if_idle(endpoints: &[&Self]) -> bool {
        // All locks are held at once only here, and only under the lock of the memory ledger.
        let mut all: Vec<MutexGuard<'_, Serving>> = endpoints.iter().map(|endpoint| endpoint.serving()).collect();
        let is_idle = all.iter().all(|serving| serving.is_empty());
        all.iter_mut().for_each(|serving| serving.is_closed |= is_idle);
        is_idle
    }

    /// Accepts no new requests; those in flight go on.
    pub(super) fn close_to_new(&self) {
        self.serving().is_closed = true;
    }

    /// Accepts new requests again after [`Self::close_to_new`], unless it has ended.
    pub(super) fn reopen(&self) {
        let mut serving = self.serving();
        serving.is_closed = self.gone.is_cancelled();
    }

    /// Waits until nothing is in flight, after [`Self::close_to_new`]. Only its owner may wait: one task is notified.
    pub(super) async fn idle(&self) {
        while !self.serving().is_empty() {
            self.drained.notified().await;
        }
    }

    /// Closes the endpoint because its process is killed for failing to compute. Only the requests that it failed to
    /// compute become suspects. Returns their key if all of them have the same one.
    pub(super) fn record_compute_failure(&self) -> Option<Arc<str>> {
        let failed = std::mem::take(&mut self.serving().failed_to_compute);
        self.accuse(&failed);
        self.close();
        only_key(&failed)
    }

    /// Accepts no new requests, and ends the wait of those in flight.
    pub(super) fn close(&self) {
        self.serving().is_closed = true;
        self.gone.cancel();
    }

    /// Records that it is ready, for the first time or again: its idle time starts now.
    pub(super) fn mark_ready(&self) {
        self.ready_at.get_or_init(Instant::now);
        let mut serving = self.serving();
        serving.idle_since = serving.idle_since.map(|_| ActiveInstant::now());
    }

    /// Records that it has ended by itself or had to be killed. The requests in flight become suspects. Returns their
    /// key if all of them have the same one.
    pub(super) fn record_exit(&self) -> Option<Arc<str>> {
        let (suspects, just_abandoned) = self.close_and_take(|_| Vec::new());
        // Before `gone`: a retry that it wakes must already find its suspects.
        self.accuse(&suspects);
        self.gone.cancel();
        // A client that leaves at once takes its request with it, but may still have caused the crash.
        only_key(if suspects.is_empty() { &just_abandoned } else { &suspects })
    }

    /// Records that it was killed because it hung. The requests that were abandoned before become suspects, too.
    /// Returns their key if all of them have the same one.
    pub(super) fn record_hang(&self) -> Option<Arc<str>> {
        let (suspects, _) = self.close_and_take(AbandonedRequests::take);
        self.accuse(&suspects);
        self.gone.cancel();
        only_key(&suspects)
    }

    /// Closes it. Returns the requests that it was serving, those of `take_earlier` first, and those that were abandoned
    /// just before.
    fn close_and_take(
        &self,
        take_earlier: impl FnOnce(&mut AbandonedRequests) -> Vec<RequestIdentity>,
    ) -> (Vec<RequestIdentity>, Vec<RequestIdentity>) {
        let mut serving = self.serving();
        serving.is_closed = true;
        let just_abandoned = serving.abandoned.within(ABANDONED_BEFORE_CRASH);
        // Abandoned requests first: `record_crash` accuses only the first of the earlier suspects again.
        let mut requests = take_earlier(&mut serving.abandoned);
        requests.append(&mut serving.broken);
        requests.extend(serving.requests.drain(..).map(|(_, request)| request));
        (requests, just_abandoned)
    }

    /// Makes these requests suspects.
    fn accuse(&self, requests: &[RequestIdentity]) {
        let fingerprints: Vec<Fingerprint> = requests.iter().filter_map(|request| request.fingerprint).collect();
        self.crash_suspects.record_crash(&fingerprints);
    }

    /// Whether it has failed to compute [`COMPUTE_ERRORS_UNTIL_RESTART`] times in a row.
    pub(super) fn cannot_compute(&self) -> bool {
        self.compute_errors.load(Ordering::Relaxed) >= COMPUTE_ERRORS_UNTIL_RESTART
    }

    /// Raises a doubt: it broke a connection, so its process may be ending. It gets no new requests until its owner has
    /// probed it.
    fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::SeqCst);
        self.attention.notify_one();
    }

    /// Stops new requests until [`Self::resume_requests`]; those in flight go on. Returns false if it was paused
    /// already.
    pub(super) fn pause_requests(&self) -> bool {
        !self.is_paused.swap(true, Ordering::SeqCst)
    }

    /// Ends [`Self::pause_requests`]. Returns false if it was not paused.
    pub(super) fn resume_requests(&self) -> bool {
        self.is_paused.swap(false, Ordering::SeqCst)
    }

    /// Waits until its owner has to check it: a doubt was raised, or it cannot compute.
    pub(super) async fn attention_needed(&self) {
        self.attention.notified().await;
    }

    /// Returns how many doubts have been raised.
    pub(super) fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::SeqCst)
    }

    /// Whether a doubt has not been cleared.
    pub(super) fn is_doubted(&self) -> bool {
        // In this order: a doubt that is raised between the two loads is seen.
        self.cleared_doubts.load(Ordering::SeqCst) != self.doubts()
    }

    /// Clears the first `doubts` doubts: those raised before the probe that was answered. Called by its owner only.
    pub(super) fn clear_doubts(&self, doubts: u64) {
        let mut serving = self.serving();
        // A count and not a flag: a doubt raised since the probe was sent is not cleared by its answer.
        self.cleared_doubts.store(doubts, Ordering::SeqCst);
        if !self.is_doubted() {
            serving.broken.clear();
        }
    }

    /// Notifies the owner and waiting loads after a request has ended. Takes the guard, to unlock it before that.
    fn release_one(&self, serving: MutexGuard<'_, Serving>) {
        let (is_empty, is_closed) = (serving.is_empty(), serving.is_closed);
        drop(serving);
        if is_empty && is_closed {
            // Stores a permit if the owner does not wait yet. A stale permit is harmless: `idle` checks again.
            self.drained.notify_one();
        }
        if is_empty {
            self.change_signal.notify();
        }
    }

    fn serving(&self) -> MutexGuard<'_, Serving> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Serving {
    fn is_empty(&self) -> bool {
        self.in_flight == 0 && self.read_only == 0
    }

    /// Removes the request with this sequence number from those in flight. Returns `None` if it is gone already.
    fn take(&mut self, sequence: u64) -> Option<RequestIdentity> {
        let at = self.requests.iter().position(|(known, _)| *known == sequence)?;
        // Not `swap_remove`: they are accused in the order in which they began.
        Some(self.requests.remove(at).1)
    }
}

#[cfg(test)]
mod tests;
