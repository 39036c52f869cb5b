//! Files that subcommands write: whole, or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Writes the new file, and only where there is none unless `is_forced`. A file that is there is replaced as a whole.
///
/// # Errors
/// The file is there and `is_forced` is false, or it cannot be written; then an earlier one is as it was.
pub(super) fn write(path: &Path, text: &str, is_forced: bool) -> io::Result<()> {
    if !is_forced {
        return write_new(path, text);
    }
    // What a link leads to is replaced, and not the link.
    let found = path.canonicalize();
    let path = found.as_deref().unwrap_or(path);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary: PathBuf = path.with_file_name(name);
    write_new(&temporary, text)?;
    if let Ok(metadata) = path.metadata() {
        // A file system without modes has none to keep.
        let _ = fs::set_permissions(&temporary, metadata.permissions());
    }
    fs::rename(&temporary, path).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).inspect_err(|_| {
        // Half a configuration is worse than none.
        let _ = fs::remove_file(path);
    })
}
