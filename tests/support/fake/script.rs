//! The script: the faults of the fake. Every field is optional. An unknown field ends the fake at once, so that a
//! misspelt fault is not taken for a healthy server.
//!
//! `{"starts": [A, B]}` gives the first start script A and every later one script B; otherwise the whole object
//! is the script of every start.

use std::{path::Path, time::Duration};

use serde::Deserialize;

/// The faults of one start.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Script {
    // Faults of the load.
    /// The load takes this long, in milliseconds.
    pub(super) load_ms: u64,
    /// `{"until_released": true}`: the load lasts until `release load`.
    pub(super) load: Load,
    /// The load begins with signs of progress.
    pub(super) load_signs: Option<Signs>,
    /// The load never ends.
    pub(super) never_ready: bool,
    /// Exits before the port is bound, after these lines on stderr.
    pub(super) exit_at_start: Option<Ending>,
    /// Raises this signal before the port is bound.
    pub(super) abort_at_start: Option<i32>,
    /// Binds the port, answers 503, and exits instead of completing the load.
    pub(super) exit_while_loading: Option<Ending>,
    /// Runs, but never binds its port.
    pub(super) no_bind: bool,

    // Faults of the process.
    /// SIGTERM is journalled and ignored, also during the load.
    pub(super) ignore_sigterm: bool,
    /// Starts a child that outlives this process unless the process group is killed; it inherits stderr.
    pub(super) fork_grandchild: bool,
    /// Starts a daemon: an orphan outside the process group; it inherits stderr.
    pub(super) daemon: Option<Daemon>,
    /// Exits (code 1) after the response to this many POST requests.
    pub(super) exit_after_requests: Option<u64>,
    /// Exits (code 1) on a POST whose body contains this text, once it has a slot; for a stream after its head.
    pub(super) die_on: Option<String>,
    /// Writes many lines to stderr during the load.
    pub(super) stderr_flood: Option<Flood>,
    /// Writes a line to stderr for each request, like older builds.
    pub(super) log_requests: bool,
    /// Writes one line of this many bytes to stderr during the load.
    pub(super) long_log_line: usize,

    // Faults of its identity.
    /// Accepts any key, like another server that owns the port.
    pub(super) wrong_key: bool,
    /// Reports this model name instead of `--alias`.
    pub(super) alias: Option<String>,

    // What older builds lack.
    /// There is no `/slots`.
    pub(super) without_slots: bool,
    /// `/slots` does not tell tokens.
    pub(super) without_slot_tokens: bool,

    // Delays of responses.
    /// Paths (`"*"` = any) whose POSTs keep their slot and get no response until `release requests`.
    pub(super) hold_requests: Vec<String>,
    /// Paths whose POSTs hang llama-server's loop: they keep their slot for ever, even when the client disconnects.
    pub(super) hang_on: Vec<String>,
    /// Paths whose requests, with any method, get no response.
    pub(super) silent_paths: Vec<String>,
    /// Streams pause after this many frames until `release requests`.
    pub(super) hold_mid_stream: Option<After>,
    /// The time before the first byte of the response to a POST, in milliseconds.
    pub(super) slow_first_byte_ms: u64,
    /// The time between two frames of a stream.
    pub(super) drip: Option<Drip>,

    // Contents of responses.
    /// Number of generated tokens, one frame each; default 8. A smaller `max_tokens` in the request wins.
    pub(super) frames: Option<u64>,
    /// Pads each token's text to this many bytes.
    pub(super) frame_bytes: usize,
    /// `/health` answers ok, every POST 500 `Compute error.`.
    pub(super) healthy_but_500: bool,
    /// Requests that contain one of these texts fail with llama-server's error 500, streams with an error event.
    pub(super) fail_on: Vec<Failure>,
    /// Fixed responses by path.
    pub(super) error_status: Vec<FixedResponse>,
    /// Adds a response header of this many bytes.
    pub(super) oversized_response_headers: usize,

    // Broken responses. `after_frames` counts the frames written to the stream, of any content.
    /// Exits in the middle of a stream.
    pub(super) exit_mid_stream: Option<EndAfter>,
    /// Writes half of the next frame, then exits.
    pub(super) half_event_then_die: Option<EndAfter>,
    /// Ends the stream without `[DONE]`.
    pub(super) truncate_mid_stream: Option<Truncate>,
    /// Resets the connection (RST).
    pub(super) reset_mid_stream: Option<After>,
    /// Writes llama-server's error event, then ends the stream without `[DONE]`.
    pub(super) error_mid_stream: Option<After>,
    /// Is added to the Content-Length of a whole response to a POST.
    pub(super) wrong_content_length: i64,
    /// A whole response to a POST stops after this many body bytes, and the connection closes.
    pub(super) truncate_body: Option<usize>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Load {
    pub(super) until_released: bool,
}

/// What the daemon does after its start.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Daemon {
    Lingers,
    Ends,
}

/// Signs of progress during a slow load.
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
    /// A part of a file is read, into the same memory each time.
    Reads,
    /// No sign.
    None,
}

/// How the process ends: by `signal` if it is given, else with the exit code `code` (default 1).
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
    /// Whether the last chunk is still sent (default true) before the connection closes.
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
    /// The text in the body of the POST.
    pub(super) text: String,
    pub(super) message: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FixedResponse {
    pub(super) path: String,
    pub(super) status: u16,
    /// A JSON value; a string is sent as it is.
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
    /// Reads the script of start number `start` (from 0) in `path`; without a file there are no faults.
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

    /// Returns the number of tokens to generate when the request allows `limit`.
    pub(super) fn tokens(&self, limit: Option<u64>) -> u64 {
        let configured = self.drip.and_then(|drip| drip.frames).or(self.frames).unwrap_or(8);
        limit.map_or(configured, |limit| limit.min(configured))
    }

    pub(super) fn holds(&self, path: &str) -> bool {
        self.hold_requests.iter().any(|held| held == "*" || held == path)
    }

    pub(super) fn hangs_on(&self, path: &str) -> bool {
        self.hang_on.iter().any(|hanging| hanging == path)
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
