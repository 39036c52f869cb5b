//! The keys in memory: an immutable table in which requests look up their key, and which a reload replaces as a whole.
//! It holds the keys of the file, and the one of `LLAMAGATE_API_KEY` if that is set; with it, there may be no file.
//!
//! A lookup hashes the presented secret once, or remembers its digest (`digest_memo.rs`), and finds that in the table; it
//! neither locks nor touches the disk.
//! The store reloads the file by itself when it changes ([`Store::watch`]), and on demand ([`Store::reload`]). It does
//! not count requests: the gateway counts them per key_id, so that the counts survive a reload.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::digest_memo;
use super::error::{KeyFileError, KeyLineProblem, SharedWithEnvironment};
use super::file::{self, FileStamp};
use super::key::Key;
use super::parse::{KeyFile, parse};
use super::secret::{self, Digest};

/// Time between two checks of the file for changes.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// Longest time until a change of the file takes effect, as documented for users.
pub const CHANGE_SEEN_WITHIN: Duration = Duration::from_secs(5);
// One check that just missed the change, the next check, and time to read a slow disk.
const _: () = assert!(2 * WATCH_INTERVAL.as_secs() < CHANGE_SEEN_WITHIN.as_secs());
/// Most bad lines that one load logs one by one; it logs only the number of the rest.
const MAX_REPORTED_PROBLEMS: usize = 20;

/// Why a presented secret is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It cannot be a secret: it is not 8 to 256 visible ASCII characters.
    #[error("this does not have the form of an API key")]
    Malformed,
    /// No line of the file holds it, nor does `LLAMAGATE_API_KEY`.
    #[error("no such API key")]
    Unknown,
    /// Its key has expired.
    #[error("the API key has expired")]
    Expired,
}

/// The key_id of `LLAMAGATE_API_KEY`.
pub const SERVICE_KEY_ID: &str = "env";

/// A key, and the secret by which it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundKey {
    /// The key.
    pub key: Arc<Key>,
    /// The digest of the secret. It differs between the secrets of a key, and between two keys that have had the same
    /// name.
    pub secret: Digest,
}

impl Deref for FoundKey {
    type Target = Key;

    fn deref(&self) -> &Key {
        &self.key
    }
}

type Table = HashMap<Digest, Arc<Key>, RandomState>;

/// All keys. Clones share the same keys.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    path: PathBuf,
    /// The digest of `LLAMAGATE_API_KEY`. Its key survives every reload.
    service_key: Option<Digest>,
    table: ArcSwap<Table>,
    /// Held during a whole reload, so that the result of two concurrent reloads is the later read.
    last_check: Mutex<LastCheck>,
}

/// The state of the file at the last check.
#[derive(Default)]
struct LastCheck {
    /// The file's stamp; `None` means that the next check reads the file whatever its stamp is.
    stamp: Option<FileStamp>,
    /// The last content that was read, good or bad.
    content: Option<Content>,
    /// The last error that was reported, until a reload succeeds.
    error: Option<String>,
    /// Whether there has been no file since the start, which `LLAMAGATE_API_KEY` allows.
    is_missing: bool,
}

/// Returns the entry of `LLAMAGATE_API_KEY` in the table.
fn service_entry(digest: Digest) -> (Digest, Arc<Key>) {
    (digest, Arc::new(Key::named(SERVICE_KEY_ID)))
}

/// The digest of the file's bytes, and whether its mode calls for a warning.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Content {
    digest: [u8; 32],
    open_to_others: bool,
}

/// A key file that has been read and parsed, but is not in use yet.
struct LoadedFile {
    content: Content,
    stamp: FileStamp,
    table: Table,
    problems: Vec<(usize, KeyLineProblem)>,
}

