//! Counts finished requests. A request holds the series of its model and its key, and those hold the series of the routes
//! and statuses that they have had, so counting is a few atomic additions.
//!
//! What a finished request is, and when it counts, is decided in `gateway/accounting/record.rs`.

use std::time::Duration;

use super::metrics::{CodeLabels, DraftLabels, Metrics, RequestLabels, RouteLabels, TokenLabels};
use super::series::{KeySeries, ModelSeries};

impl Metrics {
    /// Counts a request for this model, if it is for a configured one, on this route of the table or `other`.
    pub fn count_request(&self, model: Option<&ModelSeries>, route: &'static str, status: u16) {
        let series = model.map_or(&self.other, |model| &model.requests);
        let labels = || RequestLabels { model: series.model.clone(), route, status };
        series.counts.get(&(route, status), || self.by_route.get_or_create_owned(&labels())).inc();
    }

    /// Counts a request with a valid key.
    pub fn count_key(&self, key: &KeySeries, status: u16) {
        self.authenticated.inc();
        key.count(&self.key_requests, status);
    }

    /// Counts a refusal with this code of the refusal table.
    pub fn count_refusal(&self, code: &'static str) {
        self.refusal_counts.get(&code, || self.refusals.get_or_create_owned(&CodeLabels { code })).inc();
    }

    /// Records the time from the arrival of a request to the end of its response.
    pub fn observe_request(&self, model: &ModelSeries, route: &'static str, total: Duration) {
        let series = &model.requests;
        let labels = || RouteLabels { model: series.model.clone(), route };
        series.seconds.get(&route, || self.request_seconds.get_or_create_owned(&labels())).observe(total.as_secs_f64());
    }

    /// Counts the tokens that a response has reported, of its prompt and of the answer.
    pub fn count_tokens(&self, model: &ModelSeries, key: Option<&KeySeries>, prompt: Option<u64>, answer: Option<u64>) {
        let key = key.unwrap_or(&self.no_key);
        let labels = || TokenLabels { model: model.id.clone(), key: key.label.clone() };
        if let Some(tokens) = prompt {
            let counter = key.prompt_tokens.get(&model.id, || self.prompt_tokens.get_or_create_owned(&labels()));
            counter.inc_by(tokens);
        }
        if let Some(tokens) = answer {
            let counter =
                key.completion_tokens.get(&model.id, || self.completion_tokens.get_or_create_owned(&labels()));
            counter.inc_by(tokens);
        }
    }

    /// Counts the tokens that were proposed for a response by a draft, and those of them that were accepted.
    pub fn count_drafted(&self, model: &ModelSeries, drafted: Option<u64>, accepted: Option<u64>) {
        for (count, family) in [(drafted, &self.draft_tokens), (accepted, &self.draft_tokens_accepted)] {
            if let Some(count) = count.filter(|count| *count > 0) {
                family.get_or_create(&DraftLabels { model: model.id.clone() }).inc_by(count);
            }
        }
    }
}
