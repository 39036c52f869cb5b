//! Files that subcommands write: whole, or not at all.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::file_replacement::{BY_UMASK, FileDraft, OWNER_ONLY, replace};

/// Writes the new file, and only where there is none unless `is_forced`. A file that is there is replaced as a whole, by one
/// with its mode.
///
/// # Errors
/// The file is there and `is_forced` is false, or it cannot be written; then an earlier one is as it was.
pub(super) fn write(path: &Path, text: &str, is_forced: bool) -> io::Result<()> {
    if !is_forced {
        return write_new(path, text, BY_UMASK, None);
    }
    // What a link leads to is replaced, and not the link.
    let found = path.canonicalize();
    let path = found.as_deref().unwrap_or(path);
    let permissions = match path.metadata() {
        Ok(metadata) => metadata.permissions(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return replace(path, text.as_bytes(), BY_UMASK),
        Err(error) => return Err(error),
    };
    let mut draft = FileDraft::beside(path, OWNER_ONLY)?;
    draft.write(text.as_bytes())?;
    draft.file().set_permissions(permissions)?;
    draft.sync_and_put_in_place()
}

/// Writes a new file that only the user may read.
///
/// # Errors
/// The file is there, or it cannot be written; then there is none.
pub(super) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    write_new(path, text, OWNER_ONLY, None)
}

/// Writes a new file, which gets the mode of another one. At no time may it be read by more users than that one.
///
/// # Errors
/// The file is there, or it cannot be written with this mode; then there is none.
pub(super) fn write_with_mode_of(path: &Path, text: &str, other: &Path) -> io::Result<()> {
    write_new(path, text, OWNER_ONLY, Some(other.metadata()?.permissions()))
}

/// Writes a new file with this mode, and sets the final one when the text is in it.
fn write_new(path: &Path, text: &str, mode: u32, then: Option<Permissions>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let written = file.write_all(text.as_bytes());
    let written = written.and_then(|()| then.map_or(Ok(()), |permissions| file.set_permissions(permissions)));
    written.and_then(|()| file.sync_all()).inspect_err(|_| {
        // Half a configuration is worse than none.
        let _ = fs::remove_file(path);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_that_replaces_another_one_or_is_its_copy_has_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("a"), folder.path().join("b"));
        write_private(&path, "secret").unwrap();
        assert_eq!(mode(&path), 0o600);
        for expected in [0o400, 0o600, 0o664] {
            fs::set_permissions(&path, Permissions::from_mode(expected)).unwrap();
            write_with_mode_of(&copy, "secret", &path).unwrap();
            write(&path, "changed", true).unwrap();
            assert_eq!((mode(&path), mode(&copy)), (expected, expected));
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing temporary is left");
            fs::remove_file(&copy).unwrap();
        }
    }

    #[test]
    fn a_file_without_the_mode_that_it_should_have_is_not_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy");
        assert!(write_with_mode_of(&path, "secret", &folder.path().join("none")).is_err());
        assert!(!path.exists());
    }
}
