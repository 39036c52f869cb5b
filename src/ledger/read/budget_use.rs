//! What the budgets of the current day and month have used, read once when the service starts.

use std::path::Path;

use jiff::Timestamp;
use jiff::civil::Date;
use rusqlite::{Row, params};

use crate::ledger::calendar::{BudgetPeriod, second_of_date};
use crate::ledger::error::LedgerError;
use crate::ledger::schema::LEDGER;

/// What a key, or one person within a key, has used in one period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetUse {
    /// The id of the key.
    pub key: String,
    /// The person; `None` for the whole key, all persons included.
    pub person: Option<String>,
    /// Day or month.
    pub period: BudgetPeriod,
    /// The first day of the period, in UTC.
    pub start: Date,
    /// Tokens of prompts and answers, as limits charge them.
    pub tokens: u64,
    /// Requests that were not refused.
    pub requests: u64,
    /// The cost in billionths of the unit of `PRICE_PER_HOUR`.
    pub cost_nanos: u64,
}

/// Reads the use in the day and in the month of `now`.
///
/// # Errors
/// [`LedgerError`] if the file cannot be read.
pub(in crate::ledger) fn read(path: &Path, now: Timestamp) -> Result<Vec<BudgetUse>, LedgerError> {
    let connection = LEDGER.open_to_read(path)?;
    let of_sqlite = LedgerError::of(path);
    let sql = "SELECT key, person, tokens, requests, cost_nanos FROM budgets WHERE period = ?1 AND start = ?2";
    let mut statement = connection.prepare(sql).map_err(&of_sqlite)?;
    let mut all = Vec::new();
    for period in BudgetPeriod::ALL {
        let start = period.start_of(now);
        let rows =
            statement.query_map(params![period.as_str(), second_of_date(start)], |row| of_row(row, period, start));
        for row in rows.map_err(&of_sqlite)? {
            all.push(row.map_err(&of_sqlite)?);
        }
    }
    Ok(all)
}

fn of_row(row: &Row<'_>, period: BudgetPeriod, start: Date) -> rusqlite::Result<BudgetUse> {
    let count = |column: usize| row.get::<_, i64>(column).map(|count| u64::try_from(count).unwrap_or(0));
    Ok(BudgetUse {
        key: row.get(0)?,
        person: Some(row.get::<_, String>(1)?).filter(|person| !person.is_empty()),
        period,
        start,
        tokens: count(2)?,
        requests: count(3)?,
        cost_nanos: count(4)?,
    })
}
