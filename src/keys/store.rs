//! The keys in memory: an immutable table that a request looks up, and a reload that swaps the whole table or nothing.
//!
//! A lookup hashes the presented secret once and finds the digest in the table; it neither locks nor touches the disk.
//! The store follows the file by itself ([`Store::watch`]) and when told ([`Store::reload`]). It does not count
//! requests: limits are kept per key_id elsewhere, so that they survive a reload.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::error::{KeyFileError, KeyLineProblem};
use super::file::{self, Stamp};
use super::key::Key;
use super::parse::parse;
use super::secret::{self, Digest};

/// How often the file is looked at.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// The latest that a change takes effect, as promised to users.
pub const CHANGE_SEEN_WITHIN: Duration = Duration::from_secs(5);
// One look that just missed the change, the next one, and time to read a slow disk.
const _: () = assert!(2 * WATCH_INTERVAL.as_secs() < CHANGE_SEEN_WITHIN.as_secs());
/// Bad lines that one load reports singly; the rest are counted.
const MAX_REPORTED_PROBLEMS: usize = 20;

/// Why a presented secret opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It cannot be a secret: not 16 to 128 of `[A-Za-z0-9_-]`.
    #[error("this does not have the form of an API key")]
    Malformed,
    /// No line holds it.
    #[error("no such API key")]
    Unknown,
    /// Its end has come.
    #[error("the API key has expired")]
    Expired,
}

type Table = HashMap<Digest, Arc<Key>>;

/// The keys of one file. Clones share the same keys.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    path: PathBuf,
    table: ArcSwap<Table>,
    /// Held during a reload, so that of two reloads the later reading wins.
    seen: Mutex<Seen>,
}

/// What the file was when it was last looked at.
#[derive(Default)]
struct Seen {
    /// `None`: look again, whatever the file's stamp says.
    stamp: Option<Stamp>,
    /// Of the last text that was read, good or bad, and its mode.
    content: Option<Content>,
    /// The last error that was reported, until a reading succeeds.
    error: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Content {
    digest: [u8; 32],
    open_to_others: bool,
}

/// One reading of the file, not yet in force.
struct Reading {
    content: Content,
    stamp: Stamp,
    table: Table,
    problems: Vec<(usize, KeyLineProblem)>,
}

impl Store {
    /// Reads the key file for the first time. Blocks on the disk.
    ///
    /// # Errors
    /// When the file is missing or unreadable, or when it holds no key that is valid now.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, KeyFileError> {
        let path = path.into();
        let reading = Reading::take(&path)?;
        reading.report(&path);
        let now = Timestamp::now();
        let expired = reading.table.values().filter(|key| key.has_expired(now)).count();
        if expired == reading.table.len() {
            return Err(KeyFileError::NoUsableKey { path, bad_lines: reading.problems.len(), expired });
        }
        let (table, seen) = reading.accept();
        Ok(Self(Arc::new(Inner { path, table: ArcSwap::from_pointee(table), seen: Mutex::new(seen) })))
    }

    /// The key that this secret opens at this time. Takes any text, and the same work for every well-formed one.
    ///
    /// # Errors
    /// [`Denied`] says why there is none.
    pub fn lookup(&self, secret: &str, now: Timestamp) -> Result<Arc<Key>, Denied> {
        if !secret::is_well_formed(secret) {
            return Err(Denied::Malformed);
        }
        let table = self.0.table.load();
        let key = table.get(&Digest::of(secret)).ok_or(Denied::Unknown)?;
        if key.has_expired(now) { Err(Denied::Expired) } else { Ok(Arc::clone(key)) }
    }

    /// How many secrets the table holds, expired ones included.
    pub fn len(&self) -> usize {
        self.0.table.load().len()
    }

    /// Whether the table is empty; it never is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file that the store follows.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Reads the file again and puts all of it in force, or changes nothing. Returns how many keys there are now.
    ///
    /// Expired keys count here: a file in which every key has just been ended must take effect. Blocks on the disk.
    ///
    /// # Errors
    /// When the file is missing, unreadable or without a single good line; the keys from before stay.
    pub fn reload(&self) -> Result<usize, KeyFileError> {
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let result = Reading::take(&self.0.path).and_then(|reading| {
            reading.report(&self.0.path);
            self.install(reading, &mut seen)
        });
        if let Err(error) = &result {
            // The caller reports this one, so the watch need not.
            seen.is_news(error);
        }
        result
    }

