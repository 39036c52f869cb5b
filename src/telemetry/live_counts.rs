//! What the models have done so far, for those who look at the service while it works.
//!
//! Read from the series that requests count in anyway, so that looking costs requests nothing. A histogram shows its sum
//! only as text; that of two families is read here.

use std::collections::BTreeMap;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use super::metrics::Metrics;

/// What the requests of one model have done since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ModelCounts {
    /// Pieces of streams with text, and tokens of whole answers.
    pub tokens: f64,
    /// Requests that were served and have ended.
    pub served: f64,
    /// The sum of their times to first byte, in seconds.
    pub first_byte_seconds: f64,
}

const INTER_TOKEN: &str = "inter_token";
const FIRST_BYTE: &str = "first_byte";

impl Metrics {
    /// Returns the counts of each model that has had requests.
    pub fn model_counts(&self) -> BTreeMap<String, ModelCounts> {
        let mut registry = Registry::default();
        registry.register(INTER_TOKEN, "", self.inter_token_seconds.clone());
        registry.register(FIRST_BYTE, "", self.first_byte_seconds.clone());
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode_registry(&mut out, &registry);
        let mut counts = read(&out);
        for (name, series) in self.models.all() {
            let whole = series.whole_tokens() as f64;
            if whole > 0.0 {
                counts.entry(name.to_string()).or_default().tokens += whole;
            }
        }
        counts
    }
}

/// Reads the sums and counts of both families.
fn read(text: &str) -> BTreeMap<String, ModelCounts> {
    let mut counts = BTreeMap::<String, ModelCounts>::new();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once("{model=\"") else { continue };
        let Some((model, value)) = rest.rsplit_once("\"} ") else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let set: fn(&mut ModelCounts, f64) = match (name.strip_prefix(INTER_TOKEN), name.strip_prefix(FIRST_BYTE)) {
            (Some("_count"), _) => |counts, value| counts.tokens = value,
            (_, Some("_count")) => |counts, value| counts.served = value,
            (_, Some("_sum")) => |counts, value| counts.first_byte_seconds = value,
            _ => continue,
        };
        set(counts.entry(unescaped(model)).or_default(), value);
    }
    counts
}

/// Returns the value of a label.
fn unescaped(label: &str) -> String {
    label.replace("\\n", "\n").replace("\\\"", "\"").replace("\\\\", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_series() {
        let metrics = Metrics::new("local");
        assert_eq!(metrics.model_counts(), BTreeMap::new());
        let name = "org/a \"b\" {model=\"c\"} \\";
        let series = metrics.model(name);
        for _ in 0..3 {
            series.inter_token.observe(0.5);
        }
        series.first_byte.observe(0.25);
        series.first_byte.observe(0.5);
        series.count_whole(Some(40));
        series.count_whole(None);
        metrics.model("idle");
        let counts = ModelCounts { tokens: 43.0, served: 2.0, first_byte_seconds: 0.75 };
        assert_eq!(metrics.model_counts().get(name), Some(&counts));
    }
}
