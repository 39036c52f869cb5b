//! One life of a ready worker as requests see it: what it is serving, and what speaks against it.
//! Where it is reached is a `DialTarget`'s business; what one request tells of it is `in_flight.rs`'s.
//!
//! The one lock in here decides who came first: a request that takes a worker, or the worker that goes to sleep.
//!
//! - `abandoned.rs`: requests that their clients gave up, one of which a hang may be due to
//! - `crash_suspects.rs`: requests that were in flight when a worker died
//! - `in_flight.rs`: one request at a worker, and what its outcome says of the worker

pub(super) mod abandoned;
pub(super) mod crash_suspects;
pub(super) mod in_flight;

use crate::dial::DialTarget;
use crate::pause_clock::ActiveInstant;
use crate::worker::bounds::COMPUTE_ERRORS_UNTIL_RESTART;
use crate::worker::change_signal::ChangeSignal;
use abandoned::AbandonedRequests;
use crash_suspects::{CrashSuspects, Fingerprint};
#[cfg(test)]
use http::{HeaderValue, uri::InvalidUri};
#[cfg(test)]
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Where a ready worker is reached, and what it is doing.
pub struct Endpoint {
    /// Where its requests go.
    pub target: DialTarget,
    serving: Mutex<Serving>,
    /// How often in a row it could not compute.
    compute_errors: AtomicU32,
    /// Doubts since its start, and how many of them have been looked into.
    doubts: AtomicU64,
    dispelled: AtomicU64,
    /// It seems to hang.
    held: AtomicBool,
    /// Its owner has something to look at.
    raised: Notify,
    /// Cancelled when its end has been found out or is decided.
    gone: CancellationToken,
    /// A request under suspicion has left.
    suspect_left: Notify,
    /// It is closed, and what was in flight has left.
    emptied: Notify,
    /// Rung when it has nothing to do any more.
    bell: Arc<ChangeSignal>,
    deaths: Arc<CrashSuspects>,
}

/// What a request wants of a llama-server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestClass {
    /// To be worked on; what it asks for, if that is known.
    Inference(Option<Fingerprint>),
    /// Only to look, which is no use of it: that neither wakes it nor keeps it awake.
    ReadOnly,
}

/// Why a request may not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAccepted {
    /// Nothing is sent to it any more.
    Closed,
    /// It is under suspicion, and so is another one that is in flight: should it die now, nobody knew of which.
    Suspected,
}

/// What a llama-server is serving.
struct Serving {
    in_flight: usize,
    /// Those in flight beside them that only look.
    looks: usize,
    /// How many have begun.
    begun: u64,
    /// Whether one of those in flight was under suspicion when it began.
    has_suspect: bool,
    given_up: AbandonedRequests,
    /// Of those in flight.
    fingerprints: Vec<Fingerprint>,
    /// Of those whose connection it broke since it last answered well. No more than can be in flight at once: nothing
    /// is sent to it while it is doubted.
    broken: Vec<Fingerprint>,
    /// Of those that it could not compute, in a row.
    uncomputed: Vec<Fingerprint>,
    /// Since when nothing is in flight.
    idle_since: Option<ActiveInstant>,
    /// Nothing is sent to it any more.
    closed: bool,
}

impl Endpoint {
    /// A llama-server of ours, on the loopback interface.
    #[cfg(test)]
    pub(super) fn new(
        address: SocketAddr,
        authorization: HeaderValue,
        deaths: Arc<CrashSuspects>,
    ) -> Result<Self, InvalidUri> {
        Ok(Self::at(DialTarget::local(address, Some(authorization))?, deaths))
    }

    /// A worker that is reached there.
    pub(super) fn at(target: DialTarget, deaths: Arc<CrashSuspects>) -> Self {
        let serving = Serving {
            in_flight: 0,
            looks: 0,
            begun: 0,
            has_suspect: false,
            given_up: AbandonedRequests::default(),
            fingerprints: Vec::new(),
            broken: Vec::new(),
            uncomputed: Vec::new(),
            idle_since: Some(ActiveInstant::now()),
            closed: false,
        };
        Self {
            target,
            serving: Mutex::new(serving),
            compute_errors: AtomicU32::new(0),
            doubts: AtomicU64::new(0),
            dispelled: AtomicU64::new(0),
            held: AtomicBool::new(false),
            raised: Notify::new(),
            gone: CancellationToken::new(),
            suspect_left: Notify::new(),
            emptied: Notify::new(),
            bell: Arc::default(),
            deaths,
        }
    }

    /// The same, with a bell that rings whenever it has nothing to do any more.
    pub(super) fn with_signal(self, bell: Arc<ChangeSignal>) -> Self {
        Self { bell, ..self }
    }

    /// Whether a request under suspicion is in flight.
    pub fn has_suspect(&self) -> bool {
        self.serving().has_suspect
    }

    /// Waits until no request under suspicion is in flight.
    pub async fn no_suspect_in_flight(&self) {
        loop {
            let mut left = pin!(self.suspect_left.notified());
            // Before the look: one that leaves between the two is heard of.
            left.as_mut().enable();
            if !self.serving().has_suspect {
                return;
            }
            left.await;
        }
    }

