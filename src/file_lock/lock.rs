//! Who may write a file: one process at a time, until it ends, however it ends.
//!
//! `flock` does that where the file system is of this machine. On network file systems it may let everyone in, or know
//! nothing of other machines. There the owner also leaves a note beside the lock and renews it; a note that has not
//! changed for [`OWNER_STALE`] has lost its owner. Watched is only whether it changes, so clocks need not agree.
//! Should two processes still write one part at a time, they write the same bytes, and the hash of the whole decides.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::task::spawn_blocking;

use super::owner_note::{OwnerNote, remove_note};
use crate::file_identity::is_at;
use crate::os::here;
use crate::pause_clock::{self, ActiveInstant};

/// How often the owner of a lock renews its note, where locks of the file system are not enough.
const OWNER_RENEWAL: Duration = Duration::from_secs(5);
/// After how long without a renewal the owner counts as gone.
const OWNER_STALE: Duration = Duration::from_secs(30);

/// The right to write a file. It ends with this value, or with the process.
pub struct FileLock(Option<Held>);

struct Held {
    /// `None` on file systems without `flock`.
    _file: Option<Flock<File>>,
    note: Option<OwnerNote>,
}

/// Tries to take one lock, again and again, and watches its owner meanwhile.
pub struct LockTaker {
    path: PathBuf,
    /// The note of the owner, and since when it has been the same.
    seen: Option<(String, ActiveInstant)>,
    /// Whether `flock` is used and, on file systems of this machine, believed. Tests do without it.
    has_flock: bool,
}

/// What `flock` has given.
struct Flocked {
    /// `None` on file systems without it.
    file: Option<Flock<File>>,
    /// Whether it keeps all others out.
    is_enough: bool,
}

impl LockTaker {
    /// Returns what takes the lock at this path.
    pub fn new(path: PathBuf) -> Self {
        Self { path, seen: None, has_flock: true }
    }

    /// Returns the path of the lock.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the lock; `None` if another process has it.
    ///
    /// # Errors
    /// The file cannot be opened or locked, or the note cannot be written.
    pub fn take(&mut self) -> io::Result<Option<FileLock>> {
        let Some(Flocked { file, is_enough }) = self.take_flock()? else { return Ok(None) };
        if is_enough {
            return Ok(Some(FileLock(Some(Held { _file: file, note: None }))));
        }
        Ok(self.take_note()?.map(|note| FileLock(Some(Held { _file: file, note: Some(note) }))))
    }

    /// Takes the `flock`; `None` if another process has it.
    fn take_flock(&self) -> io::Result<Option<Flocked>> {
        let path = &self.path;
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            if !self.has_flock {
                return Ok(Some(Flocked { file: None, is_enough: false }));
            }
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // Who had it may have removed its file, which is then no lock of the next one.
                Ok(file) if is_at(&file, path) => {
                    let is_enough = here::is_on_this_machine(&file);
                    return Ok(Some(Flocked { file: Some(file), is_enough }));
                }
                Ok(_) => {}
                Err((_, nix::Error::EWOULDBLOCK)) => return Ok(None),
                Err((_, nix::Error::ENOLCK | nix::Error::ENOSYS | nix::Error::EOPNOTSUPP)) => {
                    return Ok(Some(Flocked { file: None, is_enough: false }));
                }
                Err((_, error)) => return Err(error.into()),
            }
        }
    }

    /// Leaves a note of ownership; `None` if another owner's is there and may still be renewed.
    fn take_note(&mut self) -> io::Result<Option<OwnerNote>> {
        let path = self.path.with_extension("owner");
        if let Some(note) = OwnerNote::create(&path)? {
            return Ok(Some(note));
        }
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return OwnerNote::create(&path),
            text => text?,
        };
        match &self.seen {
            Some((seen, since)) if *seen == text && since.elapsed() >= OWNER_STALE => {
                self.seen = None;
                if remove_note(&path, &text)? { OwnerNote::create(&path) } else { Ok(None) }
            }
            Some((seen, _)) if *seen == text => Ok(None),
            _ => {
                self.seen = Some((text, ActiveInstant::now()));
                Ok(None)
            }
        }
    }
}

