//! A child process of a test: its output kept, its end waited for, and never left behind.

use super::wait::{self, eventually, eventually_some};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// A running (or ended) child.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    output: Arc<Mutex<String>>,
    readers: [JoinHandle<()>; 2],
}

/// How long an ended process's output may take to arrive. A grandchild can hold the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Process {
    /// Starts `command`; its stdout and stderr are kept in memory and in `<folder>/<name>.{stdout,stderr}`.
    pub(crate) fn start(name: &'static str, command: &mut Command, folder: &Path) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let output = Arc::new(Mutex::new(String::new()));
        let readers = [
            keep(child.stdout.take(), &folder.join(format!("{name}.stdout")), &output),
            keep(child.stderr.take(), &folder.join(format!("{name}.stderr")), &output),
        ];
        Process { name, child, output, readers }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written so far, stdout and stderr in the order of arrival.
    pub(crate) fn output(&self) -> String {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line that holds `words`, and returns it. Panics at once when its output ends without one.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, words: &str) -> String {
        eventually_some(&format!("{} prints {words:?}", self.name), wait::STARTS, || {
            let silent = self.is_silent();
            let line = self.output().lines().find(|line| line.contains(words)).map(String::from);
            assert!(line.is_some() || !silent, "{} closed its output before it printed {words:?}", self.name);
            line
        })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).unwrap_or_else(|e| panic!("cannot signal {}: {e}", self.name));
    }

    /// Whether it has closed its output and all of it is here.
    fn is_silent(&self) -> bool {
        self.readers.iter().all(JoinHandle::is_finished)
    }

    /// Kills it, where it still runs, and reaps it.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill(); // harmless when it has ended: std remembers that it was reaped
        let _ = self.child.wait();
    }

    /// Its status, where it has ended.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of this test can be waited for")
    }

    /// Waits for its end, and for its last words.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        let mut status = None;
        eventually(&format!("{} ends", self.name), wait::STOPS, || {
            status = self.has_ended();
            status.is_some()
        });
        let begin = Instant::now();
        while !self.is_silent() && begin.elapsed() < wait::patient(LAST_WORDS) {
            thread::sleep(wait::POLL);
        }
        status.expect("it has ended")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("---- output of {} ----\n{}---- end of output ----", self.name, self.output());
        }
    }
}

/// Copies a pipe to memory and to a file until it closes. A grandchild may hold it open: nobody joins this thread.
fn keep(pipe: Option<impl Read + Send + 'static>, path: &Path, output: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let mut file = File::create(path).expect("the output file can be written");
    let output = output.clone();
    let mut lines = BufReader::new(pipe.expect("the pipe was asked for"));
    thread::spawn(move || {
        let mut line = Vec::new();
        while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
            let _ = file.write_all(&line);
            output.lock().unwrap_or_else(PoisonError::into_inner).push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}
