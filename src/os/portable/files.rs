//! Files: where they lie and how they are read. Which process has one open is not known here.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use crate::file_identity::FileIdentity;

/// Returns whether a file lies on a file system of this machine alone, so that `flock` keeps all others out. False where
/// that is not known: a lock then has a note of its owner too.
pub(crate) fn is_on_this_machine(file: &File) -> bool {
    #[cfg(target_os = "macos")]
    return nix::sys::statfs::fstatfs(file).is_ok_and(|found| matches!(found.filesystem_type_name(), "apfs" | "hfs"));
    #[cfg(not(target_os = "macos"))]
    {
        let _ = file;
        // On Linux only tests take this half, on a disk of this machine.
        cfg!(target_os = "linux")
    }
}

/// Returns the folder that lies in memory: there is none. The temporary folder is used, which is the user's own on macOS.
pub(crate) fn memory_folder() -> Option<PathBuf> {
    None
}

/// Takes no room: the file grows as it is written.
///
/// # Errors
///
/// None.
pub(crate) fn reserve(_file: &File, _bytes: u64) -> io::Result<()> {
    Ok(())
}

/// Does nothing: macOS reads ahead by itself.
pub(crate) fn advise_sequential(_file: &File) {}

/// Returns a file that a process has open, if it is one of these. Not known: its command line alone tells which model a
/// llama-server uses.
pub(crate) fn opened_among(_pid: i32, _files: &BTreeSet<FileIdentity>) -> Option<PathBuf> {
    None
}

/// Returns a file that a process has mapped, if it is one of these. Not known, see [`opened_among`].
pub(crate) fn mapped_among(_pid: i32, _paths: &BTreeSet<PathBuf>) -> Option<PathBuf> {
    None
}
