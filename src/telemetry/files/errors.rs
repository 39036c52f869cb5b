//! Counts log lines that could not be written, and says so once a minute.

use crate::telemetry::bounds::REPORT_INTERVAL;
use jiff::Timestamp;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Log lines of one folder that are lost, and why. Shared by the writers and by whoever reports.
#[derive(Debug)]
pub struct WriteErrors {
    dir: PathBuf,
    lost: AtomicU64,
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
        Self { dir: dir.to_owned(), lost: AtomicU64::new(0), report: Mutex::default() }
    }

    /// Lines lost since the start.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// One sentence on the lines lost since the last report; none without any, or within a minute of that report.
    #[must_use]
    pub fn report_due(&self, now: Timestamp) -> Option<String> {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = self.lost();
        let new = lost - report.reported;
        // A clock that was set back makes the report due rather than silent until it catches up.
        let since = report.last.and_then(|last| Duration::try_from(now.duration_since(last)).ok());
        let recent = since.is_some_and(|since| since < REPORT_INTERVAL);
        if new == 0 || recent {
            return None;
        }
        report.reported = lost;
        report.last = Some(now);
        let lines = if new == 1 { "1 log line".to_owned() } else { format!("{new} log lines") };
        let reason = report.reason.as_deref().unwrap_or("unknown reason");
        Some(format!("{lines} could not be written to {}: {reason}", self.dir.display()))
    }

    /// Counts lines that never came to a writer, because it was too slow for them.
    pub fn overflow(&self, lines: u64) {
        if lines > 0 {
            self.count(lines);
            self.because(&io::Error::other("they came faster than they could be written"));
        }
    }

    pub(super) fn count(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }

    pub(super) fn because(&self, reason: &io::Error) {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).reason = Some(reason.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_what_is_new_once_a_minute() {
        let errors = WriteErrors::new(Path::new("/logs"));
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(errors.report_due(at(0)), None);
        errors.count(2);
        errors.because(&io::Error::other("disk full"));
        assert_eq!(errors.report_due(at(1)).unwrap(), "2 log lines could not be written to /logs: disk full");
        errors.count(1);
        assert_eq!(errors.report_due(at(60)), None);
        assert_eq!(errors.report_due(at(61)).unwrap(), "1 log line could not be written to /logs: disk full");
        assert_eq!(errors.report_due(at(500)), None, "nothing new");
        errors.count(1);
        assert!(errors.report_due(at(10)).is_some(), "the clock was set back");
        assert_eq!(errors.lost(), 4);
    }
}
