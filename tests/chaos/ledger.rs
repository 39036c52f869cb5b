//! What the fake llama-servers of one gateway have written down, read once, piece by piece.

use serde_json::Value;
use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// What the fake has written down, read once.
#[derive(Default)]
pub(crate) struct Ledger {
    offset: u64,
    /// Requests that were sent to a llama-server, by their ids.
    sent: HashSet<String>,
    start: Option<Value>,
}

impl Ledger {
    /// Reads what has come since, or finds a request that was sent twice.
    pub(crate) fn read(&mut self, path: &Path) -> Result<(), String> {
        let mut text = String::new();
        let mut file = File::open(path).map_err(|e| e.to_string())?;
        file.seek(SeekFrom::Start(self.offset)).map_err(|e| e.to_string())?;
        file.read_to_string(&mut text).map_err(|e| e.to_string())?;
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        self.offset += whole.len() as u64;
        for line in whole.lines() {
            if line.contains("\"event\":\"start\"") {
                self.start = serde_json::from_str(line).ok();
            }
            let id = line.split("\"x-request-id\":\"").nth(1).and_then(|rest| rest.split('"').next());
            if let Some(id) = id
                && !self.sent.insert(id.to_owned())
            {
                return Err(format!("{id} was sent to llama-server twice"));
            }
        }
        Ok(())
    }

    /// Forgets what was read, to keep the file short: the fake reads all of it at each start. Nothing that counts may come
    /// meanwhile.
    pub(crate) fn shorten(&mut self, path: &Path) -> io::Result<()> {
        OpenOptions::new().write(true).open(path)?.set_len(0)?;
        self.offset = 0;
        Ok(())
    }

    /// The `start` record of the latest start.
    pub(crate) fn latest_start(&self) -> Option<&Value> {
        self.start.as_ref()
    }
}
