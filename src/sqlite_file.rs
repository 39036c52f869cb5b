//! A SQLite file of this program: opened only if it is none of another program, brought to the newest version of its
//! tables, and told from another file that has taken its name.
//!
//! `user_version` is the number of [`SqliteFormat::migrations`] that a file has had. Owns no table.

use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::file_identity::FileIdentity;

/// The permissions of a private file.
const OWNER_ONLY: u32 = 0o600;

/// The size to which a write-ahead log is cut, in bytes.
const LOG_SIZE: i64 = 4 << 20;

/// What the files of one kind have in common.
#[derive(Debug, Clone, Copy)]
pub struct SqliteFormat<'a> {
    /// Tells these files from databases of other programs.
    pub application_id: i64,
    /// What makes each version of the tables out of the one before it. None is ever changed: a change is one more.
    pub migrations: &'a [&'a str],
    /// How long a statement waits for another process that has locked the file.
    pub lock_wait: Duration,
    /// Whether no other user may read the file, and no other process may use it while it is open.
    pub is_private: bool,
    /// What to do about a file that this program must not change, as the end of a sentence.
    pub advice: &'static str,
}

/// A file that is open for writing.
#[derive(Debug)]
pub struct SqliteFile {
    /// The connection that all statements go through.
    pub connection: Connection,
    path: PathBuf,
    /// `None` if it was gone when it was asked for.
    identity: Option<FileIdentity>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SqliteFileError {
    /// There is no file yet, or one without tables.
    #[error("{}: there is no such file yet", .0.display())]
    Missing(PathBuf),
    /// Another process has locked it.
    #[error("{}: locked, because another process uses the file; give each gateway a DATA_DIR of its own", .0.display())]
    InUse(PathBuf),
    /// A later version of this program has written the file.
    #[error("{}: the file has version {found}, and this program knows up to {known}; use the program that wrote it, or {advice}", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The highest version that is known here.
        known: i64,
        /// What else to do.
        advice: &'static str,
    },
    /// The file is a database of another program.
    #[error("{}: the file is a database of another program; {advice}", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What to do.
        advice: &'static str,
    },
    /// The file or its folder cannot be made.
    #[error("{}: {error}", .path.display())]
    File {
        /// The file, or the folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// SQLite has failed.
    #[error("{}: {error}", .path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        error: rusqlite::Error,
    },
}

impl SqliteFileError {
    /// Returns the conversion of SQLite's errors about this file.
    pub fn of_sqlite(path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        |error| match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse(path.to_owned()),
            _ => Self::Sqlite { path: path.to_owned(), error },
        }
    }

    fn of_file(path: &Path) -> impl Fn(io::Error) -> Self {
        |error| Self::File { path: path.to_owned(), error }
    }
}

impl SqliteFile {
    /// Whether the file of this name is still the one that is open.
    pub fn is_in_place(&self) -> bool {
        self.identity == FileIdentity::at(&self.path)
    }

    /// Returns the file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl SqliteFormat<'_> {
    /// Opens a file for writing. Makes it, and its folder, if they are missing.
    ///
    /// # Errors
    /// [`SqliteFileError`] if the file cannot be opened, is locked, is none of this program, or is newer than this program.
    /// A newer or a foreign file is not changed.
    pub fn open(&self, path: &Path) -> Result<SqliteFile, SqliteFileError> {
        self.make(path)?;
        let of_sqlite = SqliteFileError::of_sqlite(path);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(&of_sqlite)?;
        connection.busy_timeout(self.lock_wait).map_err(&of_sqlite)?;
        if self.is_private {
            // Before the first read: what locks the file then keeps it locked, and no memory is shared with other processes.
            connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(&of_sqlite)?;
        }
        // Before the first write, which the mode of the journal is.
        self.check(&connection, path)?;
        if self.is_private {
            close_to_others(path).map_err(SqliteFileError::of_file(path))?;
        }
        set_journal(&connection).map_err(&of_sqlite)?;
        self.migrate(&mut connection, path)?;
        Ok(SqliteFile { connection, path: path.to_owned(), identity: FileIdentity::at(path) })
    }

