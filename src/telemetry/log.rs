//! The program's own log: standard error and the boot log, in text or JSON.
//!
//! Each is written by its own thread behind a bounded queue, so a stuck terminal or disk drops lines instead of
//! blocking requests. Lines that cannot be written to disk are reported once a minute on standard error.

use std::io::Write;
use std::sync::Arc;

use tracing::Subscriber;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::files::{LogClock, LogFolder, WriteErrors};
use crate::settings::options::Logs;
use crate::settings::values::{LogFormat, LogLevel};
use crate::telemetry::bounds::LOG_QUEUE;

/// The clock of the log files.
pub const CLOCK: LogClock = jiff::Timestamp::now;

/// Keeps the writer threads alive. Dropping it writes the queued lines.
pub struct LogGuard {
    _writers: [WorkerGuard; 2],
    /// The lines that could not be written to the boot log, and why.
    pub errors: Arc<WriteErrors>,
    /// The number of lines that were dropped because the queue was full.
    pub dropped: ErrorCounter,
}

/// Starts logging to standard error and to `$LOG_DIR/_boot`.
pub fn start(logs: &Logs) -> LogGuard {
    let folder = LogFolder::open(logs.log_dir.join("_boot"), logs.log_keep.get());
    let errors = folder.errors();
    let (stderr, stderr_guard) = queued_writer(std::io::stderr());
    let (file, file_guard) = queued_writer(folder.create("boot", &logs.instance_id, CLOCK));
    let dropped = file.error_counter();
    let subscriber = tracing_subscriber::registry().with(levels(logs.log_level));
    // A second call in one process (in tests) keeps the first subscriber.
    let _ = match logs.log_format {
        LogFormat::Text => subscriber.with(text(stderr)).with(text(file)).try_init(),
        LogFormat::Json => subscriber.with(json(stderr)).with(json(file)).try_init(),
    };
    LogGuard { _writers: [stderr_guard, file_guard], errors, dropped }
}

/// Returns a writer that never blocks its caller: a bounded queue, which a thread writes to `writer`. Drops lines when
/// the queue is full.
pub fn queued_writer(writer: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
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
    // Never below `warn` for libraries: at debug level they log request heads, which contain keys.
    Targets::new().with_target("llamagate", own).with_default(own.min(LevelFilter::WARN))
}

fn text<S: Subscriber + for<'a> LookupSpan<'a>>(writer: NonBlocking) -> impl Layer<S> {
    tracing_subscriber::fmt::layer().with_ansi(false).with_target(false).with_writer(writer)
}

fn json<S: Subscriber + for<'a> LookupSpan<'a>>(writer: NonBlocking) -> impl Layer<S> {
    tracing_subscriber::fmt::layer().json().flatten_event(true).with_target(false).with_writer(writer)
}
