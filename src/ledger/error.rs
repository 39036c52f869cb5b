//! Why the ledger cannot be read or written.

use std::path::{Path, PathBuf};

use crate::sqlite_file::SqliteFileError;

/// Why the ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The ledger is switched off.
    #[error("usage is not recorded: USAGE_DB is off")]
    Off,
    /// There is no file yet.
    #[error("{}: there is no usage recorded yet", .0.display())]
    Missing(PathBuf),
    /// The file cannot be used.
    #[error(transparent)]
    File(SqliteFileError),
}

impl From<SqliteFileError> for LedgerError {
    fn from(error: SqliteFileError) -> Self {
        match error {
            SqliteFileError::Missing(path) => Self::Missing(path),
            error => Self::File(error),
        }
    }
}

impl LedgerError {
    /// Returns the conversion of SQLite's errors about this file.
    pub(super) fn of(path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        |error| Self::File(SqliteFileError::of_sqlite(path)(error))
    }
}
