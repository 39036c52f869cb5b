//! Time series that are looked up once: those of a model and those of a key.
//!
//! A request holds the two series objects that it belongs to, so that counting needs no string and no lookup. The
//! number of names is bounded here; a name beyond the bound counts as `other`. The names of the metrics are in
//! `metrics.rs`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use foldhash::fast::RandomState;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::labels::{KeyLabels, Label, ModelLabels};
use super::series_list::SeriesList;
use crate::telemetry::bounds::NAMED_SERIES;

/// The label of an unknown name, or of a name beyond the bound.
pub const OTHER: &str = "other";

/// The key label of requests that need no key.
pub const NO_KEY: &str = "none";

/// A histogram family whose buckets suit requests that take from a millisecond to minutes.
pub type Timings<L> = Family<L, Histogram, fn() -> Histogram>;

/// The families in which each model has one series.
pub(super) struct ModelFamilies<'a> {
    pub(super) queue: &'a Timings<ModelLabels>,
    pub(super) first_byte: &'a Timings<ModelLabels>,
    pub(super) inter_token: &'a Timings<ModelLabels>,
}

/// The series of one model.
pub struct ModelSeries {
    /// The model's id.
    pub id: Label,
    /// `llamagate_queue_seconds`
    pub queue: Histogram,
    /// `llamagate_time_to_first_byte_seconds`
    pub first_byte: Histogram,
    /// `llamagate_inter_token_seconds`
    pub inter_token: Histogram,
    pub(super) requests: RequestSeries,
    /// Tokens of answers that were no streams.
    whole_tokens: AtomicU64,
}

/// The series of the requests of one model, or of all that are for none.
pub(super) struct RequestSeries {
    pub(super) model: Label,
    /// `llamagate_requests_total`, by route and status.
    pub(super) counts: SeriesList<(&'static str, u16), Counter>,
    /// `llamagate_request_seconds`, by route.
    pub(super) seconds: SeriesList<&'static str, Histogram>,
}

/// The series of one key.
pub struct KeySeries {
    /// The key's id.
    pub id: Arc<str>,
    /// The id as a label; `other` beyond the bound.
    pub label: Label,
    /// `llamagate_key_requests_total`, per status class.
    classes: [OnceLock<Counter>; CLASSES.len()],
    /// `llamagate_prompt_tokens_total`, by model.
    pub(super) prompt_tokens: SeriesList<Label, Counter>,
    /// `llamagate_completion_tokens_total`, by model.
    pub(super) completion_tokens: SeriesList<Label, Counter>,
}

const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Values that are created once per name, up to [`NAMED_SERIES`] names.
pub(super) struct Named<T>(RwLock<HashMap<Arc<str>, Arc<T>, RandomState>>);

impl ModelSeries {
    /// Looks up the series of this model; creates them if needed.
    pub(super) fn new(families: &ModelFamilies<'_>, id: &str) -> Self {
        let labels = ModelLabels { model: id.to_owned() };
        let label = Label::new(id);
        Self {
            requests: RequestSeries::new(label.clone()),
            whole_tokens: AtomicU64::new(0),
            id: label,
            queue: families.queue.get_or_create_owned(&labels),
            first_byte: families.first_byte.get_or_create_owned(&labels),
            inter_token: families.inter_token.get_or_create_owned(&labels),
        }
    }
}

impl ModelSeries {
    /// Counts the tokens of an answer that was no stream.
    pub fn count_whole(&self, tokens: Option<u64>) {
        if let Some(tokens) = tokens {
            self.whole_tokens.fetch_add(tokens, Ordering::Relaxed);
        }
    }

    /// Returns the tokens that [`Self::count_whole`] has counted.
    pub(super) fn whole_tokens(&self) -> u64 {
        self.whole_tokens.load(Ordering::Relaxed)
    }
}

impl RequestSeries {
    pub(super) fn new(model: Label) -> Self {
        Self { model, counts: SeriesList::default(), seconds: SeriesList::default() }
    }
}

impl KeySeries {
    pub(super) fn new(id: &str, label: &str) -> Self {
        Self {
            id: id.into(),
            label: Label::new(label),
            classes: Default::default(),
            prompt_tokens: SeriesList::default(),
            completion_tokens: SeriesList::default(),
        }
    }

    /// Counts one finished request with this status in `requests`, which is `Metrics::key_requests`.
    pub(super) fn count(&self, requests: &Family<KeyLabels, Counter>, status: u16) {
        let class = usize::from(status / 100);
        let class = if class < CLASSES.len() { class } else { 0 };
        // Created on first use, so that a scrape shows only classes that occurred.
        let counter = self.classes[class].get_or_init(|| {
            let labels = KeyLabels { key: self.label.as_str().to_owned(), status_class: CLASSES[class] };
            requests.get_or_create_owned(&labels)
        });
        counter.inc();
    }
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T> Named<T> {
    /// Returns all values with their names.
    pub(super) fn all(&self) -> Vec<(Arc<str>, Arc<T>)> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(name, value)| (Arc::clone(name), Arc::clone(value))).collect()
    }

    /// Returns the value of the name. `make` is told whether the name is within the bound; what it creates for a name
    /// beyond the bound is not kept.
    pub(super) fn get(&self, name: &str, make: impl Fn(bool) -> T) -> Arc<T> {
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Arc::clone(known);
        }
        // The read lock above is the common case; another thread may have added the name between the two locks.
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= NAMED_SERIES && !all.contains_key(name) {
            return Arc::new(make(false));
        }
        Arc::clone(all.entry(name.into()).or_insert_with(|| Arc::new(make(true))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::{Metrics, TextFormat};

    #[test]
    fn names_beyond_the_bound_share_one_series() {
        let metrics = Metrics::new("local");
        let lines = |metrics: &Metrics| {
            metrics.text(TextFormat::Prometheus).lines().filter(|line| line.contains("_key_requests_total{")).count()
        };
        for n in 0..NAMED_SERIES * 2 {
            let key = metrics.key(&format!("key{n}"));
            assert_eq!(&*key.id, format!("key{n}"), "the log has the id in any case");
            key.count(&metrics.key_requests, 200);
        }
        assert_eq!(lines(&metrics), NAMED_SERIES + 1);
        metrics.key("key0").count(&metrics.key_requests, 204);
        metrics.key("key0").count(&metrics.key_requests, 999);
        assert_eq!(lines(&metrics), NAMED_SERIES + 2);
        assert!(metrics.text(TextFormat::Prometheus).contains("{key=\"key0\",status_class=\"2xx\"} 2\n"));
        for n in 0..NAMED_SERIES * 2 {
            metrics.model(&format!("m{n}")).queue.observe(0.5);
        }
        let text = metrics.text(TextFormat::Prometheus);
        assert!(text.contains(&format!("llamagate_queue_seconds_count{{model=\"other\"}} {NAMED_SERIES}\n")), "{text}");
    }
}
