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
    /// The request ids that were sent to a llama-server.
    sent: HashSet<String>,
    /// The requests without a complete answer, by process and number, where several processes write to this journal.
    unanswered: HashMap<(u64, u64), String>,
    /// The requests without a complete answer whose process got SIGTERM.
    terminated: HashSet<String>,
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
            if self.may_run_beside {
                self.follow_request(line)?;
            }
            let id = line.split("\"x-request-id\":\"").nth(1).and_then(|rest| rest.split('"').next());
            if let Some(id) = id
                && !self.sent.insert(id.to_owned())
                && !(self.may_run_beside && line.contains(REPEATABLE))
            {
                return Err(format!("{id} was sent to llama-server twice"));
            }
        }
        Ok(())
    }

    /// Follows the requests of each process from their arrival to their end.
    fn follow_request(&mut self, line: &str) -> Result<(), String> {
        let record: Value = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
        let pid = record["pid"].as_u64().unwrap_or(0);
        let key = (pid, record["n"].as_u64().unwrap_or(0));
        match record["event"].as_str() {
            Some("request") => {
                let id = record["headers"]["x-request-id"].as_str().unwrap_or_default();
                self.unanswered.insert(key, id.to_owned());
            }
            // Not after `disconnect`: a gateway that stops a worker leaves its requests first.
            Some("finished") => _ = self.unanswered.remove(&key),
            Some("sigterm") => {
                let of_process = self.unanswered.iter().filter(|((owner, _), _)| *owner == pid);
                self.terminated.extend(of_process.map(|(_, id)| id.clone()));
            }
            Some("start") => self.unanswered.retain(|(owner, _), _| *owner != pid),
            _ => {}
        }
        Ok(())
    }

    /// Whether this request had no complete answer when its process was told to end (SIGTERM).
    pub(crate) fn was_terminated(&self, request: &str) -> bool {
        self.terminated.contains(request)
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
