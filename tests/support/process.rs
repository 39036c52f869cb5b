//! A child process of a test: keeps its output, waits for its end, and kills it when the test ends.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::wait::{self, eventually, eventually_some};

/// A child process, running or ended.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    output: Arc<Mutex<String>>,
    readers: [JoinHandle<()>; 2],
}

/// How long to wait for the rest of an ended process's output. A grandchild can hold the pipe open for ever.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

impl Process {
    /// Starts `command`; its stdout and stderr are kept in memory and in `<folder>/<name>.{stdout,stderr}`.
    pub(crate) fn start(name: &'static str, command: &mut Command, folder: &Path) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let output = Arc::new(Mutex::new(String::new()));
        let readers = [
            copy_output(child.stdout.take(), &folder.join(format!("{name}.stdout")), &output),
            copy_output(child.stderr.take(), &folder.join(format!("{name}.stderr")), &output),
        ];
        Process { name, child, output, readers }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the output so far, stdout and stderr in the order of arrival.
    pub(crate) fn output(&self) -> String {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line that contains `words`, and returns it. Panics at once when the output ends without one.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, words: &str) -> String {
        eventually_some(&format!("{} prints {words:?}", self.name), wait::STARTS, || {
            let is_closed = self.is_output_closed();
            let line = self.output().lines().find(|line| line.contains(words)).map(String::from);
            assert!(line.is_some() || !is_closed, "{} closed its output before it printed {words:?}", self.name);
            line
        })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).unwrap_or_else(|e| panic!("cannot signal {}: {e}", self.name));
    }

    /// Whether the process has closed its output and all of it has been read.
    fn is_output_closed(&self) -> bool {
        self.readers.iter().all(JoinHandle::is_finished)
    }

    /// Kills the process if it still runs, and reaps it.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill(); // harmless after the end: std remembers that the child was reaped
        let _ = self.child.wait();
    }

    /// Returns the exit status if the process has ended. Does not block.
    pub(crate) fn try_exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of this test can be waited for")
    }

    /// Waits for the end of the process and for the rest of its output.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        let mut status = None;
        eventually(&format!("{} ends", self.name), wait::STOPS, || {
            status = self.try_exit_status();
            status.is_some()
        });
        let begin = Instant::now();
        while !self.is_output_closed() && begin.elapsed() < wait::patient(LAST_OUTPUT) {
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

/// Copies a pipe to memory and to a file until it closes. The thread is not joined, because a grandchild may hold the
/// pipe open.
fn copy_output(pipe: Option<impl Read + Send + 'static>, path: &Path, output: &Arc<Mutex<String>>) -> JoinHandle<()> {
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
