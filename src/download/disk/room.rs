//! Room on the disk: checked before a download begins.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use crate::download::bounds::DISK_RESERVE;
use crate::download::error::DownloadError;

/// Checks that the disk has room for these parts, of which some bytes may be there.
///
/// # Errors
/// [`DownloadError::NoRoom`]
pub(in crate::download) fn check_room(
    folder: &Path,
    parts: impl IntoIterator<Item = (PathBuf, u64)>,
) -> Result<(), DownloadError> {
    let taken = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512);
    let missing: u64 = parts.into_iter().map(|(path, size)| size.saturating_sub(taken(&path))).sum();
    match free_bytes(folder) {
        Some(free) if missing > 0 && free < missing + DISK_RESERVE => {
            Err(DownloadError::NoRoom { folder: folder.to_owned(), free, needed: missing + DISK_RESERVE })
        }
        _ => Ok(()),
    }
}

/// Returns the error of a part that found no room for `needed` bytes.
pub(in crate::download) fn no_room(part: &Path, needed: u64) -> DownloadError {
    let folder = part.parent().unwrap_or(part).to_owned();
    DownloadError::NoRoom { free: free_bytes(&folder).unwrap_or_default(), folder, needed: needed + DISK_RESERVE }
}

/// Returns the bytes that this user may still write; `None` if the file system does not say.
fn free_bytes(folder: &Path) -> Option<u64> {
    let found = statvfs(folder).ok()?;
    wide(found.blocks_available()).checked_mul(wide(found.fragment_size()))
}

/// Widens a number whose type differs between systems.
fn wide(number: impl Into<u64>) -> u64 {
    number.into()
}