    /// Opens a file for reading only.
    ///
    /// # Errors
    /// [`SqliteFileError::Missing`] if there is none; else as [`SqliteFormat::open`].
    pub fn open_to_read(&self, path: &Path) -> Result<Connection, SqliteFileError> {
        if !path.exists() {
            return Err(SqliteFileError::Missing(path.to_owned()));
        }
        let of_sqlite = SqliteFileError::of_sqlite(path);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(&of_sqlite)?;
        connection.busy_timeout(self.lock_wait).map_err(&of_sqlite)?;
        match self.check(&connection, path)? {
            0 => Err(SqliteFileError::Missing(path.to_owned())),
            _ => Ok(connection),
        }
    }

    fn make(&self, path: &Path) -> Result<(), SqliteFileError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(SqliteFileError::of_file(folder))?;
        }
        if !self.is_private {
            return Ok(());
        }
        match OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(SqliteFileError::of_file(path)(error)),
            _ => Ok(()),
        }
    }

    /// Returns the version of a file that this program may use; 0 for a new one.
    fn check(&self, connection: &Connection, path: &Path) -> Result<i64, SqliteFileError> {
        // One statement, and so one state of a file that another process may be making at this moment.
        let all = "SELECT (SELECT count(*) FROM sqlite_schema), \
                   (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version)";
        let row = connection.query_row(all, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        let (tables, application, found): (i64, i64, i64) = row.map_err(SqliteFileError::of_sqlite(path))?;
        let (known, advice) = (self.migrations.len() as i64, self.advice);
        match (tables, application) {
            (0, 0) => Ok(0),
            (_, id) if id != self.application_id => Err(SqliteFileError::Foreign { path: path.to_owned(), advice }),
            _ if found > known => Err(SqliteFileError::Newer { path: path.to_owned(), found, known, advice }),
            _ => Ok(found),
        }
    }

    /// Brings the file to the newest version. Each step is one transaction.
    fn migrate(&self, connection: &mut Connection, path: &Path) -> Result<(), SqliteFileError> {
        let of_sqlite = SqliteFileError::of_sqlite(path);
        while (self.check(connection, path)? as usize) < self.migrations.len() {
            let step = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&of_sqlite)?;
            // Read again under the lock: another process may have made the step.
            let found = self.check(&step, path)?;
            if let Some(migration) = self.migrations.get(found as usize) {
                self.run(&step, migration, found + 1).map_err(&of_sqlite)?;
            }
            step.commit().map_err(&of_sqlite)?;
        }
        Ok(())
    }

    fn run(&self, step: &Transaction<'_>, migration: &str, version: i64) -> rusqlite::Result<()> {
        step.execute_batch(migration)?;
        step.pragma_update(None, "application_id", self.application_id)?;
        step.pragma_update(None, "user_version", version)
    }
}

