//! A file that cannot be opened for a while, as on a network volume that hangs.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use super::gateway::python;

/// A process that holds a write lease on a file. Until it ends, other processes block in `open`, for at most
/// `/proc/sys/fs/lease-break-time` (45 s).
pub(crate) struct FileLease {
    holder: Child,
    lines: BufReader<ChildStdout>,
}

/// Takes a write lease (`F_SETLEASE`, fcntl(2)) and prints `held`, prints `asked` when another process opens the file, and
/// releases the lease when stdin ends.
const HOLD: &str = "
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, lambda *_: os.write(1, b'asked\\n'))
file = open(sys.argv[1], 'r+b')
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
os.write(1, b'held\\n')
sys.stdin.read()
";

impl FileLease {
    pub(crate) fn take(path: &Path) -> Self {
        let mut command = Command::new(python());
        command.args(["-c", HOLD]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().expect("Python starts");
        let stdout = holder.stdout.take().expect("stdout is piped");
        let mut lease = Self { holder, lines: BufReader::new(stdout) };
        assert_eq!(lease.next_line(), "held\n");
        lease
    }

    /// Waits until another process tries to open the file.
    pub(crate) fn wait_asked(&mut self) {
        assert_eq!(self.next_line(), "asked\n");
    }

    pub(crate) fn release(mut self) {
        drop(self.holder.stdin.take());
        self.holder.wait().expect("Python ends");
    }

    fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("Python reports about the lease");
        line
    }
}

impl Drop for FileLease {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
