//! Files: where they lie, their room on the disk, how they are read, and which process uses which.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, F2FS_SUPER_MAGIC, FsType, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC,
    fstatfs,
};

use crate::file_identity::FileIdentity;

/// File systems of one machine, whose `flock` is known to keep others out. ZFS has no name of its own.
const LOCAL: [FsType; 7] = [
    EXT4_SUPER_MAGIC,
    XFS_SUPER_MAGIC,
    BTRFS_SUPER_MAGIC,
    F2FS_SUPER_MAGIC,
    OVERLAYFS_SUPER_MAGIC,
    TMPFS_MAGIC,
    FsType(0x2FC1_2FC1),
];

/// Returns whether a file lies on a file system of this machine alone, so that `flock` keeps all others out.
pub(crate) fn is_on_this_machine(file: &File) -> bool {
    fstatfs(file).is_ok_and(|found| LOCAL.contains(&found.filesystem_type()))
}

/// Returns the folder that lies in memory.
pub(crate) fn memory_folder() -> Option<PathBuf> {
    Some("/dev/shm".into())
}

/// Takes room on the disk for this many bytes of a file. File systems without the call grow the file as it is written.
///
/// # Errors
///
/// The disk is full, or the file too large.
pub(crate) fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    let length = i64::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        Err(nix::Error::EOPNOTSUPP | nix::Error::ENOSYS | nix::Error::EINVAL) => Ok(()),
        outcome => outcome.map_err(io::Error::from),
    }
}

/// Makes the kernel read further ahead: the file will be read from beginning to end.
pub(crate) fn advise_sequential(file: &File) {
    // WILLNEED for the whole file could not be stopped.
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
}

/// Returns a file that a process has open, if it is one of these.
pub(crate) fn opened_among(pid: i32, files: &BTreeSet<FileIdentity>) -> Option<PathBuf> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut links = descriptors.map(|entry| entry.path());
    let open = links.find(|link| {
        fs::metadata(link).is_ok_and(|found| found.is_file() && files.contains(&FileIdentity::of(&found)))
    })?;
    fs::read_link(open).ok()
}

/// Returns a file that a process has mapped, if it is one of these.
pub(crate) fn mapped_among(pid: i32, paths: &BTreeSet<PathBuf>) -> Option<PathBuf> {
    let maps = fs::read(format!("/proc/{pid}/maps")).ok()?;
    let mut mapped = maps.split(|byte| *byte == b'\n').filter_map(|line| {
        let start = line.iter().position(|byte| *byte == b'/')?;
        Some(Path::new(OsStr::from_bytes(line.get(start..)?)))
    });
    mapped.find(|path| paths.contains(*path)).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_process_are_those_that_it_has_open_or_mapped() {
        let own = i32::try_from(std::process::id()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        let file = File::create(&path).unwrap();
        let wanted = BTreeSet::from([FileIdentity::at(&path).unwrap()]);
        assert_eq!(opened_among(own, &wanted), Some(path.canonicalize().unwrap()));
        drop(file);
        assert_eq!(opened_among(own, &wanted), None);
        assert_eq!(mapped_among(own, &BTreeSet::from([path])), None);
        let program = std::env::current_exe().unwrap();
        assert_eq!(mapped_among(own, &BTreeSet::from([program.clone()])), Some(program));
    }
}
