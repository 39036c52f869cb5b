//! The script: what the fake does wrong. Every field is optional; an unknown one ends the fake at once, so that
//! a misspelt fault never passes for a healthy server.
//!
//! `{"starts": [A, B]}` gives the first start script A and every later one script B; otherwise the whole object
//! is the script of every start.

use serde::Deserialize;
use std::{path::Path, time::Duration};

/// The faults of one start.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Script {
    // The load.
    /// Loading lasts this long.
    pub(super) load_ms: u64,
    /// `{"until_released": true}`: loading lasts until `release load`.
    pub(super) load: Load,
    /// Loading shows signs of progress before all else.
    pub(super) load_signs: Option<Signs>,
    /// Loading never ends.
    pub(super) never_ready: bool,
    /// Ends before the port is bound, after these lines on stderr.
    pub(super) exit_at_start: Option<Ending>,
    /// Dies of this signal before the port is bound.
    pub(super) abort_at_start: Option<i32>,
    /// Binds, answers 503, and ends where the load would have succeeded.
    pub(super) exit_while_loading: Option<Ending>,
    /// Lives, but never binds its port.
    pub(super) no_bind: bool,

    // The process.
    /// SIGTERM is journalled and otherwise ignored, also during the load.
    pub(super) ignore_sigterm: bool,
    /// Starts a child that outlives this process unless its group is killed; it inherits stderr.
    pub(super) fork_grandchild: bool,
    /// Starts a daemon, which leaves the group and has no parent here; it inherits stderr.
    pub(super) daemon: Option<Daemon>,
    /// Ends after the answer to this many POST requests (exit code 1).
    pub(super) exit_after_requests: Option<u64>,
    /// Dies (exit code 1) of a POST whose body contains this text, once it has a slot; of a stream after its head.
    pub(super) die_on: Option<String>,
    /// Writes many lines to stderr while loading.
    pub(super) stderr_flood: Option<Flood>,
    /// Writes a line to stderr for each request, as older builds do.
    pub(super) log_requests: bool,
    /// Writes one line of so many bytes to stderr while loading.
    pub(super) long_log_line: usize,

    // Who it is.
    /// Asks nobody for a key: some other server that happens to own the port.
    pub(super) wrong_key: bool,
    /// Offers its model under another name than `--alias` says.
    pub(super) alias: Option<String>,

    // When it answers.
    /// Paths (`"*"` = any) whose POSTs keep their slot and stay silent until `release requests`.
    pub(super) hold_requests: Vec<String>,
    /// Paths whose POSTs hang its loop: their slot is never free again, also when the client leaves.
    pub(super) hang_on: Vec<String>,
    /// Paths whose requests, of any method, are never answered.
    pub(super) silent_paths: Vec<String>,
    /// Streams pause after so many events until `release requests`.
    pub(super) hold_mid_stream: Option<After>,
    /// Silence before the first byte of an answer to a POST.
    pub(super) slow_first_byte_ms: u64,
    /// The time between two events of a stream.
    pub(super) drip: Option<Drip>,

    // What it answers.
    /// Generated tokens, one event each; 8 unless told. A smaller `max_tokens` in the request wins.
    pub(super) frames: Option<u64>,
    /// Pads each token's text to so many bytes.
    pub(super) frame_bytes: usize,
    /// `/health` says ok, every POST says 500 `Compute error.`.
    pub(super) healthy_but_500: bool,
    /// Fails what contains one of these texts with llama-server's error of status 500, a stream in band.
    pub(super) fail_on: Vec<Failure>,
    /// Fixed answers by path.
    pub(super) error_status: Vec<FixedAnswer>,
    /// A response header of so many bytes.
    pub(super) oversized_response_headers: usize,

    // How an answer breaks. "After n" counts the events written to the stream, whatever they say.
    pub(super) exit_mid_stream: Option<EndAfter>,
    /// Writes half of the next event, then ends.
    pub(super) half_event_then_die: Option<EndAfter>,
    /// Ends the stream without `[DONE]`.
    pub(super) truncate_mid_stream: Option<Truncate>,
    /// Resets the connection (RST).
    pub(super) reset_mid_stream: Option<After>,
    /// Writes llama-server's error event, then ends the stream without `[DONE]`.
    pub(super) error_mid_stream: Option<After>,
    /// Content-Length of a whole answer to a POST is wrong by so much.
    pub(super) wrong_content_length: i64,
    /// A whole answer to a POST stops after so many body bytes; the connection closes.
    pub(super) truncate_body: Option<usize>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Load {
    pub(super) until_released: bool,
}

/// What the daemon does once it is there.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Daemon {
    Lingers,
    Ends,
}

/// A load that moves, slowly.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signs {
    pub(super) kind: Sign,
    pub(super) interval_ms: u64,
    pub(super) times: u32,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Sign {
    /// A line on stderr.
    Lines,
    /// A dot on stderr, all on one line.
    Dots,
    /// More memory.
    Memory,
    /// A piece of a file is read, into the same memory each time.
    Reads,
    /// Nothing at all.
    None,
}

/// How the process ends: a signal where one is given, else an exit code (1 unless told).
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Ending {
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) stderr: Vec<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndAfter {
    pub(super) after_frames: u64,
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct After {
    pub(super) after_frames: u64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Truncate {
    pub(super) after_frames: u64,
    /// Whether HTTP's own end of the body is still sent (true unless told), or the connection just closes.
    #[serde(default = "yes")]
    pub(super) end_chunk: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drip {
    pub(super) interval_ms: u64,
    pub(super) frames: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flood {
    pub(super) lines: usize,
    /// Bytes in each line.
    pub(super) bytes: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Failure {
    /// What the body of the POST contains.
    pub(super) text: String,
    pub(super) message: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FixedAnswer {
    pub(super) path: String,
    pub(super) status: u16,
    /// A JSON value, or a string that is sent as it is.
    pub(super) body: serde_json::Value,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Starts {
    starts: Vec<Script>,
}

impl Script {
    /// The script of start number `start` (0 is the first) in `path`; a healthy server where there is no file.
    pub(super) fn read(path: &Path, start: usize) -> Result<Self, String> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Script::default());
            }
            Err(e) => return Err(e.to_string()),
        };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        if value.get("starts").is_none() {
            return serde_json::from_value(value).map_err(|e| e.to_string());
        }
        let Starts { mut starts } = serde_json::from_value(value).map_err(|e| e.to_string())?;
        if starts.is_empty() {
            return Err("`starts` is empty".into());
        }
        Ok(starts.swap_remove(start.min(starts.len() - 1)))
    }

    /// Tokens to generate when the request allows `limit`.
    pub(super) fn tokens(&self, limit: Option<u64>) -> u64 {
        let wanted = self.drip.and_then(|drip| drip.frames).or(self.frames).unwrap_or(8);
        limit.map_or(wanted, |limit| limit.min(wanted))
    }

    pub(super) fn holds(&self, path: &str) -> bool {
        self.hold_requests.iter().any(|held| held == "*" || held == path)
    }

    pub(super) fn hangs_on(&self, path: &str) -> bool {
        self.hang_on.iter().any(|deadly| deadly == path)
    }

    pub(super) fn is_silent_on(&self, path: &str) -> bool {
        self.silent_paths.iter().any(|silent| silent == path)
    }

    pub(super) fn between_frames(&self) -> Duration {
        Duration::from_millis(self.drip.map_or(0, |drip| drip.interval_ms))
    }
}

impl From<EndAfter> for Ending {
    fn from(end: EndAfter) -> Self {
        Ending { code: end.code, signal: end.signal, stderr: Vec::new() }
    }
}
