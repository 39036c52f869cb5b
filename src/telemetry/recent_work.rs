//! What requests have done in the last quarter of an hour, in steps of ten seconds, for those who begin to look.
//!
//! A request adds to it when it ends: some relaxed additions, no allocation, no timer. What is done now is in
//! `live_counts.rs`.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The length of a step, in seconds.
pub const STEP_SECONDS: u64 = 10;
/// Steps that are kept besides the one that goes on: 15 minutes.
const KEPT_STEPS: u64 = 90;
/// The places of all of them.
const PLACES: usize = KEPT_STEPS as usize + 1;

/// The steps that are kept, each in the place of its number.
#[derive(Debug)]
pub struct RecentWork {
    /// When the first step began.
    since: Instant,
    places: [WorkPlace; PLACES],
    /// Held to begin a step.
    begin: Mutex<()>,
}

/// A step.
#[derive(Debug, Default)]
struct WorkPlace {
    /// One more than the number of the step; 0 before the first one.
    mark: AtomicU64,
    tokens: AtomicU64,
    served: AtomicU64,
    first_byte_micros: AtomicU64,
}

/// What was done in one step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct WorkStep {
    /// Its length until now, in seconds: [`STEP_SECONDS`] of all but the last one.
    pub seconds: f64,
    /// Tokens of answers. Those of an answer over several steps are spread evenly.
    pub tokens: u64,
    /// Requests that were served and have ended.
    pub served: u64,
    /// The sum of their times to first byte, in seconds.
    pub first_byte_seconds: f64,
}

impl RecentWork {
    /// Begins with the first step.
    pub(super) fn since(since: Instant) -> Self {
        Self { since, places: std::array::from_fn(|_| WorkPlace::default()), begin: Mutex::default() }
    }

    /// Adds a request that arrived at this time, and whose answer was made between these times after it.
    pub fn add(&self, arrived: Instant, answer: Range<Duration>, first_byte: Duration, tokens: u64) {
        let arrived = self.seconds_until(arrived);
        let (began, ended) = (arrived + answer.start.as_secs_f64(), arrived + answer.end.as_secs_f64());
        let (first, last) = (step_of(began), step_of(ended));
        if let Some(place) = self.place(last) {
            place.served.fetch_add(1, Ordering::Relaxed);
            let micros = u64::try_from(first_byte.as_micros()).unwrap_or(u64::MAX);
            place.first_byte_micros.fetch_add(micros, Ordering::Relaxed);
            // Most answers are made within one step.
            if first == last {
                place.tokens.fetch_add(tokens, Ordering::Relaxed);
            }
        }
        if first < last {
            self.spread(began, ended, tokens);
        }
    }

    /// Adds the tokens of an answer that was made in several steps.
    fn spread(&self, began: f64, ended: f64, tokens: u64) {
        let (first, last) = (step_of(began), step_of(ended));
        // The tokens that had come at the end of a step before the last one.
        let come = |step: u64| {
            let passed = ((step + 1) * STEP_SECONDS) as f64 - began;
            (tokens as f64 * passed / (ended - began)) as u64
        };
        let kept = first.max(last.saturating_sub(KEPT_STEPS));
        let mut counted = if kept > first { come(kept - 1) } else { 0 };
        for step in kept..=last {
            let until = if step == last { tokens } else { come(step) };
            if let Some(place) = self.place(step).filter(|_| until > counted) {
                place.tokens.fetch_add(until - counted, Ordering::Relaxed);
            }
            counted = until;
        }
    }

    /// Returns the steps until now, the oldest first.
    #[must_use]
    pub fn steps(&self, now: Instant) -> Vec<WorkStep> {
        let now = self.seconds_until(now);
        let last = step_of(now);
        let of = |step: u64| {
            let place = &self.places[place_of(step)];
            let seconds = if step == last { now - (step * STEP_SECONDS) as f64 } else { STEP_SECONDS as f64 };
            if place.mark.load(Ordering::Acquire) != step + 1 {
                return WorkStep { seconds, ..WorkStep::default() };
            }
            let first_byte_micros = place.first_byte_micros.load(Ordering::Relaxed);
            WorkStep {
                seconds,
                tokens: place.tokens.load(Ordering::Relaxed),
                served: place.served.load(Ordering::Relaxed),
                first_byte_seconds: first_byte_micros as f64 / 1e6,
            }
        };
        (last.saturating_sub(KEPT_STEPS)..=last).map(of).collect()
    }

