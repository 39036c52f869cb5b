//! One request at a worker: what comes of it, and what it tells of the worker when it leaves.
//!
//! What follows from that for the worker is its [`Endpoint`]'s to say.

use super::crash_suspects::Fingerprint;
use super::{Endpoint, NotAccepted, RequestClass};
use crate::pause_clock::ActiveInstant;
use crate::worker::local_errors::shortage;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio_util::sync::WaitForCancellationFutureOwned;

/// One request at a llama-server, until it is dropped.
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    fingerprint: Option<Fingerprint>,
    is_read_only: bool,
    pub(super) is_suspect: bool,
    /// How many had begun before it.
    begun: u64,
    outcome: RequestOutcome,
    /// How many failures to compute there were when it began. One failed batch fails all that are in flight, and counts
    /// once.
    compute_errors: u32,
}

/// What has come of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestOutcome {
    /// Nothing yet; if it ends so, it was given up.
    Open,
    /// llama-server has answered to the end, be it with an error of its own.
    Answered,
    /// It has answered well.
    Served,
}

impl Endpoint {
    /// Begins a request, unless nothing may be sent to it any more. Two that are under suspicion are never in flight
    /// together.
    pub fn begin(self: Arc<Self>, errand: RequestClass) -> Result<InFlight, NotAccepted> {
        let (fingerprint, only_looks) = match errand {
            RequestClass::Inference(fingerprint) => (fingerprint, false),
            RequestClass::ReadOnly => (None, true),
        };
        let is_suspect = fingerprint.is_some_and(|fingerprint| self.deaths.is_suspected(fingerprint));
        let begun = {
            let mut serving = self.serving();
            if serving.closed {
                return Err(NotAccepted::Closed);
            }
            if is_suspect && serving.has_suspect {
                return Err(NotAccepted::Suspected);
            }
            serving.has_suspect |= is_suspect;
            if only_looks {
                serving.looks += 1;
            } else {
                serving.in_flight += 1;
                serving.idle_since = None;
            }
            serving.fingerprints.extend(fingerprint);
            serving.begun += 1;
            serving.begun - 1
        };
        Ok(InFlight::new(self, fingerprint, only_looks, is_suspect, begun))
    }
}

impl InFlight {
    /// One that has just begun at this endpoint, which counts it.
    fn new(
        endpoint: Arc<Endpoint>,
        fingerprint: Option<Fingerprint>,
        only_looks: bool,
        is_suspect: bool,
        begun: u64,
    ) -> Self {
        let compute_errors = endpoint.compute_errors.load(Ordering::Relaxed);
        Self {
            endpoint,
            fingerprint,
            is_read_only: only_looks,
            is_suspect,
            begun,
            outcome: RequestOutcome::Open,
            compute_errors,
        }
    }

    /// Where the request goes.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Waits until the llama-server has ended or is being ended, whatever its connections do.
    pub fn gone(&self) -> WaitForCancellationFutureOwned {
        self.endpoint.gone.clone().cancelled_owned()
    }

    /// Says that the llama-server broke the connection.
    pub fn record_broken_connection(&mut self) {
        {
            let mut serving = self.endpoint.serving();
            // Until it answers a probe or has ended, the request stays under suspicion.
            let fingerprint = serving.take(self.fingerprint.take());
            serving.broken.extend(fingerprint);
        }
        self.endpoint.doubt();
    }

    /// Says why the request failed: a doubt, unless the reason lies with us.
    pub fn record_failure(&mut self, error: &(dyn Error + 'static)) {
        match shortage(error) {
            None => self.record_broken_connection(),
            // It was never sent, so nobody hangs on it.
            Some(_) => self.record_answer_end(),
        }
    }

    /// Says that the llama-server has answered to the end, well or with an error of its own.
    pub fn record_answer_end(&mut self) {
        if self.outcome == RequestOutcome::Open {
            self.outcome = RequestOutcome::Answered;
        }
    }

    /// Says that it was answered well, to the end.
    pub fn record_success(&mut self) {
        self.outcome = RequestOutcome::Served;
        // A read is cheaper than a write that nearly always changes nothing.
        if self.endpoint.compute_errors.load(Ordering::Relaxed) != 0 {
            self.endpoint.compute_errors.store(0, Ordering::Relaxed);
            self.endpoint.serving().uncomputed.clear();
        }
        if let Some(fingerprint) = self.fingerprint {
            self.endpoint.deaths.clear(fingerprint);
        }
    }

    /// Says that the llama-server could not compute an answer, which is no fault of the request.
    pub fn record_compute_failure(&mut self) {
        self.record_answer_end();
        if self.endpoint.target.is_remote {
            // Nobody here could restart it.
            return;
        }
        let (before, after) = (self.compute_errors, self.compute_errors.saturating_add(1));
        let counted =
            self.endpoint.compute_errors.compare_exchange(before, after, Ordering::Relaxed, Ordering::Relaxed);
        if counted.is_ok() {
            self.endpoint.serving().uncomputed.extend(self.fingerprint);
        }
        if self.endpoint.cannot_compute() {
            self.endpoint.raised.notify_one();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut serving = self.endpoint.serving();
        if self.is_read_only {
            serving.looks -= 1;
            return self.endpoint.release_one(serving);
        }
        serving.in_flight -= 1;
        if serving.in_flight == 0 {
            serving.idle_since = Some(ActiveInstant::now());
        }
        let fingerprint = serving.take(self.fingerprint);
        match (self.outcome, fingerprint) {
            (RequestOutcome::Served, _) => serving.given_up.remove_served(self.begun),
            (RequestOutcome::Open, Some(fingerprint)) => {
                let begun = serving.begun;
                serving.given_up.add(fingerprint, begun);
            }
            _ => {}
        }
        if self.is_suspect {
            serving.has_suspect = false;
            self.endpoint.suspect_left.notify_waiters();
        }
        self.endpoint.release_one(serving);
    }
}
