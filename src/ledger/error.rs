//! Why the file of the ledger cannot be used.

use std::io;
use std::path::PathBuf;

/// Why the file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The ledger is switched off.
    #[error("usage is not recorded: USAGE_DB is off")]
    Off,
    /// There is no file yet.
    #[error("{}: there is no usage recorded yet", .0.display())]
    Missing(PathBuf),
    /// A later version of this program has written the file.
    #[error("{}: the file has version {found}, and this program knows up to {known}; use the program that wrote it, or set USAGE_DB to another file", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The highest version that is known here.
        known: i64,
    },
    /// The file is a database of another program.
    #[error("{}: the file is a database of another program; set USAGE_DB to another file", .0.display())]
    Foreign(PathBuf),
    /// The folder of the file cannot be made.
    #[error("{}: the folder cannot be made: {error}", .path.display())]
    Folder {
        /// The folder.
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

impl LedgerError {
    /// Returns the conversion of SQLite's errors about this file.
    pub(super) fn of(path: &std::path::Path) -> impl Fn(rusqlite::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Sqlite { path: path.clone(), error }
    }
}
