//! Edits the key file without losing data: one writer at a time, and the file holds the whole new text or the old one.
//!
//! The lock is an exclusive `flock` on the file itself. A rename puts another file in its place, so after taking the
//! lock a writer checks that the path still leads to the locked file, and starts over if not. The new text is written
//! to a temporary file in the same directory, mode 0600, and renamed into place. If that cannot work (the file is
//! bind-mounted, the directory is read-only, the owner could not be kept) the text is written into the existing file;
//! the gateway's reader takes a shared lock and never sees half of it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::FlockArg;

use super::bounds::MAX_KEY_FILE_SIZE;
use super::error::KeyFileError;
use super::file::{LOCK_RETRY, LockAttempt, Opened, failed_to_read, not_a_file, try_lock};
use super::parse::{KeyFile, parse};
use crate::file_identity::is_at;
use crate::file_replacement::{FileDraft, OWNER_ONLY};

/// How long an edit waits for another one to finish.
pub const LOCK_WAIT: Duration = Duration::from_secs(10);

/// What to do if there is no key file yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMissing {
    /// Create it, and its directory.
    Create,
    /// Report [`KeyFileError::Missing`].
    Fail,
}

/// How an edit reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The edit changed nothing.
    Unchanged,
    /// A new file replaced the old one.
    Renamed,
    /// The new text was written into the existing file.
    InPlace,
}

/// The result of [`update`].
#[derive(Debug)]
pub struct Updated<T> {
    /// The value that the edit returned.
    pub value: T,
    /// How the edit was stored.
    pub written: Written,
    /// Whether a lock kept other writers out; some network file systems have no locks.
    pub locked: bool,
    /// The file after the edit.
    pub file: KeyFile,
}

/// Reads the file under the lock, lets `change` edit it and stores the result. A failing `change` leaves it as it was.
///
/// Blocks on the disk, and up to [`LOCK_WAIT`] on the lock.
///
/// # Errors
/// Those of `change`, and a [`KeyFileError`] when the file cannot be read, locked or written.
pub fn update<T, E: From<KeyFileError>>(
    path: &Path,
    if_missing: IfMissing,
    change: impl FnOnce(&mut KeyFile) -> Result<T, E>,
) -> Result<Updated<T>, E> {
    let target = LockedFile::lock(path.to_owned(), if_missing, LOCK_WAIT)?;
    let edit = || -> Result<Updated<T>, E> {
        let old = target.read()?;
        let mut file = parse(&old);
        let value = change(&mut file)?;
        let new = file.render();
        let written = if new == old { Written::Unchanged } else { target.replace(&old, &new)? };
        Ok(Updated { value, written, locked: matches!(target.opened, Opened::Locked(_)), file })
    };
    edit().inspect_err(|_| target.remove_if_created())
}

/// The key file, opened and locked for an edit.
struct LockedFile {
    path: PathBuf,
    opened: Opened,
    /// Whether it was created for this edit.
    is_created: bool,
}

impl LockedFile {
    fn lock(path: PathBuf, if_missing: IfMissing, wait: Duration) -> Result<Self, KeyFileError> {
        let start = Instant::now();
        loop {
            let is_created = !path.exists();
            let file = open(&path, if_missing)?;
            match try_lock(file, FlockArg::LockExclusiveNonblock) {
                // Resolved, because a rename must replace the target of a symbolic link and not the link.
                LockAttempt::Opened(opened) if is_at(opened.get(), &path) => {
                    return Ok(Self { path: fs::canonicalize(&path).unwrap_or(path), opened, is_created });
                }
                // Another writer holds the lock, or replaced the file before this one got the lock.
                LockAttempt::Opened(_) | LockAttempt::Busy(_) => {}
            }
            if start.elapsed() >= wait {
                return Err(KeyFileError::Locked { path, waited: wait });
            }
            thread::sleep(LOCK_RETRY);
        }
    }

