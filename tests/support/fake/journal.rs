//! The journal: what happened, for the tests. Each record is one line of JSON, appended with one write, so that several
//! starts and several processes share one file.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::request::Request;

/// The largest request body that is journalled as text, in bytes.
const BODY_SHOWN: usize = 4096;

/// The open journal file.
pub(super) struct Journal {
    file: File,
}

impl Journal {
    /// Opens the journal and counts the starts already in it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, usize)> {
        let earlier = std::fs::read_to_string(path).unwrap_or_default();
        let starts = earlier.lines().filter(|line| is_start(line)).count();
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok((Journal { file }, starts))
    }

    /// Appends one event, with the process id, because several processes write to the file.
    pub(super) fn record(&self, event: &str, mut fields: Value) {
        fields["event"] = event.into();
        fields["pid"] = std::process::id().into();
        let _ = (&self.file).write_all(format!("{fields}\n").as_bytes()); // the test may have removed its folder
    }

    /// Appends a request that has arrived completely. Secrets are journalled as hashes.
    pub(super) fn request(&self, n: u64, request: &Request) {
        let mut headers = serde_json::Map::new();
        for (name, value) in &request.headers {
            let shown = match name.as_str() {
                "authorization" | "x-api-key" => {
                    format!("sha256:{}", sha256_hex(bearer(value).as_bytes()))
                }
                _ => value.clone(),
            };
            match headers.get_mut(name) {
                Some(Value::String(earlier)) => *earlier = format!("{earlier}, {shown}"),
                _ => _ = headers.insert(name.clone(), shown.into()),
            }
        }
        let mut fields = json!({
            "n": n,
            "method": request.method,
            "path": request.target,
            "headers": headers,
            "body_bytes": request.body.len(),
            "body_sha256": sha256_hex(&request.body),
        });
        if request.body.len() <= BODY_SHOWN {
            fields["body"] = String::from_utf8_lossy(&request.body).into();
        }
        self.record("request", fields);
    }
}

/// Returns the secret in the value of an Authorization header.
pub(super) fn bearer(value: &str) -> &str {
    value.strip_prefix("Bearer ").unwrap_or(value)
}

fn is_start(line: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|record| record["event"] == "start")
}

fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