    /// Returns the place of a step, which begins if it has not; `None` if its place is that of a later one.
    fn place(&self, step: u64) -> Option<&WorkPlace> {
        let place = &self.places[place_of(step)];
        if place.mark.load(Ordering::Acquire) != step + 1 {
            let _alone = self.begin.lock().unwrap_or_else(PoisonError::into_inner);
            let mark = place.mark.load(Ordering::Acquire);
            if mark > step + 1 {
                return None;
            }
            if mark < step + 1 {
                for count in [&place.tokens, &place.served, &place.first_byte_micros] {
                    count.store(0, Ordering::Relaxed);
                }
                // Only then do others add to it.
                place.mark.store(step + 1, Ordering::Release);
            }
        }
        Some(place)
    }

    fn seconds_until(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.since).as_secs_f64()
    }
}

fn step_of(seconds: f64) -> u64 {
    seconds as u64 / STEP_SECONDS
}

fn place_of(step: u64) -> usize {
    (step % PLACES as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TTFB: Duration = Duration::from_millis(250);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn an_answer_counts_where_it_was_made_and_is_forgotten_after_a_quarter_of_an_hour() {
        let start = Instant::now();
        let work = RecentWork::since(start);
        work.add(start + seconds(0.5), seconds(0.5)..seconds(1.5), TTFB, 7);
        work.add(start + seconds(5.0), seconds(0.0)..seconds(20.0), TTFB, 40);
        let steps = work.steps(start + seconds(26.0));
        let told: Vec<(f64, u64, u64)> = steps.iter().map(|step| (step.seconds, step.tokens, step.served)).collect();
        assert_eq!(told, [(10.0, 17, 1), (10.0, 20, 0), (6.0, 10, 1)]);
        assert_eq!(steps[0].first_byte_seconds, 0.25);
        let later = work.steps(start + seconds(915.0));
        assert_eq!((later.len(), later[0].tokens, later[1].tokens), (91, 20, 10), "the first step is gone");
        let long = RecentWork::since(start);
        long.add(start, seconds(0.0)..seconds(2000.0), TTFB, 2000);
        assert_eq!(long.steps(start + seconds(2000.0)).iter().map(|step| step.tokens).sum::<u64>(), 900);
        work.add(start + seconds(912.0), seconds(0.0)..seconds(1.0), TTFB, 3);
        assert_eq!(work.steps(start + seconds(915.0)).last().unwrap().tokens, 3);
        work.add(start + seconds(1.0), seconds(0.0)..seconds(1.0), TTFB, 9);
        assert_eq!(work.steps(start + seconds(915.0)).last().unwrap().tokens, 3, "what comes too late is dropped");
    }

    #[test]
    fn nothing_is_lost_when_cores_begin_a_step_at_once() {
        let start = Instant::now();
        let work = RecentWork::since(start);
        for round in 0..200 {
            let at = start + seconds(f64::from(round) * STEP_SECONDS as f64);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| (0..10).for_each(|_| work.add(at, Duration::ZERO..Duration::ZERO, TTFB, 1)));
                }
            });
            let last = *work.steps(at).last().unwrap();
            assert_eq!((last.tokens, last.served), (40, 40));
        }
    }

    proptest! {
        #[test]
        fn every_token_counts_once(answers in prop::collection::vec((0.0..800.0, 0.0..100.0, 0u64..100_000), 0..40)) {
            let start = Instant::now();
            let work = RecentWork::since(start);
            for (began, length, tokens) in &answers {
                work.add(start, seconds(*began)..seconds(began + length), TTFB, *tokens);
            }
            let steps = work.steps(start + seconds(900.0));
            prop_assert_eq!(steps.iter().map(|step| step.tokens).sum::<u64>(), answers.iter().map(|(.., tokens)| tokens).sum::<u64>());
            prop_assert_eq!(steps.iter().map(|step| step.served).sum::<u64>(), answers.len() as u64);
        }
    }
}
