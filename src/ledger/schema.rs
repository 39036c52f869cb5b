//! The tables of the ledger, and how an older file gets them.

use rusqlite::Connection;

use super::bounds::LOCK_WAIT;
use crate::sqlite_file::SqliteFormat;

/// The file of a ledger. Its application id is "lgus".
pub(super) const LEDGER: SqliteFormat<'static> = SqliteFormat {
    application_id: 0x6c67_7573,
    migrations: &[VERSION_1, VERSION_2],
    lock_wait: LOCK_WAIT,
    is_private: false,
    advice: "set USAGE_DB to another file",
};

/// The first version. Times are seconds since 1970 in UTC; `''` stands for no key, no person and no model.
const VERSION_1: &str = "
CREATE TABLE usage (
  hour INTEGER NOT NULL, key TEXT NOT NULL, person TEXT NOT NULL, model TEXT NOT NULL,
  requests INTEGER NOT NULL, refused INTEGER NOT NULL,
  prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
  charged_tokens INTEGER NOT NULL,
  slot_micros INTEGER NOT NULL, first_byte_micros INTEGER NOT NULL, cost_nanos INTEGER NOT NULL,
  PRIMARY KEY (hour, key, person, model)
) STRICT, WITHOUT ROWID;
CREATE TABLE refusals (
  hour INTEGER NOT NULL, key TEXT NOT NULL, person TEXT NOT NULL, model TEXT NOT NULL, code TEXT NOT NULL,
  requests INTEGER NOT NULL,
  PRIMARY KEY (hour, key, person, model, code)
) STRICT, WITHOUT ROWID;
CREATE TABLE budgets (
  period TEXT NOT NULL CHECK (period IN ('day', 'month')), start INTEGER NOT NULL,
  key TEXT NOT NULL, person TEXT NOT NULL,
  tokens INTEGER NOT NULL, requests INTEGER NOT NULL, cost_nanos INTEGER NOT NULL,
  PRIMARY KEY (period, start, key, person)
) STRICT, WITHOUT ROWID;
CREATE TABLE audit (
  id INTEGER PRIMARY KEY, time TEXT NOT NULL, key TEXT NOT NULL, address TEXT NOT NULL,
  act TEXT NOT NULL, target TEXT NOT NULL, status INTEGER NOT NULL, outcome TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_keeps_rows BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;
CREATE TRIGGER audit_keeps_texts BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;
";

/// What idling has cost.
const VERSION_2: &str = "
CREATE TABLE idle (hour INTEGER NOT NULL PRIMARY KEY, cost_nanos INTEGER NOT NULL) STRICT;
";

/// Returns whether a file has this table. One of an older version has none of what came later until it is written to.
pub(super) fn table_exists(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    connection.query_row(sql, [name], |row| row.get::<_, i64>(0)).map(|count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_cannot_be_changed() {
        let folder = tempfile::tempdir().unwrap();
        let connection = LEDGER.open(&folder.path().join("usage.db")).unwrap().connection;
        let row = "INSERT INTO audit VALUES (NULL, '2027-01-01T00:00:00Z', 'k', '', 'POST /reload', '', 200, 'ok')";
        connection.execute(row, []).unwrap();
        for change in ["DELETE FROM audit", "UPDATE audit SET outcome = 'x'"] {
            assert!(connection.execute(change, []).unwrap_err().to_string().contains("append-only"));
        }
    }
}
