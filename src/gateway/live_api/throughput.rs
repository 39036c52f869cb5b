//! What is done in a second, from two counts, and what was done in the minutes before: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::telemetry::live_counts::ModelCounts;
use crate::telemetry::recent_work::{STEP_SECONDS, WorkStep};

/// What has been done since the start, and what is under way.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct WorkCounts {
    /// By model.
    pub(super) models: BTreeMap<String, ModelCounts>,
    /// Requests that hold a slot.
    pub(super) running: i64,
    /// Requests that wait for one.
    pub(super) waiting: i64,
}

/// What was done in a second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Throughput {
    at: Timestamp,
    #[serde(flatten)]
    all: Pace,
    running: i64,
    waiting: i64,
    /// The models that had something to do.
    models: Vec<ModelPace>,
}

/// How fast requests are served.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Pace {
    tokens_per_second: f64,
    /// Requests that were served to their end.
    requests_per_second: f64,
    /// The mean of these requests.
    time_to_first_byte_ms: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ModelPace {
    model: String,
    #[serde(flatten)]
    pace: Pace,
}

/// What was done in the last minutes, in steps of equal length. The last step goes on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ThroughputHistory {
    /// When the last step was looked at.
    until: Timestamp,
    step_seconds: u64,
    /// Each of these has a value for each step, the oldest first.
    tokens_per_second: Vec<f64>,
    requests_per_second: Vec<f64>,
    time_to_first_byte_ms: Vec<Option<f64>>,
}

impl ThroughputHistory {
    /// Returns what was done in these steps, the last of which goes on.
    pub(super) fn of(steps: &[WorkStep], until: Timestamp) -> Self {
        let pace = |step: &WorkStep| {
            let (tokens, served) = (step.tokens as f64, step.served as f64);
            let done = ModelCounts { tokens, served, first_byte_seconds: step.first_byte_seconds };
            // Else the first moments of a step look like a great rush.
            Pace::of(done, Duration::from_secs_f64(step.seconds.max(1.0)))
        };
        let paces: Vec<Pace> = steps.iter().map(pace).collect();
        Self {
            until,
            step_seconds: STEP_SECONDS,
            tokens_per_second: paces.iter().map(|pace| pace.tokens_per_second).collect(),
            requests_per_second: paces.iter().map(|pace| pace.requests_per_second).collect(),
            time_to_first_byte_ms: paces.iter().map(|pace| pace.time_to_first_byte_ms).collect(),
        }
    }
}

impl Throughput {
    /// Returns what was done between two counts.
    pub(super) fn between(before: &WorkCounts, now: &WorkCounts, passed: Duration, at: Timestamp) -> Self {
        let (mut all, mut models) = (ModelCounts::default(), Vec::new());
        for (model, counts) in &now.models {
            let known = before.models.get(model).copied().unwrap_or_default();
            let done = ModelCounts {
                tokens: (counts.tokens - known.tokens).max(0.0),
                served: (counts.served - known.served).max(0.0),
                first_byte_seconds: (counts.first_byte_seconds - known.first_byte_seconds).max(0.0),
            };
            if done.tokens > 0.0 || done.served > 0.0 {
                models.push(ModelPace { model: model.clone(), pace: Pace::of(done, passed) });
            }
            all.tokens += done.tokens;
            all.served += done.served;
            all.first_byte_seconds += done.first_byte_seconds;
        }
        Self { at, all: Pace::of(all, passed), running: now.running, waiting: now.waiting, models }
    }

    /// Returns whether nothing was done and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.models.is_empty() && self.running == 0 && self.waiting == 0
    }
}

impl Pace {
    fn of(done: ModelCounts, passed: Duration) -> Self {
        let seconds = passed.as_secs_f64().max(f64::EPSILON);
        let rounded = |number: f64| (number * 1000.0).round() / 1000.0;
        Self {
            tokens_per_second: rounded(done.tokens / seconds),
            requests_per_second: rounded(done.served / seconds),
            time_to_first_byte_ms: (done.served > 0.0).then(|| rounded(done.first_byte_seconds * 1e3 / done.served)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn counts(models: &[(&str, f64, f64, f64)], running: i64) -> WorkCounts {
        let of = |&(model, tokens, served, first_byte_seconds): &(&str, f64, f64, f64)| {
            (model.to_owned(), ModelCounts { tokens, served, first_byte_seconds })
        };
        WorkCounts { models: models.iter().map(of).collect(), running, waiting: 0 }
    }

    #[test]
    fn the_history_has_the_pace_of_each_step() {
        let steps = [
            WorkStep { seconds: 10.0, tokens: 50, served: 2, first_byte_seconds: 0.3 },
            WorkStep { seconds: 0.5, tokens: 6, served: 0, first_byte_seconds: 0.0 },
        ];
        let expected = json!({
            "until": "1970-01-01T00:00:00Z", "step_seconds": 10, "tokens_per_second": [5.0, 6.0],
            "requests_per_second": [0.2, 0.0], "time_to_first_byte_ms": [150.0, null],
        });
        assert_eq!(json!(ThroughputHistory::of(&steps, Timestamp::UNIX_EPOCH)), expected);
    }

    #[test]
    fn throughput_is_what_was_done_between_two_counts() {
        let before = counts(&[("a", 100.0, 3.0, 1.0), ("idle", 5.0, 1.0, 1.0)], 0);
        let now = counts(&[("a", 160.0, 5.0, 1.5), ("idle", 5.0, 1.0, 1.0), ("new", 6.0, 0.0, 0.0)], 1);
        let two_seconds = Duration::from_secs(2);
        let throughput = Throughput::between(&before, &now, two_seconds, Timestamp::UNIX_EPOCH);
        assert!(!throughput.is_idle());
        let expected = json!({
            "at": "1970-01-01T00:00:00Z",
            "tokens_per_second": 33.0, "requests_per_second": 1.0, "time_to_first_byte_ms": 250.0,
            "running": 1, "waiting": 0,
            "models": [
                {"model": "a", "tokens_per_second": 30.0, "requests_per_second": 1.0, "time_to_first_byte_ms": 250.0},
                {"model": "new", "tokens_per_second": 3.0, "requests_per_second": 0.0, "time_to_first_byte_ms": null},
            ],
        });
        assert_eq!(json!(throughput), expected);
        let now = WorkCounts { running: 0, ..now };
        assert!(Throughput::between(&now, &now, two_seconds, Timestamp::UNIX_EPOCH).is_idle());
    }
}
