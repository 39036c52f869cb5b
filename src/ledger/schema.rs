//! The tables, and how an older file gets them.
//!
//! `user_version` is the number of [`MIGRATIONS`] that a file has had. A change of the tables is one more migration; none
//! is ever changed.

use std::fs;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::bounds::LOCK_WAIT;
use super::error::LedgerError;

/// Tells a ledger from databases of other programs: "lgus".
const APPLICATION_ID: i64 = 0x6c67_7573;

/// What makes each version out of the one before it.
pub(super) const MIGRATIONS: &[&str] = &[VERSION_1, VERSION_2];

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

/// Opens the file for writing. Makes it, and its folder, if they are missing.
///
/// # Errors
/// [`LedgerError`] if the file cannot be opened, is none of this program, or is newer than this program.
pub(super) fn open(path: &Path) -> Result<Connection, LedgerError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|error| LedgerError::Folder { path: folder.to_owned(), error })?;
    }
    open_with(path, MIGRATIONS)
}

/// Opens the file for writing, with these migrations.
pub(super) fn open_with(path: &Path, migrations: &[&str]) -> Result<Connection, LedgerError> {
    let of_sqlite = LedgerError::of(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(&of_sqlite)?;
    connection.busy_timeout(LOCK_WAIT).map_err(&of_sqlite)?;
    // Before the first write: the mode of a newer or a foreign file is not changed.
    check(&connection, path, migrations.len())?;
    let mode = || connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
    let is_wal = mode().map_err(&of_sqlite)?.eq_ignore_ascii_case("wal");
    // Without a write-ahead log only full syncs keep the file sound when the machine loses power.
    let synchronous = if is_wal { "NORMAL" } else { "FULL" };
    connection.pragma_update(None, "synchronous", synchronous).map_err(&of_sqlite)?;
    migrate(&mut connection, path, migrations)?;
    Ok(connection)
}

/// Opens the file for reading only.
///
/// # Errors
/// [`LedgerError::Missing`] if there is none; else as [`open`].
pub(super) fn open_to_read(path: &Path) -> Result<Connection, LedgerError> {
    if !path.exists() {
        return Err(LedgerError::Missing(path.to_owned()));
    }
    let of_sqlite = LedgerError::of(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(&of_sqlite)?;
    connection.busy_timeout(LOCK_WAIT).map_err(&of_sqlite)?;
    match check(&connection, path, MIGRATIONS.len())? {
        0 => Err(LedgerError::Missing(path.to_owned())),
        _ => Ok(connection),
    }
}

/// Returns whether a file has this table. One of an older version has none of what came later until it is written to.
pub(super) fn table_exists(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    connection.query_row(sql, [name], |row| row.get::<_, i64>(0)).map(|count| count > 0)
}

/// Returns the version of a file that this program may use; 0 for a new one.
fn check(connection: &Connection, path: &Path, known: usize) -> Result<i64, LedgerError> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(LedgerError::of(path));
    // One statement and so one state of the file, which another program may be making at this moment.
    let [tables, application, found] = [
        "SELECT count(*) FROM sqlite_schema",
        "SELECT application_id FROM pragma_application_id",
        "SELECT user_version FROM pragma_user_version",
    ]
    .map(number);
    let (tables, application, found) = (tables?, application?, found?);
    let known = known as i64;
    match (tables, application) {
        (0, 0) => Ok(0),
        (_, APPLICATION_ID) if found > known => Err(LedgerError::Newer { path: path.to_owned(), found, known }),
        (_, APPLICATION_ID) => Ok(found),
        _ => Err(LedgerError::Foreign(path.to_owned())),
    }
}

/// Brings the file to the newest version. Each step is one transaction.
fn migrate(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), LedgerError> {
    let of_sqlite = LedgerError::of(path);
    loop {
        if check(connection, path, migrations.len())? as usize == migrations.len() {
            return Ok(());
        }
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&of_sqlite)?;
        // Read again under the lock: another program may have made the step.
        let found = check(&step, path, migrations.len())?;
        if let Some(migration) = migrations.get(found as usize) {
            run(&step, migration, found + 1).map_err(&of_sqlite)?;
        }
        step.commit().map_err(&of_sqlite)?;
    }
}

