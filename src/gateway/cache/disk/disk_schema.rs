//! Opens the file: for its owner alone, and only if it is of this program. The table of answers, and how an older file gets
//! it.
//!
//! `user_version` is the number of [`MIGRATIONS`] that a file has had. A change of the table is one more migration; none is
//! ever changed.

use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::disk_error::DiskError;
use crate::gateway::bounds::DISK_LOCK_WAIT;

/// Tells a file of answers from databases of other programs: "lgca".
const APPLICATION_ID: i64 = 0x6c67_6361;

/// What makes each version out of the one before it.
pub(super) const MIGRATIONS: &[&str] = &[VERSION_1];

/// The first version. `kept` is in microseconds since 1970; `size` is the memory that an answer takes.
const VERSION_1: &str = "
CREATE TABLE answers (
  key BLOB NOT NULL PRIMARY KEY, kept INTEGER NOT NULL, size INTEGER NOT NULL,
  model TEXT NOT NULL, revision BLOB NOT NULL, head BLOB NOT NULL, ends BLOB NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE INDEX answers_by_time ON answers (kept);
";

/// The permissions of the file: others may not read what people were answered.
const OWNER_ONLY: u32 = 0o600;

/// The size to which the write-ahead log is cut, in bytes.
const LOG_SIZE: i64 = 4 << 20;

/// Opens the file, for this process alone until it is closed. Makes it, and its folder, if they are missing.
///
/// # Errors
/// [`DiskError`] if another process has the file, if it cannot be opened, is none of this program, or is newer than this
/// program.
pub(super) fn open(path: &Path) -> Result<Connection, DiskError> {
    open_with(path, MIGRATIONS)
}

/// Opens the file, with these migrations.
pub(super) fn open_with(path: &Path, migrations: &[&str]) -> Result<Connection, DiskError> {
    make(path).map_err(DiskError::of_file(path))?;
    let of_sqlite = DiskError::of_sqlite(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(&of_sqlite)?;
    connection.busy_timeout(DISK_LOCK_WAIT).map_err(&of_sqlite)?;
    // Before the first read: what locks the file then keeps it locked, and no memory is shared with other processes.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(&of_sqlite)?;
    // Before the first write: a newer or a foreign file is not changed.
    check(&connection, path, migrations.len())?;
    close_to_others(path).map_err(DiskError::of_file(path))?;
    let mode = || connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
    let is_wal = mode().map_err(&of_sqlite)?.eq_ignore_ascii_case("wal");
    // Without a write-ahead log only full syncs keep the file sound when the machine loses power.
    let synchronous = if is_wal { "NORMAL" } else { "FULL" };
    connection.pragma_update(None, "synchronous", synchronous).map_err(&of_sqlite)?;
    connection.pragma_update(None, "journal_size_limit", LOG_SIZE).map_err(&of_sqlite)?;
    migrate(&mut connection, path, migrations)?;
    Ok(connection)
}

fn make(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Takes the permissions of others away, which a copy of the file may have brought.
fn close_to_others(path: &Path) -> io::Result<()> {
    let mut log = OsString::from(path);
    log.push("-wal");
    for file in [path.to_owned(), PathBuf::from(log)].into_iter().filter(|file| file.exists()) {
        if fs::metadata(&file)?.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(&file, Permissions::from_mode(OWNER_ONLY))?;
        }
    }
    Ok(())
}

/// Returns the version of a file that this program may use; 0 for a new one.
fn check(connection: &Connection, path: &Path, known: usize) -> Result<i64, DiskError> {
    let number =
        |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(DiskError::of_sqlite(path));
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let application = number("SELECT application_id FROM pragma_application_id")?;
    let found = number("SELECT user_version FROM pragma_user_version")?;
    let known = known as i64;
    match (tables, application) {
        (0, 0) => Ok(0),
        (_, APPLICATION_ID) if found > known => Err(DiskError::Newer { path: path.to_owned(), found, known }),
        (_, APPLICATION_ID) => Ok(found),
        _ => Err(DiskError::Foreign(path.to_owned())),
    }
}

/// Brings the file to the newest version. Each step is one transaction.
fn migrate(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), DiskError> {
    let of_sqlite = DiskError::of_sqlite(path);
    let found = check(connection, path, migrations.len())?;
    for (version, migration) in (1_i64..).zip(migrations).filter(|(version, _)| *version > found) {
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&of_sqlite)?;
        let run = || {
            step.execute_batch(migration)?;
            step.pragma_update(None, "application_id", APPLICATION_ID)?;
            step.pragma_update(None, "user_version", version)
        };
        run().map_err(&of_sqlite)?;
        step.commit().map_err(&of_sqlite)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT: &str = "ALTER TABLE answers ADD COLUMN uses INTEGER NOT NULL DEFAULT 0;";

    fn version(path: &Path) -> i64 {
        let connection = Connection::open(path).unwrap();
        connection.query_row("SELECT user_version FROM pragma_user_version", [], |row| row.get(0)).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_of_each_older_version_becomes_the_newest_and_keeps_its_rows() {
        let all = [MIGRATIONS, &[NEXT]].concat();
        for older in 0..all.len() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("made/cache.db");
            let connection = open_with(&path, &all[..older]).unwrap();
            if older > 0 {
                connection.execute("INSERT INTO answers VALUES (x'01', 2, 3, 'm', x'04', x'', x'', x'')", []).unwrap();
            }
            drop(connection);
            let connection = open_with(&path, &all).unwrap();
            let rows: i64 = connection.query_row("SELECT count(uses) FROM answers", [], |row| row.get(0)).unwrap();
            assert_eq!(rows, i64::from(older > 0), "from version {older}");
            drop(connection);
            assert_eq!((version(&path), mode(&path)), (all.len() as i64, 0o600));
        }
    }

    #[test]
    fn a_step_that_fails_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.db");
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
        Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE mine (a)").unwrap();
        fs::set_permissions(&foreign, Permissions::from_mode(0o644)).unwrap();
        let text = folder.path().join("text.db");
        fs::write(&text, "not a database, but long enough to be looked at as one\n".repeat(40)).unwrap();
        let read = || [&newer, &foreign, &text].map(|path| (fs::read(path).unwrap(), mode(path)));
        let before = read();
        assert!(matches!(open(&newer), Err(DiskError::Newer { found: 2, known: 1, .. })));
        assert!(matches!(open(&foreign), Err(DiskError::Foreign(_))));
        assert!(matches!(open(&text), Err(DiskError::Sqlite { .. })));
        assert_eq!(before, read());
    }

    #[test]
    fn the_file_is_for_its_owner_and_for_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.db");
        let first = open(&path).unwrap();
        assert!(matches!(open(&path), Err(DiskError::InUse(_))));
        drop(first);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let second = open(&path).unwrap();
        second.execute("INSERT INTO answers VALUES (x'01', 2, 3, 'm', x'04', x'', x'', x'')", []).unwrap();
        assert_eq!((mode(&path), mode(&folder.path().join("cache.db-wal"))), (0o600, 0o600));
    }
}
