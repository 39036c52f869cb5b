//! One folder of log files: how files are created in it, `latest.txt`, and which old files are deleted. Best effort: no
//! failure here stops a writer.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::errors::WriteErrors;
use super::names;
use crate::file_replacement::replace_unsynced;
use crate::settings::options::Logs;

/// The clock of the writers; tests pass their own.
pub type LogClock = fn() -> jiff::Timestamp;

/// The file in each folder that names the newest log file.
pub const LATEST: &str = "latest.txt";
/// Maximum number of separate log files that start in one folder within one second; further ones share a file.
const MAX_SAME_SECOND: u32 = 99;
/// Maximum number of bytes that are read of `latest.txt`.
pub(super) const MAX_LATEST: u64 = 1024;
/// A file of another instance that was written within this time may still be in use.
const IN_USE: Duration = Duration::from_secs(24 * 60 * 60);
pub(super) const DIRECTORY_MODE: u32 = 0o750;
pub(super) const FILE_MODE: u32 = 0o640;

/// How many log files there are, and how large they may become.
#[derive(Debug, Clone, Copy)]
pub struct LogRules {
    /// Whether files are written at all: `LOG_TO_FILE`.
    pub is_written: bool,
    /// Number of newest files of each kind that are kept, parts included: `LOG_KEEP`. At least one is.
    pub keep: usize,
    /// Size in bytes at which a file is continued in the next part: `LOG_MAX_SIZE`; `None` means never.
    pub part_size: Option<u64>,
}

impl From<&Logs> for LogRules {
    fn from(logs: &Logs) -> Self {
        let part_size = logs.log_max_size.0.map(|size| size.0 as u64);
        Self { is_written: logs.log_to_file, keep: logs.log_keep.get(), part_size }
    }
}

/// One folder of log files, such as `$LOG_DIR/_boot`.
#[derive(Debug, Clone)]
pub struct LogFolder {
    dir: PathBuf,
    pub(super) rules: LogRules,
    pub(super) errors: Arc<WriteErrors>,
}

impl LogFolder {
    /// Returns the folder at `dir`. Creates nothing yet.
    #[must_use]
    pub fn open(dir: PathBuf, rules: LogRules) -> Self {
        let errors = Arc::new(WriteErrors::new(&dir));
        Self { dir, rules: LogRules { keep: rules.keep.max(1), ..rules }, errors }
    }

    /// Returns the subfolder with this name. Its write errors count as those of this folder.
    #[must_use]
    pub fn subfolder(&self, name: &str) -> Self {
        Self { dir: self.dir.join(name), ..self.clone() }
    }

    /// Returns the path of the folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the count of lines that could not be written in this folder, shared by all its writers.
    #[must_use]
    pub fn errors(&self) -> Arc<WriteErrors> {
        Arc::clone(&self.errors)
    }

    /// Creates a new file and returns its name: `STEM.log`, else `STEM_02.log` and so on.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder or the file cannot be created.
    pub(super) fn create_new(&self, stem: &str) -> io::Result<(String, File)> {
        self.create_dir()?;
        for number in 1..=MAX_SAME_SECOND {
            // `_` sorts after `.`, so the alphabetical order of the names is still the order of time.
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

    /// Opens the file `name` for appending; creates it and the folder if needed.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder or the file cannot be created.
    pub(super) fn append(&self, name: &str) -> io::Result<File> {
        self.create_dir()?;
        // Append mode, because several instances may write to the same file.
        OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(self.dir.join(name))
    }

    fn create_dir(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&self.dir)
    }

    /// Writes `name` to `latest.txt`, unless that names a newer file. Best effort: log lines matter more.
    pub(super) fn write_latest(&self, name: &str) {
        let latest = self.dir.join(LATEST);
        let mut named = String::new();
        if let Ok(file) = File::open(&latest) {
            let _ = file.take(MAX_LATEST).read_to_string(&mut named);
        }
        // An older file that is opened again must not hide one that was created after it.
        let named = named.trim();
        let is_newer = names::timestamp_of(named) > names::timestamp_of(name) || names::is_later_part(named, name);
        if is_newer && names::is_plain(named) && self.dir.join(named).exists() {
            return;
        }
        let _ = replace_unsynced(&latest, format!("{name}\n").as_bytes(), FILE_MODE);
    }

    /// Deletes the oldest log files of this kind beyond the number to keep, but never `current` nor any other file.
    /// Best effort.
    pub(super) fn prune(&self, kind: &str, current: &str) {
        self.prune_unless(kind, current, |_| false);
    }

    /// Deletes files as [`Self::prune`] does when a file with the name of `stem` is continued in a part. Spares the files
    /// that another instance may be writing.
    pub(super) fn prune_parts(&self, kind: &str, stem: &str, current: &str) {
        let now = SystemTime::now();
        self.prune_unless(kind, current, |name| {
            let modified = self.dir.join(name).metadata().and_then(|metadata| metadata.modified());
            let age = modified.ok().and_then(|modified| now.duration_since(modified).ok()).unwrap_or_default();
            !names::is_part_of(name, stem) && age < IN_USE
        });
    }

    fn prune_unless(&self, kind: &str, current: &str, is_spared: impl Fn(&str) -> bool) {
        let mut old = self.names();
        old.retain(|name| name != current && names::is_log_name(name, kind));
        old.sort_unstable_by(|one, other| names::part_order(one).cmp(&names::part_order(other)));
        // `current` counts as one of the files to keep.
        let surplus = (old.len() + 1).saturating_sub(self.rules.keep);
        for name in old.iter().filter(|name| !is_spared(name)).take(surplus) {
            let _ = std::fs::remove_file(self.dir.join(name));
        }
    }

    /// Returns the number of the last part of the file with this stem: 1 if it has no further part.
    pub(super) fn last_part(&self, stem: &str) -> u32 {
        self.names().iter().filter_map(|name| names::part_number(name, stem)).max().unwrap_or(1)
    }

    /// Returns the names of the files in the folder; none if it cannot be read.
    pub(super) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
        files.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}
