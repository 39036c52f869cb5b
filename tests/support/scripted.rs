//! A model file with the fake llama-server's script and journal beside it, and the fake's control socket.
//!
//! `fake/script.rs` lists the fields of a script, `fake/control.rs` the commands of the control socket.

use std::{
    ffi::OsString,
    fs,
    io::{self, BufRead, BufReader, Write},
    net::TcpStream,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    model_file::{self, Kind},
    wait::{self, eventually_some},
};

/// A model file without tensors, with a script for the fake that serves it.
#[derive(Debug, Clone)]
pub(crate) struct ScriptedModel {
    pub(crate) path: PathBuf,
}

/// The fake's journal: all starts of all workers of one model.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    path: PathBuf,
}

/// A connection to the control socket of a running fake.
pub(crate) struct Control {
    stream: BufReader<TcpStream>,
}

impl ScriptedModel {
    /// Writes the model and its script into `folder`.
    pub(crate) fn create(folder: &Path, file_name: &str, kind: Kind, script: &Value) -> Self {
        let path = folder.join(file_name);
        model_file::write(&path, kind);
        let model = ScriptedModel { path };
        model.rewrite_script(script);
        model
    }

    /// Replaces the script, for the next starts.
    pub(crate) fn rewrite_script(&self, script: &Value) {
        fs::write(self.beside(".fake.json"), script.to_string()).expect("the script can be written");
    }

    pub(crate) fn journal(&self) -> Journal {
        Journal { path: self.journal_path() }
    }

    /// Returns the path of the journal, for a caller that reads it in pieces.
    pub(crate) fn journal_path(&self) -> PathBuf {
        self.beside(".fake.journal")
    }

    /// Connects to the control socket of the latest start.
    #[track_caller]
    pub(crate) fn control(&self) -> Control {
        let start = eventually_some("the fake starts", wait::STARTS, || self.journal().starts().pop());
        Control::of(&start)
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = OsString::from(&self.path);
        path.push(suffix);
        path.into()
    }
}

impl Journal {
    /// Returns all records so far.
    pub(crate) fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(|line| serde_json::from_str(line).expect("a journal line is JSON")).collect()
    }

    /// Returns the records of one event: `start`, `bound`, `ready`, `request`, `finished`, `disconnect`, `sigterm`,
    /// `grandchild`, `exit`.
    pub(crate) fn events(&self, event: &str) -> Vec<Value> {
        self.records().into_iter().filter(|record| record["event"] == event).collect()
    }

    pub(crate) fn starts(&self) -> Vec<Value> {
        self.events("start")
    }

    /// Returns the requests for `path`, compared without the query.
    pub(crate) fn requests(&self, path: &str) -> Vec<Value> {
        let has_path =
            |record: &Value| record["path"].as_str().and_then(|target| target.split('?').next()) == Some(path);
        self.events("request").into_iter().filter(has_path).collect()
    }

    /// Waits for the first record for which `matches` is true.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        eventually_some(what, wait::READY, || self.records().into_iter().find(&matches))
    }

    /// Waits for the first record of `event`.
    #[track_caller]
    pub(crate) fn wait_for_event(&self, event: &str) -> Value {
        self.wait_for(&format!("the fake journals `{event}`"), |record| record["event"] == event)
    }

    /// Waits until `count` requests for `path` have arrived, and returns them.
    #[track_caller]
    pub(crate) fn wait_for_requests(&self, path: &str, count: usize) -> Vec<Value> {
        eventually_some(&format!("{count} requests for {path} reach the fake"), wait::READY, || {
            Some(self.requests(path)).filter(|requests| requests.len() >= count)
        })
    }
}

impl Control {
    /// Connects to the control socket that a `start` record names.
    pub(crate) fn of(start: &Value) -> Self {
        Self::try_of(start).expect("the fake has a control socket")
    }

    /// Like `of`, for a fake that may have ended.
    pub(crate) fn try_of(start: &Value) -> io::Result<Self> {
        let port = start["control"].as_u64().expect("a start record names its control port") as u16;
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(wait::patient(wait::SOON)))?;
        Ok(Control { stream: BufReader::new(stream) })
    }

    /// Ends a load that the script holds.
    pub(crate) fn release_load(&mut self) {
        self.say("release load");
    }

    /// Releases `n` held requests.
    pub(crate) fn release_requests(&mut self, n: usize) {
        self.say(&format!("release requests {n}"));
    }

    /// Releases all held requests, and those that come later.
    pub(crate) fn release_all_requests(&mut self) {
        self.say("release requests");
    }

    pub(crate) fn die_with_code(&mut self, code: i32) {
        self.say(&format!("die code {code}"));
    }

    pub(crate) fn die_of_signal(&mut self, signal: nix::sys::signal::Signal) {
        self.say(&format!("die signal {}", signal as i32));
    }

    /// Makes the fake accept connections and answer none, not even /health.
    pub(crate) fn stop_answering(&mut self) {
        self.say("stop answering");
    }

    pub(crate) fn resume(&mut self) {
        self.say("resume");
    }

    /// Makes the fake write a line to its log.
    pub(crate) fn log(&mut self, line: &str) {
        self.say(&format!("log {line}"));
    }

    /// Sends a command and waits for `ok`.
    fn say(&mut self, command: &str) {
        self.tell(command).expect("the fake reads commands");
        let mut answer = String::new();
        self.stream.read_line(&mut answer).expect("the fake answers commands");
        assert_eq!(answer, "ok\n", "to {command:?}");
    }

    /// Sends a command to a fake that may be ending or stopped, and does not wait for the answer.
    pub(crate) fn tell(&mut self, command: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(format!("{command}\n").as_bytes())
    }
}