impl Store {
    /// Reads the key file for the first time, and adds the secret of `LLAMAGATE_API_KEY`. With the latter the file may be
    /// missing or without a key; if it appears later, it is read. Blocks on the disk.
    ///
    /// # Errors
    /// When the file is missing or holds no key that is valid now, and there is no secret; when it is unreadable, or has
    /// the secret or its key_id too.
    pub fn open(path: impl Into<PathBuf>, service_key: Option<&str>) -> Result<Self, KeyFileError> {
        let path = path.into();
        let service_key = service_key.map(Digest::of);
        let (mut table, last_check) = match LoadedFile::read(&path, service_key) {
            Err(KeyFileError::Missing { .. }) if service_key.is_some() => {
                tracing::info!(file = %path.display(), "there is no key file: LLAMAGATE_API_KEY is the only key");
                (Table::default(), LastCheck { is_missing: true, ..LastCheck::default() })
            }
            read => {
                let loaded = read?;
                loaded.log_problems(&path);
                let now = Timestamp::now();
                let expired = loaded.table.values().filter(|key| key.has_expired(now)).count();
                if expired == loaded.table.len() && service_key.is_none() {
                    return Err(KeyFileError::NoUsableKey { path, bad_lines: loaded.problems.len(), expired });
                }
                loaded.accept()
            }
        };
        table.extend(service_key.map(service_entry));
        let inner =
            Inner { path, service_key, table: ArcSwap::from_pointee(table), last_check: Mutex::new(last_check) };
        Ok(Self(Arc::new(inner)))
    }

    /// Returns every key, those of lines with the same id one by one.
    pub fn keys(&self) -> Vec<Arc<Key>> {
        self.0.table.load().values().map(Arc::clone).collect()
    }

    /// Finds the key of this secret. Accepts any text, and does the same work for every well-formed one that is not valid.
    ///
    /// # Errors
    /// [`Denied`] says why there is no valid key.
    pub fn lookup(&self, secret: &str, now: Timestamp) -> Result<FoundKey, Denied> {
        if !secret::can_be_presented(secret) {
            return Err(Denied::Malformed);
        }
        // One load for the whole lookup: a reload in between must not mix two tables.
        let table = self.0.table.load();
        digest_memo::with_digest(secret, |digest| {
            let key = table.get(digest).ok_or(Denied::Unknown)?;
            if key.has_expired(now) {
                return Err(Denied::Expired);
            }
            Ok(FoundKey { key: Arc::clone(key), secret: *digest })
        })
    }

    /// Returns the number of secrets in the table, expired ones included.
    pub fn len(&self) -> usize {
        self.0.table.load().len()
    }

    /// Whether the table is empty; it never is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is a key of `LLAMAGATE_API_KEY`.
    pub fn has_service_key(&self) -> bool {
        self.0.service_key.is_some()
    }

    /// Checks that a reload would accept this content of the file.
    ///
    /// # Errors
    /// [`KeyFileError::AlsoInEnvironment`].
    pub fn check(&self, file: &KeyFile) -> Result<(), KeyFileError> {
        check_not_shared(file, self.0.service_key, &self.0.path)
    }

    /// Returns the path of the key file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Reads the file again and replaces all keys, or changes nothing. Returns the number of keys.
    ///
    /// Expired keys count here: a file in which every key has just expired must take effect. A file that was missing and
    /// still is changes nothing. Blocks on the disk.
    ///
    /// # Errors
    /// When the file is missing, unreadable or without a single good line; the old keys stay in use.
    pub fn reload(&self) -> Result<usize, KeyFileError> {
        let mut last_check = self.0.last_check.lock().unwrap_or_else(PoisonError::into_inner);
        let result = LoadedFile::read(&self.0.path, self.0.service_key).and_then(|loaded| {
            loaded.log_problems(&self.0.path);
            self.install(loaded, &mut last_check)
        });
        if let Err(KeyFileError::Missing { .. }) = &result
            && last_check.is_missing
        {
            return Ok(self.len());
        }
        if let Err(error) = &result {
            // The caller reports this error, so the watch must not log it again.
            last_check.record_error(error);
        }
        result
    }

