//! What `Cache-Control` of a request asks for (RFC 9111, section 5.2.1).

use std::time::Duration;

use http::HeaderMap;
use http::header::CACHE_CONTROL;

/// What a client wants of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct CacheDirectives {
    /// `no-cache`: a worker answers, and the answer is kept.
    pub(super) no_cache: bool,
    /// `no-store`: a worker answers, and the answer is not kept.
    pub(super) no_store: bool,
    /// `max-age`: an answer that was kept for longer is not wanted.
    pub(super) max_age: Option<Duration>,
}

impl CacheDirectives {
    /// Reads them from the headers of a request. Those that say nothing to a cache of this kind are passed over, and a
    /// `max-age` that is no number counts as 0.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
        for word in values.flat_map(|value| value.split(',')) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-cache" => directives.no_cache = true,
                "no-store" => directives.no_store = true,
                "max-age" => {
                    let seconds = value.trim().trim_matches('"').parse().unwrap_or(0);
                    directives.max_age = Some(Duration::from_secs(seconds));
                }
                _ => {}
            }
        }
        directives.no_cache |= directives.max_age == Some(Duration::ZERO);
        directives
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn directives_are_read_from_every_line_in_any_case() {
        let of = |lines: &[&str]| {
            let lines = lines.iter().map(|line| (CACHE_CONTROL, HeaderValue::from_str(line).unwrap()));
            CacheDirectives::of(&lines.collect())
        };
        let none = CacheDirectives::default();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(of(&[]), none);
        assert_eq!(of(&["no-transform", "max-stale=5"]), none);
        assert_eq!(of(&["No-Cache"]), CacheDirectives { no_cache: true, ..none });
        assert_eq!(of(&["x", "a, NO-STORE"]), CacheDirectives { no_store: true, ..none });
        assert_eq!(of(&["max-age=60"]), CacheDirectives { max_age: seconds(60), ..none });
        for none_at_all in ["max-age=0", "max-age=soon", "max-age"] {
            assert_eq!(of(&[none_at_all]), CacheDirectives { no_cache: true, max_age: seconds(0), ..none });
        }
    }
}
