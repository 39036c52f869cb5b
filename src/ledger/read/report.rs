//! Reads usage, on a connection that cannot write.

use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Row, params_from_iter};
use serde::Serialize;

use super::query::{GroupBy, UsageQuery};
use crate::amount::Amount;
use crate::ledger::bounds::COMMAND_ROWS;
use crate::ledger::calendar::time_of;
use crate::ledger::error::LedgerError;
use crate::ledger::schema::{LEDGER, table_exists};

/// One row of usage. A column that rows are not grouped by is left out; `null` in one that they are stands for no key, no
/// person and no model.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct UsageRow {
    /// When the hour, the day or the month begins, in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// The id of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Option<String>>,
    /// The person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person: Option<Option<String>>,
    /// The model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Option<String>>,
    /// Requests that were not refused.
    pub requests: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Tokens of prompts, the cached ones included.
    pub prompt_tokens: u64,
    /// Tokens of prompts that were found in a cache.
    pub cached_tokens: u64,
    /// Tokens of answers.
    pub completion_tokens: u64,
    /// Time that requests held slots, in seconds.
    pub slot_seconds: f64,
    /// Sum of the times from the arrival of a request to the first byte of its answer, in seconds.
    pub first_byte_seconds: f64,
    /// The cost, in the unit of `PRICE_PER_HOUR`.
    pub cost: f64,
}

/// A page of rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UsagePage {
    /// Always `list`.
    pub object: &'static str,
    /// The rows, in the order of their columns.
    pub data: Vec<UsageRow>,
    /// Whether there are more.
    pub has_more: bool,
    /// The `after` of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// The columns that the rows are grouped by.
    #[serde(skip)]
    pub columns: Vec<&'static str>,
}

const SUMS: &str = "sum(requests), sum(refused), sum(prompt_tokens), sum(cached_tokens), sum(completion_tokens), \
                    sum(slot_micros), sum(first_byte_micros), sum(cost_nanos)";

/// What idling has cost, as rows of the key `idle`.
const IDLE: &str = "UNION ALL SELECT 1, hour, 'idle', '', '', 0, 0, 0, 0, 0, 0, 0, 0, cost_nanos FROM idle";

/// Reads the rows that a query asks for from the file at this path.
///
/// # Errors
/// [`LedgerError`] if the file cannot be read.
pub fn read_usage(path: &Path, query: &UsageQuery) -> Result<UsagePage, LedgerError> {
    let connection = LEDGER.open_to_read(path)?;
    let of_sqlite = LedgerError::of(path);
    let UsageQuery { from, to, by, key, limit, after } = query;
    let groups: Vec<String> = by.iter().map(|group| group.expression()).collect();
    let groups = groups.join(", ");
    let of_key = if key.is_some() { "AND key = ?5" } else { "" };
    // A key may have the same name, and is another row.
    let is_wanted = key.is_none() && by.contains(&GroupBy::Key);
    let idle = if is_wanted && table_exists(&connection, "idle").map_err(&of_sqlite)? { IDLE } else { "" };
    // One row more than asked for tells whether there is a next page.
    let sql = format!(
        "SELECT {groups}, {SUMS} FROM (SELECT 0 AS is_idle, * FROM usage {idle}) \
         WHERE hour >= ?1 AND hour < ?2 {of_key} \
         GROUP BY {groups}, is_idle ORDER BY {groups}, is_idle LIMIT ?3 OFFSET ?4"
    );
    let mut parameters: Vec<Value> = [*from, *to, *limit as i64 + 1, *after as i64].map(Value::from).into();
    parameters.extend(key.clone().map(Value::from));
    let mut statement = connection.prepare(&sql).map_err(&of_sqlite)?;
    let rows = statement.query_map(params_from_iter(parameters), |row| usage_row(row, by)).map_err(&of_sqlite)?;
    let mut data = rows.collect::<rusqlite::Result<Vec<_>>>().map_err(&of_sqlite)?;
    let has_more = data.len() > *limit;
    data.truncate(*limit);
    let next = has_more.then_some(after + *limit as u64);
    Ok(UsagePage { object: "list", data, has_more, next, columns: by.iter().map(|group| group.column()).collect() })
}

/// Reads the rows of all pages, [`COMMAND_ROWS`] at most; the page says whether there are more.
///
/// # Errors
/// [`LedgerError`] if the file cannot be read.
pub fn read_all_usage(path: &Path, query: &UsageQuery) -> Result<UsagePage, LedgerError> {
    read_usage(path, &UsageQuery { limit: COMMAND_ROWS, ..query.clone() })
}

fn usage_row(row: &Row<'_>, by: &[GroupBy]) -> rusqlite::Result<UsageRow> {
    let count = |column: usize| {
        let count = row.get::<_, i64>(by.len() + column);
        count.map(|count| u64::try_from(count).unwrap_or(0))
    };
    let mut usage = UsageRow {
        start: None,
        key: None,
        person: None,
        model: None,
        requests: count(0)?,
        refused: count(1)?,
        prompt_tokens: count(2)?,
        cached_tokens: count(3)?,
        completion_tokens: count(4)?,
        slot_seconds: count(5)? as f64 / 1e6,
        first_byte_seconds: count(6)? as f64 / 1e6,
        cost: Amount::from_nanos(count(7)?).as_units(),
    };
    for (column, group) in by.iter().enumerate() {
        if group.is_time() {
            usage.start = Some(time_of(row.get(column)?).to_string());
            continue;
        }
        let name = Some(Some(row.get::<_, String>(column)?).filter(|name| !name.is_empty()));
        match group {
            GroupBy::Key => usage.key = name,
            GroupBy::Person => usage.person = name,
            _ => usage.model = name,
        }
    }
    Ok(usage)
}