    fn read(&self) -> Result<String, KeyFileError> {
        let mut bytes = Vec::new();
        self.opened
            .get()
            .take(MAX_KEY_FILE_SIZE + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| failed_to_read(&self.path, source))?;
        if bytes.len() as u64 > MAX_KEY_FILE_SIZE {
            return Err(KeyFileError::TooLarge { path: self.path.clone() });
        }
        String::from_utf8(bytes).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
            KeyFileError::NotText { path: self.path.clone(), line }
        })
    }

    /// Removes the file again if it was created for this edit and is still empty: a gateway refuses to start with an empty
    /// key file. Still under the lock, so that a writer that waits for it starts over with a new file.
    fn remove_if_created(&self) {
        if self.is_created && is_at(self.opened.get(), &self.path) && self.is_empty() {
            let _ = fs::remove_file(&self.path);
        }
    }

    fn is_empty(&self) -> bool {
        self.opened.get().metadata().is_ok_and(|metadata| metadata.len() == 0)
    }

    fn replace(&self, old: &str, new: &str) -> Result<Written, KeyFileError> {
        let unwritable = |source| KeyFileError::Unwritable { path: self.path.clone(), source };
        if new.len() as u64 > MAX_KEY_FILE_SIZE {
            return Err(KeyFileError::TooLarge { path: self.path.clone() });
        }
        match self.write_by_rename(new) {
            Ok(()) => Ok(Written::Renamed),
            Err(error) if should_write_in_place(&error) => {
                self.write_in_place(old, new).map_err(unwritable)?;
                Ok(Written::InPlace)
            }
            Err(error) => Err(unwritable(error)),
        }
    }

    fn write_by_rename(&self, text: &str) -> io::Result<()> {
        let before = self.opened.get().metadata()?;
        let mut draft = FileDraft::beside(&self.path, OWNER_ONLY)?;
        let created = draft.file().metadata()?;
        if (before.uid(), before.gid()) != (created.uid(), created.gid()) {
            // A gateway that runs as the owner must still be able to read the file. EPERM leads to a write in place.
            fchown(draft.file(), Some(before.uid()), Some(before.gid())).map_err(|_| io::Error::from(Errno::EPERM))?;
        }
        draft.file().set_permissions(Permissions::from_mode(OWNER_ONLY))?;
        draft.write(text.as_bytes())?;
        draft.sync_and_put_in_place()
    }

    fn write_in_place(&self, old: &str, new: &str) -> io::Result<()> {
        let write = |text: &str| {
            let mut file = OpenOptions::new().write(true).open(&self.path)?;
            // Overwrite first and truncate afterwards, so that the file is never empty.
            file.write_all(text.as_bytes())?;
            file.set_len(text.len() as u64)?;
            file.sync_all()?;
            Ok(file)
        };
        let file = write(new).inspect_err(|_: &io::Error| {
            // The disk may be full. The old text fitted before, so it fits now.
            let _ = write(old);
        })?;
        // Only the owner may change the mode. For another user it stays, and the gateway warns about it.
        let _ = file.set_permissions(Permissions::from_mode(OWNER_ONLY));
        Ok(())
    }
}

/// Opens the file for writing if possible, because NFS grants exclusive locks only then; else for reading.
fn open(path: &Path, if_missing: IfMissing) -> Result<File, KeyFileError> {
    if path.exists() && !path.is_file() {
        return Err(not_a_file(path));
    }
    let create = if_missing == IfMissing::Create;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).truncate(false).mode(OWNER_ONLY);
    let mut result = options.open(path);
    if create
        && let (Err(error), Some(parent)) = (&result, path.parent())
        && error.kind() == io::ErrorKind::NotFound
    {
        fs::create_dir_all(parent).map_err(|source| KeyFileError::Unwritable { path: path.into(), source })?;
        result = options.open(path);
    }
    result.or_else(|_| File::open(path)).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound if create => KeyFileError::Unwritable { path: path.into(), source },
        _ => failed_to_read(path, source),
    })
}

/// Whether an error means that a rename cannot work in this directory, while a write into the file still may.
fn should_write_in_place(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EBUSY | Errno::EXDEV | Errno::EPERM | Errno::EACCES | Errno::EROFS))
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
