//! The answers that are kept: within a bound of bytes, and each for a limited time.

use std::sync::Arc;
use std::time::Duration;

use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::kept_answer::KeptAnswer;
use super::key::CacheKey;
use crate::fleet::ModelRevision;
use crate::gateway::bounds::LARGEST_KEPT_SHARE;
use crate::settings::options::Caching;
use crate::telemetry::metrics::{Metrics, bytes};

/// The answers that are kept. Those that were used longest ago leave first.
pub(super) struct AnswerStore {
    answers: Cache<CacheKey, Arc<KeptAnswer>>,
    metrics: Arc<Metrics>,
    /// Most bytes of one answer.
    largest: usize,
}

impl AnswerStore {
    /// Creates an empty store with the bounds of the settings.
    pub(super) fn new(settings: &Caching, metrics: &Arc<Metrics>) -> Self {
        let (most_bytes, ttl) = (settings.cache_max_bytes.0, settings.cache_ttl.0);
        // A short answer counts for its share of the entries, so that one bound holds both.
        let least = settings.cache_max_size.0.map_or(0, |entries| most_bytes.div_ceil(entries));
        let removed = Arc::clone(metrics);
        let answers = Cache::builder()
            .max_capacity(most_bytes as u64)
            .weigher(move |_, answer: &Arc<KeptAnswer>| u32::try_from(answer.size().max(least)).unwrap_or(u32::MAX))
            .time_to_live(ttl.max(Duration::from_nanos(1)))
            .eviction_policy(EvictionPolicy::lru())
            .support_invalidation_closures()
            .eviction_listener(move |_, answer: Arc<KeptAnswer>, _: RemovalCause| {
                removed.cache_entries.dec();
                removed.cache_bytes.dec_by(bytes(answer.size() as u64));
            })
            .build();
        Self { answers, metrics: Arc::clone(metrics), largest: most_bytes / LARGEST_KEPT_SHARE }
    }

    /// Returns how many bytes the body of an answer may have at most to be kept.
    pub(super) fn largest(&self) -> usize {
        self.largest
    }

    /// Returns the answer to requests with this key.
    pub(super) fn get(&self, key: &CacheKey) -> Option<Arc<KeptAnswer>> {
        self.answers.get(key)
    }

    /// Keeps an answer, in the place of an earlier one. Others leave if there is no room.
    pub(super) fn put(&self, key: CacheKey, answer: KeptAnswer) {
        self.metrics.cache_entries.inc();
        self.metrics.cache_bytes.inc_by(bytes(answer.size() as u64));
        self.answers.insert(key, Arc::new(answer));
        // The bounds hold at once, and not at some later use.
        self.answers.run_pending_tasks();
    }

    /// Drops the answers of the models for which this returns false. Each is gone for readers when this returns.
    pub(super) fn retain_models(&self, is_kept: impl Fn(&str, ModelRevision) -> bool + Send + Sync + 'static) {
        // It cannot fail: the store was built for it.
        let _ = self.answers.invalidate_entries_if(move |_, answer| !is_kept(&answer.model, answer.revision));
        self.answers.run_pending_tasks();
    }
}
