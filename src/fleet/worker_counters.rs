//! The counters of one worker, for the choice among workers and for `GET /lb/stats`.
//!
//! Owns the counters, which start at zero with the service, and how they are shown. Decides nothing.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::breaker::BreakerState;
use crate::fleet::bounds::{LAST_ERROR_LENGTH, NEWEST_FIRST_BYTE};

/// The counters of one worker.
#[derive(Debug, Default)]
pub(super) struct WorkerCounters {
    in_flight: AtomicUsize,
    served: AtomicU64,
    failures: AtomicU64,
    /// The moving average of the time to first byte, in nanoseconds; 0 before the first response.
    first_byte: AtomicU64,
    last_failure: Mutex<Option<Failure>>,
}

/// Counts one request as in flight until it is dropped.
#[derive(Debug)]
pub(super) struct ServingGuard(Arc<WorkerCounters>);

#[derive(Debug, Clone)]
struct Failure {
    error: String,
    at: Timestamp,
}

/// The operator of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerKind {
    /// A llama-server that the gateway runs.
    Local,
    /// Another server that the gateway runs.
    Command,
    /// A server that is operated elsewhere.
    Remote,
}

/// The facts about a worker that its counters do not know.
#[derive(Debug, Clone)]
pub(super) struct WorkerFacts {
    /// The number of the worker among those of its model.
    pub worker: u32,
    /// The operator of the worker.
    pub kind: WorkerKind,
    /// The state, in one word.
    pub state: &'static str,
    /// Maximum number of requests in flight.
    pub slots: usize,
    /// The state of its circuit breaker.
    pub breaker: BreakerState,
}

/// The statistics of one worker, as `GET /lb/stats` shows them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerStats {
    /// The number of the worker among those of its model.
    pub worker: u32,
    /// The operator of the worker.
    pub kind: WorkerKind,
    /// The state, in one word.
    pub state: &'static str,
    /// Requests in flight.
    pub in_flight: usize,
    /// Maximum number of requests in flight.
    pub slots: usize,
    /// Requests that were served since the service started.
    pub served: u64,
    /// Requests that failed since the service started.
    pub failures: u64,
    /// The moving average of the time to first byte in milliseconds, with three decimals.
    pub ewma_latency_ms: Option<f64>,
    /// The state of its circuit breaker.
    pub breaker: BreakerState,
    /// The last error.
    pub last_error: Option<String>,
    /// The time of the last error.
    pub last_failure: Option<Timestamp>,
}

