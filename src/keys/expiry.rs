//! Parses when a key expires: absolute dates as in the key file, and spans such as `30d` as in keyctl's options.
//!
//! All times are UTC. A date alone means the start of that day, so a key with `2027-01-01` is valid through 2026.

use std::time::Duration;

use jiff::civil::Time;
use jiff::fmt::temporal::{Pieces, PiecesOffset};
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

/// Why a date or a span could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTime {
    /// Neither an ISO 8601 date nor a date and time.
    #[error("expected a date such as 2027-01-01 or 2027-01-01T12:00:00Z")]
    Date,
    /// Neither a date nor a span nor `never`.
    #[error("expected a date such as 2027-01-01, a time from now such as 30d, 12h or 45m, or never")]
    Expiry,
    /// Not a span.
    #[error("expected a time span such as 30d, 12h, 45m, 90s or 0")]
    Span,
}

/// Parses an ISO 8601 date, or a date and time with `Z`, an offset, or nothing (UTC).
///
/// # Errors
/// [`BadTime::Date`] for anything else, named time zones included.
pub fn parse_instant(text: &str) -> Result<Timestamp, BadTime> {
    let pieces = Pieces::parse(text).map_err(|_| BadTime::Date)?;
    if pieces.time_zone_annotation().is_some() {
        return Err(BadTime::Date);
    }
    let offset = match pieces.offset() {
        Some(PiecesOffset::Numeric(numeric)) => numeric.offset(),
        _ => Offset::UTC,
    };
    let local = pieces.date().to_datetime(pieces.time().unwrap_or(Time::midnight()));
    offset.to_timestamp(local).map_err(|_| BadTime::Date)
}

/// Parses a span: a whole number and `s`, `m`, `h` or `d` (24 hours), or `0` alone.
///
/// # Errors
/// [`BadTime::Span`] for anything else, including another number without a unit.
pub fn parse_span(text: &str) -> Result<Duration, BadTime> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    // By characters, because the last one may be more than a byte long.
    let (unit_at, unit) = text.char_indices().next_back().ok_or(BadTime::Span)?;
    let digits = &text[..unit_at];
    let seconds_each = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(BadTime::Span),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BadTime::Span);
    }
    let count: u64 = digits.parse().map_err(|_| BadTime::Span)?;
    count.checked_mul(seconds_each).map(Duration::from_secs).ok_or(BadTime::Span)
}

/// A value of keyctl's `--expires`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// The key does not expire.
    Never,
    /// The key expires at this instant.
    At(Timestamp),
    /// The key expires after this time.
    In(Duration),
}

impl std::str::FromStr for Expiry {
    type Err = BadTime;

    fn from_str(text: &str) -> Result<Self, BadTime> {
        if text == "never" {
            return Ok(Self::Never);
        }
        parse_span(text).map(Self::In).or_else(|_| parse_instant(text).map(Self::At)).map_err(|_| BadTime::Expiry)
    }
}

impl Expiry {
    /// Returns the instant of expiry, or `None` for [`Expiry::Never`]. Spans are counted from `now`.
    pub fn resolve(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::At(end) => Some(end),
            Self::In(span) => Some(after(now, span)),
        }
    }
}

/// Returns the instant a span after `now`, in whole seconds. Saturates at [`Timestamp::MAX`].
pub fn after(now: Timestamp, span: Duration) -> Timestamp {
    let end = SignedDuration::try_from(span).ok().and_then(|span| now.checked_add(span).ok()).unwrap_or(Timestamp::MAX);
    Timestamp::from_second(end.as_second()).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_utc_unless_they_say_otherwise() {
        for (text, want) in [
            ("2027-01-01", "2027-01-01T00:00:00Z"),
            ("2027-01-01T12:30:00", "2027-01-01T12:30:00Z"),
            ("2027-01-01 12:30:00", "2027-01-01T12:30:00Z"),
            ("2027-01-01T12:30", "2027-01-01T12:30:00Z"),
            ("2027-01-01T12:30:00Z", "2027-01-01T12:30:00Z"),
            ("2027-01-01T12:30:00.5Z", "2027-01-01T12:30:00.5Z"),
            ("2027-01-01T12:30:00+02:00", "2027-01-01T10:30:00Z"),
            ("2027-01-01T12:30:00-0530", "2027-01-01T18:00:00Z"),
        ] {
            assert_eq!(parse_instant(text).map(|t| t.to_string()), Ok(want.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_bad_date_and_a_named_time_zone_are_refused() {
        for text in [
            "",
            "30d",
            "60",
            "never",
            "tomorrow",
            "2027-13-01",
            "2027-02-30",
            "2027-01-01T25:00:00Z",
            "2027-01-01T12:00:00[Europe/Paris]",
            "2027-01-01T12:00:00Z extra",
        ] {
            assert_eq!(parse_instant(text), Err(BadTime::Date), "{text}");
        }
    }

    #[test]
    fn spans_need_a_unit() {
        assert_eq!(parse_span("45m"), Ok(Duration::from_secs(45 * 60)));
        assert_eq!(parse_span("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_span("0"), Ok(Duration::ZERO));
        for text in ["", "24", "d", "1w", "-1d", "+1d", "1.5h", "1é", "99999999999999999999d"] {
            assert_eq!(parse_span(text), Err(BadTime::Span), "{text}");
        }
    }

    #[test]
    fn a_span_beyond_the_last_timestamp_saturates() {
        let end = after(Timestamp::UNIX_EPOCH, parse_span("200000000000000d").unwrap());
        assert_eq!(end.as_second(), Timestamp::MAX.as_second());
    }

    #[test]
    fn an_expiry_is_never_a_date_or_a_span_from_now() {
        let now = Timestamp::from_second(1_000).unwrap();
        assert_eq!("never".parse::<Expiry>().unwrap().resolve(now), None);
        assert_eq!("1h".parse::<Expiry>().unwrap().resolve(now), Timestamp::from_second(4_600).ok());
        assert_eq!("2027-01-01".parse::<Expiry>().unwrap().resolve(now), parse_instant("2027-01-01").ok());
        assert_eq!("soon".parse::<Expiry>(), Err(BadTime::Expiry));
    }
}
