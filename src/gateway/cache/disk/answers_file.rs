//! The rows of the open file: what they count for, and which of them leave when there are too many or they are too old.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};

use super::answer_row::{COLUMNS, end_bytes, head_bytes, read_row};
use super::disk_schema::ANSWERS;
use crate::gateway::cache::cache_bounds::CacheBounds;
use crate::gateway::cache::kept_answer::KeptAnswer;
use crate::gateway::cache::key::CacheKey;
use crate::sqlite_file::{SqliteFile, SqliteFileError};

/// An answer that is to be written, with its key.
pub(super) type AnswerToWrite = (CacheKey, Arc<KeptAnswer>);

/// The open file.
pub(super) struct AnswersFile {
    file: SqliteFile,
    totals: DiskTotals,
}

/// How many rows there are, and what they count for in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct DiskTotals {
    pub(super) rows: i64,
    pub(super) bytes: i64,
}

impl DiskTotals {
    fn of(connection: &Connection, bounds: CacheBounds) -> rusqlite::Result<Self> {
        let totals = "SELECT count(*), CAST(total(max(size, ?1)) AS INTEGER) FROM answers";
        connection.query_row(totals, [weight(bounds, 0)], |row| Ok(Self { rows: row.get(0)?, bytes: row.get(1)? }))
    }

    /// Adds a row of this weight.
    fn add(&mut self, weight: i64) {
        (self.rows, self.bytes) = (self.rows + 1, self.bytes.saturating_add(weight));
    }

    /// Takes a row of this weight away, if there was one.
    fn subtract(&mut self, weight: Option<i64>) {
        if let Some(weight) = weight {
            (self.rows, self.bytes) = (self.rows - 1, self.bytes.saturating_sub(weight));
        }
    }
}

impl AnswersFile {
    /// Opens the file, and removes what is too old or too much.
    ///
    /// # Errors
    /// [`SqliteFileError`] if it cannot be used.
    pub(super) fn open(path: &Path, bounds: CacheBounds) -> Result<Self, SqliteFileError> {
        let mut file = Self { file: ANSWERS.open(path)?, totals: DiskTotals::default() };
        file.prune(bounds)?;
        // The bounds may be lower than when it was written.
        file.write(&[], bounds)?;
        Ok(file)
    }

    /// Whether the file of this name is still the one that is open.
    pub(super) fn is_in_place(&self) -> bool {
        self.file.is_in_place()
    }

    /// Returns how much there is.
    pub(super) fn totals(&self) -> DiskTotals {
        self.totals
    }

    /// Reads all answers, the oldest first.
    ///
    /// # Errors
    /// [`SqliteFileError`] if the file cannot be read.
    pub(super) fn read(&self, mut each: impl FnMut(CacheKey, KeptAnswer)) -> Result<(), SqliteFileError> {
        let now = now();
        let mut read = || -> rusqlite::Result<()> {
            let mut all = self.file.connection.prepare(&format!("SELECT {COLUMNS} FROM answers ORDER BY kept"))?;
            let mut rows = all.query([])?;
            while let Some(row) = rows.next()? {
                if let Some((key, answer)) = read_row(row, now)? {
                    each(key, answer);
                }
            }
            Ok(())
        };
        read().map_err(SqliteFileError::of_sqlite(self.file.path()))
    }

    /// Writes answers in one transaction, each in the place of an earlier one. Those that were kept longest ago leave if
    /// there is no room.
    ///
    /// # Errors
    /// [`SqliteFileError`] if the file cannot be written; it is as before then.
    pub(super) fn write(&mut self, answers: &[AnswerToWrite], bounds: CacheBounds) -> Result<(), SqliteFileError> {
        let mut totals = self.totals;
        let mut write = || -> rusqlite::Result<()> {
            let transaction = self.file.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            // Both clocks once, so that answers stay in their order.
            let (now, at) = (now(), Instant::now());
            for (key, answer) in answers {
                let age = i64::try_from(answer.age_at(at).as_micros()).unwrap_or(i64::MAX);
                put(&transaction, (key, answer), now.saturating_sub(age), bounds, &mut totals)?;
            }
            shrink(&transaction, bounds, &mut totals)?;
            transaction.commit()
        };
        write().map_err(SqliteFileError::of_sqlite(self.file.path()))?;
        self.totals = totals;
        Ok(())
    }

    /// Removes what is too old, and what seems to come from the future because the clock was set back: its age is not
    /// known. Returns after what time there is more to remove; `None` without a row.
    ///
    /// # Errors
    /// [`SqliteFileError`] if the file cannot be written.
    pub(super) fn prune(&mut self, bounds: CacheBounds) -> Result<Option<Duration>, SqliteFileError> {
        let now = now();
        let ttl = i64::try_from(bounds.ttl.as_micros()).unwrap_or(i64::MAX);
        let prune = || -> rusqlite::Result<(DiskTotals, Option<i64>)> {
            let old = "DELETE FROM answers WHERE kept <= ?1 OR kept > ?2";
            self.file.connection.execute(old, [now.saturating_sub(ttl), now])?;
            let oldest = self.file.connection.query_row("SELECT min(kept) FROM answers", [], |row| row.get(0))?;
            Ok((DiskTotals::of(&self.file.connection, bounds)?, oldest))
        };
        let (totals, oldest) = prune().map_err(SqliteFileError::of_sqlite(self.file.path()))?;
        self.totals = totals;
        let left = |kept: i64| u64::try_from(kept.saturating_add(ttl).saturating_sub(now)).unwrap_or(0);
        Ok(oldest.map(|kept| Duration::from_micros(left(kept))))
    }
}

fn put(
    transaction: &Transaction<'_>,
    (key, answer): (&CacheKey, &KeptAnswer),
    kept: i64,
    bounds: CacheBounds,
    totals: &mut DiskTotals,
) -> rusqlite::Result<()> {
    let former = "DELETE FROM answers WHERE key = ?1 RETURNING size";
    let of_row = |row: &Row<'_>| row.get(0).map(|size| weight(bounds, size));
    totals.subtract(transaction.query_row(former, [key.to_bytes()], of_row).optional()?);
    let size = i64::try_from(answer.size()).unwrap_or(i64::MAX);
    let columns = "key, kept, size, model, revision, head, ends, body";
    let insert = format!("INSERT INTO answers ({columns}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
    let row = params![
        key.to_bytes(),
        kept,
        size,
        answer.model,
        answer.revision.to_bytes(),
        head_bytes(&answer.head),
        end_bytes(answer.ends()),
        &**answer.body(),
    ];
    transaction.execute(&insert, row)?;
    totals.add(weight(bounds, size));
    Ok(())
}

fn shrink(transaction: &Transaction<'_>, bounds: CacheBounds, totals: &mut DiskTotals) -> rusqlite::Result<()> {
    let oldest = "DELETE FROM answers WHERE key = (SELECT key FROM answers ORDER BY kept LIMIT 1) RETURNING size";
    while u64::try_from(totals.bytes).is_ok_and(|bytes| bytes > bounds.most_bytes) && totals.rows > 0 {
        let of_row = |row: &Row<'_>| row.get(0).map(|size| weight(bounds, size));
        totals.subtract(transaction.query_row(oldest, [], of_row).optional()?);
    }
    Ok(())
}

/// Returns what a row counts for whose answer has this size.
fn weight(bounds: CacheBounds, size: i64) -> i64 {
    i64::try_from(bounds.weight(u64::try_from(size).unwrap_or(0))).unwrap_or(i64::MAX)
}

/// Returns the time in microseconds since 1970.
fn now() -> i64 {
    Timestamp::now().as_microsecond()
}
