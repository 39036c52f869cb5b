//! The table of answers, and how an older file gets it.

use crate::gateway::bounds::DISK_LOCK_WAIT;
use crate::sqlite_file::SqliteFormat;

/// The file of answers, which others may not read. Its application id is "lgca".
pub(super) const ANSWERS: SqliteFormat<'static> = SqliteFormat {
    application_id: 0x6c67_6361,
    migrations: &[VERSION_1],
    lock_wait: DISK_LOCK_WAIT,
    is_private: true,
    advice: "delete it",
};

/// The first version. `kept` is in microseconds since 1970; `size` is the memory that an answer takes.
const VERSION_1: &str = "
CREATE TABLE answers (
  key BLOB NOT NULL PRIMARY KEY, kept INTEGER NOT NULL, size INTEGER NOT NULL,
  model TEXT NOT NULL, revision BLOB NOT NULL, head BLOB NOT NULL, ends BLOB NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE INDEX answers_by_time ON answers (kept);
";
