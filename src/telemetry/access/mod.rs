//! The access log: one line per request, including refused ones.
//!
//! Owns the fields of a line and its two formats. It cannot log a key, prompt, answer or query string, because it has
//! no field for them. Lines go in batches through a bounded queue to one writer thread; lines that find the queue full
//! are counted.
//!
//! - `log_batch.rs`: collects lines, so that the writer thread wakes once for many of them
//! - `text_line.rs`: writes words, numbers and times of a line into memory

mod log_batch;
mod text_line;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tracing_appender::non_blocking::WorkerGuard;

use self::log_batch::LogBatch;
use self::text_line::TextLine;
use super::files::{LogFolder, LogRules, WriteErrors};
use super::log::{CLOCK, writer_with_queue};
use crate::hex::hex;
use crate::settings::options::Logs;
use crate::settings::values::LogFormat;
use crate::telemetry::bounds::{ACCESS_LOG_QUEUE, LOGGED_WORD};

/// Bytes of the hash of a person's name that a line shows.
const SHOWN_HASH: usize = 8;

/// The kind of file that the log is.
const KIND: &str = "access";

/// One finished request.
#[derive(Debug, Clone, Serialize)]
pub struct AccessEntry<'a> {
    /// When the request arrived, UTC.
    pub time: jiff::Timestamp,
    /// The id in `X-Request-Id`.
    pub request_id: &'a str,
    /// The address of the client; `None` for a job of a platform's queue.
    pub client: Option<IpAddr>,
    /// The id of the key, if the key was valid.
    pub key_id: Option<&'a str>,
    /// The request method. The line contains its first [`LOGGED_WORD`] characters.
    #[serde(serialize_with = "serialize_short")]
    pub method: &'a str,
    /// The path without the query, cut in the same way.
    #[serde(serialize_with = "serialize_short")]
    pub path: &'a str,
    /// The model that the request was for.
    pub model: Option<&'a str>,
    /// The status that was sent; 499 if the client left before a status was sent.
    pub status: u16,
    /// The code of the refusal, or `client_closed`; `None` if the request was served.
    pub code: Option<&'static str>,
    /// Bytes of the request body that were read.
    pub bytes_in: u64,
    /// Bytes of the response body that were sent.
    pub bytes_out: u64,
    /// Time in the queue, in milliseconds.
    pub queue_ms: Option<Millis>,
    /// Time from arrival to the first byte of the response body, in milliseconds.
    pub ttfb_ms: Option<Millis>,
    /// Time from arrival to the end of the response, in milliseconds.
    pub total_ms: Millis,
    /// Tokens of the prompt, if the response reported them.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer, if the response reported them.
    pub completion_tokens: Option<u64>,
    /// The person behind the key: a hash of the name, or the name itself with `LOG_PEOPLE`.
    pub person: Option<&'a str>,
    /// The id of the trace that the request belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<&'a str>,
    /// As whom the certificate of the client shows it (`TLS_CLIENT_CA`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<&'a str>,
}

/// A duration as it is logged: in milliseconds, with up to three decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Millis {
    micros: u64,
}

impl From<Duration> for Millis {
    fn from(duration: Duration) -> Self {
        Self { micros: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX) }
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.micros as f64 / 1000.0)
    }
}

/// The access log, as the gateway writes to it.
pub struct AccessLog {
    /// `None` if no log files are written.
    batch: Option<LogBatch>,
    format: LogFormat,
    /// `LOG_PEOPLE`
    names_people: bool,
    /// Where the lines go.
    folder: LogFolder,
    /// The lines that could not be written, and why.
    pub errors: Arc<WriteErrors>,
}

impl AccessLog {
    /// Opens `$LOG_DIR/access`. Dropping the guard writes the queued lines.
    pub fn open(logs: &Logs) -> (Self, WorkerGuard) {
        let rules = LogRules::from(logs);
        let folder = LogFolder::open(logs.log_dir.join(KIND), rules);
        let errors = folder.errors();
        let file = folder.daily(KIND, &logs.instance_id, CLOCK);
        let (writer, guard) = writer_with_queue(file, ACCESS_LOG_QUEUE);
        let batch = rules.is_written.then(|| LogBatch::new(writer));
        (Self { batch, format: logs.log_format, names_people: logs.log_people, folder, errors }, guard)
    }

    /// Returns the folder of the log.
    pub fn folder(&self) -> &LogFolder {
        &self.folder
    }

    /// Returns the number of lines that were dropped because the queue was full.
    pub fn dropped_lines(&self) -> u64 {
        self.batch.as_ref().map_or(0, LogBatch::dropped)
    }

    /// Returns how a line shows the person of this name behind a key: by a hash unless `LOG_PEOPLE` is set. Equal names behind
    /// two keys have different hashes.
    pub fn shown_person(&self, key_id: &str, name: &str) -> String {
        match self.names_people {
            true => name.to_owned(),
            false => hex(&Sha256::digest(format!("{key_id}:{name}"))[..SHOWN_HASH]),
        }
    }