    /// Follows the file until `stop`: every [`WATCH_INTERVAL`] it looks whether the file changed, and reloads if so.
    ///
    /// Logs every change that took effect, and every error once.
    pub async fn watch(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(WATCH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let following = async {
            loop {
                ticks.tick().await;
                let store = self.clone();
                // A network volume may take its time; the runtime's own threads must not.
                if let Err(error) = tokio::task::spawn_blocking(move || store.poll()).await {
                    tracing::error!(%error, "looking at the key file failed");
                }
            }
        };
        stop.run_until_cancelled(following).await;
    }

    /// One look at the file. Does nothing while it is as it was.
    fn poll(&self) {
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let path = &self.0.path;
        if seen.stamp.is_some() && seen.stamp == Stamp::of_path(path).ok() {
            return;
        }
        let result = Reading::take(path).and_then(|reading| {
            if seen.content == Some(reading.content) {
                seen.stamp = reading.settled_stamp();
                return Ok(None);
            }
            reading.report(path);
            self.install(reading, &mut seen).map(Some)
        });
        match result {
            Ok(None) => {}
            Ok(Some(keys)) => tracing::info!(keys, file = %path.display(), "API keys reloaded"),
            Err(error) if seen.is_news(&error) => {
                tracing::error!(%error, hint = error.hint(), "API keys not reloaded, the old ones stay in force");
            }
            Err(_) => {}
        }
    }

    /// Puts a reading in force, or only remembers it when it holds no key.
    fn install(&self, reading: Reading, seen: &mut Seen) -> Result<usize, KeyFileError> {
        if reading.table.is_empty() {
            seen.stamp = reading.settled_stamp();
            seen.content = Some(reading.content);
            let bad_lines = reading.problems.len();
            return Err(KeyFileError::NoUsableKey { path: self.0.path.clone(), bad_lines, expired: 0 });
        }
        let (table, now_seen) = reading.accept();
        *seen = now_seen;
        let keys = table.len();
        self.0.table.store(Arc::new(table));
        Ok(keys)
    }
}

impl Seen {
    /// Remembers a failed reload; whether it differs from the one before.
    fn is_news(&mut self, error: &KeyFileError) -> bool {
        if !matches!(error, KeyFileError::NoUsableKey { .. }) {
            // Nothing was read: whatever comes next is a change, be it the same text as before.
            self.stamp = None;
            self.content = None;
        }
        let text = error.to_string();
        self.error.replace(text.clone()) != Some(text)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.0.path).field("keys", &self.len()).finish()
    }
}

impl Reading {
    fn take(path: &Path) -> Result<Self, KeyFileError> {
        let (bytes, metadata) = file::read_bytes(path)?;
        let parsed = parse(&String::from_utf8_lossy(&bytes));
        Ok(Self {
            content: Content {
                digest: Sha256::digest(&bytes).into(),
                open_to_others: file::is_open_to_others(&metadata),
            },
            stamp: Stamp::of(&metadata),
            table: parsed.entries().map(|(_, entry)| (entry.secret.digest(), Arc::new(entry.key.clone()))).collect(),
            problems: parsed.problems().collect(),
        })
    }

    fn report(&self, path: &Path) {
        let file = path.display();
        if self.content.open_to_others {
            tracing::warn!(%file, "other users can read or write the key file; run: chmod 600 on it");
        }
        for (line, problem) in self.problems.iter().take(MAX_REPORTED_PROBLEMS) {
            tracing::warn!(%file, line, %problem, "line skipped in the key file");
        }
        if let Some(more @ 1..) = self.problems.len().checked_sub(MAX_REPORTED_PROBLEMS) {
            tracing::warn!(%file, more, "further lines skipped in the key file");
        }
    }

    /// A stamp that is too young to trust is not kept: the next look reads the file again.
    fn settled_stamp(&self) -> Option<Stamp> {
        self.stamp.is_settled(SystemTime::now()).then_some(self.stamp)
    }

    fn accept(self) -> (Table, Seen) {
        let seen = Seen { stamp: self.settled_stamp(), content: Some(self.content), error: None };
        (self.table, seen)
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