impl FileLock {
    /// Takes the lock at this path; `None` if another process has it, or had it a moment ago.
    ///
    /// # Errors
    /// As [`LockTaker::take`].
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        LockTaker::new(path.to_owned()).take()
    }

    /// Renews the note for as long as the lock is held. Returns when another process has taken the lock, because this one
    /// was silent for too long.
    pub async fn keep_until_lost(&self) {
        let Some(note) = self.0.as_ref().and_then(|held| held.note.clone()) else {
            return std::future::pending().await;
        };
        for beat in 1.. {
            pause_clock::sleep(OWNER_RENEWAL).await;
            let note = note.clone();
            let renewed =
                spawn_blocking(move || note.renew(beat)).await.unwrap_or_else(|error| Err(io::Error::other(error)));
            match renewed {
                Ok(true) => {}
                Ok(false) => return,
                // The volume may only be slow to answer. If it stays away, writing fails too.
                Err(error) => tracing::debug!(%error, "the lock of a file is not renewed"),
            }
        }
    }

    /// Returns whether the lock is still this process's. Blocks.
    pub fn is_held(&self) -> bool {
        self.0.as_ref().and_then(|held| held.note.as_ref()).is_none_or(OwnerNote::is_ours)
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        let held = self.0.take();
        // A volume that does not answer must not hold up the task that ends.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => _ = runtime.spawn_blocking(move || drop(held)),
            Err(_) => drop(held),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.note.iter().for_each(OwnerNote::remove);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taker(folder: &tempfile::TempDir) -> LockTaker {
        LockTaker::new(folder.path().join("abc.lock"))
    }

    fn without_flock(folder: &tempfile::TempDir) -> LockTaker {
        LockTaker { has_flock: false, ..taker(folder) }
    }

    #[test]
    fn a_lock_is_held_by_one_and_free_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let held = taker(&folder).take().unwrap().unwrap();
        assert!(taker(&folder).take().unwrap().is_none());
        assert!(LockTaker::new(folder.path().join("other.lock")).take().unwrap().is_some());
        drop(held);
        assert!(taker(&folder).take().unwrap().is_some());
    }

    #[test]
    fn a_lock_whose_file_was_removed_locked_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let old = taker(&folder).take().unwrap().unwrap();
        fs::remove_file(folder.path().join("abc.lock")).unwrap();
        let new = taker(&folder).take().unwrap().unwrap();
        drop(old);
        assert!(taker(&folder).take().unwrap().is_none(), "the new one is still held");
        drop(new);
    }

    #[test]
    fn where_flock_lets_everyone_in_the_note_keeps_others_out() {
        let folder = tempfile::tempdir().unwrap();
        let held = without_flock(&folder).take().unwrap().unwrap();
        assert!(held.is_held() && without_flock(&folder).take().unwrap().is_none());
        drop(held);
        assert!(!folder.path().join("abc.owner").exists());
        assert!(without_flock(&folder).take().unwrap().is_some());
    }

    /// Waits for a lock as a download does, on the paused clock.
    async fn wait_for(mut taker: LockTaker) -> FileLock {
        loop {
            if let Some(lock) = taker.take().unwrap() {
                return lock;
            }
            tokio::time::sleep(OWNER_RENEWAL / 10).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_that_renews_its_note_keeps_the_lock_and_one_that_died_loses_it() {
        let folder = tempfile::tempdir().unwrap();
        let held = without_flock(&folder).take().unwrap().unwrap();
        let others = tokio::time::timeout(OWNER_STALE * 5, wait_for(without_flock(&folder)));
        tokio::select! {
            taken = others => assert!(taken.is_err(), "taken from an owner that is there"),
            () = held.keep_until_lost() => panic!("the lock was lost"),
        }
        // From here on the owner is silent, as one that was killed.
        let begin = ActiveInstant::now();
        let next = wait_for(without_flock(&folder)).await;
        assert!(begin.elapsed() >= OWNER_STALE && begin.elapsed() < OWNER_STALE * 2, "{:?}", begin.elapsed());
        // And if it comes back, it learns of it, and leaves the note of the next one alone.
        assert!(!held.is_held() && next.is_held());
        held.keep_until_lost().await;
        drop(held);
        assert!(next.is_held());
    }
}
