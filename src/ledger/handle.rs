//! The ledger as the rest of the program sees it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;

use jiff::Timestamp;
use tracing::warn;

use super::bounds::{FLUSH_WAIT, LAST_WRITE_WAIT};
use super::error::LedgerError;
use super::event::{AdminAct, Recorded, UsageEvent};
use super::inbox::Inbox;
use super::ledger_settings::LedgerSettings;
use super::read::acts::{AuditPage, AuditQuery, read_act_page};
use super::read::budget_use::{self, BudgetUse};
use super::read::query::UsageQuery;
use super::read::report::{UsagePage, read_usage};
use super::writer::Writer;
use crate::telemetry::metrics::Metrics;

/// The usage ledger, or that there is none. A clone is the same ledger.
#[derive(Debug, Clone)]
pub struct UsageLedger(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    inbox: Arc<Inbox>,
    path: PathBuf,
}

/// Ends the ledger when it is dropped, and waits for its last write.
#[derive(Debug)]
pub struct LedgerGuard {
    inbox: Arc<Inbox>,
    /// Closed when the writer has ended.
    ended: mpsc::Receiver<()>,
}

impl UsageLedger {
    /// Returns the ledger of a service that records no usage.
    pub fn off() -> Self {
        Self(None)
    }

    /// Returns what the budgets of the day and the month of `now` have used, by the file at this path; nothing if there is
    /// none yet. For use before [`UsageLedger::start`]: SQLite keeps the descriptor of each reader beside a writer.
    ///
    /// # Errors
    /// [`LedgerError`] if the file cannot be read.
    pub fn budget_use(path: &Path, now: Timestamp) -> Result<Vec<BudgetUse>, LedgerError> {
        match budget_use::read(path, now) {
            Err(LedgerError::Missing(_)) => Ok(Vec::new()),
            other => other,
        }
    }

    /// Starts the writer. The file is opened in the background: a fault of it is reported, and ends nothing.
    ///
    /// # Errors
    /// An error if the thread cannot be started.
    pub fn start(settings: LedgerSettings, metrics: Arc<Metrics>) -> io::Result<(Self, LedgerGuard)> {
        let path = settings.path.clone();
        let inbox = Arc::new(Inbox::default());
        let writer = Writer::new(settings, metrics);
        let (of_writer, (alive, ended)) = (Arc::clone(&inbox), mpsc::channel::<()>());
        thread::Builder::new().name("usage".to_owned()).spawn(move || {
            // Dropped at the end, also after a panic.
            let _alive = alive;
            writer.run(&of_writer);
        })?;
        Ok((Self(Some(Arc::new(Open { inbox: Arc::clone(&inbox), path }))), LedgerGuard { inbox, ended }))
    }

    /// Whether usage is recorded.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Records what a request has used. Never waits for the disk and never fails.
    pub fn record(&self, event: UsageEvent) {
        if let Some(open) = &self.0 {
            open.inbox.put(Recorded::Usage(event));
        }
    }

    /// Records what an administrator has done.
    pub fn record_act(&self, act: AdminAct) {
        if let Some(open) = &self.0 {
            open.inbox.put(Recorded::Act(Box::new(act)));
        }
    }

    /// Reads usage, up to what was recorded before the call. Blocks.
    ///
    /// # Errors
    /// [`LedgerError`] if the ledger is off, or its file cannot be read.
    pub fn read(&self, query: &UsageQuery) -> Result<UsagePage, LedgerError> {
        read_usage(self.flushed()?, query)
    }

    /// Reads acts of administrators, up to those that were recorded before the call. Blocks.
    ///
    /// # Errors
    /// [`LedgerError`] if the ledger is off, or its file cannot be read.
    pub fn read_acts(&self, query: &AuditQuery) -> Result<AuditPage, LedgerError> {
        read_act_page(self.flushed()?, query)
    }

    /// Returns the file once what was recorded before is in it, or cannot be written soon.
    fn flushed(&self) -> Result<&Path, LedgerError> {
        let open = self.0.as_ref().ok_or(LedgerError::Off)?;
        open.inbox.flush(FLUSH_WAIT);
        Ok(&open.path)
    }
}

impl Drop for LedgerGuard {
    fn drop(&mut self) {
        self.inbox.stop();
        if self.ended.recv_timeout(LAST_WRITE_WAIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            warn!("the last usage could not be recorded in time and may be lost");
        }
    }
}
