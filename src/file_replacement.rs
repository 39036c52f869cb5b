//! Replaces a file as a whole: a reader sees the old one or the new one, and never a part.
//!
//! The new content goes into a draft beside the file, which then takes the file's name. A writer that is killed leaves its
//! draft. The next replacement of the file removes that, and [`remove_leftovers`] does. The lock of the kernel on a draft tells
//! whether its writer is alive.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::file_identity::is_at;
use crate::hex::hex;

/// The mode of a file that only its owner may read and write.
pub const OWNER_ONLY: u32 = 0o600;
/// The mode of a file for which the umask decides.
pub const BY_UMASK: u32 = 0o666;

/// How the name of a draft ends.
const ENDING: &[u8] = b".new";
/// Random bytes in the name of a draft: in two containers with one folder, processes have the same id.
const RANDOM_BYTES: usize = 8;
/// Bytes of the file's name in that of its draft at most: file systems allow 255 bytes with what is added.
const LONGEST_NAME: usize = 200;
/// Names that are tried for a draft. Another process may take a new draft for a leftover before it is locked.
const MOST_NAMES: usize = 8;
/// Most entries of a folder that are looked at for leftovers.
const MOST_ENTRIES: usize = 10_000;
/// The age from which on a draft that cannot be locked counts as a leftover: a link, or one on a file system without locks.
const LEFTOVER_AGE: Duration = Duration::from_secs(60 * 60);

/// A new file beside the one that it is to replace. Removed when it is dropped before it has.
#[derive(Debug)]
pub struct FileDraft {
    name: DraftName,
    /// Locked while it is a draft.
    file: File,
}

/// A new symbolic link beside the file that it is to replace. Removed when it is dropped before it has.
#[derive(Debug)]
pub struct LinkDraft(DraftName);

/// The name of a draft, and that of the file which it is to replace.
#[derive(Debug)]
struct DraftName {
    path: PathBuf,
    replaced: PathBuf,
    is_in_place: bool,
}

/// Replaces the file by one with this content and mode. It is on the disk when this returns.
///
/// # Errors
/// The system's. The file is as it was.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut draft = FileDraft::beside(path, mode)?;
    draft.write(content)?;
    draft.sync_and_put_in_place()
}

/// Does what [`replace`] does, but does not wait for the disk: after a loss of power the file may be empty.
///
/// # Errors
/// As [`replace`].
pub fn replace_unsynced(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut draft = FileDraft::beside(path, mode)?;
    draft.write(content)?;
    draft.name.put_in_place()
}

/// Removes the drafts of this file that writers have left which were killed. Best effort: the next call may do more.
pub fn remove_leftovers(path: &Path) {
    let Some(name) = path.file_name() else { return };
    let entries = fs::read_dir(folder_of(path)).into_iter().flatten().take(MOST_ENTRIES).flatten();
    for draft in entries.filter(|entry| is_draft_of(name, &entry.file_name())) {
        remove_leftover(&draft.path());
    }
}

impl FileDraft {
    /// Creates an empty draft with this mode. Removes what killed writers of the same file have left.
    ///
    /// # Errors
    /// The system's.
    pub fn beside(path: &Path, mode: u32) -> io::Result<Self> {
        remove_leftovers(path);
        for _ in 0..MOST_NAMES {
            let name = DraftName::beside(path)?;
            let file = match OpenOptions::new().write(true).create_new(true).mode(mode).open(&name.path) {
                Ok(file) => file,
                Err(error) => return Err(name.not_made(error)),
            };
            let is_taken_for_a_leftover = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
            // That there is a file of this random name is enough: on some file systems its identity changes.
            if !is_taken_for_a_leftover && name.path.symlink_metadata().is_ok() {
                return Ok(Self { name, file });
            }
        }
        Err(io::Error::other("another process removes the file while it is written"))
    }

