//! Log folders: file names that sort by time, `latest.txt`, the size and number of files that are kept, and writers that
//! never fail.
//!
//! A log must not stop the service. [`LogFile`], [`DailyFile`] and [`NamedFile`] accept every write; lines that a full, read-only or
//! missing disk does not take are dropped and counted in [`WriteErrors`]. They block on the disk, so they belong on a
//! writer thread (`tracing_appender::non_blocking`). What is logged, and when lost lines are reported, is decided
//! elsewhere.
//!
//! - `errors.rs`: counts and reports lines that could not be written
//! - `folder.rs`: one folder: its permissions, `latest.txt`, and which files are deleted
//! - `lines.rs`: copies the output of a child process line by line and keeps the last lines
//! - `named.rs`: the file whose name the user chooses
//! - `names.rs`: the names of log files
//! - `output.rs`: the open file of a writer
//! - `reading.rs`: which files of a folder are one log
//! - `writers.rs`: the two writers, one file per start and one file per day

mod errors;
mod folder;
mod lines;
mod named;
mod names;
mod output;
mod reading;
mod writers;

pub use errors::WriteErrors;
pub use folder::{LATEST, LogClock, LogFolder, LogRules};
pub use lines::{LogTail, MAX_LOG_LINE, TAIL_LINES, pump};
pub use named::NamedFile;
pub use names::{MAX_INSTANCE, sanitise};
pub use output::{RETRY_INTERVAL, look_at_log_files};
pub use writers::{DailyFile, LogFile};

#[cfg(test)]
mod tests;
