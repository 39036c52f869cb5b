//! Tests that an edit is stored completely or not at all, keeps owner and links, and waits for the lock.

use nix::fcntl::Flock;

use super::*;
use crate::keys::Key;
use crate::keys::edit::{self, EditError};
use crate::keys::secret::Stored;

const TEXT: &str = "# mine\na:0123456789abcdef\n";

fn fixture() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api_keys.txt");
    fs::write(&path, TEXT).unwrap();
    (dir, path)
}

fn add(path: &Path, name: &str) -> Result<Updated<()>, EditError> {
    let secret = Stored::Plain(format!("secret-of-{name}-0123456789"));
    update(path, IfMissing::Create, |file| edit::add(file, Key::named(name), secret, jiff::Timestamp::now()))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn an_edit_renames_a_private_file_into_place_and_leaves_no_temporary_file() {
    let (dir, path) = fixture();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let updated = add(&path, "b").unwrap();
    assert_eq!((updated.written, updated.locked), (Written::Renamed, true));
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{TEXT}b:secret-of-b-0123456789\n"));
    assert_eq!(mode(&path), 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn an_edit_by_root_keeps_the_owner() {
    let (_dir, path) = fixture();
    if std::os::unix::fs::chown(&path, Some(1234), Some(1235)).is_err() {
        return; // only root can give files away
    }
    assert_eq!(add(&path, "b").unwrap().written, Written::Renamed);
    let after = fs::metadata(&path).unwrap();
    assert_eq!((after.uid(), after.gid()), (1234, 1235));
}

#[test]
fn a_missing_file_and_its_directory_are_created_only_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er/api_keys.txt");
    let removed = update(&path, IfMissing::Fail, |file| edit::remove(file, "a"));
    assert!(matches!(removed, Err(EditError::File(KeyFileError::Missing { .. }))));
    assert!(!path.exists());
    add(&path, "a").unwrap();
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn a_refused_edit_and_an_edit_without_effect_write_nothing() {
    let (_dir, path) = fixture();
    let before = fs::metadata(&path).unwrap().ino();
    assert!(matches!(add(&path, "a"), Err(EditError::NameTaken { .. })));
    let pruned =
        update(&path, IfMissing::Fail, |file| Ok::<_, KeyFileError>(edit::prune(file, jiff::Timestamp::now())));
    assert_eq!(pruned.unwrap().written, Written::Unchanged);
    assert_eq!(fs::metadata(&path).unwrap().ino(), before);
}

#[test]
fn a_symbolic_link_is_kept() {
    let (dir, path) = fixture();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    add(&link, "b").unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read_to_string(&path).unwrap().contains("b:"));
}

#[test]
fn an_edit_of_bytes_that_are_not_text_is_refused_with_the_line() {
    let (_dir, path) = fixture();
    fs::write(&path, b"# fine\n# caf\xe9\n").unwrap();
    let error = add(&path, "b").unwrap_err();
    assert!(matches!(error, EditError::File(KeyFileError::NotText { line: 2, .. })), "{error}");
}

#[test]
fn the_wait_for_a_lock_is_bounded() {
    let (_dir, path) = fixture();
    let held = Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusive).unwrap();
    let start = Instant::now();
    let refused = LockedFile::lock(path, IfMissing::Fail, Duration::from_millis(100));
    assert!(matches!(refused, Err(KeyFileError::Locked { .. })));
    assert!(start.elapsed() < LOCK_WAIT);
    drop(held);
}

#[test]
fn an_edit_that_waited_for_the_lock_of_a_replaced_file_edits_the_new_one() {
    let (dir, path) = fixture();
    let held = Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusive).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| add(&path, "b").map(|_| ()));
        thread::sleep(Duration::from_millis(50));
        let next = dir.path().join("next");
        fs::write(&next, "c:0123456789abcdefc\n").unwrap();
        fs::rename(&next, &path).unwrap();
        drop(held);
        waiting.join().unwrap().unwrap();
    });
    let ids: Vec<_> = crate::keys::read(&path).unwrap().entries().map(|(_, e)| e.key.id.clone()).collect();
    assert_eq!(ids, ["c", "b"]);
}

#[test]
fn writing_in_place_keeps_the_inode_and_truncates_the_file() {
    let (_dir, path) = fixture();
    let before = fs::metadata(&path).unwrap().ino();
    let target = LockedFile::lock(path.clone(), IfMissing::Fail, LOCK_WAIT).unwrap();
    target.write_in_place(TEXT, "# short\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "# short\n");
    assert_eq!((fs::metadata(&path).unwrap().ino(), mode(&path)), (before, 0o600));
}

#[test]
fn only_errors_about_the_directory_lead_to_writing_in_place() {
    for errno in [Errno::EBUSY, Errno::EXDEV, Errno::EPERM, Errno::EACCES, Errno::EROFS] {
        assert!(should_write_in_place(&errno.into()), "{errno}");
    }
    for errno in [Errno::ENOSPC, Errno::EIO, Errno::EDQUOT] {
        assert!(!should_write_in_place(&errno.into()), "{errno}");
    }
}