fn run(step: &Transaction<'_>, migration: &str, version: i64) -> rusqlite::Result<()> {
    step.execute_batch(migration)?;
    step.pragma_update(None, "application_id", APPLICATION_ID)?;
    step.pragma_update(None, "user_version", version)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT: &str = "ALTER TABLE usage ADD COLUMN images INTEGER NOT NULL DEFAULT 0;";

    fn version(path: &Path) -> i64 {
        let connection = Connection::open(path).unwrap();
        connection.query_row("SELECT user_version FROM pragma_user_version", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_file_of_each_older_version_becomes_the_newest_and_keeps_its_rows() {
        let all = [MIGRATIONS, &[NEXT]].concat();
        for older in 0..all.len() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("usage.db");
            let connection = open_with(&path, &all[..older]).unwrap();
            if older > 0 {
                let row = "INSERT INTO usage VALUES (3600, 'k', '', 'm', 1, 0, 2, 3, 4, 5, 6, 7, 8)";
                connection.execute(row, []).unwrap();
            }
            drop(connection);
            let connection = open_with(&path, &all).unwrap();
            let rows: i64 = connection.query_row("SELECT count(images) FROM usage", [], |row| row.get(0)).unwrap();
            assert_eq!(rows, i64::from(older > 0), "from version {older}");
            drop(connection);
            assert_eq!(version(&path), all.len() as i64);
            drop(open_with(&path, &all).unwrap());
        }
    }

    #[test]
    fn a_step_that_fails_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage.db");
        drop(open(&path).unwrap());
        let broken = [MIGRATIONS, &["CREATE TABLE half (a) STRICT; CREATE TABLE"]].concat();
        assert!(open_with(&path, &broken).is_err());
        assert_eq!(version(&path), MIGRATIONS.len() as i64);
        drop(open(&path).unwrap());
    }

    #[test]
    fn a_newer_file_and_one_of_another_program_are_refused_and_left_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let newer = folder.path().join("newer.db");
        drop(open_with(&newer, &[MIGRATIONS, &[NEXT]].concat()).unwrap());
        let foreign = folder.path().join("foreign.db");
        Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE usage (a); PRAGMA user_version = 1;").unwrap();
        let text = folder.path().join("text.db");
        fs::write(&text, "not a database, but long enough to be looked at as one\n".repeat(40)).unwrap();
        let before: Vec<_> = [&newer, &foreign, &text].map(|path| fs::read(path).unwrap()).into();
        assert!(matches!(open(&newer), Err(LedgerError::Newer { found, known, .. }) if found == known + 1));
        assert!(matches!(open_to_read(&newer), Err(LedgerError::Newer { .. })));
        assert!(matches!(open(&foreign), Err(LedgerError::Foreign(_))));
        assert!(matches!(open(&text), Err(LedgerError::Sqlite { .. })));
        assert_eq!(before, [&newer, &foreign, &text].map(|path| fs::read(path).unwrap()));
    }

    #[test]
    fn the_audit_cannot_be_changed() {
        let folder = tempfile::tempdir().unwrap();
        let connection = open(&folder.path().join("a/b/usage.db")).unwrap();
        let row = "INSERT INTO audit VALUES (NULL, '2027-01-01T00:00:00Z', 'k', '', 'POST /reload', '', 200, 'ok')";
        connection.execute(row, []).unwrap();
        for change in ["DELETE FROM audit", "UPDATE audit SET outcome = 'x'"] {
            assert!(connection.execute(change, []).unwrap_err().to_string().contains("append-only"));
        }
    }
}
