//! The answers that are kept: within a bound of bytes, and each for a limited time.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::cache_bounds::CacheBounds;
use super::disk::answer_disk::AnswerDisk;
use super::kept_answer::KeptAnswer;
use super::key::CacheKey;
use crate::fleet::ModelRevision;
use crate::gateway::bounds::LARGEST_KEPT_SHARE;
use crate::gateway::queue::model_queues::Snapshot;
use crate::settings::options::Caching;
use crate::telemetry::metrics::{Metrics, bytes};

/// The answers that are kept. Those that were used longest ago leave first.
pub(super) struct AnswerStore {
    memory: AnswerMemory,
    /// `CACHE_PERSIST_TO_DISK`
    disk: Option<AnswerDisk>,
    /// Most bytes of one answer.
    largest: usize,
    /// Where the models were in memory when the answers of others were dropped: they are elsewhere after each reload. 0 if
    /// answers of former models may have come since.
    seen_models: Arc<AtomicUsize>,
}

/// The answers in memory. A clone has the same.
#[derive(Clone)]
struct AnswerMemory {
    answers: Cache<CacheKey, Arc<KeptAnswer>>,
    metrics: Arc<Metrics>,
}

impl AnswerStore {
    /// Creates a store with the bounds of the settings. `file` is where answers outlive the service.
    pub(super) fn new(settings: &Caching, file: Option<PathBuf>, metrics: &Arc<Metrics>) -> Self {
        let bounds = CacheBounds::of(settings);
        let memory = AnswerMemory::new(bounds, metrics);
        let seen_models = Arc::<AtomicUsize>::default();
        let (found, seen) = (memory.clone(), Arc::clone(&seen_models));
        let restore = move |key, answer: KeptAnswer| {
            // What was kept meanwhile is newer.
            if !found.answers.contains_key(&key) {
                found.put(key, Arc::new(answer));
            }
        };
        // Some may be of models that there are no more.
        let finish = move || seen.store(0, Ordering::Relaxed);
        let disk = file.and_then(|file| AnswerDisk::start(file, bounds, metrics, (restore, finish)));
        Self { memory, disk, largest: settings.cache_max_bytes.0 / LARGEST_KEPT_SHARE, seen_models }
    }

    /// Returns how many bytes the body of an answer may have at most to be kept.
    pub(super) fn largest(&self) -> usize {
        self.largest
    }

    /// Returns the answer to requests with this key.
    pub(super) fn get(&self, key: &CacheKey) -> Option<Arc<KeptAnswer>> {
        self.memory.answers.get(key)
    }

    /// Keeps an answer, in the place of an earlier one. Others leave if there is no room.
    pub(super) fn put(&self, key: CacheKey, answer: KeptAnswer) {
        let answer = Arc::new(answer);
        if let Some(disk) = &self.disk {
            disk.put(key, &answer);
        }
        self.memory.put(key, answer);
    }

    /// Drops the answers of models that are not among these any more, or have another form. No key means them, but they take
    /// room. Each is gone for readers when this returns.
    pub(super) fn drop_former(&self, models: &Arc<Snapshot>) {
        let now = Arc::as_ptr(models).addr();
        if self.seen_models.load(Ordering::Relaxed) == now || self.seen_models.swap(now, Ordering::Relaxed) == now {
            return;
        }
        let current: Vec<(String, ModelRevision)> =
            models.models().map(|model| (model.id().to_owned(), model.revision())).collect();
        let is_former = move |answer: &KeptAnswer| {
            !current.iter().any(|(id, revision)| *id == answer.model && *revision == answer.revision)
        };
        // It cannot fail: the memory was built for it.
        let _ = self.memory.answers.invalidate_entries_if(move |_, answer| is_former(answer));
        self.memory.answers.run_pending_tasks();
    }

    /// Writes what is to outlive the service, and waits for that, up to a bound. Blocks.
    pub(super) fn close(&self) {
        if let Some(disk) = &self.disk {
            disk.close();
        }
    }
}

impl AnswerMemory {
    fn new(bounds: CacheBounds, metrics: &Arc<Metrics>) -> Self {
        let removed = Arc::clone(metrics);
        let weight = move |answer: &KeptAnswer| bounds.weight(answer.size() as u64);
        let answers = Cache::builder()
            .max_capacity(bounds.most_bytes)
            .weigher(move |_, answer: &Arc<KeptAnswer>| u32::try_from(weight(answer)).unwrap_or(u32::MAX))
            .expire_after(AnswerExpiry { ttl: bounds.ttl })
            .eviction_policy(EvictionPolicy::lru())
            .support_invalidation_closures()
            .eviction_listener(move |_, answer: Arc<KeptAnswer>, _: RemovalCause| {
                removed.cache_entries.dec();
                removed.cache_bytes.dec_by(bytes(answer.size() as u64));
            })
            .build();
        Self { answers, metrics: Arc::clone(metrics) }
    }

    fn put(&self, key: CacheKey, answer: Arc<KeptAnswer>) {
        self.metrics.cache_entries.inc();
        self.metrics.cache_bytes.inc_by(bytes(answer.size() as u64));
        self.answers.insert(key, answer);
        // The bounds hold at once, and not at some later use.
        self.answers.run_pending_tasks();
    }
}

/// When an answer is too old: `CACHE_TTL` after it was kept first, also if the service was started again since.
struct AnswerExpiry {
    ttl: Duration,
}

impl Expiry<CacheKey, Arc<KeptAnswer>> for AnswerExpiry {
    fn expire_after_create(&self, _: &CacheKey, answer: &Arc<KeptAnswer>, _: Instant) -> Option<Duration> {
        Some(self.ttl.saturating_sub(answer.age()))
    }

    fn expire_after_update(
        &self,
        _: &CacheKey,
        answer: &Arc<KeptAnswer>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(self.ttl.saturating_sub(answer.age()))
    }
}