    /// Queues one line. Never blocks on the disk and never fails.
    pub fn write(&self, entry: &AccessEntry<'_>) {
        if let Some(batch) = &self.batch {
            batch.add(|lines| entry.write(self.format, lines));
        }
    }

    /// Passes the lines that wait in memory to the writer thread.
    pub fn flush(&self) {
        if let Some(batch) = &self.batch {
            batch.flush();
        }
    }

    /// Flushes the lines shortly after they were written, until `stop` is cancelled.
    pub async fn flush_periodically(&self, stop: &CancellationToken) {
        match &self.batch {
            Some(batch) => batch.flush_periodically(stop).await,
            None => stop.cancelled().await,
        }
    }
}

impl AccessEntry<'_> {
    /// Appends the line to `lines`. Writing to memory cannot fail.
    fn write(&self, format: LogFormat, lines: &mut Vec<u8>) {
        match format {
            LogFormat::Text => self.write_text(&mut TextLine(lines)),
            LogFormat::Json => _ = serde_json::to_writer(&mut *lines, self),
        }
        lines.push(b'\n');
    }

    fn write_text(&self, line: &mut TextLine<'_>) {
        let write_millis = |line: &mut TextLine<'_>, millis: Millis| line.millis(millis.micros);
        line.time(self.time);
        line.field(" req=", self.request_id, TextLine::text);
        line.optional(" client=", self.client, TextLine::address);
        line.optional(" key=", self.key_id, TextLine::text);
        line.field(" ", short(self.method), TextLine::safe_word);
        line.field(" ", short(self.path), TextLine::safe_word);
        line.optional(" model=", self.model, TextLine::text);
        line.field(" status=", self.status.into(), TextLine::number);
        line.optional(" code=", self.code, TextLine::text);
        line.field(" in=", self.bytes_in, TextLine::number);
        line.field(" out=", self.bytes_out, TextLine::number);
        line.optional(" queue_ms=", self.queue_ms, write_millis);
        line.optional(" ttfb_ms=", self.ttfb_ms, write_millis);
        line.field(" total_ms=", self.total_ms, write_millis);
        line.optional(" prompt_tokens=", self.prompt_tokens, TextLine::number);
        line.optional(" completion_tokens=", self.completion_tokens, TextLine::number);
        // Only keys that are trusted to name people have one.
        if let Some(person) = self.person {
            line.field(" person=", person, TextLine::safe_word);
        }
        if let Some(trace_id) = self.trace_id {
            line.field(" trace=", trace_id, TextLine::text);
        }
        if let Some(certificate) = self.certificate {
            line.field(" cert=", certificate, TextLine::safe_word);
        }
    }
}

/// Returns the part of a client's text that is logged. Without a limit, clients without a key could fill the disk.
fn short(word: &str) -> &str {
    if word.len() <= LOGGED_WORD {
        return word;
    }
    word.char_indices().nth(LOGGED_WORD).map_or(word, |(end, _)| &word[..end])
}

fn serialize_short<S: Serializer>(word: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(short(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(entry: &AccessEntry<'_>) -> String {
        let mut line = Vec::new();
        entry.write(LogFormat::Text, &mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_line_has_every_field_and_cannot_be_forged_through_the_path() {
        let entry = AccessEntry {
            time: jiff::Timestamp::UNIX_EPOCH,
            request_id: "r1",
            key_id: None,
            person: None,
            trace_id: None,
            certificate: None,
            method: "GET",
            path: "/a b\nreq=x\u{e9}",
            client: Some(IpAddr::from([192, 0, 2, 1])),
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
        assert_eq!(
            text_of(&entry),
            "1970-01-01T00:00:00.000Z req=r1 client=192.0.2.1 key=- GET /a_b_req=x_ model=- status=404 \
             code=route_not_found in=0 out=9 queue_ms=- ttfb_ms=0.125 total_ms=1.5 prompt_tokens=- completion_tokens=3\n"
        );
        let json: serde_json::Value = serde_json::to_value(&entry).unwrap();
        assert_eq!((&json["status"], &json["client"]), (&404.into(), &"192.0.2.1".into()));
        assert_eq!(json["time"], "1970-01-01T00:00:00Z");
        assert_eq!((&json["ttfb_ms"], &json["total_ms"]), (&0.125.into(), &1.5.into()));
    }

    #[test]
    fn long_texts_of_a_client_are_cut() {
        let word = "é".repeat(9_000);
        let entry = AccessEntry {
            time: jiff::Timestamp::UNIX_EPOCH,
            request_id: "r1",
            key_id: None,
            person: None,
            trace_id: None,
            certificate: None,
            method: &"M".repeat(9_000),
            path: &word,
            client: None,
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
        let text = text_of(&entry);
        let short = format!(" key=- {} {} model=", "M".repeat(LOGGED_WORD), "_".repeat(LOGGED_WORD));
        assert!(text.contains(&short) && text.len() < 1_000, "{text}");
        let json = serde_json::to_value(&entry).unwrap();
        assert_eq!(json["method"], "M".repeat(LOGGED_WORD));
        assert_eq!(json["path"], "é".repeat(LOGGED_WORD));
    }
}
