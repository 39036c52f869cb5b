//! The progress of one flow: what is due, and what its responses were like.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::plan::{Flow, Quantiles, Tally};
use crate::traffic::DELTAS;

/// A flow on its way: what is sent, and what has come.
pub(super) struct Progress<'a> {
    pub(super) flow: &'a Flow,
    start: Instant,
    interval: Duration,
    pub(super) next: u64,
    pub(super) idle: Vec<usize>,
    pub(super) tally: Tally,
    pub(super) times: Times,
}

/// The times of a flow, in nanoseconds.
pub(super) struct Times {
    pub(super) latency: Histogram<u64>,
    pub(super) first: Histogram<u64>,
    pub(super) gap: Histogram<u64>,
    pub(super) refusal: Histogram<u64>,
    pub(super) late: Histogram<u64>,
}

impl<'a> Progress<'a> {
    /// Begins a flow at `start`, with these connections idle.
    pub(super) fn new(flow: &'a Flow, start: Instant, idle: Vec<usize>) -> Self {
        let interval = if flow.rate > 0.0 { Duration::from_secs_f64(1.0 / flow.rate) } else { Duration::ZERO };
        Self { flow, start, interval, next: 0, idle, tally: Tally::default(), times: Times::new() }
    }

    /// Returns when the next request is due, or `None` if that is after the end.
    pub(super) fn due(&self, now: Instant, end: Instant) -> Option<Instant> {
        if self.flow.count.is_some_and(|count| self.next >= count) {
            return None;
        }
        // The first request of a closed loop is due at the start, so that a flow with a count is counted from its first.
        let due = if self.interval.is_zero() {
            now.max(self.start)
        } else {
            self.start + self.interval.mul_f64(self.next as f64)
        };
        (due < end).then_some(due)
    }

    /// Returns the tally, with the requests that were never sent as failures.
    pub(super) fn finish(mut self, end: Instant) -> Tally {
        let mut unsent = 0;
        while self.flow.rate > 0.0 && self.due(end, end).is_some() {
            self.next += 1;
            unsent += 1;
        }
        if unsent > 0 {
            self.tally.failed.insert("unsent".to_owned(), unsent);
        }
        let Times { latency, first, gap, refusal, late } = &self.times;
        let tally = &mut self.tally;
        (tally.latency, tally.first, tally.gap) = (quantiles(latency), quantiles(first), quantiles(gap));
        (tally.refusal, tally.late) = (quantiles(refusal), quantiles(late));
        self.tally
    }
}

impl Times {
    pub(super) fn new() -> Self {
        let new = |digits| Histogram::new_with_bounds(1, 600_000_000_000, digits).expect("bounds");
        // Gaps are long, and differences of a microsecond matter, so they need more digits.
        Self { latency: new(3), first: new(3), gap: new(5), refusal: new(3), late: new(3) }
    }
}

/// Counts `new` frames that arrived together, of a response that has `now` frames by now. The mock sends the last three
/// as one, so these do not count as merged.
pub(super) fn count_frames(tally: &mut Tally, now: usize, new: usize) {
    let sent_alone = |frames: usize| frames.min(DELTAS);
    let end = usize::from(now > DELTAS && now - new <= DELTAS);
    let apart = sent_alone(now) - sent_alone(now - new) + end;
    tally.frames += new as u64;
    tally.merged += apart.saturating_sub(1) as u64;
}

pub(super) fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(time.as_nanos() as u64);
}

fn quantiles(histogram: &Histogram<u64>) -> Quantiles {
    let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
    if histogram.is_empty() {
        return Quantiles::default();
    }
    Quantiles { count: histogram.len(), p50: at(0.5), p99: at(0.99), max: histogram.max() as f64 / 1e3 }
}
