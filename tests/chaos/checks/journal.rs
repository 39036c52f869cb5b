//! Reads the journal that the fake llama-servers of one model write, piece by piece, and checks each record once.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use serde_json::Value;

use crate::support::resources;

/// A part of the record of a request that may be sent again: after a reload to the new workers of its model.
const REPEATABLE: &str = "\"path\":\"/tokenize\"";

/// What was read of the journal so far.
#[derive(Default)]
pub(crate) struct JournalReader {
    offset: u64,
    /// Whether llama-servers of other models, or of an earlier configuration, may run at the same time.
    may_run_beside: bool,
    /// The request ids that were sent to a llama-server, and the process that got each.
    sent: HashMap<String, u32>,
    /// The processes that got SIGTERM.
    terminated: HashSet<u32>,
    start: Option<Value>,
    /// The processes that llama-servers have started.
    started: BTreeSet<u32>,
}

impl JournalReader {
    /// Returns a reader for one of several models.
    pub(crate) fn of_one_model() -> Self {
        Self { may_run_beside: true, ..Self::default() }
    }

    /// Reads the new records.
    ///
    /// # Errors
    ///
    /// If a request was sent twice, or a llama-server was started beside another one.
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
                if !self.may_run_beside && beside.is_none_or(|beside| !beside.is_empty()) {
                    return Err(format!("a llama-server was started beside {beside:?}: {line}"));
                }
            }
            if line.contains("\"event\":\"grandchild\"") {
                let record: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
                self.started.extend(record["grandchild"].as_u64().and_then(|pid| u32::try_from(pid).ok()));
            }
            if line.contains("\"event\":\"sigterm\"") {
                self.terminated.extend(pid_of(line));
            }
            let id = line.split("\"x-request-id\":\"").nth(1).and_then(|rest| rest.split('"').next());
            if let Some(id) = id
                && self.sent.insert(id.to_owned(), pid_of(line).unwrap_or(0)).is_some()
                && !(self.may_run_beside && line.contains(REPEATABLE))
            {
                return Err(format!("{id} was sent to llama-server twice"));
            }
        }
        Ok(())
    }

    /// Whether this request was sent to a process that was told to end (SIGTERM) afterwards.
    pub(crate) fn was_terminated(&self, request: &str) -> bool {
        self.sent.get(request).is_some_and(|pid| self.terminated.contains(pid))
    }

    /// Empties the journal, to keep it short: the fake reads all of it at each start. The gateway must be idle, because
    /// records that are written at this moment are lost.
    pub(crate) fn truncate(&mut self, path: &Path) -> io::Result<()> {
        OpenOptions::new().write(true).open(path)?.set_len(0)?;
        self.offset = 0;
        Ok(())
    }

    /// Returns the processes that llama-servers have started and that still run.
    pub(crate) fn leftover_pids(&self) -> Vec<u32> {
        // The kernel may have given the process id to another process.
        let is_it = |pid: u32| resources::cmdline(pid).iter().any(|word| word == "--grandchild");
        self.started.iter().copied().filter(|pid| !resources::pid_gone(*pid) && is_it(*pid)).collect()
    }

    /// Returns the `start` record of the latest start.
    pub(crate) fn latest_start(&self) -> Option<&Value> {
        self.start.as_ref()
    }
}

/// Returns the process that has written a record.
fn pid_of(line: &str) -> Option<u32> {
    let record: Value = serde_json::from_str(line).ok()?;
    record["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
}
