//! The access log: one line for each request, refused ones too (contract, section 6).
//!
//! Owns the line's fields and its two formats. It holds no key, prompt, answer or query string by having no field for
//! them. Lines go through a bounded queue to one writer thread; those that find it full are counted.

use super::files::{Folder, WriteErrors};
use super::log::{CLOCK, behind_a_queue};
use crate::settings::options::Logs;
use crate::settings::values::LogFormat;
use serde::Serialize;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, WorkerGuard};

/// One request, as it ended.
#[derive(Debug, Clone, Serialize)]
pub struct Entry<'a> {
    /// When the request arrived, UTC.
    pub time: jiff::Timestamp,
    /// The id in `X-Request-Id`.
    pub request_id: &'a str,
    /// Whose key, if it was a good one.
    pub key_id: Option<&'a str>,
    /// The request method.
    pub method: &'a str,
    /// The path without the query.
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
    pub queue_ms: Option<f64>,
    /// Time from arrival to the first byte of the answer's body, in milliseconds.
    pub ttfb_ms: Option<f64>,
    /// Time from arrival to the end, in milliseconds.
    pub total_ms: f64,
    /// Tokens of the prompt, where the answer said.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer, where the answer said.
    pub completion_tokens: Option<u64>,
}

/// Milliseconds with three decimals, for [`Entry`].
pub fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// The writer's end of the access log.
pub struct AccessLog {
    writer: NonBlocking,
    format: LogFormat,
    /// What the folder could not write.
    pub errors: Arc<WriteErrors>,
}

impl AccessLog {
    /// Opens `$LOG_DIR/access`. The guard writes what is queued when it is dropped.
    pub fn open(logs: &Logs) -> (Self, WorkerGuard) {
        let folder = Folder::open(logs.log_dir.join("access"), logs.log_keep.get());
        let errors = folder.errors();
        let (writer, guard) = behind_a_queue(folder.daily("access", &logs.instance_id, CLOCK));
        (Self { writer, format: logs.log_format, errors }, guard)
    }

    /// Lines that found the queue full.
    pub fn dropped(&self) -> ErrorCounter {
        self.writer.error_counter()
    }

    /// Queues one line; never blocks and never fails.
    pub fn write(&self, entry: &Entry<'_>) {
        let line = match self.format {
            LogFormat::Text => entry.text(),
            LogFormat::Json => serde_json::to_string(entry).map(|json| json + "\n").unwrap_or_default(),
        };
        let _ = self.writer.clone().write_all(line.as_bytes());
    }
}

impl Entry<'_> {
    fn text(&self) -> String {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        format!(
            "{:.3} req={} key={} {} {} model={} status={} code={} in={} out={} queue_ms={} ttfb_ms={} total_ms={} prompt_tokens={} completion_tokens={}\n",
            self.time,
            self.request_id,
            self.key_id.unwrap_or("-"),
            self.method,
            plain(self.path),
            self.model.unwrap_or("-"),
            self.status,
            self.code.unwrap_or("-"),
            self.bytes_in,
            self.bytes_out,
            or_dash(self.queue_ms.map(|ms| ms.to_string())),
            or_dash(self.ttfb_ms.map(|ms| ms.to_string())),
            self.total_ms,
            or_dash(self.prompt_tokens.map(|n| n.to_string())),
            or_dash(self.completion_tokens.map(|n| n.to_string())),
        )
    }
}

/// A path as one word of the line: a client must not be able to forge fields or lines.
fn plain(path: &str) -> String {
    path.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_every_field_and_cannot_be_forged_through_the_path() {
        let entry = Entry {
            time: jiff::Timestamp::UNIX_EPOCH,
            request_id: "r1",
            key_id: None,
            method: "GET",
            path: "/a b\nreq=x",
            model: None,
            status: 404,
            code: Some("route_not_found"),
            bytes_in: 0,
            bytes_out: 9,
            queue_ms: None,
            ttfb_ms: Some(0.125),
            total_ms: 1.5,
            prompt_tokens: None,
            completion_tokens: Some(3),
        };
        assert_eq!(
            entry.text(),
            "1970-01-01T00:00:00.000Z req=r1 key=- GET /a_b_req=x model=- status=404 code=route_not_found in=0 out=9 \
             queue_ms=- ttfb_ms=0.125 total_ms=1.5 prompt_tokens=- completion_tokens=3\n"
        );
        let json: serde_json::Value = serde_json::to_value(&entry).unwrap();
        assert_eq!(json["status"], 404);
        assert_eq!(json["time"], "1970-01-01T00:00:00Z");
    }
}
