//! Hours, days and months in UTC, as seconds since 1970.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// Seconds of an hour.
pub(super) const HOUR: i64 = 3600;

/// Seconds of a day in UTC, as SQLite and `jiff` count them: without leap seconds.
pub(super) const DAY: i64 = 24 * HOUR;

/// The time over which a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BudgetPeriod {
    /// From midnight to midnight, UTC.
    Day,
    /// From the first of a month, UTC.
    Month,
}

impl BudgetPeriod {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Day, Self::Month];

    /// Returns the word for it in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// Returns the first day of the period that this time is in.
    pub fn start_of(self, time: Timestamp) -> Date {
        let date = time.to_zoned(TimeZone::UTC).date();
        match self {
            Self::Day => date,
            Self::Month => date.first_of_month(),
        }
    }

    /// Returns when the period begins that this time is in.
    pub fn start(self, time: Timestamp) -> Timestamp {
        time_of(second_of_date(self.start_of(time)))
    }

    /// Returns when the period ends that this time is in: when the next one begins.
    pub fn end(self, time: Timestamp) -> Timestamp {
        let length = match self {
            Self::Day => 1.day(),
            Self::Month => 1.month(),
        };
        // A day is the last one of the calendar at most.
        let next = self.start_of(time).checked_add(length).unwrap_or(Date::MAX);
        time_of(second_of_date(next))
    }

    /// Returns when the period begins that this hour is in, in seconds.
    pub(super) fn second_of(self, hour: i64) -> i64 {
        match self {
            Self::Day => hour.div_euclid(DAY) * DAY,
            Self::Month => Timestamp::from_second(hour).map_or(0, |time| second_of_date(self.start_of(time))),
        }
    }
}

/// Returns when the hour of this time begins, in seconds.
pub(super) fn hour_of(time: Timestamp) -> i64 {
    time.as_second().div_euclid(HOUR) * HOUR
}

/// Returns the midnight at which a day begins, in seconds; 0 for a day beyond the calendar.
pub(super) fn second_of_date(date: Date) -> i64 {
    date.to_zoned(TimeZone::UTC).map_or(0, |midnight| midnight.timestamp().as_second())
}

/// Returns a time of the file; the epoch for one that no calendar has.
pub(super) fn time_of(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_begin_at_midnight_in_utc_also_around_a_leap_day() {
        let hour = |text: &str| hour_of(text.parse().unwrap());
        let begin = |text: &str, period: BudgetPeriod| time_of(period.second_of(hour(text))).to_string();
        let end = |text: &str, period: BudgetPeriod| period.end(text.parse().unwrap()).to_string();
        for (time, day, month, tomorrow, next_month) in [
            ("2028-02-29T23:59:59Z", "2028-02-29", "2028-02-01", "2028-03-01", "2028-03-01"),
            ("2028-02-28T00:00:00Z", "2028-02-28", "2028-02-01", "2028-02-29", "2028-03-01"),
            ("2028-03-01T00:00:00Z", "2028-03-01", "2028-03-01", "2028-03-02", "2028-04-01"),
            ("2027-01-01T00:30:00+01:00", "2026-12-31", "2026-12-01", "2027-01-01", "2027-01-01"),
            ("1969-12-31T23:30:00Z", "1969-12-31", "1969-12-01", "1970-01-01", "1970-01-01"),
        ] {
            let midnight = |date: &str| format!("{date}T00:00:00Z");
            assert_eq!(end(time, BudgetPeriod::Day), midnight(tomorrow), "{time}");
            assert_eq!(end(time, BudgetPeriod::Month), midnight(next_month), "{time}");
            let (day, month) = (midnight(day), midnight(month));
            assert_eq!(begin(time, BudgetPeriod::Day), day, "{time}");
            assert_eq!(begin(time, BudgetPeriod::Month), month, "{time}");
        }
    }
}
