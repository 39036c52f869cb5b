//! Which rows of usage are asked for: `from`, `to`, `by`, `limit` and `after`.

use jiff::Timestamp;
use jiff::civil::Date;

use crate::ledger::bounds::{DEFAULT_ROWS, MOST_ROWS};
use crate::ledger::calendar::{DAY, second_of_date};

/// What rows are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupBy {
    Hour,
    Day,
    Month,
    Key,
    Person,
    Model,
}

/// Which rows of usage are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageQuery {
    /// The first second, and the first second after the end. An hour counts by its beginning.
    pub(super) from: i64,
    pub(super) to: i64,
    /// In the order of the columns.
    pub(super) by: Vec<GroupBy>,
    /// The only key whose rows are read.
    pub(super) key: Option<String>,
    pub(super) limit: usize,
    /// Rows that are passed over: those of earlier pages.
    pub(super) after: u64,
}

/// Why a query cannot be answered. Names the parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuery {
    /// There is no such parameter.
    #[error("{0:?} is no parameter of usage: expected from, to, by, limit or after")]
    Unknown(String),
    /// There is no such parameter of the audit.
    #[error("{0:?} is no parameter of the audit: expected limit or after")]
    UnknownOfAudit(String),
    /// A parameter stands twice.
    #[error("{0} is given twice")]
    Repeated(&'static str),
    /// The value of a parameter.
    #[error("{name} is {value:?}: expected {allowed}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

const TIMES: &str = "a date such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z";
const GROUPS: &str = "a comma list of key, person, model, and one of hour, day and month";
const LIMITS: &str = "a number from 1 to 10000";
const PLACES: &str = "the `next` of the page before";

impl Default for UsageQuery {
    /// Everything, by key, person, model and day.
    fn default() -> Self {
        let by = vec![GroupBy::Day, GroupBy::Key, GroupBy::Person, GroupBy::Model];
        Self { from: i64::MIN, to: i64::MAX, by, key: None, limit: DEFAULT_ROWS, after: 0 }
    }
}

impl UsageQuery {
    /// Reads the parameters of a query.
    ///
    /// # Errors
    /// [`InvalidQuery`] that names the first parameter that is unknown, stands twice or has no valid value.
    pub fn read<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, InvalidQuery> {
        let mut query = Self::default();
        let mut seen: Vec<&'static str> = Vec::new();
        for (asked, value) in parameters {
            let known = ["from", "to", "by", "limit", "after"].into_iter().find(|name| *name == asked);
            let name = known.ok_or_else(|| InvalidQuery::Unknown(asked.chars().take(64).collect()))?;
            if seen.contains(&name) {
                return Err(InvalidQuery::Repeated(name));
            }
            seen.push(name);
            let (is_valid, allowed) = match name {
                "from" => (set(&mut query.from, second(value)), TIMES),
                "to" => (set(&mut query.to, second(value)), TIMES),
                "by" => (set(&mut query.by, groups(value)), GROUPS),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MOST_ROWS).contains(limit));
                    (set(&mut query.limit, limit), LIMITS)
                }
                _ => (set(&mut query.after, value.parse().ok().filter(|after| *after <= i64::MAX as u64)), PLACES),
            };
            if !is_valid {
                return Err(InvalidQuery::Value { name, value: value.chars().take(64).collect(), allowed });
            }
        }
        Ok(query)
    }

    /// Returns the query for the rows of this key only.
    #[must_use]
    pub fn of_key(self, key: Option<String>) -> Self {
        Self { key, ..self }
    }
}

/// Sets a value that could be read. Returns whether it could.
fn set<T>(place: &mut T, value: Option<T>) -> bool {
    value.map(|value| *place = value).is_some()
}

/// Reads a date or a time, as seconds.
fn second(text: &str) -> Option<i64> {
    if text.len() == "2027-01-31".len() {
        return text.parse::<Date>().ok().map(second_of_date);
    }
    let time = text.parse::<Timestamp>().ok()?;
    // Up to the whole second: no hour begins in between.
    Some(time.as_second() + i64::from(time.subsec_nanosecond() > 0))
}

/// Reads a comma list of groups.
fn groups(text: &str) -> Option<Vec<GroupBy>> {
    let mut groups = Vec::new();
    for word in text.split(',') {
        let group = GroupBy::ALL.into_iter().find(|group| group.word() == word)?;
        if groups.contains(&group) {
            return None;
        }
        groups.push(group);
    }
    // The order of the columns, so that equal questions have equal answers.
    groups.sort_by_key(|group| *group as u8);
    (groups.iter().filter(|group| group.is_time()).count() <= 1).then_some(groups)
}

impl GroupBy {
    const ALL: [Self; 6] = [Self::Hour, Self::Day, Self::Month, Self::Key, Self::Person, Self::Model];

    fn word(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Key => "key",
            Self::Person => "person",
            Self::Model => "model",
        }
    }

    /// Whether the rows have a `start`.
    pub(super) fn is_time(self) -> bool {
        matches!(self, Self::Hour | Self::Day | Self::Month)
    }

    /// Returns the name of the column.
    pub(super) fn column(self) -> &'static str {
        if self.is_time() { "start" } else { self.word() }
    }

    /// Returns the expression in SQL.
    pub(super) fn expression(self) -> String {
        match self {
            Self::Hour => "hour".to_owned(),
            Self::Day => format!("hour - hour % {DAY}"),
            Self::Month => "unixepoch(hour, 'unixepoch', 'start of month')".to_owned(),
            Self::Key | Self::Person | Self::Model => self.word().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parameters: &[(&'static str, &'static str)]) -> Result<UsageQuery, String> {
        UsageQuery::read(parameters.iter().copied()).map_err(|error| error.to_string())
    }

    #[test]
    fn times_are_dates_or_rfc_3339_in_utc() {
        let query = read(&[("from", "2027-01-01"), ("to", "2027-01-01T02:00:00+01:00"), ("by", "model,day")]).unwrap();
        assert_eq!((query.from, query.to), (1_798_761_600, 1_798_765_200));
        assert_eq!(query.by, [GroupBy::Day, GroupBy::Model]);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (name, value, names) in [
            ("since", "2027-01-01", "\"since\""),
            ("from", "yesterday", "from"),
            ("from", "2027-02-29", "from"),
            ("from", "", "from"),
            ("to", "2027-01-01T00:00:00", "to"),
            ("by", "keys", "by"),
            ("by", "", "by"),
            ("by", "key,key", "by"),
            ("by", "day,hour", "by"),
            ("limit", "0", "limit"),
            ("limit", "10001", "limit"),
            ("after", "-1", "after"),
            ("after", "9223372036854775808", "after"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(names), "{name}={value}: {error}");
        }
        assert_eq!(read(&[("by", "key"), ("by", "day")]).unwrap_err(), "by is given twice");
    }
}