    /// Whether requests may be sent to it: nobody doubts it, it does not seem to hang, it is not about to be
    /// restarted, and it is not closed.
    pub(super) fn is_open(&self) -> bool {
        !self.is_doubted() && !self.held.load(Ordering::SeqCst) && !self.cannot_compute() && !self.serving().closed
    }

    /// Since when it has nothing to do; none while it has, or is being looked at.
    pub(super) fn idle_since(&self) -> Option<ActiveInstant> {
        let serving = self.serving();
        serving.idle_since.filter(|_| serving.looks == 0)
    }

    /// Has nothing sent to it any more, if it has had nothing to do for so long.
    pub(super) fn close_if_idle(&self, least: Duration) -> bool {
        let mut serving = self.serving();
        let is_unused = serving.looks == 0 && serving.idle_since.is_some_and(|since| since.elapsed() >= least);
        serving.closed |= is_unused;
        is_unused
    }

    /// Has nothing new sent to it any more; what it is serving goes on.
    pub(super) fn close_to_new(&self) {
        self.serving().closed = true;
    }

    /// Waits until nothing is in flight, after [`Self::close_to_new`]. Only its owner waits.
    pub(super) async fn idle(&self) {
        while !self.serving().is_empty() {
            self.emptied.notified().await;
        }
    }

    /// It must be killed because it cannot compute: what it could not compute is remembered, and nothing else that it
    /// was serving.
    pub(super) fn record_compute_failure(&self) {
        let suspects = std::mem::take(&mut self.serving().uncomputed);
        self.deaths.record_crash(&suspects);
        self.close();
    }

    /// Has nothing sent to it any more.
    pub(super) fn close(&self) {
        self.serving().closed = true;
        self.gone.cancel();
    }

    /// It is ready for the first time, or again.
    pub(super) fn mark_ready(&self) {
        let mut serving = self.serving();
        serving.idle_since = serving.idle_since.map(|_| ActiveInstant::now());
    }

    /// It has ended by itself or had to be killed: what it was serving is remembered.
    pub(super) fn record_exit(&self) {
        self.accuse(|_| Vec::new());
    }

    /// It had to be killed because nothing came of its work: what was given up before counts as being served.
    pub(super) fn record_hang(&self) {
        self.accuse(AbandonedRequests::take);
    }

    fn accuse(&self, earlier: impl FnOnce(&mut AbandonedRequests) -> Vec<Fingerprint>) {
        let suspects = {
            let mut serving = self.serving();
            serving.closed = true;
            let mut suspects = earlier(&mut serving.given_up);
            suspects.append(&mut serving.broken);
            suspects.append(&mut serving.fingerprints);
            suspects
        };
        self.deaths.record_crash(&suspects);
        self.gone.cancel();
    }

    /// Whether it fails one request after the other for want of a result.
    pub(super) fn cannot_compute(&self) -> bool {
        self.compute_errors.load(Ordering::Relaxed) >= COMPUTE_ERRORS_UNTIL_RESTART
    }

    /// Says that it broke a connection, and so may be about to end: nothing more is sent to it until its owner has
    /// looked.
    fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::SeqCst);
        self.raised.notify_one();
    }

    /// Has nothing new sent to it until [`Self::resume`]; what it is serving goes on. False if that was so already.
    pub(super) fn pause_requests(&self) -> bool {
        !self.held.swap(true, Ordering::SeqCst)
    }

    /// Undoes [`Self::hold`]. False if nothing was held.
    pub(super) fn resume_requests(&self) -> bool {
        self.held.swap(false, Ordering::SeqCst)
    }

    /// Waits until there is something to look at, such as a doubt.
    pub(super) async fn has_pending_compute_errors(&self) {
        self.raised.notified().await;
    }

    /// How often it has been doubted.
    pub(super) fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::SeqCst)
    }

    /// Whether a doubt is left.
    pub(super) fn is_doubted(&self) -> bool {
        // In this order: a doubt that comes between the two is seen.
        self.dispelled.load(Ordering::SeqCst) != self.doubts()
    }

    /// Clears the first so many doubts: those that had been raised when it was asked. Its owner alone does that.
    pub(super) fn clear_doubts(&self, doubts: u64) {
        let mut serving = self.serving();
        self.dispelled.store(doubts, Ordering::SeqCst);
        if !self.is_doubted() {
            serving.broken.clear();
        }
    }

    /// Something has left.
    fn release_one(&self, serving: MutexGuard<'_, Serving>) {
        let (is_empty, closed) = (serving.is_empty(), serving.closed);
        drop(serving);
        if is_empty && closed {
            self.emptied.notify_one();
        }
        if is_empty {
            self.bell.notify();
        }
    }

    fn serving(&self) -> MutexGuard<'_, Serving> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Serving {
    fn is_empty(&self) -> bool {
        self.in_flight == 0 && self.looks == 0
    }

    /// Takes one request with this fingerprint out of those in flight.
    fn take(&mut self, fingerprint: Option<Fingerprint>) -> Option<Fingerprint> {
        let at = self.fingerprints.iter().position(|one| Some(*one) == fingerprint)?;
        Some(self.fingerprints.swap_remove(at))
    }
}

#[cfg(test)]
mod tests;
