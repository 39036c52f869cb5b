//! What answers that are kept are bounded by, in memory and on the disk.

use std::time::Duration;

use crate::settings::options::Caching;

/// The bounds of the settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct CacheBounds {
    /// `CACHE_MAX_BYTES`, or the few bytes more that the entries of `CACHE_MAX_SIZE` need to fit in.
    pub(super) most_bytes: u64,
    /// What an answer counts for at least: its share of the entries, so that one bound holds both.
    least_bytes: u64,
    /// `CACHE_TTL`
    pub(super) ttl: Duration,
}

impl CacheBounds {
    /// Returns the bounds of these settings.
    pub(super) fn of(settings: &Caching) -> Self {
        let (bytes, ttl) = (settings.cache_max_bytes.0 as u64, settings.cache_ttl.0);
        let entries = settings.cache_max_size.0.unwrap_or(0) as u64;
        let least_bytes = if entries == 0 { 0 } else { bytes.div_ceil(entries) };
        // The shares are rounded up, so that all of them together may be more.
        Self { most_bytes: bytes.max(least_bytes.saturating_mul(entries)), least_bytes, ttl }
    }

    /// Returns what an answer of this size counts for, in bytes.
    pub(super) fn weight(self, size: u64) -> u64 {
        size.max(self.least_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::values::{ByteSize, CacheMode, Seconds, ZeroIsOff};

    #[test]
    fn as_many_short_answers_fit_as_there_may_be_entries() {
        for (bytes, entries) in [(1000, 1), (1000, 3), (1001, 2), (256 << 20, 3), (256 << 20, 100_000), (10, 16)] {
            let bounds = CacheBounds::of(&Caching {
                cache: CacheMode::All,
                cache_max_bytes: ByteSize(bytes),
                cache_max_size: ZeroIsOff(Some(entries)),
                cache_ttl: Seconds(Duration::ZERO),
                cache_persist_to_disk: false,
                cache_shared: false,
            });
            let of_entries = |entries: usize| bounds.weight(0) * entries as u64;
            assert!(of_entries(entries) <= bounds.most_bytes, "{bytes} {entries}");
            assert!(of_entries(entries + 1) > bounds.most_bytes, "{bytes} {entries}");
            assert!(bounds.most_bytes < (bytes + entries) as u64, "{bytes} {entries}");
        }
    }
}
