//! How far the present load of a worker is, for those who look at it.
//!
//! The owner of the worker writes it with the signs of life that it takes in any case. No task is woken by it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::load_phases::{START, WARM_UP, WEIGHTS};

/// The progress of a load at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadReport {
    /// What the process does: `start`, `weights` or `warm_up`.
    pub phase: &'static str,
    /// Bytes of the model that are in memory, by estimate; `None` before its files are read.
    pub bytes: Option<u64>,
    /// Bytes of the model's files; `None` if they are not known.
    pub total: Option<u64>,
    /// Seconds until the weights are in memory, at the pace until now.
    pub seconds_left: Option<u64>,
    /// Seconds since the start of the process.
    pub seconds: u64,
}

/// The load that is under way, if one is.
#[derive(Debug, Default)]
pub(super) struct LoadGauge(Mutex<Option<Load>>);

#[derive(Debug)]
struct Load {
    started: Instant,
    total: Option<u64>,
    phase: &'static str,
    /// When its files began to be read, and what the process had read or used by then.
    reading: Option<(Instant, u64)>,
    bytes: u64,
}

impl LoadGauge {
    /// Begins a load of this many bytes.
    pub(super) fn begin(&self, total: Option<u64>, now: Instant) {
        let load = Load { started: now, total, phase: START, reading: None, bytes: 0 };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(load);
    }

    /// Records the phase, and how many bytes the process has read or has in memory.
    pub(super) fn record(&self, phase: &'static str, bytes: u64, now: Instant) {
        let mut load = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(load) = load.as_mut() else { return };
        load.phase = phase;
        if phase != START {
            // What it needed before, such as its libraries, is no part of the model.
            let (_, before) = *load.reading.get_or_insert((now, bytes));
            load.bytes = load.bytes.max(bytes.saturating_sub(before));
        }
    }

    /// Ends the load, however it ended.
    pub(super) fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns how far the load is; `None` if nothing is being loaded.
    pub(super) fn report(&self, now: Instant) -> Option<LoadReport> {
        let load = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let load = load.as_ref()?;
        let bytes = match (load.phase, load.total) {
            (WARM_UP, Some(total)) => total,
            (_, total) => load.bytes.min(total.unwrap_or(u64::MAX)),
        };
        let seconds_left = load.reading.zip(load.total).filter(|_| load.phase == WEIGHTS && bytes > 0);
        let seconds_left = seconds_left.map(|((since, _), total)| left(now.duration_since(since), bytes, total));
        Some(LoadReport {
            phase: load.phase,
            bytes: load.reading.map(|_| bytes),
            total: load.total,
            seconds_left,
            seconds: now.duration_since(load.started).as_secs(),
        })
    }
}

/// Returns the seconds until `total` bytes are there, if `bytes` came in `passed`.
fn left(passed: Duration, bytes: u64, total: u64) -> u64 {
    let rest = total.saturating_sub(bytes) as f64 / bytes as f64;
    (passed.as_secs_f64() * rest).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_load_goes_from_nothing_to_its_whole_size_and_ends() {
        let (gauge, start) = (LoadGauge::default(), Instant::now());
        assert_eq!(gauge.report(start), None);
        gauge.record(WEIGHTS, 5, start);
        assert_eq!(gauge.report(start), None, "no load has begun");
        gauge.begin(Some(1_000), start);
        let report = |seconds: u32| gauge.report(start + seconds * SECOND).unwrap();
        gauge.record(START, 300, start + SECOND);
        assert_eq!((report(1).phase, report(1).bytes, report(1).total), (START, None, Some(1_000)));
        gauge.record(WEIGHTS, 400, start + 2 * SECOND);
        assert_eq!((report(2).bytes, report(2).seconds_left), (Some(0), None), "what was there before does not count");
        gauge.record(WEIGHTS, 650, start + 4 * SECOND);
        assert_eq!((report(4).bytes, report(4).seconds_left, report(4).seconds), (Some(250), Some(6), 4));
        gauge.record(WEIGHTS, 500, start + 5 * SECOND);
        assert_eq!(report(5).bytes, Some(250), "it never goes back");
        gauge.record(WEIGHTS, 9_000, start + 6 * SECOND);
        assert_eq!((report(6).bytes, report(6).seconds_left), (Some(1_000), Some(0)));
        gauge.record(WARM_UP, 9_000, start + 6 * SECOND);
        assert_eq!((report(6).phase, report(6).seconds_left), (WARM_UP, None));
        gauge.end();
        assert_eq!(gauge.report(start), None);
    }
}
