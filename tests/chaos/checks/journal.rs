//! What the fake llama-servers of one gateway have written down, read once, piece by piece.

use crate::support::resources;
use serde_json::Value;
use std::{
    collections::{BTreeSet, HashSet},
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
    /// Processes that llama-servers have started.
    started: BTreeSet<u32>,
}

impl Ledger {
    /// Reads what has come since, or finds a request that was sent twice or a llama-server that was not alone.
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
                let beside = self.start.as_ref().and_then(|start| start["beside"].as_array());
                if beside.is_none_or(|beside| !beside.is_empty()) {
                    return Err(format!("a llama-server was started beside {beside:?}: {line}"));
                }
            }
            if line.contains("\"event\":\"grandchild\"") {
                let record: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
                self.started.extend(record["grandchild"].as_u64().and_then(|pid| u32::try_from(pid).ok()));
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

    /// Which of the processes that llama-servers have started still run.
    pub(crate) fn left(&self) -> Vec<u32> {
        // Another process may have got the number.
        let is_it = |pid: u32| resources::cmdline(pid).iter().any(|word| word == "--grandchild");
        self.started.iter().copied().filter(|pid| !resources::pid_gone(*pid) && is_it(*pid)).collect()
    }

    /// The `start` record of the latest start.
    pub(crate) fn latest_start(&self) -> Option<&Value> {
        self.start.as_ref()
    }
}
