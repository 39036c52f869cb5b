//! What one worker has done so far, for whoever chooses among workers and for `GET /lb/stats`.
//!
//! Owns the counters, which start at zero with the service, and how they are shown. Decides nothing.

use super::breaker::BreakerState;
use crate::fleet::bounds::{LAST_ERROR_LENGTH, NEWEST_FIRST_BYTE};
use jiff::Timestamp;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The counters of one worker.
#[derive(Debug, Default)]
pub(super) struct WorkerCounters {
    in_flight: AtomicUsize,
    served: AtomicU64,
    failures: AtomicU64,
    /// The mean time to the first byte in nanoseconds; 0 before the first.
    first_byte: AtomicU64,
    last_failure: Mutex<Option<Failure>>,
}

/// One request that a worker is serving. Uncounted when it is dropped.
#[derive(Debug)]
pub(super) struct ServingGuard(Arc<WorkerCounters>);

#[derive(Debug, Clone)]
struct Failure {
    error: String,
    at: Timestamp,
}

/// Who runs a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerKind {
    /// A llama-server that the gateway starts.
    Local,
    /// Another server that the gateway starts.
    Command,
    /// Somebody else.
    Remote,
}

/// What of a worker its counters do not know.
#[derive(Debug, Clone)]
pub(super) struct WorkerFacts {
    /// The number of the worker among those of its model.
    pub worker: u32,
    /// Who runs it.
    pub kind: WorkerKind,
    /// Where it stands, in one word.
    pub state: &'static str,
    /// Requests that it may serve at once.
    pub slots: usize,
    /// The state of its circuit breaker.
    pub breaker: BreakerState,
}

/// What is shown of one worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerStats {
    /// The number of the worker among those of its model.
    pub worker: u32,
    /// Who runs it.
    pub kind: WorkerKind,
    /// Where it stands, in one word.
    pub state: &'static str,
    /// Requests that it is serving.
    pub in_flight: usize,
    /// Requests that it may serve at once.
    pub slots: usize,
    /// Requests that it has served since the service started.
    pub served: u64,
    /// Requests that it has failed to serve since then.
    pub failures: u64,
    /// The mean time to its first byte in milliseconds, to the thousandth; the newest count most.
    pub ewma_latency_ms: Option<f64>,
    /// The state of its circuit breaker.
    pub breaker: BreakerState,
    /// What it failed with last.
    pub last_error: Option<String>,
    /// When that was.
    pub last_failure: Option<Timestamp>,
}

impl WorkerCounters {
    /// Counts a request as being served, as long as what is returned lives.
    pub(super) fn begin(self: &Arc<Self>) -> ServingGuard {
        self.in_flight.fetch_add(1, Relaxed);
        ServingGuard(Arc::clone(self))
    }

    /// Requests that it is serving.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// The first byte of an answer came after so long.
    pub(super) fn record_first_byte(&self, time: Duration) {
        let newest = time.as_nanos() as f64;
        // Never fails: the closure always has a value.
        let _ = self.first_byte.fetch_update(Relaxed, Relaxed, |mean| {
            let next = if mean == 0 { newest } else { mean as f64 + NEWEST_FIRST_BYTE * (newest - mean as f64) };
            debug_assert!(next.is_finite() && next >= 0.0, "a mean of times is a time: {next}");
            Some((next as u64).max(1))
        });
    }

    /// The mean time to the first byte, in which the newest count most; none before the first.
    pub(super) fn first_byte(&self) -> Option<Duration> {
        Some(self.first_byte.load(Relaxed)).filter(|&nanos| nanos > 0).map(Duration::from_nanos)
    }

    /// It has served a request.
    pub(super) fn record_served(&self) {
        self.served.fetch_add(1, Relaxed);
    }

    /// It has failed to serve a request. `error` says how, without anything that is secret or that a client wrote; no more
    /// than [`LAST_ERROR_LENGTH`] characters are kept of it.
    pub(super) fn record_failure(&self, error: &str) {
        self.failures.fetch_add(1, Relaxed);
        let error = error.chars().filter(|c| !c.is_control()).take(LAST_ERROR_LENGTH).collect();
        let failure = Failure { error, at: Timestamp::now() };
        debug_assert!(failure.error.chars().count() <= LAST_ERROR_LENGTH, "the error is cut to its bound");
        self.last_failure_mut().replace(failure);
    }

    /// What is shown of the worker now.
    pub(super) fn snapshot(&self, of: WorkerFacts) -> WorkerStats {
        let WorkerFacts { worker, kind, state, slots, breaker } = of;
        let last = self.last_failure_mut().clone();
        let (last_error, last_failure) = last.map(|failure| (failure.error, failure.at)).unzip();
        WorkerStats {
            worker,
            kind,
            state,
            in_flight: self.in_flight(),
            slots,
            served: self.served.load(Relaxed),
            failures: self.failures.load(Relaxed),
            ewma_latency_ms: self.first_byte().map(|time| (time.as_secs_f64() * 1e6).round() / 1e3),
            breaker,
            last_error,
            last_failure,
        }
    }

