//! Days and months of the calendar, in UTC.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

/// How long a budget lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Period {
    Day,
    Month,
}

impl Period {
    /// Returns when the period began that contains this time.
    pub(crate) fn start(self, time: Timestamp) -> Timestamp {
        // Fails only next to the ends of what a timestamp can hold.
        self.first_moment(time).map_or(time, |start| start.timestamp())
    }

    /// Returns when the period ends that contains this time: when the next one begins.
    pub(crate) fn end(self, time: Timestamp) -> Timestamp {
        let length = match self {
            Self::Day => 1.day(),
            Self::Month => 1.month(),
        };
        let next = self.first_moment(time).and_then(|start| start.checked_add(length));
        next.map_or(time, |next| next.timestamp())
    }

    fn first_moment(self, time: Timestamp) -> Result<Zoned, jiff::Error> {
        let day = time.to_zoned(TimeZone::UTC).start_of_day()?;
        match self {
            Self::Day => Ok(day),
            Self::Month => day.first_of_month(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_those_of_the_calendar_in_utc() {
        for (time, day, tomorrow, month, next_month) in [
            (
                "2026-11-30T23:59:59.999Z",
                "2026-11-30T00:00:00Z",
                "2026-12-01T00:00:00Z",
                "2026-11-01T00:00:00Z",
                "2026-12-01T00:00:00Z",
            ),
            (
                "2026-12-31T12:00:00Z",
                "2026-12-31T00:00:00Z",
                "2027-01-01T00:00:00Z",
                "2026-12-01T00:00:00Z",
                "2027-01-01T00:00:00Z",
            ),
            (
                "2028-02-28T01:00:00Z",
                "2028-02-28T00:00:00Z",
                "2028-02-29T00:00:00Z",
                "2028-02-01T00:00:00Z",
                "2028-03-01T00:00:00Z",
            ),
            (
                "2028-02-29T00:00:00Z",
                "2028-02-29T00:00:00Z",
                "2028-03-01T00:00:00Z",
                "2028-02-01T00:00:00Z",
                "2028-03-01T00:00:00Z",
            ),
        ] {
            let [time, day, tomorrow, month, next_month] =
                [time, day, tomorrow, month, next_month].map(|text| text.parse::<Timestamp>().unwrap());
            assert_eq!((Period::Day.start(time), Period::Day.end(time)), (day, tomorrow), "{time}");
            assert_eq!((Period::Month.start(time), Period::Month.end(time)), (month, next_month), "{time}");
        }
    }
}
