//! Why the file of answers cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    /// Another process has it, such as another gateway with the same folder.
    #[error("{}: another process uses the file; give each gateway a DATA_DIR of its own", .0.display())]
    InUse(PathBuf),
    /// A later version of this program has written the file.
    #[error("{}: the file has version {found}, and this program knows up to {known}; use the program that wrote it, or delete the file", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The highest version that is known here.
        known: i64,
    },
    /// The file is a database of another program.
    #[error("{}: the file is a database of another program; move it, or set DATA_DIR to another folder", .0.display())]
    Foreign(PathBuf),
    /// The file or its folder cannot be made.
    #[error("{}: {error}", .path.display())]
    File {
        /// The file.
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

impl DiskError {
    /// Returns the conversion of errors of the file system about this file.
    pub(super) fn of_file(path: &Path) -> impl Fn(io::Error) -> Self {
        |error| Self::File { path: path.to_owned(), error }
    }

    /// Returns the conversion of SQLite's errors about this file.
    pub(super) fn of_sqlite(path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        |error| match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse(path.to_owned()),
            _ => Self::Sqlite { path: path.to_owned(), error },
        }
    }
}