impl WorkerCounters {
    /// Counts a request as in flight until the returned guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> ServingGuard {
        self.in_flight.fetch_add(1, Relaxed);
        ServingGuard(Arc::clone(self))
    }

    /// Returns the number of requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Adds a time to first byte to the moving average.
    pub(super) fn record_first_byte(&self, time: Duration) {
        let newest = time.as_nanos() as f64;
        // Cannot fail: the closure always returns a value.
        let _ = self.first_byte.fetch_update(Relaxed, Relaxed, |average| {
            let next =
                if average == 0 { newest } else { average as f64 + NEWEST_FIRST_BYTE * (newest - average as f64) };
            debug_assert!(next.is_finite() && next >= 0.0, "the average of times is a time: {next}");
            // 0 is reserved for "no measurement yet".
            Some((next as u64).max(1))
        });
    }

    /// Returns the moving average of the time to first byte; `None` before the first response.
    pub(super) fn first_byte(&self) -> Option<Duration> {
        Some(self.first_byte.load(Relaxed)).filter(|&nanos| nanos > 0).map(Duration::from_nanos)
    }

    /// Counts a request that was served.
    pub(super) fn record_served(&self) {
        self.served.fetch_add(1, Relaxed);
    }

    /// Counts a request that failed. `error` must contain no secret and no text of a client; at most
    /// [`LAST_ERROR_LENGTH`] characters of it are kept.
    pub(super) fn record_failure(&self, error: &str) {
        self.failures.fetch_add(1, Relaxed);
        let error = error.chars().filter(|c| !c.is_control()).take(LAST_ERROR_LENGTH).collect();
        let failure = Failure { error, at: Timestamp::now() };
        debug_assert!(failure.error.chars().count() <= LAST_ERROR_LENGTH, "the error is cut to its bound");
        self.last_failure_mut().replace(failure);
    }

    /// Returns the statistics of the worker at this moment.
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
        debug_assert!(before > 0, "a request was uncounted more often than counted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts() -> WorkerFacts {
        WorkerFacts { worker: 0, kind: WorkerKind::Local, state: "ready", slots: 2, breaker: BreakerState::Closed }
    }

    fn average(counters: &WorkerCounters) -> Option<f64> {
        counters.snapshot(facts()).ewma_latency_ms
    }

    #[test]
    fn a_new_worker_shows_only_its_facts() {
        let json = serde_json::to_value(WorkerCounters::default().snapshot(facts())).unwrap();
        let stats = serde_json::json!({
            "worker": 0, "kind": "local", "state": "ready", "in_flight": 0, "slots": 2, "served": 0, "failures": 0,
            "ewma_latency_ms": null, "breaker": "closed", "last_error": null, "last_failure": null,
        });
        assert_eq!(json, stats);
        for (kind, word) in [(WorkerKind::Command, "command"), (WorkerKind::Remote, "remote")] {
            assert_eq!(serde_json::to_value(kind).unwrap(), word);
        }
    }

    #[test]
    fn the_state_of_a_breaker_is_shown_in_one_word() {
        let stats = |breaker| {
            let snapshot = WorkerCounters::default().snapshot(WorkerFacts { breaker, ..facts() });
            serde_json::to_value(snapshot).unwrap()["breaker"].clone()
        };
        let states = [BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen];
        assert_eq!(states.map(stats), ["closed", "open", "half-open"]);
    }

    #[test]
    fn requests_in_flight_served_and_failed_are_counted() {
        let counters = Arc::new(WorkerCounters::default());
        let before = Timestamp::now();
        let (one, other) = (counters.begin(), counters.begin());
        assert_eq!(counters.in_flight(), 2);
        drop(one);
        (0..3).for_each(|_| counters.record_served());
        counters.record_failure("connection refused");
        counters.record_failure("answered 500");
        let stats = counters.snapshot(facts());
        assert_eq!((stats.in_flight, stats.served, stats.failures), (1, 3, 2));
        assert_eq!(stats.last_error.as_deref(), Some("answered 500"));
        assert!(stats.last_failure.is_some_and(|at| at >= before));
        drop(other);
        assert_eq!(counters.in_flight(), 0);
    }

    #[test]
    fn the_last_error_is_short_and_one_line() {
        let counters = WorkerCounters::default();
        counters.record_failure(&format!("a\n\u{1b}[31mé{}", "x".repeat(1000)));
        let error = counters.snapshot(facts()).last_error.unwrap();
        assert!(error.starts_with("a[31méx") && error.chars().count() == LAST_ERROR_LENGTH, "{error}");
    }

    #[test]
    fn the_first_measurement_is_the_average_and_further_ones_move_it() {
        let counters = WorkerCounters::default();
        let after = |millis| counters.record_first_byte(Duration::from_millis(millis));
        assert_eq!((counters.first_byte(), average(&counters)), (None, None));
        after(100);
        assert_eq!(average(&counters), Some(100.0));
        after(200);
        assert_eq!(average(&counters), Some(100.0 + 100.0 * NEWEST_FIRST_BYTE));
        (0..100).for_each(|_| after(10));
        assert!((average(&counters).unwrap() - 10.0).abs() < 0.01);
    }

    #[test]
    fn a_time_of_zero_counts_as_a_measurement() {
        let counters = WorkerCounters::default();
        counters.record_first_byte(Duration::ZERO);
        assert_eq!((counters.first_byte(), average(&counters)), (Some(Duration::from_nanos(1)), Some(0.0)));
    }

    proptest! {
        #[test]
        fn the_average_lies_between_the_smallest_and_the_greatest_time(times in proptest::collection::vec(1..1_000_000_u64, 1..30)) {
            let counters = WorkerCounters::default();
            times.iter().for_each(|&time| counters.record_first_byte(Duration::from_micros(time)));
            let bound = |micros: Option<&u64>| Duration::from_micros(micros.copied().unwrap());
            // Nanoseconds are cut off.
            let nanos = Duration::from_nanos(times.len() as u64);
            let average = counters.first_byte().unwrap();
            prop_assert!(bound(times.iter().min()) <= average + nanos && average <= bound(times.iter().max()) + nanos);
        }
    }
}