    /// Watches the file until `stop`: checks every [`WATCH_INTERVAL`] whether the file has changed, and reloads it.
    ///
    /// Logs every change that took effect, and every error once.
    pub async fn watch(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(WATCH_INTERVAL);
        // After a pause of the program, one check is enough.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watching = async {
            loop {
                ticks.tick().await;
                let store = self.clone();
                // A read from a network volume may block for long, which the runtime's own threads must not.
                if let Err(error) = tokio::task::spawn_blocking(move || store.poll()).await {
                    tracing::error!(%error, "checking the key file for changes failed");
                }
            }
        };
        stop.run_until_cancelled(watching).await;
    }

    /// Checks the file once, and reloads it if it has changed.
    fn poll(&self) {
        let mut last_check = self.0.last_check.lock().unwrap_or_else(PoisonError::into_inner);
        let path = &self.0.path;
        if last_check.stamp.is_some() && last_check.stamp == FileStamp::of_path(path).ok() {
            return;
        }
        let result = LoadedFile::read(path, self.0.service_key).and_then(|loaded| {
            // The file was touched, or replaced by the same text: nothing to report.
            if last_check.content == Some(loaded.content) {
                last_check.stamp = loaded.settled_stamp();
                return Ok(None);
            }
            loaded.log_problems(path);
            self.install(loaded, &mut last_check).map(Some)
        });
        match result {
            Ok(None) => {}
            Err(KeyFileError::Missing { .. }) if last_check.is_missing => {}
            Ok(Some(keys)) => tracing::info!(keys, file = %path.display(), "API keys reloaded"),
            Err(error) if last_check.record_error(&error) => {
                tracing::error!(%error, hint = error.hint(), "API keys not reloaded, the old ones stay in use");
            }
            Err(_) => {}
        }
    }

    /// Puts the keys of a loaded file in use. Returns their number.
    ///
    /// # Errors
    /// When the file holds no key, and there were keys of a file. Its content is recorded, so that it is not read and
    /// reported again.
    fn install(&self, loaded: LoadedFile, last_check: &mut LastCheck) -> Result<usize, KeyFileError> {
        let only_service_key = usize::from(self.0.service_key.is_some());
        let had_file_keys = self.len() > only_service_key;
        if loaded.table.is_empty() && (had_file_keys || self.0.service_key.is_none()) {
            last_check.stamp = loaded.settled_stamp();
            last_check.content = Some(loaded.content);
            let bad_lines = loaded.problems.len();
            return Err(KeyFileError::NoUsableKey { path: self.0.path.clone(), bad_lines, expired: 0 });
        }
        let (mut table, accepted) = loaded.accept();
        table.extend(self.0.service_key.map(service_entry));
        *last_check = accepted;
        let keys = table.len();
        self.0.table.store(Arc::new(table));
        Ok(keys)
    }
}

impl LastCheck {
    /// Records a failed reload. Returns whether its error differs from the last one.
    fn record_error(&mut self, error: &KeyFileError) -> bool {
        if !matches!(error, KeyFileError::NoUsableKey { .. }) {
            // Nothing was read, so the next successful read counts as a change even if the text is the same.
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

/// Checks that the file has neither the secret nor the key_id of `LLAMAGATE_API_KEY`, whose digest this is.
fn check_not_shared(file: &KeyFile, service_key: Option<Digest>, path: &Path) -> Result<(), KeyFileError> {
    let Some(service_key) = service_key else { return Ok(()) };
    let shared = file.entries().find_map(|(line, entry)| match entry {
        entry if entry.secret.digest() == service_key => Some((line, SharedWithEnvironment::Secret)),
        entry if entry.key.id == SERVICE_KEY_ID => Some((line, SharedWithEnvironment::Id)),
        _ => None,
    });
    match shared {
        Some((line, same)) => Err(KeyFileError::AlsoInEnvironment { path: path.into(), line, same }),
        None => Ok(()),
    }
}

impl LoadedFile {
    /// Reads and parses the file. `service_key` is the digest of `LLAMAGATE_API_KEY`.
    ///
    /// # Errors
    /// When the file is missing or unreadable, or has the secret or the key_id of `LLAMAGATE_API_KEY` too.
    fn read(path: &Path, service_key: Option<Digest>) -> Result<Self, KeyFileError> {
        let (bytes, metadata) = file::read_bytes(path)?;
        let parsed = parse(&String::from_utf8_lossy(&bytes));
        check_not_shared(&parsed, service_key, path)?;
        Ok(Self {
            content: Content {
                digest: Sha256::digest(&bytes).into(),
                open_to_others: file::is_open_to_others(&metadata),
            },
            stamp: FileStamp::of(&metadata),
            table: parsed.entries().map(|(_, entry)| (entry.secret.digest(), Arc::new(entry.key.clone()))).collect(),
            problems: parsed.problems().collect(),
        })
    }

    fn log_problems(&self, path: &Path) {
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

    /// Returns the stamp, unless the file changed so recently that another change may leave the same stamp. Then the
    /// next check reads the file again.
    fn settled_stamp(&self) -> Option<FileStamp> {
        self.stamp.is_settled(SystemTime::now()).then_some(self.stamp)
    }

    fn accept(self) -> (Table, LastCheck) {
        let (stamp, content) = (self.settled_stamp(), Some(self.content));
        let last_check = LastCheck { stamp, content, error: None, is_missing: false };
        (self.table, last_check)
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
