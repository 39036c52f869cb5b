//! The access log: one line for each request, refused ones too (contract, section 6).
//!
//! Owns the line's fields and its two formats. It holds no key, prompt, answer or query string by having no field for
//! them. Lines go in batches through a bounded queue to one writer thread; those that find it full are
//! counted.

use super::files::{LogFolder, WriteErrors};
use super::log::{CLOCK, behind_a_queue};
use super::log_batch::LogBatch;
use crate::settings::options::Logs;
use crate::settings::values::LogFormat;
use crate::telemetry::bounds::LOGGED_WORD;
use serde::{Serialize, Serializer};
use std::fmt::{self, Display, Write as _};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing_appender::non_blocking::WorkerGuard;

/// One request, as it ended.
#[derive(Debug, Clone, Serialize)]
pub struct AccessEntry<'a> {
    /// When the request arrived, UTC.
    pub time: jiff::Timestamp,
    /// The id in `X-Request-Id`.
    pub request_id: &'a str,
    /// Whose key, if it was a good one.
    pub key_id: Option<&'a str>,
    /// The request method. The line shows its first [`LOGGED_WORD`] characters.
    #[serde(serialize_with = "cut_short")]
    pub method: &'a str,
    /// The path without the query, cut in the same way.
    #[serde(serialize_with = "cut_short")]
    pub path: &'a str,
    /// The model that the request was for.
    pub model: Option<&'a str>,
    /// The status that was sent; 499 when the client left before one was.
    pub status: u16,
    /// Why it did not end well: a refusal's code or `client_closed`.
    pub code: Option<&'static str>,
    /// Bytes of the request body that were read.
    pub bytes_in: u64,
    /// Bytes of the answer's body that were sent.
    pub bytes_out: u64,
    /// Time in the queue, in milliseconds.
    pub queue_ms: Option<Millis>,
    /// Time from arrival to the first byte of the answer's body, in milliseconds.
    pub ttfb_ms: Option<Millis>,
    /// Time from arrival to the end, in milliseconds.
    pub total_ms: Millis,
    /// Tokens of the prompt, where the answer said.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer, where the answer said.
    pub completion_tokens: Option<u64>,
}

/// A time as the log shows it: in milliseconds, with up to three decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Millis {
    micros: u64,
}

impl From<Duration> for Millis {
    fn from(duration: Duration) -> Self {
        Self { micros: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX) }
    }
}

impl Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.micros / 1000, self.micros % 1000);
        match part {
            0 => write!(f, "{whole}"),
            part if part % 100 == 0 => write!(f, "{whole}.{}", part / 100),
            part if part % 10 == 0 => write!(f, "{whole}.{:02}", part / 10),
            part => write!(f, "{whole}.{part:03}"),
        }
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.micros as f64 / 1000.0)
    }
}

/// The writer's end of the access log.
pub struct AccessLog {
    batch: LogBatch,
    format: LogFormat,
    /// What the folder could not write.
    pub errors: Arc<WriteErrors>,
}

impl AccessLog {
    /// Opens `$LOG_DIR/access`. The guard writes what is queued when it is dropped.
    pub fn open(logs: &Logs) -> (Self, WorkerGuard) {
        let folder = LogFolder::open(logs.log_dir.join("access"), logs.log_keep.get());
        let errors = folder.errors();
        let (writer, guard) = behind_a_queue(folder.daily("access", &logs.instance_id, CLOCK));
        (Self { batch: LogBatch::new(writer), format: logs.log_format, errors }, guard)
    }

    /// Lines that found the queue full.
    pub fn dropped_lines(&self) -> u64 {
        self.batch.dropped()
    }

    /// Queues one line; never blocks on the disk and never fails.
    pub fn write(&self, entry: &AccessEntry<'_>) {
        self.batch.add(|lines| entry.write(self.format, lines));
    }

    /// Hands over to the writer what waits in memory.
    pub fn flush(&self) {
        self.batch.flush();
    }

    /// Sees to it that lines are written soon, until `stop`.
    pub async fn keep_moving(&self, stop: &CancellationToken) {
        self.batch.keep_moving(stop).await;
    }
}

impl AccessEntry<'_> {
    /// Appends the line. Writing to memory cannot fail.
    fn write(&self, format: LogFormat, lines: &mut String) {
        match format {
            LogFormat::Text => _ = write!(lines, "{self}"),
            LogFormat::Json => lines.push_str(&serde_json::to_string(self).unwrap_or_default()),
        }
        lines.push('\n');
    }
}

