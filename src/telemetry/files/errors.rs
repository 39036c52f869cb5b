//! Counts the log lines that could not be written and reports them once a minute, and knows whether files can be written
//! now.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::telemetry::bounds::REPORT_INTERVAL;

/// The lost log lines of one folder, and why they were lost. Shared by the writers and the reporting task.
#[derive(Debug)]
pub struct WriteErrors {
    dir: PathBuf,
    lost: AtomicU64,
    /// Number of writers whose last attempt failed.
    failing: AtomicUsize,
    report: Mutex<Report>,
}

#[derive(Debug, Default)]
struct Report {
    reason: Option<String>,
    reported: u64,
    last: Option<Timestamp>,
}

impl WriteErrors {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), lost: AtomicU64::new(0), failing: AtomicUsize::new(0), report: Mutex::default() }
    }

    /// Returns the number of lines lost since the start.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Returns one sentence about the lines lost since the last report. Returns `None` if there are none, or if the
    /// last report is less than [`REPORT_INTERVAL`] old.
    #[must_use]
    pub fn report_due(&self, now: Timestamp) -> Option<String> {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = self.lost();
        let new = lost - report.reported;
        // If the clock was set back, the report is due; otherwise it would stay silent until the clock catches up.
        let since = report.last.and_then(|last| Duration::try_from(now.duration_since(last)).ok());
        let is_recent = since.is_some_and(|since| since < REPORT_INTERVAL);
        if new == 0 || is_recent {
            return None;
        }
        report.reported = lost;
        report.last = Some(now);
        let lines = if new == 1 { "1 log line".to_owned() } else { format!("{new} log lines") };
        let reason = report.reason.as_deref().unwrap_or("unknown reason");
        Some(format!("{lines} could not be written to {}: {reason}", self.dir.display()))
    }

    /// Returns why files cannot be written now, as the operating system says it; `None` while all writers can write.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        (self.failing.load(Ordering::Relaxed) > 0).then(|| {
            let report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
            report.reason.clone().unwrap_or_else(|| "unknown reason".to_owned())
        })
    }

    /// Counts lines that were dropped before they reached a writer, because its queue was full.
    pub fn add_overflow(&self, lines: u64) {
        if lines > 0 {
            self.add(lines);
            self.set_reason(&io::Error::other("they came faster than they could be written"));
        }
    }

    pub(super) fn add(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }

    pub(super) fn set_reason(&self, reason: &io::Error) {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).reason = Some(reason.to_string());
    }
}

/// Counts as one failing writer until it is dropped.
#[derive(Debug)]
pub(super) struct FailingWriter(Arc<WriteErrors>);

impl FailingWriter {
    /// Counts a writer whose attempt has failed.
    pub(super) fn count(errors: &Arc<WriteErrors>) -> Self {
        errors.failing.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(errors))
    }
}

impl Drop for FailingWriter {
    fn drop(&mut self) {
        self.0.failing.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_losses_are_reported_once_a_minute() {
        let errors = WriteErrors::new(Path::new("/logs"));
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(errors.report_due(at(0)), None);
        errors.add(2);
        errors.set_reason(&io::Error::other("disk full"));
        assert_eq!(errors.report_due(at(1)).unwrap(), "2 log lines could not be written to /logs: disk full");
        errors.add(1);
        assert_eq!(errors.report_due(at(60)), None);
        assert_eq!(errors.report_due(at(61)).unwrap(), "1 log line could not be written to /logs: disk full");
        assert_eq!(errors.report_due(at(500)), None, "nothing new");
        errors.add(1);
        assert!(errors.report_due(at(10)).is_some(), "the clock was set back");
        assert_eq!(errors.lost(), 4);
    }
}
