//! Reads the acts of administrators, the newest first, on a connection that cannot write.

use std::path::Path;

use rusqlite::Row;
use serde::Serialize;

use super::csv::field;
use super::query::InvalidQuery;
use crate::ledger::bounds::{DEFAULT_ROWS, MOST_ROWS};
use crate::ledger::error::LedgerError;
use crate::ledger::event::AdminAct;
use crate::ledger::schema::LEDGER;

/// Which acts are asked for: `limit` and `after`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditQuery {
    limit: usize,
    /// The number of the last act of the page before; older ones follow.
    after: i64,
}

/// A page of acts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditPage {
    /// Always `list`.
    pub object: &'static str,
    /// The acts, the newest first.
    pub data: Vec<ActRow>,
    /// Whether there are older ones.
    pub has_more: bool,
    /// The `after` of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

/// One act, as JSON and CSV have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActRow {
    /// When the request arrived, in UTC.
    pub time: String,
    /// The id of the key.
    pub key: Option<String>,
    /// The address of the client.
    pub address: Option<String>,
    /// The method and the route.
    pub act: String,
    /// The model, key or download that was meant; empty if the request named none.
    pub target: String,
    /// The status of the answer.
    pub status: u16,
    /// `ok`, or the code of the refusal.
    pub outcome: String,
}

impl AuditQuery {
    /// Reads the parameters of a query.
    ///
    /// # Errors
    /// [`InvalidQuery`] that names the first parameter that is unknown, stands twice or has no valid value.
    pub fn read<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, InvalidQuery> {
        let (mut limit, mut after) = (None, None);
        for (asked, value) in parameters {
            let (name, allowed, is_repeated) = match asked {
                "limit" => ("limit", "a number from 1 to 10000", limit.is_some()),
                "after" => ("after", "the `next` of the page before", after.is_some()),
                _ => return Err(InvalidQuery::UnknownOfAudit(asked.chars().take(64).collect())),
            };
            if is_repeated {
                return Err(InvalidQuery::Repeated(name));
            }
            let is_valid = match name {
                "limit" => {
                    limit = value.parse().ok().filter(|limit| (1..=MOST_ROWS).contains(limit));
                    limit.is_some()
                }
                _ => {
                    after = value.parse().ok().filter(|after| *after > 0);
                    after.is_some()
                }
            };
            if !is_valid {
                return Err(InvalidQuery::Value { name, value: value.chars().take(64).collect(), allowed });
            }
        }
        Ok(Self { limit: limit.unwrap_or(DEFAULT_ROWS), after: after.unwrap_or(i64::MAX) })
    }
}

impl AuditPage {
    /// Returns the page as CSV, with a line of names.
    pub fn to_csv(&self) -> String {
        let mut text = "time,key,address,act,target,status,outcome\r\n".to_owned();
        for ActRow { time, key, address, act, target, status, outcome } in &self.data {
            let key = field(key.as_deref().unwrap_or_default());
            let address = address.as_deref().unwrap_or_default();
            let (act, target, outcome) = (field(act), field(target), field(outcome));
            text.push_str(&format!("{time},{key},{address},{act},{target},{status},{outcome}\r\n"));
        }
        text
    }
}

impl From<AdminAct> for ActRow {
    fn from(AdminAct { time, key, address, act, target, status, outcome }: AdminAct) -> Self {
        let address = address.map(|address| address.to_string());
        Self { time: time.to_string(), key, address, act, target, status, outcome }
    }
}

/// Reads the page that a query asks for from the file at this path.
///
/// # Errors
/// [`LedgerError`] if the file cannot be read.
pub fn read_act_page(path: &Path, query: &AuditQuery) -> Result<AuditPage, LedgerError> {
    // One more than asked for tells whether there is a next page.
    let mut acts = read(path, query.limit + 1, query.after)?;
    let has_more = acts.len() > query.limit;
    acts.truncate(query.limit);
    let next = acts.last().filter(|_| has_more).map(|(id, _)| *id);
    let data = acts.into_iter().map(|(_, act)| act.into()).collect();
    Ok(AuditPage { object: "list", data, has_more, next })
}

/// Reads the newest acts from the file at this path.
///
/// # Errors
/// [`LedgerError`] if the file cannot be read.
pub fn read_acts(path: &Path, limit: usize) -> Result<Vec<AdminAct>, LedgerError> {
    Ok(read(path, limit, i64::MAX)?.into_iter().map(|(_, act)| act).collect())
}

/// Reads acts with their numbers, those before `before`.
fn read(path: &Path, limit: usize, before: i64) -> Result<Vec<(i64, AdminAct)>, LedgerError> {
    let connection = LEDGER.open_to_read(path)?;
    let of_sqlite = LedgerError::of(path);
    let sql = "SELECT time, key, address, act, target, status, outcome, id FROM audit WHERE id < ?2 \
               ORDER BY id DESC LIMIT ?1";
    let mut statement = connection.prepare(sql).map_err(&of_sqlite)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map([limit, before], act_of_row).map_err(&of_sqlite)?;
    rows.collect::<rusqlite::Result<Vec<_>>>().map_err(&of_sqlite)
}

fn act_of_row(row: &Row<'_>) -> rusqlite::Result<(i64, AdminAct)> {
    let text = |column: usize| row.get::<_, String>(column);
    let act = AdminAct {
        time: text(0)?.parse().unwrap_or_default(),
        key: Some(text(1)?).filter(|key| !key.is_empty()),
        address: text(2)?.parse().ok(),
        act: text(3)?,
        target: text(4)?,
        status: row.get(5)?,
        outcome: text(6)?,
    };
    Ok((row.get(7)?, act))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_is_not_understood_is_refused_by_name() {
        for (name, value, names) in [
            ("from", "2027-01-01", "\"from\" is no parameter of the audit"),
            ("limit", "0", "limit"),
            ("limit", "10001", "limit"),
            ("after", "x", "after"),
        ] {
            let error = AuditQuery::read([(name, value)]).unwrap_err().to_string();
            assert!(error.starts_with(names), "{name}={value}: {error}");
        }
        let twice = AuditQuery::read([("limit", "1"), ("limit", "2")]).unwrap_err();
        assert_eq!(twice.to_string(), "limit is given twice");
    }
}
