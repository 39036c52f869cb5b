//! The thread that owns the file.
//!
//! What cannot be written stays in memory and is written later, as far as there is room for it. The service goes on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::Connection;
use tracing::{info, warn};

use super::bounds::{IDLE_COST_TIME, WRITE_RETRY};
use super::calendar::{HOUR, hour_of};
use super::error::LedgerError;
use super::inbox::{Delivery, Inbox};
use super::ledger_settings::LedgerSettings;
use super::pending::PendingUsage;
use super::price::slot_cost;
use super::schema::LEDGER;
use super::write;
use crate::amount::Amount;
use crate::pause_clock::ActiveInstant;
use crate::sqlite_file::SqliteFile;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::throttled_warning::ThrottledWarning;

/// The topic of the warning on `/health`.
const USAGE_TOPIC: &str = "usage";

/// Writes the events of an inbox into the file.
pub(super) struct Writer {
    path: PathBuf,
    /// `USAGE_KEEP`
    keep: Duration,
    metrics: Arc<Metrics>,
    file: Option<SqliteFile>,
    pending: PendingUsage,
    failure: ThrottledWarning,
    is_failing: bool,
    /// When the file is tried again after a failure.
    retry_at: Option<Instant>,
    /// The hour for which old rows were removed.
    pruned_hour: i64,
    /// `PRICE_PER_HOUR`
    price_per_hour: Amount,
    /// Up to when the cost of the machine is counted.
    paid_until: ActiveInstant,
}

impl Writer {
    /// Creates the writer of this file; [`Writer::run`] opens it.
    pub(super) fn new(settings: LedgerSettings, metrics: Arc<Metrics>) -> Self {
        let LedgerSettings { path, keep, price_per_hour } = settings;
        Self {
            path,
            keep,
            price_per_hour,
            paid_until: ActiveInstant::now(),
            metrics,
            file: None,
            pending: PendingUsage::default(),
            failure: ThrottledWarning::default(),
            is_failing: false,
            retry_at: None,
            pruned_hour: i64::MIN,
        }
    }

    /// Writes until the inbox is stopped.
    pub(super) fn run(mut self, inbox: &Inbox) {
        // Before the first event, so that the file is there for readers, and a fault of it is told early.
        self.write();
        loop {
            let Delivery { mut events, dropped, flush, is_last, is_urgent } = inbox.take(self.wake_at());
            let taken = events.len() as u64;
            let added = events.drain(..).map(|event| u64::from(self.pending.add(event))).sum::<u64>();
            self.metrics.usage_events_dropped.inc_by(dropped + taken - added);
            inbox.give_back(events);
            if is_urgent || self.retry_at.is_none_or(|at| at <= Instant::now()) {
                self.write();
            }
            self.metrics.usage_events_waiting.set(i64::try_from(self.pending.events).unwrap_or(i64::MAX));
            inbox.finish(flush);
            if is_last {
                return self.end();
            }
        }
    }

    /// Returns when the writer has something to do without an event.
    fn wake_at(&self) -> Option<Instant> {
        let idle = (self.price_per_hour > Amount::default()).then(|| Instant::now() + IDLE_COST_TIME);
        self.retry_at.into_iter().chain(idle).min()
    }

    /// Adds what the machine has cost since the last time.
    fn add_machine_cost(&mut self) {
        let now = ActiveInstant::now();
        let cost = slot_cost(self.price_per_hour, now - self.paid_until, 1);
        self.paid_until = now;
        self.pending.add_machine_cost(hour_of(Timestamp::now()), cost);
    }

    /// Writes what is pending, and opens the file if it is not open.
    fn write(&mut self) {
        self.add_machine_cost();
        let outcome = self.try_write();
        self.retry_at = outcome.is_err().then(|| Instant::now() + WRITE_RETRY);
        match outcome {
            Ok(()) => {
                self.pending = PendingUsage::default();
                if std::mem::take(&mut self.is_failing) {
                    self.metrics.warnings.replace(USAGE_TOPIC, &[]);
                    info!(path = %self.path.display(), "usage is recorded again");
                }
            }
            Err(error) => self.report(&error),
        }
    }

    fn try_write(&mut self) -> Result<(), LedgerError> {
        // A file that was moved away or replaced would take all further rows with it.
        if self.file.as_ref().is_some_and(|file| !file.is_in_place()) {
            self.file = None;
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => LEDGER.open(&self.path)?,
        };
        if !self.pending.is_empty() {
            write::write(&mut file.connection, &self.pending).map_err(LedgerError::of(&self.path))?;
            // From here on nothing may fail: what was written must not be written again.
            self.pending = PendingUsage::default();
        }
        self.prune(&mut file.connection);
        // After a failure the file is opened again: it may be another one by then.
        self.file = Some(file);
        Ok(())
    }

    /// Removes old rows, once an hour. A failure is no loss: the next hour tries again.
    fn prune(&mut self, connection: &mut Connection) {
        let hour = hour_of(Timestamp::now());
        if hour == self.pruned_hour {
            return;
        }
        self.pruned_hour = hour;
        let keep = i64::try_from(self.keep.as_secs()).unwrap_or(i64::MAX);
        let before = hour.saturating_sub(keep).div_euclid(HOUR) * HOUR;
        if let Err(error) = write::prune(connection, before) {
            warn!(path = %self.path.display(), %error, "old usage is not removed");
        }
    }

    /// Counts a failure, shows it on `/health`, and logs it at most once a minute.
    fn report(&mut self, error: &LedgerError) {
        let warning = format!(
            "usage is not recorded ({error}): see to the disk or the folder, or set USAGE_DB; {} events wait in memory",
            self.pending.events
        );
        if let Some(failures) = self.failure.report_due() {
            warn!(failures, "{warning}");
        }
        if !self.is_failing {
            self.metrics.warnings.show(USAGE_TOPIC, &warning);
        }
        self.is_failing = true;
        // Last: a reader that sees the count finds the warning too.
        self.metrics.usage_write_failures.inc();
    }

    /// Tells what is lost with the end of the service.
    fn end(self) {
        if self.pending.events > 0 {
            self.metrics.usage_events_dropped.inc_by(self.pending.events);
            warn!(path = %self.path.display(), events = self.pending.events, "usage could not be recorded and is lost");
        }
    }
}
