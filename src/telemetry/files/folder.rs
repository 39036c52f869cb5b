//! One folder of log files: how files are created in it, `latest.txt`, and which old files are deleted. Best effort: no
//! failure here stops a writer.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::errors::WriteErrors;
use super::names;

/// Where writers learn the time; tests bring their own.
pub type LogClock = fn() -> jiff::Timestamp;

/// The file in each folder that names the newest log file.
pub const LATEST: &str = "latest.txt";
/// Log files that are begun in one folder within one second before they share a file.
const MAX_SAME_SECOND: u32 = 99;
/// Longest `latest.txt` that is read, in bytes.
const MAX_LATEST: u64 = 1024;
const DIRECTORY_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;

/// One folder of log files, such as `$LOG_DIR/_boot`.
#[derive(Debug, Clone)]
pub struct LogFolder {
    dir: PathBuf,
    keep: usize,
    pub(super) errors: Arc<WriteErrors>,
}

impl LogFolder {
    /// The folder at `dir`, in which the newest `keep` log files stay (at least one). Nothing is created yet.
    #[must_use]
    pub fn open(dir: PathBuf, keep: usize) -> Self {
        let errors = Arc::new(WriteErrors::new(&dir));
        Self { dir, keep: keep.max(1), errors }
    }

    /// The folder of this name inside, whose failures count as this one's.
    #[must_use]
    pub fn inside(&self, name: &str) -> Self {
        Self { dir: self.dir.join(name), ..self.clone() }
    }

    /// The folder's path.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What could not be written in this folder, by any of its writers.
    #[must_use]
    pub fn errors(&self) -> Arc<WriteErrors> {
        Arc::clone(&self.errors)
    }

    /// Creates a file that was not there before and returns its name: `STEM.log`, else `STEM_02.log` and so on.
    pub(super) fn create_new(&self, stem: &str) -> io::Result<(String, File)> {
        self.create_dir()?;
        for number in 1..=MAX_SAME_SECOND {
            // `_` sorts after the `.` of the first name, so the order of the names stays the order of time.
            let name = if number == 1 { format!("{stem}.log") } else { format!("{stem}_{number:02}.log") };
            match OpenOptions::new().append(true).create_new(true).mode(FILE_MODE).open(self.dir.join(&name)) {
                Ok(file) => return Ok((name, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        let name = format!("{stem}_{MAX_SAME_SECOND:02}.log");
        let file = self.append(&name)?;
        Ok((name, file))
    }

    pub(super) fn append(&self, name: &str) -> io::Result<File> {
        self.create_dir()?;
        OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(self.dir.join(name))
    }

    fn create_dir(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&self.dir)
    }

    /// Names the newest file in `latest.txt`, which always holds a whole name. Best effort: lines matter more.
    pub(super) fn announce(&self, name: &str) {
        let latest = self.dir.join(LATEST);
        let mut named = String::new();
        if let Ok(file) = File::open(&latest) {
            let _ = file.take(MAX_LATEST).read_to_string(&mut named);
        }
        // A file that is opened again must not hide one that was begun after it.
        let named = named.trim();
        if names::time_of(named) > names::time_of(name) && names::is_plain(named) && self.dir.join(named).exists() {
            return;
        }
        let draft = self.dir.join(format!(".{name}.latest"));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(&draft)
            .and_then(|mut file| writeln!(file, "{name}"))
            .and_then(|()| std::fs::rename(&draft, &latest));
        if written.is_err() {
            let _ = std::fs::remove_file(&draft);
        }
    }

    /// Deletes the oldest log files of this kind beyond those to keep, never `current` and never anything else. Best effort.
    pub(super) fn prune(&self, kind: &str, current: &str) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        let mut old: Vec<String> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name != current && names::is_ours(name, kind))
            .collect();
        old.sort_unstable();
        // `current` is one of those kept.
        let surplus = (old.len() + 1).saturating_sub(self.keep);
        for name in old.iter().take(surplus) {
            let _ = std::fs::remove_file(self.dir.join(name));
        }
    }
}
