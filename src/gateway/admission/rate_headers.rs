//! The `x-ratelimit-*` headers of a response, in the form of OpenAI's API.
//!
//! Owns their names and format. `rate_bucket.rs` computes what remains of a limit.

use std::io::{Cursor, Write as _};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::rate_bucket::RateStatus;
use crate::short_value::{number_value, short_value};

/// Bytes that hold any duration, `Duration::MAX` included.
const LONGEST_DURATION: usize = 40;

/// A duration that is being written.
type DurationText = Cursor<[u8; LONGEST_DURATION]>;

/// The headers for a key's limit of requests: limit, remaining, reset.
const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];

/// The headers for a key's limit of tokens: limit, remaining, reset.
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// Inserts the headers for a key's requests and, if they are limited, its tokens.
pub(super) fn insert_headers(headers: &mut HeaderMap, requests: RateStatus, tokens: Option<RateStatus>) {
    insert_limit(headers, REQUESTS, requests);
    if let Some(tokens) = tokens {
        insert_limit(headers, TOKENS, tokens);
    }
}

fn insert_limit(headers: &mut HeaderMap, names: [HeaderName; 3], status: RateStatus) {
    let [limit, remaining, reset] = names;
    headers.insert(limit, number_value(status.limit));
    headers.insert(remaining, number_value(status.remaining));
    headers.insert(reset, duration_value(status.reset));
}

/// Formats a duration as OpenAI does: `20ms`, `8.64s`, `6m0s`, `1h0m0s`. Rounds up to milliseconds, so that a client that
/// waits for it is not too early.
fn duration_value(duration: Duration) -> HeaderValue {
    let (mut seconds, mut millis) = (duration.as_secs(), duration.subsec_nanos().div_ceil(1_000_000));
    if millis == 1000 {
        (seconds, millis) = (seconds.saturating_add(1), 0);
    }
    // There is room for any duration, so the write cannot fail.
    let mut text = DurationText::new([0; LONGEST_DURATION]);
    let _ = write_duration(&mut text, seconds, millis);
    let end = usize::try_from(text.position()).unwrap_or(0);
    short_value(&text.get_ref()[..end]).unwrap_or(HeaderValue::from_static("0s"))
}

fn write_duration(text: &mut DurationText, seconds: u64, millis: u32) -> std::io::Result<()> {
    if seconds == 0 && millis > 0 {
        return write_count(text, millis.into(), b"ms");
    }
    if seconds >= 3600 {
        write_count(text, seconds / 3600, b"h")?;
    }
    if seconds >= 60 {
        write_count(text, seconds / 60 % 60, b"m")?;
    }
    write_count(text, seconds % 60, b"")?;
    let fraction = [millis / 100, millis / 10 % 10, millis % 10].map(|digit| b'0' + digit as u8);
    if let Some(last) = fraction.iter().rposition(|digit| *digit != b'0') {
        text.write_all(b".")?;
        text.write_all(&fraction[..=last])?;
    }
    text.write_all(b"s")
}

/// Writes a number and its unit, without the machinery of formats, which costs more than the rest of these headers.
fn write_count(text: &mut DurationText, count: u64, unit: &[u8]) -> std::io::Result<()> {
    text.write_all(itoa::Buffer::new().format(count).as_bytes())?;
    text.write_all(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_openai_writes_them() {
        let text = |nanos: u64| duration_value(Duration::from_nanos(nanos)).to_str().unwrap().to_owned();
        for (millis, expected) in [
            (0, "0s"),
            (20, "20ms"),
            (999, "999ms"),
            (59_999, "59.999s"),
            (1000, "1s"),
            (1500, "1.5s"),
            (8640, "8.64s"),
            (8040, "8.04s"),
            (1007, "1.007s"),
            (60_000, "1m0s"),
            (360_000, "6m0s"),
            (3_600_000, "1h0m0s"),
            (90_061_001, "25h1m1.001s"),
        ] {
            assert_eq!(text(millis * 1_000_000), expected);
        }
        assert_eq!(text(1), "1ms", "rounded up");
        assert_eq!(text(59_999_000_001), "1m0s");
        assert_eq!(duration_value(Duration::MAX), "5124095576030431h0m15s");
    }

    #[test]
    fn the_headers_report_tokens_only_if_they_are_limited() {
        let mut headers = HeaderMap::new();
        let requests = RateStatus { limit: 100, remaining: 99, reset: Duration::from_millis(600) };
        insert_headers(&mut headers, requests, None);
        assert_eq!(headers["x-ratelimit-limit-requests"], "100");
        assert_eq!(headers["x-ratelimit-remaining-requests"], "99");
        assert_eq!(headers["x-ratelimit-reset-requests"], "600ms");
        assert_eq!(headers.len(), 3);
        let tokens = RateStatus { limit: u64::MAX, remaining: 0, reset: Duration::from_secs(60) };
        insert_headers(&mut headers, requests, Some(tokens));
        assert_eq!(headers["x-ratelimit-limit-tokens"], "18446744073709551615");
        assert_eq!(headers["x-ratelimit-reset-tokens"], "1m0s");
        assert_eq!(headers.len(), 6);
    }
}
