//! The program's own log: standard error, the boot log, and `LOG_FILE`, in text or JSON.
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

use super::files::{LogClock, LogFolder, LogRules, NamedFile, WriteErrors};
use crate::settings::options::Logs;
use crate::settings::values::{LogFormat, LogLevel};
use crate::telemetry::bounds::LOG_QUEUE;

/// The clock of the log files.
pub const CLOCK: LogClock = jiff::Timestamp::now;

/// Keeps the writer threads alive. Dropping it writes the queued lines.
pub struct LogGuard {
    _writers: Vec<WorkerGuard>,
    /// The boot log, and `LOG_FILE` if it is set, by the names under which lost lines are counted.
    pub files: Vec<(&'static str, LostLines)>,
}

/// The lines of one file of the log that were lost.
pub struct LostLines {
    /// The lines that could not be written, and why.
    pub errors: Arc<WriteErrors>,
    /// The number of lines that were dropped because the queue was full.
    pub dropped: ErrorCounter,
}

/// Starts logging to standard error, to `$LOG_DIR/_boot` and to `LOG_FILE`.
pub fn start(logs: &Logs) -> LogGuard {
    let rules = LogRules::from(logs);
    let folder = LogFolder::open(logs.log_dir.join("_boot"), rules);
    let errors = folder.errors();
    let (stderr, stderr_guard) = queued_writer(std::io::stderr());
    let (file, file_guard) = queued_writer(folder.create("boot", &logs.instance_id, CLOCK));
    let mut files = vec![("_boot", LostLines { errors, dropped: file.error_counter() })];
    let mut writers = vec![stderr_guard, file_guard];
    let mut layers = vec![layer(logs.log_format, stderr), layer(logs.log_format, file)];
    if let Some(path) = logs.log_file.as_ref().filter(|_| logs.log_to_file) {
        let named = NamedFile::open(path, rules, CLOCK);
        let errors = named.errors();
        let (writer, guard) = queued_writer(named);
        files.push(("log_file", LostLines { errors, dropped: writer.error_counter() }));
        writers.push(guard);
        let is_json_lines = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("jsonl"));
        layers.push(layer(if is_json_lines { LogFormat::Json } else { logs.log_format }, writer));
    }
    // A second call in one process (in tests) keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(levels(logs.log_level)).with(layers).try_init();
    LogGuard { _writers: writers, files }
}

/// What writes the lines of the log in one format.
type LineLayer<S> = Box<dyn Layer<S> + Send + Sync>;

fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(format: LogFormat, writer: NonBlocking) -> LineLayer<S> {
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_target(false).with_writer(writer);
    match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

/// Returns a writer that never blocks its caller: a queue of [`LOG_QUEUE`] lines, which a thread writes to `writer`. Drops
/// lines when the queue is full.
pub fn queued_writer(writer: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    writer_with_queue(writer, LOG_QUEUE)
}

/// Returns a writer as [`queued_writer`] does, whose queue holds at most this number of messages.
pub(super) fn writer_with_queue(writer: impl Write + Send + 'static, messages: usize) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().buffered_lines_limit(messages).lossy(true).finish(writer)
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
