//! One request at a worker, and what its outcome says about the worker.
//!
//! The [`Endpoint`] decides what follows for the worker.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::sync::WaitForCancellationFutureOwned;

use super::crash_suspects::{Fingerprint, RequestIdentity};
use super::{Endpoint, NotAccepted, RequestClass};
use crate::pause_clock::ActiveInstant;
use crate::worker::local_errors::shortage;

/// A request in flight at a llama-server; dropping it ends the request.
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    fingerprint: Option<Fingerprint>,
    is_read_only: bool,
    pub(super) is_suspect: bool,
    /// How many requests had begun before it.
    sequence: u64,
    outcome: RequestOutcome,
    /// The endpoint's `compute_errors` when it began. One failed batch fails all requests in flight, and counts once.
    compute_errors: u32,
}

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestOutcome {
    /// No response yet. A request that is dropped in this state was abandoned.
    Open,
    /// The response was complete, but may be an error of llama-server.
    Answered,
    /// The response was complete and successful.
    Served,
}

impl Endpoint {
    /// Begins a request that was sent with this API key. Two suspects are never in flight together.
    ///
    /// # Errors
    ///
    /// - [`NotAccepted::Closed`] if the endpoint accepts no new requests.
    /// - [`NotAccepted::Suspected`] if the request is a suspect and another suspect is in flight.
    pub fn begin(self: Arc<Self>, class: RequestClass, key: Option<&Arc<str>>) -> Result<InFlight, NotAccepted> {
        let (fingerprint, is_read_only) = match class {
            RequestClass::Inference(fingerprint) => (fingerprint, false),
            RequestClass::ReadOnly => (None, true),
        };
        let is_suspect = fingerprint.is_some_and(|fingerprint| self.crash_suspects.is_suspected(fingerprint));
        let sequence = {
            // Checked and counted under one lock: `close_if_idle` sees the request, or the request sees the close.
            let mut serving = self.serving();
            if serving.is_closed {
                return Err(NotAccepted::Closed);
            }
            if is_suspect && serving.has_suspect {
                return Err(NotAccepted::Suspected);
            }
            serving.has_suspect |= is_suspect;
            let sequence = serving.begun;
            serving.begun += 1;
            if is_read_only {
                serving.read_only += 1;
            } else {
                serving.in_flight += 1;
                serving.idle_since = None;
                serving.requests.push((sequence, RequestIdentity { fingerprint, key: key.cloned() }));
            }
            sequence
        };
        Ok(InFlight::new(self, fingerprint, is_read_only, is_suspect, sequence))
    }
}

impl InFlight {
    /// Creates a request that the endpoint has already counted.
    fn new(
        endpoint: Arc<Endpoint>,
        fingerprint: Option<Fingerprint>,
        is_read_only: bool,
        is_suspect: bool,
        sequence: u64,
    ) -> Self {
        let compute_errors = endpoint.compute_errors.load(Ordering::Relaxed);
        Self {
            endpoint,
            fingerprint,
            is_read_only,
            is_suspect,
            sequence,
            outcome: RequestOutcome::Open,
            compute_errors,
        }
    }

    /// The endpoint that the request is sent to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Waits until the llama-server has ended or is being ended, even if its connections stay open.
    pub fn gone(&self) -> WaitForCancellationFutureOwned {
        self.endpoint.gone.clone().cancelled_owned()
    }

    /// Records that llama-server broke the connection, which raises a doubt.
    pub fn record_broken_connection(&mut self) {
        {
            let mut serving = self.endpoint.serving();
            // The request may leave before its crash is detected, so it stays recorded until a probe is answered or the
            // process has ended.
            let request = serving.take(self.sequence);
            serving.broken.extend(request);
        }
        self.endpoint.doubt();
    }

    /// Records why the request failed. Raises a doubt, unless this machine was short of something such as descriptors.
    pub fn record_failure(&mut self, error: &(dyn Error + 'static)) {
        match shortage(error) {
            None => self.record_broken_connection(),
            // It was never sent, so it cannot have caused a hang and must not count as abandoned.
            Some(_) => self.record_answer_end(),
        }
    }

    /// Records that the response is complete, whether it is a success or an error.
    pub fn record_answer_end(&mut self) {
        if self.outcome == RequestOutcome::Open {
            self.outcome = RequestOutcome::Answered;
        }
    }

    /// Records a complete and successful response, which clears the request of suspicion.
    pub fn record_success(&mut self) {
        self.outcome = RequestOutcome::Served;
        // A load first: the value is nearly always 0 already, and a store would contend for the cache line.
        if self.endpoint.compute_errors.load(Ordering::Relaxed) != 0 {
            self.endpoint.compute_errors.store(0, Ordering::Relaxed);
            self.endpoint.serving().failed_to_compute.clear();
        }
        if let Some(fingerprint) = self.fingerprint {
            self.endpoint.crash_suspects.clear(fingerprint);
        }
    }

    /// Records that llama-server failed to compute a response, for which the request is not at fault.
    pub fn record_compute_failure(&mut self) {
        self.record_answer_end();
        if self.endpoint.target.is_remote {
            // We cannot restart a remote worker.
            return;
        }
        let (before, after) = (self.compute_errors, self.compute_errors.saturating_add(1));
        // Fails for all but the first request of a failed batch: they began with the same count.
        let counted =
            self.endpoint.compute_errors.compare_exchange(before, after, Ordering::Relaxed, Ordering::Relaxed);
        if counted.is_ok() {
            let mut serving = self.endpoint.serving();
            let request = serving.requests.iter().find(|(sequence, _)| *sequence == self.sequence);
            let request = request.map(|(_, request)| request.clone());
            serving.failed_to_compute.extend(request);
        }
        if self.endpoint.cannot_compute() {
            self.endpoint.attention.notify_one();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut serving = self.endpoint.serving();
        if self.is_read_only {
            serving.read_only -= 1;
            return self.endpoint.release_one(serving);
        }
        serving.in_flight -= 1;
        if serving.in_flight == 0 {
            serving.idle_since = Some(ActiveInstant::now());
        }
        // Already gone if the connection broke or the endpoint was closed by a crash; then it is accused elsewhere.
        let request = serving.take(self.sequence);
        match (self.outcome, request) {
            (RequestOutcome::Served, _) => serving.abandoned.remove_served(self.sequence),
            (RequestOutcome::Open, Some(request)) if request.fingerprint.is_some() => {
                let begun = serving.begun;
                serving.abandoned.add(request, begun);
            }
            _ => {}
        }
        if self.is_suspect {
            // Cleared before the notification, which stores no permit: a waiter enables itself, then reads the flag.
            serving.has_suspect = false;
            self.endpoint.suspect_left.notify_waiters();
        }
        self.endpoint.release_one(serving);
    }
}