    /// Returns the open file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes content behind what was written.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&mut self, content: &[u8]) -> io::Result<()> {
        self.file.write_all(content)
    }

    /// Gives it the name of the file that it replaces, once its content is on the disk.
    ///
    /// # Errors
    /// The system's. The file that was to be replaced is as it was.
    pub fn sync_and_put_in_place(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        self.name.put_in_place()?;
        // So that the rename survives a loss of power too. Not every file system can sync a folder, and the new file is in
        // force already.
        if let Ok(folder) = File::open(folder_of(&self.name.replaced)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

impl LinkDraft {
    /// Creates a symbolic link to this target. Removes what killed writers of the same file have left.
    ///
    /// # Errors
    /// The system's, which may be that the file system has no links.
    pub fn beside(path: &Path, target: &Path) -> io::Result<Self> {
        remove_leftovers(path);
        let name = DraftName::beside(path)?;
        match symlink(target, &name.path) {
            Ok(()) => Ok(Self(name)),
            Err(error) => Err(name.not_made(error)),
        }
    }

    /// Gives it the name of the file that it replaces.
    ///
    /// # Errors
    /// The system's. The file that was to be replaced is as it was.
    pub fn put_in_place(mut self) -> io::Result<()> {
        self.0.put_in_place()
    }
}

impl DraftName {
    fn beside(path: &Path) -> io::Result<Self> {
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let mut name = OsStr::new(".").to_owned();
        name.push(shortened(path.file_name().unwrap_or_default()));
        name.push(".");
        name.push(hex(&random));
        name.push(OsStr::from_bytes(ENDING));
        Ok(Self { path: path.with_file_name(name), replaced: path.to_owned(), is_in_place: false })
    }

    /// Passes the error of the creation on. What has this name then is not of this process.
    fn not_made(mut self, error: io::Error) -> io::Error {
        self.is_in_place = true;
        error
    }

    fn put_in_place(&mut self) -> io::Result<()> {
        fs::rename(&self.path, &self.replaced)?;
        self.is_in_place = true;
        Ok(())
    }
}

impl Drop for DraftName {
    fn drop(&mut self) {
        if !self.is_in_place {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Returns the folder of a file, which for a name alone is the present one.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns what of a file's name stands in that of its draft: [`LONGEST_NAME`] bytes, and no part of a character.
fn shortened(name: &OsStr) -> &OsStr {
    let bytes = name.as_bytes();
    // Some file systems refuse a name that is not UTF-8.
    let is_within = |end: &usize| bytes.get(*end).is_some_and(|byte| byte & 0xC0 == 0x80);
    let end = (0..=bytes.len().min(LONGEST_NAME)).rev().find(|end| !is_within(end)).unwrap_or(0);
    OsStr::from_bytes(bytes.get(..end).unwrap_or_default())
}

/// Whether an entry of a folder has a name of a draft of the file with this name, or of one that begins with as many bytes.
fn is_draft_of(name: &OsStr, entry: &OsStr) -> bool {
    let random = entry.as_bytes().strip_prefix(b".").and_then(|rest| rest.strip_prefix(shortened(name).as_bytes()));
    let random = random.and_then(|rest| rest.strip_prefix(b".")?.strip_suffix(ENDING));
    random.is_some_and(|random| random.len() == 2 * RANDOM_BYTES && random.iter().all(u8::is_ascii_hexdigit))
}

/// Removes this draft, unless its writer may be alive.
fn remove_leftover(draft: &Path) {
    let Ok(found) = fs::symlink_metadata(draft) else { return };
    if found.is_symlink() && is_old(&found) {
        let _ = fs::remove_file(draft);
    }
    if !found.is_file() {
        return;
    }
    // Every user may write to some folders: no link is followed, and no pipe is waited for.
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(draft) else { return };
    let is_left = match file.try_lock() {
        // It may have become the file that it replaces before it was locked.
        Ok(()) => is_at(&file, draft),
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(_)) => is_old(&found),
    };
    if is_left {
        let _ = fs::remove_file(draft);
    }
}

/// Whether it is older than a writer takes. False if the clock was set back.
fn is_old(found: &Metadata) -> bool {
    found.modified().ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age > LEFTOVER_AGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::SystemTime;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    }

    fn make_old(path: &Path) {
        let then = SystemTime::now() - LEFTOVER_AGE - Duration::from_secs(1);
        File::open(path).unwrap().set_modified(then).unwrap();
    }

    #[test]
    fn a_file_is_replaced_with_its_mode_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for (write, text) in [(replace as fn(&Path, &[u8], u32) -> io::Result<()>, "one"), (replace_unsynced, "two")] {
            write(&path, text.as_bytes(), OWNER_ONLY).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, OWNER_ONLY);
            assert_eq!(names(folder.path()), ["a"]);
        }
    }

    #[test]
    fn a_draft_that_cannot_take_its_place_is_removed_and_the_file_is_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"new", OWNER_ONLY).is_err());
        assert!(LinkDraft::beside(&path, Path::new("b")).unwrap().put_in_place().is_err());
        drop(FileDraft::beside(&path, OWNER_ONLY).unwrap());
        assert_eq!(names(folder.path()), ["a"]);
        assert!(replace(&folder.path().join("none/a"), b"new", OWNER_ONLY).is_err());
    }

    /// Drafts of killed writers once stayed for good, or had the name that the next process with the same id wanted.
    #[test]
    fn drafts_of_killed_writers_are_removed_and_those_of_living_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let foreign = [".a.0011223344556677.new.bak", ".a.xx11223344556677.new", ".b.0011223344556677.new", ".a.new"];
        foreign.iter().for_each(|name| fs::write(folder.path().join(name), "").unwrap());
        let killed = [".a.0011223344556677.new", ".a.8899aabbccddeeff.new"].map(|name| folder.path().join(name));
        killed.iter().for_each(|draft| fs::write(draft, "half").unwrap());
        let alive = FileDraft::beside(&path, OWNER_ONLY).unwrap();
        make_old(&alive.name.path);
        replace(&path, b"one", OWNER_ONLY).unwrap();
        assert!(killed.iter().all(|draft| !draft.exists()));
        alive.sync_and_put_in_place().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"", "the draft that stayed is in place");
        let mut left: Vec<String> = foreign.iter().map(|name| (*name).to_owned()).collect();
        left.push("a".to_owned());
        left.sort();
        assert_eq!(names(folder.path()), left);
    }

    /// The draft's name once was too long for the file system where the file's was not.
    #[test]
    fn a_file_with_the_longest_name_is_replaced_and_drafts_of_killed_writers_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        // 255 bytes; byte 200 is within a character.
        for name in [format!("a{}", "\u{e9}".repeat(127)), "a".repeat(255)] {
            let path = folder.path().join(&name);
            let draft = FileDraft::beside(&path, OWNER_ONLY).unwrap();
            let left = draft.name.path.clone();
            assert!(left.file_name().unwrap().to_str().is_some_and(|draft| draft.len() <= 255));
            drop(draft);
            fs::write(&left, "half").unwrap();
            replace(&path, b"one", OWNER_ONLY).unwrap();
            assert_eq!(names(folder.path()), [name]);
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_name_alone_lies_in_the_present_folder() {
        for (path, folder) in [("a.yaml", "."), ("b/a.yaml", "b"), ("/a.yaml", "/")] {
            assert_eq!(folder_of(Path::new(path)), Path::new(folder));
        }
    }

    #[test]
    fn a_link_that_a_killed_writer_left_is_removed_when_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let left = folder.path().join(".a.0011223344556677.new");
        symlink("target", &left).unwrap();
        LinkDraft::beside(&path, Path::new("target")).unwrap().put_in_place().unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("target"));
        assert!(left.is_symlink(), "its writer may be between its two steps");
        let then = nix::sys::time::TimeVal::new(1, 0);
        nix::sys::stat::lutimes(&left, &then, &then).unwrap();
        remove_leftovers(&path);
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn no_pipe_is_waited_for_and_no_link_followed_to_what_it_means() {
        let folder = tempfile::tempdir().unwrap();
        let [pipe, link, other] =
            [".a.0011223344556677.new", ".a.8899aabbccddeeff.new", "other"].map(|name| folder.path().join(name));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(&other, "").unwrap();
        symlink(&other, &link).unwrap();
        make_old(&other);
        remove_leftovers(&folder.path().join("a"));
        assert!(pipe.exists() && link.is_symlink() && other.exists());
    }

    /// Two writers with the same temporary name once removed each other's file, or renamed one that was half written.
    #[test]
    fn a_file_that_several_replace_at_once_is_that_of_one_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let texts: Vec<String> = (0..8).map(|writer| format!("{writer}\n").repeat(10_000)).collect();
        std::thread::scope(|threads| {
            let path = &path;
            for text in &texts {
                threads.spawn(move || (0..20).for_each(|_| replace_unsynced(path, text.as_bytes(), BY_UMASK).unwrap()));
            }
        });
        assert!(texts.contains(&fs::read_to_string(&path).unwrap()));
        assert_eq!(names(folder.path()), ["a"]);
    }
}
