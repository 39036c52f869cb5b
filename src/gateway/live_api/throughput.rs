//! What is done in a second: pure, from two counts.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::telemetry::live_counts::ModelCounts;

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
