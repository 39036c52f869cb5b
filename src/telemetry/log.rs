//! The program's own log: standard error and the boot log, in text or JSON.
//!
//! Both are written by threads of their own through bounded queues, so a stuck terminal or disk drops lines instead of
//! stopping requests. What cannot be written to disk is reported once a minute on standard error.

use super::files::{LogClock, LogFolder, WriteErrors};
use crate::settings::options::Logs;
use crate::settings::values::{LogFormat, LogLevel};
use crate::telemetry::bounds::LOG_QUEUE;
use std::io::Write;
use std::sync::Arc;
use tracing::Subscriber;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// The time as log files use it.
pub const CLOCK: LogClock = jiff::Timestamp::now;

/// Keeps the writer threads alive; dropping it writes what is still queued.
pub struct LogGuard {
    _writers: [WorkerGuard; 2],
    /// What the boot folder could not write.
    pub errors: Arc<WriteErrors>,
    /// Lines that found the queue full.
    pub dropped: ErrorCounter,
}

/// Sends log lines of this process to standard error and to `$LOG_DIR/_boot`.
pub fn start(logs: &Logs) -> LogGuard {
    let folder = LogFolder::open(logs.log_dir.join("_boot"), logs.log_keep.get());
    let errors = folder.errors();
    let (stderr, stderr_guard) = behind_a_queue(std::io::stderr());
    let (file, file_guard) = behind_a_queue(folder.create("boot", &logs.instance_id, CLOCK));
    let dropped = file.error_counter();
    let subscriber = tracing_subscriber::registry().with(levels(logs.log_level));
    // A second start in one process (tests) keeps the first subscriber.
    let _ = match logs.log_format {
        LogFormat::Text => subscriber.with(text(stderr)).with(text(file)).try_init(),
        LogFormat::Json => subscriber.with(json(stderr)).with(json(file)).try_init(),
    };
    LogGuard { _writers: [stderr_guard, file_guard], errors, dropped }
}

/// A writer that never blocks its caller: a bounded queue with a thread behind it.
pub fn behind_a_queue(writer: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().buffered_lines_limit(LOG_QUEUE).lossy(true).finish(writer)
}

fn levels(level: LogLevel) -> Targets {
    let own = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Libraries log request heads at debug level, and with them keys.
    Targets::new().with_target("llamagate", own).with_default(own.min(LevelFilter::WARN))
}

fn text<S: Subscriber + for<'a> LookupSpan<'a>>(writer: NonBlocking) -> impl Layer<S> {
    tracing_subscriber::fmt::layer().with_ansi(false).with_target(false).with_writer(writer)
}

fn json<S: Subscriber + for<'a> LookupSpan<'a>>(writer: NonBlocking) -> impl Layer<S> {
    tracing_subscriber::fmt::layer().json().flatten_event(true).with_target(false).with_writer(writer)
}