    fn last_failure_mut(&self) -> MutexGuard<'_, Option<Failure>> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ServingGuard {
    fn drop(&mut self) {
        let before = self.0.in_flight.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "a request was uncounted more often than it was counted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn particulars() -> WorkerFacts {
        WorkerFacts { worker: 0, kind: WorkerKind::Local, state: "ready", slots: 2, breaker: BreakerState::Closed }
    }

    fn mean(tally: &WorkerCounters) -> Option<f64> {
        tally.snapshot(particulars()).ewma_latency_ms
    }

    #[test]
    fn a_new_one_shows_nothing_but_what_is_known() {
        let json = serde_json::to_value(WorkerCounters::default().snapshot(particulars())).unwrap();
        let shown = serde_json::json!({
            "worker": 0, "kind": "local", "state": "ready", "in_flight": 0, "slots": 2, "served": 0, "failures": 0,
            "ewma_latency_ms": null, "breaker": "closed", "last_error": null, "last_failure": null,
        });
        assert_eq!(json, shown);
        for (kind, word) in [(WorkerKind::Command, "command"), (WorkerKind::Remote, "remote")] {
            assert_eq!(serde_json::to_value(kind).unwrap(), word);
        }
    }

    #[test]
    fn the_state_of_a_breaker_is_shown_in_one_word() {
        let shown = |breaker| {
            let snapshot = WorkerCounters::default().snapshot(WorkerFacts { breaker, ..particulars() });
            serde_json::to_value(snapshot).unwrap()["breaker"].clone()
        };
        let states = [BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen];
        assert_eq!(states.map(shown), ["closed", "open", "half-open"]);
    }

    #[test]
    fn what_happens_is_counted() {
        let tally = Arc::new(WorkerCounters::default());
        let before = Timestamp::now();
        let (one, other) = (tally.begin(), tally.begin());
        assert_eq!(tally.in_flight(), 2);
        drop(one);
        (0..3).for_each(|_| tally.record_served());
        tally.record_failure("connection refused");
        tally.record_failure("answered 500");
        let shown = tally.snapshot(particulars());
        assert_eq!((shown.in_flight, shown.served, shown.failures), (1, 3, 2));
        assert_eq!(shown.last_error.as_deref(), Some("answered 500"));
        assert!(shown.last_failure.is_some_and(|at| at >= before));
        drop(other);
        assert_eq!(tally.in_flight(), 0);
    }

    #[test]
    fn what_is_kept_of_an_error_is_short_and_one_line() {
        let tally = WorkerCounters::default();
        tally.record_failure(&format!("a\n\u{1b}[31mé{}", "x".repeat(1000)));
        let kept = tally.snapshot(particulars()).last_error.unwrap();
        assert!(kept.starts_with("a[31méx") && kept.chars().count() == LAST_ERROR_LENGTH, "{kept}");
    }

    #[test]
    fn the_first_measurement_stands_and_each_further_one_moves_the_mean() {
        let tally = WorkerCounters::default();
        let after = |millis| tally.record_first_byte(Duration::from_millis(millis));
        assert_eq!((tally.first_byte(), mean(&tally)), (None, None));
        after(100);
        assert_eq!(mean(&tally), Some(100.0));
        after(200);
        assert_eq!(mean(&tally), Some(100.0 + 100.0 * NEWEST_FIRST_BYTE));
        (0..100).for_each(|_| after(10));
        assert!((mean(&tally).unwrap() - 10.0).abs() < 0.01);
    }

    #[test]
    fn no_time_at_all_is_measured_too() {
        let tally = WorkerCounters::default();
        tally.record_first_byte(Duration::ZERO);
        assert_eq!((tally.first_byte(), mean(&tally)), (Some(Duration::from_nanos(1)), Some(0.0)));
    }

    proptest! {
        #[test]
        fn a_mean_lies_between_the_least_and_the_greatest(times in proptest::collection::vec(1..1_000_000_u64, 1..30)) {
            let tally = WorkerCounters::default();
            times.iter().for_each(|&time| tally.record_first_byte(Duration::from_micros(time)));
            let bound = |micros: Option<&u64>| Duration::from_micros(micros.copied().unwrap());
            // Nanoseconds are cut off.
            let nanos = Duration::from_nanos(times.len() as u64);
            let mean = tally.first_byte().unwrap();
            prop_assert!(bound(times.iter().min()) <= mean + nanos && mean <= bound(times.iter().max()) + nanos);
        }
    }
}
