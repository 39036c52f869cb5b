//! When a server that is busy wants to be asked again, by the headers of its response.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// The header with which OpenAI's API gives `Retry-After` in milliseconds.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// Returns for how long a server asks for no further requests, but at most `longest`: its
/// `Retry-After-Ms` (OpenAI, Azure), else its `Retry-After`, in seconds or as a date (RFC 9110, section 10.2.3). Parts of
/// a second count as a whole one. Returns `None` if the headers are missing or unreadable, or ask for no wait.
pub fn retry_after(headers: &HeaderMap, now: Timestamp, longest: Duration) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let milliseconds = || {
        let text = text(RETRY_AFTER_MS)?;
        let wait = decimal(text)?;
        Some(Duration::from_millis(wait))
    };
    let seconds_or_date = || {
        let text = text(header::RETRY_AFTER)?;
        match decimal(text.strip_suffix('s').unwrap_or(text)) {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => Duration::try_from(date(text)?.duration_since(now)).ok(),
        }
    };
    let wait = milliseconds().or_else(seconds_or_date)?;
    Some(wait.min(longest)).filter(|wait| !wait.is_zero())
}

/// Returns a number without a sign, rounded up.
fn decimal(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !text.bytes().any(|byte| byte.is_ascii_digit())
        || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    // A number that is too large is longer than any wait.
    let whole = if whole.is_empty() { 0 } else { whole.parse().unwrap_or(u64::MAX) };
    Some(whole.saturating_add(u64::from(fraction.bytes().any(|byte| byte != b'0'))))
}

/// Reads a date in one of the three forms of HTTP (RFC 9110, section 5.6.7), or in that of RFC 3339.
fn date(text: &str) -> Option<Timestamp> {
    let obsolete = |format: &str, text: &str| {
        let date = jiff::fmt::strtime::parse(format, text).ok()?.to_datetime().ok()?;
        date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|date| date.timestamp())
    };
    let fixed = DateTimeParser::new().parse_timestamp(text).ok();
    fixed
        .or_else(|| obsolete("%A, %d-%b-%y %H:%M:%S GMT", text))
        .or_else(|| obsolete("%a %b %e %H:%M:%S %Y", text))
        .or_else(|| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const LONGEST: Duration = Duration::from_secs(600);

    #[test]
    fn a_workers_retry_after_is_read_and_bounded() {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().unwrap();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (value, expected) in [
            ("120", seconds(120)),
            (" 1 ", seconds(1)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", seconds(37)),
            ("86400", Some(LONGEST)),
            ("99999999999999999999999", Some(LONGEST)),
            ("Mon, 06 Nov 2034 08:49:37 GMT", Some(LONGEST)),
            ("0", None),
            ("Sun, 06 Nov 1994 08:48:37 GMT", None),
            ("-1", None),
            ("1.5", seconds(2)),
            ("30.5", seconds(31)),
            ("0.5", seconds(1)),
            ("30.0", seconds(30)),
            ("30.", seconds(30)),
            (".25", seconds(1)),
            ("0.0", None),
            ("0.000001", seconds(1)),
            ("30s", seconds(30)),
            ("1e3", None),
            ("1.2.3", None),
            (".", None),
            ("+5", None),
            ("Sunday, 06-Nov-94 08:49:37 GMT", seconds(37)),
            ("Sun Nov  6 08:49:37 1994", seconds(37)),
            ("1994-11-06T08:49:37Z", seconds(37)),
            ("Sun, 06 Nov 1994 08:49:37 +0000", seconds(37)),
            ("soon", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static(value))]);
            assert_eq!(retry_after(&headers, now, LONGEST), expected, "{value:?}");
        }
        for (milliseconds, other, expected) in [
            ("1500", "120", Some(Duration::from_millis(1500))),
            ("0.5", "120", Some(Duration::from_millis(1))),
            ("soon", "120", seconds(120)),
            ("0", "120", None),
            ("99999999999999999999999", "1", Some(LONGEST)),
        ] {
            let headers = HeaderMap::from_iter([
                (header::RETRY_AFTER, HeaderValue::from_static(other)),
                (RETRY_AFTER_MS, HeaderValue::from_static(milliseconds)),
            ]);
            assert_eq!(retry_after(&headers, now, LONGEST), expected, "{milliseconds:?} {other:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now, LONGEST), None);
    }
}