fn set_journal(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    // Without a write-ahead log only full syncs keep the file sound when the machine loses power.
    let synchronous = if mode.eq_ignore_ascii_case("wal") { "NORMAL" } else { "FULL" };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "journal_size_limit", LOG_SIZE)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The migrations of the tests: each adds a column that the next can be told by.
    const STEPS: &[&str] = &[
        "CREATE TABLE rows (a INTEGER NOT NULL) STRICT;",
        "ALTER TABLE rows ADD COLUMN b INTEGER NOT NULL DEFAULT 0;",
        "ALTER TABLE rows ADD COLUMN c INTEGER NOT NULL DEFAULT 0;",
    ];

    /// Both kinds of files.
    const KINDS: [bool; 2] = [false, true];

    fn format<'a>(migrations: &'a [&'a str], is_private: bool) -> SqliteFormat<'a> {
        let lock_wait = Duration::from_millis(50);
        SqliteFormat { application_id: 0x6c67_7474, migrations, lock_wait, is_private, advice: "move it" }
    }

    fn version(path: &Path) -> i64 {
        let connection = Connection::open(path).unwrap();
        connection.query_row("SELECT user_version FROM pragma_user_version", [], |row| row.get(0)).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_of_each_older_version_becomes_the_newest_and_keeps_its_rows() {
        for (older, is_private) in (0..STEPS.len()).flat_map(|older| KINDS.map(|kind| (older, kind))) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("made/a.db");
            let file = format(&STEPS[..older], is_private).open(&path).unwrap();
            if older > 0 {
                file.connection.execute("INSERT INTO rows (a) VALUES (1)", []).unwrap();
            }
            drop(file);
            let file = format(STEPS, is_private).open(&path).unwrap();
            let rows: i64 = file.connection.query_row("SELECT count(c) FROM rows", [], |row| row.get(0)).unwrap();
            assert_eq!(rows, i64::from(older > 0), "from version {older}");
            drop(file);
            assert_eq!(version(&path), STEPS.len() as i64);
            drop(format(STEPS, is_private).open(&path).unwrap());
        }
    }

    #[test]
    fn a_step_that_fails_changes_nothing() {
        for is_private in KINDS {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.db");
            drop(format(&STEPS[..1], is_private).open(&path).unwrap());
            let broken = [STEPS[0], "CREATE TABLE half (a) STRICT; CREATE TABLE"];
            assert!(format(&broken, is_private).open(&path).is_err());
            assert_eq!(version(&path), 1);
            drop(format(STEPS, is_private).open(&path).unwrap());
        }
    }

    #[test]
    fn a_newer_file_and_one_of_another_program_are_refused_and_left_as_they_are() {
        for is_private in KINDS {
            let folder = tempfile::tempdir().unwrap();
            let newer = folder.path().join("newer.db");
            drop(format(STEPS, is_private).open(&newer).unwrap());
            let foreign = folder.path().join("foreign.db");
            Connection::open(&foreign)
                .unwrap()
                .execute_batch("CREATE TABLE rows (a); PRAGMA user_version = 1")
                .unwrap();
            fs::set_permissions(&foreign, Permissions::from_mode(0o644)).unwrap();
            let text = folder.path().join("text.db");
            fs::write(&text, "not a database, but long enough to be looked at as one\n".repeat(40)).unwrap();
            let read = || [&newer, &foreign, &text].map(|path| (fs::read(path).unwrap(), mode(path)));
            let before = read();
            let format = format(&STEPS[..2], is_private);
            assert!(matches!(format.open(&newer), Err(SqliteFileError::Newer { found: 3, known: 2, .. })));
            assert!(matches!(format.open_to_read(&newer), Err(SqliteFileError::Newer { .. })));
            assert!(matches!(format.open(&foreign), Err(SqliteFileError::Foreign { .. })));
            assert!(matches!(format.open(&text), Err(SqliteFileError::Sqlite { .. })));
            assert_eq!(before, read());
        }
    }

    #[test]
    fn a_private_file_is_for_its_owner_and_for_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let format = format(STEPS, true);
        let first = format.open(&path).unwrap();
        assert!(matches!(format.open(&path), Err(SqliteFileError::InUse(_))));
        drop(first);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let second = format.open(&path).unwrap();
        second.connection.execute("INSERT INTO rows (a) VALUES (1)", []).unwrap();
        assert_eq!((mode(&path), mode(&folder.path().join("a.db-wal"))), (0o600, 0o600));
    }

    #[test]
    fn a_file_that_was_moved_away_or_replaced_is_not_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let file = format(STEPS, false).open(&path).unwrap();
        assert!(file.is_in_place());
        fs::rename(&path, folder.path().join("b.db")).unwrap();
        assert!(!file.is_in_place());
        let other = format(STEPS, false).open(&path).unwrap();
        assert!(other.is_in_place() && !file.is_in_place());
    }

    #[test]
    fn programs_that_make_a_file_at_once_make_each_step_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let patient = SqliteFormat { lock_wait: Duration::from_secs(60), ..format(STEPS, false) };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| patient.open(&path).unwrap());
            }
        });
        assert_eq!(version(&path), STEPS.len() as i64);
    }

    #[test]
    fn a_file_without_tables_is_missing_to_a_reader() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let format = format(STEPS, false);
        assert!(matches!(format.open_to_read(&path), Err(SqliteFileError::Missing(_))));
        fs::write(&path, "").unwrap();
        assert!(matches!(format.open_to_read(&path), Err(SqliteFileError::Missing(_))));
        drop(format.open(&path).unwrap());
        assert!(format.open_to_read(&path).is_ok());
    }
}