impl Display for AccessEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} req={}", self.time, self.request_id)?;
        write!(f, " key={} {} {}", OrDash(self.key_id), Word(self.method), Word(self.path))?;
        write!(f, " model={} status={} code={}", OrDash(self.model), self.status, OrDash(self.code))?;
        write!(f, " in={} out={}", self.bytes_in, self.bytes_out)?;
        write!(f, " queue_ms={} ttfb_ms={}", OrDash(self.queue_ms), OrDash(self.ttfb_ms))?;
        write!(f, " total_ms={} prompt_tokens={}", self.total_ms, OrDash(self.prompt_tokens))?;
        write!(f, " completion_tokens={}", OrDash(self.completion_tokens))
    }
}

/// A value, or a dash where there is none.
struct OrDash<T>(Option<T>);

impl<T: Display> Display for OrDash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_char('-'),
        }
    }
}

/// As much of a stranger's word as a line shows, lest whoever has no key fills the disk.
fn short(word: &str) -> &str {
    if word.len() <= LOGGED_WORD {
        return word;
    }
    word.char_indices().nth(LOGGED_WORD).map_or(word, |(end, _)| &word[..end])
}

fn cut_short<S: Serializer>(word: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(short(word))
}

/// A stranger's word as one word of the line: a client must not be able to forge fields or lines.
struct Word<'a>(&'a str);

impl Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = short(self.0);
        while let Some(at) = rest.find(|c: char| !c.is_ascii_graphic()) {
            f.write_str(&rest[..at])?;
            f.write_char('_')?;
            rest = &rest[at + rest[at..].chars().next().map_or(1, char::len_utf8)..];
        }
        f.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_every_field_and_cannot_be_forged_through_the_path() {
        let entry = AccessEntry {
            time: jiff::Timestamp::UNIX_EPOCH,
            request_id: "r1",
            key_id: None,
            method: "GET",
            path: "/a b\nreq=x\u{e9}",
            model: None,
            status: 404,
            code: Some("route_not_found"),
            bytes_in: 0,
            bytes_out: 9,
            queue_ms: None,
            ttfb_ms: Some(Duration::from_micros(125).into()),
            total_ms: Duration::from_micros(1_500).into(),
            prompt_tokens: None,
            completion_tokens: Some(3),
        };
        let mut line = String::new();
        entry.write(LogFormat::Text, &mut line);
        assert_eq!(
            line,
            "1970-01-01T00:00:00.000Z req=r1 key=- GET /a_b_req=x_ model=- status=404 code=route_not_found in=0 out=9 \
             queue_ms=- ttfb_ms=0.125 total_ms=1.5 prompt_tokens=- completion_tokens=3\n"
        );
        let json: serde_json::Value = serde_json::to_value(&entry).unwrap();
        assert_eq!(json["status"], 404);
        assert_eq!(json["time"], "1970-01-01T00:00:00Z");
        assert_eq!((&json["ttfb_ms"], &json["total_ms"]), (&0.125.into(), &1.5.into()));
    }

    #[test]
    fn times_are_in_milliseconds_with_as_many_decimals_as_they_need() {
        for (micros, text) in [(0, "0"), (7, "0.007"), (50, "0.05"), (12_000, "12"), (12_345_678, "12345.678")] {
            assert_eq!(Millis::from(Duration::from_micros(micros)).to_string(), text);
        }
    }

    #[test]
    fn a_strangers_long_words_do_not_make_a_long_line() {
        let word = "é".repeat(9_000);
        let entry = AccessEntry {
            time: jiff::Timestamp::UNIX_EPOCH,
            request_id: "r1",
            key_id: None,
            method: &"M".repeat(9_000),
            path: &word,
            model: None,
            status: 404,
            code: None,
            bytes_in: 0,
            bytes_out: 0,
            queue_ms: None,
            ttfb_ms: None,
            total_ms: Duration::ZERO.into(),
            prompt_tokens: None,
            completion_tokens: None,
        };
        let text = entry.to_string();
        let short = format!(" key=- {} {} model=", "M".repeat(LOGGED_WORD), "_".repeat(LOGGED_WORD));
        assert!(text.contains(&short) && text.len() < 1_000, "{text}");
        let json = serde_json::to_value(&entry).unwrap();
        assert_eq!(json["method"], "M".repeat(LOGGED_WORD));
        assert_eq!(json["path"], "é".repeat(LOGGED_WORD));
    }
}
